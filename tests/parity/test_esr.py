"""ESR against the original: every case of fixtures/esr, through the importer and the public interfaces."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch.utils.data import DataLoader

from emotion import explain, exports, faces, hub, importers, labels, outputs
from emotion.datasets import Samples, affectnet, affectnet_layouts, ckplus, ferplus
from emotion.errors import UserError
from emotion.media import sampling
from emotion.models import esr
from tests.parity import common
from train.augment import Augment
from train.esr import ESRTrainee, Phase, affect_figures, affect_losses, branch_losses, expression_figures
from train.loop import Schedule, Settings, fit
from train.recipe import load as load_recipe

BASE = "Net-Base-Shared_Representations.pt"


def write_original(folder, keys, legacy=True):
    """The original's split files, filled as `cases.json` says; the published ones are in the legacy format."""
    document = common.load("esr", "cases.json")
    files: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in common.state_dict("esr", keys, document["salt"]).items():
        part, _, name = key.partition(".")
        tensor = torch.as_tensor(value)
        files.setdefault(part, {})[name] = tensor * document["conv_gain"] if tensor.ndim == 4 else tensor
    folder.mkdir(parents=True, exist_ok=True)
    for part, tensors in files.items():
        file = BASE if part == "base" else f"Net-Branch_{part.removeprefix('branch_')}.pt"
        torch.save(tensors, folder / file, _use_new_zipfile_serialization=not legacy)
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(keys file, batch-norm reading) -> the network: written in the original's form, converted, saved and loaded.

    `fresh` gives one of its own to a test that changes it.
    """

    @cache
    def original(keys):
        return write_original(tmp_path_factory.mktemp("original"), keys)

    @cache
    def converted(keys, batchnorm):
        folder = tmp_path_factory.mktemp("converted") / "model"
        importers.convert("esr", original(keys), folder, batchnorm=batchnorm)
        return folder

    @cache
    def shared(keys, batchnorm):
        return hub.load(converted(keys, batchnorm))

    return lambda keys, batchnorm, fresh=False: (
        hub.load(converted(keys, batchnorm)) if fresh else shared(keys, batchnorm)
    )


def strided(array, description):
    """The sample that an output's description like "[:, ::16, ::5, ::5]" stands for."""
    steps = re.search(r"\[([:\d, ]+)\]", description)[1].split(",")
    return array[tuple(slice(None, None, int(s.strip(" :") or 1)) for s in steps)]


def inputs(case):
    return torch.from_numpy(common.make_input(case["input"]))


NETWORK = [p for prefix in ("esr9_", "esr4_") for p in common.params("esr", prefix)]


@pytest.mark.parametrize("case", NETWORK)
def test_network(case, imported):
    model = imported(case["keys"], case["batchnorm"])
    expected = common.load("esr", f"{case['name']}.npz")
    x = inputs(case)
    with torch.inference_mode():
        out = model(x)
        shared = strided(model.base(x), case["outputs"]["shared"])
    common.assert_close(shared, expected["shared"], case, "output of the base")
    common.assert_close(out["expression"], expected["emotion"], case, "logits")
    assert ("valence_arousal" in out) == ("affect" in expected)
    if "affect" in expected:
        common.assert_close(out["valence_arousal"], expected["affect"], case, "raw valence and arousal")


@pytest.mark.parametrize("case", common.params("esr", "gradcam_"))
def test_grad_cam(case, imported):
    model = imported(case["keys"], case["batchnorm"])
    expected = common.load("esr", f"{case['name']}.npz")
    x = inputs(case)
    own = explain.grad_cam(model, x)
    assert (own.classes[:, 0] == expected["predicted"]).all()
    common.assert_close(own.members[:, 0], expected["maps_predicted"], case, "maps of the predicted classes")
    with torch.inference_mode():
        features = model(x, features=True)["features"]
        other = model.saliency(features, torch.from_numpy(expected["other"])[:, None])[:, 0]
    common.assert_close(other, expected["maps_other"], case, "maps of other classes")
    for maps, dead in ((own.members[:, 0], expected["dead_predicted"]), (other.numpy(), expected["dead_other"])):
        assert (maps[dead] == 0).all() and (maps[~dead].max((1, 2)) == 1).all()


def reading(logits, affect):
    """What a model with these raw outputs says of faces in frames of their own."""
    tasks = esr.ESR(esr.esr9(branches=1)).decode({"expression": logits, "valence_arousal": affect})
    n = logits.shape[1]
    found = faces.Faces(np.tile([0, 0, 9, 9], (n, 1)), np.ones(n))
    return outputs.Result("esr", (9, 9), np.arange(n, dtype=float), np.arange(n), found, tasks)


def test_aggregate():
    case = common.case("esr", "aggregate")
    z = common.load("esr", "aggregate.npz")
    logits, affect = (torch.from_numpy(z[k]).transpose(0, 1) for k in ("emotion", "affect"))
    result = reading(logits, affect)
    assert (result.tasks["expression"].choice == z["ensemble_index"]).all()
    rows = [line.split(",")[1:] for line in exports.esr_csv(result).splitlines()[1:]]
    names = np.array([exports.ESR_NAMES[label] for label in labels.AFFECTNET])
    for row, branches, ensemble, affects in zip(
        rows, z["branch_index"], z["ensemble_index"], z["affect_out"], strict=True
    ):
        assert row[::3] == names[[ensemble, *branches]].tolist()
        told = np.array([row[2::3], row[1::3]], float).T  # valence, arousal; the ensemble first
        common.assert_close(np.roll(told, -1, axis=0), affects, case)
    assert [*rows[0][3::3], rows[0][0]] == case["names_first_case"]


def test_csv():
    fixture = common.load("esr", "csv.json")
    z = common.load("esr", "aggregate.npz")
    k = int(re.search(r"aggregate case (\d+)", fixture["rows_of"])[1])
    logits, affect = (torch.from_numpy(z[name][k : k + 1]).transpose(0, 1) for name in ("emotion", "affect"))
    lines = [line.split(",")[:2] for line in fixture["text"].splitlines()[1:]]
    seen = np.array([f for f, (_, name) in enumerate(lines) if name != "None"])
    one = reading(logits.expand(-1, len(seen), -1), affect.expand(-1, len(seen), -1))
    result = replace(one, timestamps=np.array([float(time) for time, _ in lines]), frame=seen)
    assert exports.esr_csv(result) == fixture["text"]


def test_frames():
    for row in common.load("esr", "frames.json"):
        frames = list(sampling.original_frames(row["frames"], row["f"]))
        assert frames == row["processed"]
        times = [i / row["video_fps"] for i in frames]
        np.testing.assert_allclose(times, row["timestamps"], atol=5.1e-5)  # stored with four decimals


def test_overlay():
    case = common.case("esr", "overlay")
    z = common.load("esr", "overlay.npz")
    picture = common.make_input(case["input"])[..., ::-1]  # stored as BGR
    assert np.abs(explain.jet(np.arange(256)).astype(int) - z["jet_bgr"][:, ::-1]).max() <= 1
    for saliency, expected in zip(z["saliency"], z["overlay"]):
        ours = explain.jet_overlay(saliency, picture).astype(int)
        assert (np.abs(ours - expected[..., ::-1]) <= case["atol_levels"]).mean() >= 0.99


# -- input -----------------------------------------------------------------------------------------------------------


def whole_crop(bgr, spec):
    """A face crop as the page and the command line make it: the detector's box is the whole picture."""
    height, width = bgr.shape[:2]
    boxes = faces.Faces(np.array([[0, 0, width, height]]), np.ones(1))
    return faces.crop(np.ascontiguousarray(bgr[..., ::-1]), boxes, spec)


def test_resize():
    case = common.case("esr", "resize")
    expected = common.load("esr", "resize.npz")
    for i, spec in enumerate(case["inputs"]):
        ours = whole_crop(common.make_input({**spec, "kind": case["kind"]}), esr.esr9().input)[0, ..., ::-1]
        assert np.abs(ours.astype(int) - expected[f"out_{i}"]).max() <= case["atol_levels"]


@pytest.mark.parametrize("case", common.params("esr", "path_"))
def test_picture_to_result(case, imported):
    model = imported(case["keys"], case["batchnorm"])
    expected = common.load("esr", f"{case['name']}.npz")
    x = model.config.input.tensor(whole_crop(common.make_input(case["input"]), model.config.input))
    tensor = strided(x, case["outputs"]["tensor"])
    np.testing.assert_allclose(tensor, expected["tensor"], rtol=0, atol=case["tensor_atol"])
    with torch.inference_mode():
        out = model(x)
    row = exports.esr_csv(reading(out["expression"], out["valence_arousal"])).splitlines()[1].split(",")[1:]
    assert (out["expression"][:, 0].argmax(-1).numpy() == expected["branch_index"]).all()
    assert [*row[3::3], row[0]] == case["emotions"]
    told = np.array([row[2::3], row[1::3]], float).T  # valence, arousal; the ensemble first
    common.assert_close(np.roll(told, -1, axis=0), expected["affect"], case, "valence and arousal")


# -- labels ----------------------------------------------------------------------------------------------------------


def test_ferplus_labels():
    z = common.load("esr", "ferplus_labels.npz")
    targets, kept = ferplus.majority(z["votes"])
    order = np.array(labels.index_map(labels.FERPLUS, labels.AFFECTNET))
    assert (np.where(kept, order[targets.argmax(1)], -1) == z["label_affectnet_order"]).all()


@pytest.mark.parametrize(
    ("stored", "protocol"), [("majority", "majority"), ("crossentropy", "crossentropy"), ("multi_target", "multi")]
)
def test_ferplus_protocols(stored, protocol):
    case = common.case("esr", "ferplus_soft")
    z = common.load("esr", "ferplus_soft.npz")
    targets, kept = ferplus.PROTOCOLS[protocol](z["votes"])
    assert (kept == z[f"{stored}_kept"]).all()
    common.assert_close(targets, z[stored], case)


@pytest.mark.skipif("FERPLUS_DIR" not in os.environ, reason="needs FER+ itself: set FERPLUS_DIR to its folder")
@pytest.mark.parametrize(("stored", "version"), [("label_csv", "label.csv"), ("fer2013new_csv", "fer2013new.csv")])
def test_ferplus_counts(stored, version):
    counts = common.load("esr", "ferplus_counts.json")[stored]
    for split, (folder, _) in ferplus.SPLITS.items():
        for protocol in ("majority", "crossentropy", "multi"):
            try:
                data = ferplus.load(os.environ["FERPLUS_DIR"], split, protocol, version)
            except UserError as error:
                assert f"no {split}" in str(error)  # a copy without this split
                continue
            wanted = counts[folder][{"multi": "multi_target"}.get(protocol, protocol)]
            assert np.bincount(data.classes(), minlength=8).tolist() == wanted


def test_affectnet_names():
    for row in common.load("esr", "affectnet_names.json"):
        name = affectnet_layouts.file_name(row["id"], row["expression"], row["valence"], row["arousal"])
        assert name == row["name"]
        number, expression, *affect = affectnet_layouts.parse_name(name)
        assert (number, expression, affect) == (row["id"], row["expression"], row["parsed"])
        usable = expression < len(labels.AFFECTNET)
        assert (expression if usable else -1) == row["discrete_label"]
        assert (affectnet.quadrants(np.array([affect]))[0] if usable else -1) == row["quadrant"]


def test_ck_folds(tmp_path):
    fixture = common.load("esr", "ck_folds.json")
    for sequence in fixture["tree"]:
        subject, number, count = (sequence[k] for k in ("subject", "sequence", "frames"))
        frames = tmp_path / ckplus.IMAGES / subject / number
        frames.mkdir(parents=True)
        for k in range(1, count + 1):
            (frames / f"{subject}_{number}_{k:08d}.png").touch()
        emotion = tmp_path / ckplus.EMOTION / subject / number
        emotion.mkdir(parents=True)
        if sequence["label"] is not None:
            file = emotion / f"{subject}_{number}_{count:08d}_emotion.txt"
            file.write_text(f"   {sequence['label']:.7e}\n")
    splits = {"test": "test", "validation": "valid", "training": "train"}
    for part in fixture["sets"]:
        data = ckplus.load(tmp_path, splits[part["set"]], part["fold"], part.get("branch", 0), neutral="fourth-last")
        assert sorted([i, int(c)] for i, c in zip(data.ids, data.classes())) == part["samples"]


# -- training --------------------------------------------------------------------------------------------------------


def one_hot(classes, width=8):
    return torch.eye(width)[torch.as_tensor(classes)]


def test_losses():
    case = common.case("esr", "losses")
    z = {k: torch.from_numpy(v) for k, v in common.load("esr", "losses.npz").items()}
    common.assert_close(branch_losses(z["logits"], one_hot(z["labels"])).cumsum(0), z["discrete"].numpy(), case)
    common.assert_close(affect_losses(z["va"], z["va_target"]).cumsum(0), z["continuous"].numpy(), case)
    config = replace(esr.esr9(branches=1), branch=(esr.Block(8),))
    branch = esr.ESR(config).eval().branches[0]
    state = {"fc.weight": torch.eye(8), "fc.bias": torch.zeros(8)}  # so that the logits are the features
    state |= {"affect.weight": z["head_weight"], "affect.bias": z["head_bias"]}
    branch.load_state_dict(state, strict=False)
    common.assert_close(branch.head(z["logits"][0][..., None, None])[1], z["head_with_relu"].numpy(), case)


def test_learning_rates():
    fixture = common.load("esr", "learning_rates.json")
    ck = fixture["ck_plus"]
    halving = Schedule("step", ck["gamma"], ck["step"])
    for epoch, rate in ck["at_epochs"].items():
        assert ck["lr0"] * halving(int(epoch), 2000) == pytest.approx(rate)
    published = load_recipe("esr-ferplus").rest["stages"][0]
    rates = {
        "fer_plus": (published["lr_new"], TypeAdapter(Schedule).validate_python(published["schedule"])),
        "affectnet_discrete": (0.1, Schedule("step", 0.5, 10)),
    }
    for name, (start, schedule) in rates.items():
        wanted = fixture[name]
        assert [start * schedule(e, len(wanted)) for e in range(len(wanted))] == pytest.approx(wanted)
        assert schedule(10.999, 60) == schedule(10, 60)  # constant within an epoch


class Steps(ESRTrainee):
    """A trainee whose batches are those of a fixture; keeps the loss of every step."""

    def __init__(self, model, phase, batches, everything_in_training_mode):
        blank = Samples(
            dataset="fixture",
            split="train",
            ids=("0",),
            picture=lambda i: np.zeros((*model.config.input.size, 3), np.uint8),
            labels=model.labels,
            targets={t: np.zeros((1, len(names)), np.float32) for t, names in model.labels.items()},
        )
        super().__init__(model, [blank], [blank], [phase], Augment())
        self.fixture, self.everything, self.losses = batches, everything_in_training_mode, []

    def batches(self, stage):
        return DataLoader(self.fixture, batch_size=None)

    def loss(self, model, batch, stage):
        self.losses.append(super().loss(model, batch, stage))
        return self.losses[-1]

    def _modes(self):
        super()._modes()
        if self.everything:  # the original's scripts; ours keeps frozen parts in evaluation mode
            self.model.train()


# What the fixtures' texts say: keys file, branches active, learning rates of base, newest and older branches, task.
STEPS = {
    "ck_plus_stage_2": ("keys_esr4.json", Phase(2, 1, lr_base=0.0, lr_new=0.1, lr_old=0.0)),
    "fer_plus_stage_2": ("keys_esr9_discrete.json", Phase(2, 1, lr_base=0.02, lr_new=0.1, lr_old=0.02)),
    "continuous_stage_2_clean": ("keys_esr9.json", Phase(2, 1, 0.0, lr_new=0.01, lr_old=0.001, task="affect")),
}


@pytest.mark.parametrize("case", common.load("esr", "train_steps.json")["cases"], ids=lambda c: c["name"])
def test_train_steps(case, imported, tmp_path):
    tolerance = common.load("esr", "train_steps.json")
    keys, phase = STEPS[case["name"]]
    model = imported(keys, "running", fresh=True)
    if "labels" in case:
        targets = [{"expression": one_hot(row)} for row in case["labels"]]
    else:
        shape = [case["inputs"][0]["shape"][0], 2]
        targets = [{"valence_arousal": torch.from_numpy(common.array(shape, s, -1, 1))} for s in case["target_seeds"]]
    # the loop feeds levels 0 to 255
    batches = [(torch.from_numpy(common.make_input(x)) * 255, t) for x, t in zip(case["inputs"], targets)]
    trainee = Steps(model, phase, batches, "every module in training mode" in case["what"])
    fit(trainee, tmp_path, Settings(momentum=0.9))
    np.testing.assert_allclose([x.item() for x in trainee.losses], case["loss"], rtol=tolerance["loss_rtol"])
    state = trainee.model.state_dict()
    for name, (total, squares) in case["after"].items():
        value = state[ours(name)].double()
        bounds = (
            {k: tolerance[f"sum_{k}"] for k in ("rtol", "atol")},
            {k: tolerance[f"sumsq_{k}"] for k in ("rtol", "atol")},
        )
        np.testing.assert_allclose(value.sum(), total, **bounds[0], err_msg=name)
        np.testing.assert_allclose(value.square().sum(), squares, **bounds[1], err_msg=name)


def ours(name):
    """Our name of the original's tensor `name`."""
    part, module, parameter = name.split(".")
    prefix = "base" if part == "base" else f"branches.{int(part.removeprefix('branch_')) - 1}"
    if module.startswith("fc"):
        return f"{prefix}.{'affect' if module == 'fc_dimensional' else 'fc'}.{parameter}"
    blocks = prefix if part == "base" else f"{prefix}.blocks"
    kind, number = re.fullmatch(r"(conv|bn)(\d+)", module).groups()
    return f"{blocks}.{int(number) - 1}.{kind}.{parameter}"


# -- evaluation ------------------------------------------------------------------------------------------------------


def active_branches(fixture, key):
    return [int(k.rpartition("_")[2]) for k in fixture if k.startswith(f"{key}_")]


def test_evaluate_discrete():
    case = common.case("esr", "evaluate_discrete")
    z = common.load("esr", "evaluate_discrete.npz")
    logits, classes = torch.from_numpy(z["logits"]), z["labels"]
    model = esr.ESR(esr.esr9(branches=1))
    for k in active_branches(z, "correct"):
        ensemble = expression_figures(model, logits[:k], classes)
        single = [expression_figures(model, logits[b : b + 1], classes)["score"] for b in range(k)]
        correct = np.round(np.array([*single, *[0] * (len(logits) - k), ensemble["score"]]) * len(classes))
        assert (correct == z[f"correct_{k}"]).all()
        losses = branch_losses(logits[:k], one_hot(classes))
        common.assert_close(losses, z[f"loss_{k}"][:k], case)


def test_evaluate_continuous():
    case = common.case("esr", "evaluate_continuous")
    z = common.load("esr", "evaluate_continuous.npz")
    for k in active_branches(z, "rmse"):
        columns = [*z["predictions"][:k], z["predictions"][:k].mean(0)]
        figures = [affect_figures(values, z["targets"]) for values in columns]
        ours = np.array([[f[f"rmse_{n}"] for f in figures] for n in labels.VALENCE_AROUSAL])
        common.assert_close(ours, z[f"rmse_{k}"][:, [*range(k), -1]], case)
