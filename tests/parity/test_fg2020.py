"""FG-2020 against values measured on the original with filled weights."""

from __future__ import annotations

import dataclasses
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emotion import exports, hub, merging
from emotion.draw import dashboard
from emotion.faces import alignment
from emotion.importers import fg2020 as importer
from emotion.models.fg2020 import FG2020, TASKS, fg2020, first_predictions, windows
from eval.metrics.action_units.action_units_core import counts as au_counts
from eval.metrics.action_units.action_units_core import scores as au_scores
from eval.metrics.ccc.ccc_core import ccc
from eval.metrics.expression.expression_core import confusion
from eval.metrics.expression.expression_core import scores as expression_scores
from tests.parity import common
from train.fg2020_data import place

ORIGINAL = dict(zip(("EXPR", "AU", "VA"), TASKS))
WINDOWS = common.load("fg2020", "windows.json")


def make_input(spec: dict) -> np.ndarray:
    """Inputs of this method: kinds "array", "blocks" (with a colour offset) and "image_u8"."""
    if spec["kind"] == "image_u8":
        coarse = common.array([*spec["grid"], 3], spec["seed"], 0, 256)
        fine = coarse.repeat(spec["repeat"], 0).repeat(spec["repeat"], 1)
        return fine[: spec["size"][0], : spec["size"][1]].astype(np.uint8)
    values = common.array(spec["shape"], spec["seed"], spec["low"], spec["high"])
    if spec["kind"] == "array":
        return values
    values = values.repeat(spec["repeat"], -2).repeat(spec["repeat"], -1)
    offset = spec["offset"]
    return values + common.array(offset["shape"], offset["seed"], offset["low"], offset["high"])


@lru_cache(maxsize=1)
def load(keys: str, salts: tuple[int, ...], size: int = 112, frames: int = 0, tweaked: bool = False) -> FG2020:
    """A model with one member per salt, through the importer."""
    states = {}
    for i, salt in enumerate(salts):
        state = {k: torch.from_numpy(v) for k, v in common.state_dict("fg2020", keys, salt).items()}
        states[f"student_{i}"] = tweak(state) if tweaked else state
    variant = importer.backbone_of(states["student_0"], keys)
    imported = importer.assemble(fg2020(variant, tuple(states), frames, size), states, keys)
    model = FG2020(imported.config)
    hub.fit(model, imported.tensors)
    return model.eval()


def tweak(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The end-to-end case's changes to filled weights, which keep real images from saturating them."""
    state = {k: v / 16 if k.endswith("conv1_7x7_s2.weight") else v for k, v in state.items()}
    return {k: v - 1 if k.endswith("classifier.1.fc_1.bias") else v for k, v in state.items()}


def flat(logits: torch.Tensor, task: str) -> np.ndarray:
    """Logits of the first member in the original's layout: valence's bins, then arousal's."""
    return (logits[0].flatten(-2) if task == "valence_arousal" else logits[0]).numpy()


@pytest.mark.parametrize("case", [p for p in common.params("fg2020", kind="network") if p.id != "gru_heads"])
@torch.inference_mode()
def test_network(case: dict) -> None:
    expected = common.load("fg2020", case["file"])
    x = torch.from_numpy(make_input(case["inputs"]["x"]))
    model = load(case["keys"], (case["salt"],), case["image_size"], x.shape[1] if x.ndim == 5 else 0)
    logits = model(x)
    embeddings = model.embed(x.reshape(-1, *x.shape[-3:]))[0]
    for i, (name, task) in enumerate(ORIGINAL.items()):
        common.assert_close(flat(logits[task], task), expected[f"out_{name}"], case, name)
        embedding = embeddings[:, i].reshape(expected[f"feat_{name}"].shape)
        common.assert_close(embedding, expected[f"feat_{name}"], case, f"embedding of {name}")
    tasks = model.decode(logits)
    rows = {name: expected[f"est_{name}"].reshape(len(embeddings), -1) for name in ORIGINAL}
    present = tasks["action_units"].values >= np.nextafter(np.float32(0.5), np.float32(1))
    np.testing.assert_array_equal(present, rows["AU"])
    np.testing.assert_array_equal(tasks["expression"].choice[:, None], rows["EXPR"])
    common.assert_close(tasks["valence_arousal"].values, rows["VA"], case, "decoded values")


@pytest.mark.parametrize("case", [p for p in common.params("fg2020", kind="network") if "stages" in p.values[0]])
@torch.inference_mode()
def test_stages(case: dict) -> None:
    expected = common.load("fg2020", case["file"])
    x = torch.from_numpy(make_input(case["inputs"]["x"]))
    backbone = load(case["keys"], (case["salt"],), case["image_size"]).cnns[0].backbone
    maps = backbone.maps(x)
    for name, stage in case["stages"].items():
        module = re.match(r"(?:conv(\d)_\d|pool1|conv1_pool)", stage["module"])
        values = maps[int(module[1] or 1) - 1]
        assert list(values.shape) == stage["shape"]
        sampled = values.contiguous().flatten()[:: stage["flat_step"]][: stage["count"]]
        common.assert_close(sampled, expected[name], case, stage["module"])
    common.assert_close(maps[-1].mean((2, 3)), expected["feat_cross_task"], case, "pooled features")


@torch.inference_mode()
def test_gru_heads() -> None:
    case = common.case("fg2020", "gru_heads")
    expected = common.load("fg2020", case["file"])
    inputs = {name: torch.from_numpy(make_input(spec)) for name, spec in case["inputs"].items()}
    model = load(case["keys"], (case["salt"],), frames=inputs["EXPR"].shape[1])
    logits = model.read(torch.stack([inputs[name] for name in ORIGINAL], dim=2)[None])
    for name, task in ORIGINAL.items():
        common.assert_close(flat(logits[task], task), expected[f"out_{name}"], case, name)
        hidden = model.temporal[0][task].hidden(inputs[name])
        common.assert_close(hidden[:, ::8], expected[f"hidden_{name}"], case, f"hidden states of {name}")


def test_sizes() -> None:
    """Parameters of the original; the CNN-RNN here goes without the CNN's 7095 unused output parameters."""
    count = {frames: sum(p.numel() for p in FG2020(fg2020(frames=frames)).parameters()) for frames in (0, 32)}
    assert count[0] == 24_314_999
    assert count[32] == 24_545_582 - 55 * 128 - 55
    sfew = fg2020("sfew")
    assert sum(p.numel() for p in FG2020(sfew).parameters()) == 24_315_063
    assert dataclasses.replace(sfew, merge="api").merge == "api"


def score(metric: str, predictions: np.ndarray, references: np.ndarray) -> tuple[list[float], float]:
    """Items and total as the original reports them; for valence and arousal the total is the sum."""
    if metric == "AU_metric":
        got = au_scores(au_counts(predictions, references))
        return [got["f1"], got["accuracy"]], got["total"]
    if metric == "EXPR_metric":
        got = expression_scores(confusion(predictions, references, 7))
        return [got["f1"], got["accuracy"]], got["total"]
    items = [ccc(predictions[:, axis], references[:, axis]) for axis in range(2)]
    return items, sum(items)


@pytest.mark.parametrize("row", common.load("fg2020", "metrics.json")["cases"], ids=lambda row: row["case"])
def test_metrics(row: dict) -> None:
    case, inputs = common.case("fg2020", "metrics"), common.load("fg2020", "metrics_inputs.npz")
    name = row["case"]
    predictions, references = inputs[f"{name}_pred"], inputs[f"{name}_true"]
    items, total = score(row["metric"], predictions, references)
    expected = [0 if v is None else v for v in row["items"]]  # a constant is no number in the original, 0 here
    common.assert_close(items, expected, case, name)
    common.assert_close(total, sum(expected) if row["total"] is None else row["total"], case, f"total of {name}")
    for key, figure in (("au_f1_per_label", "f1_per_unit"), ("au_acc_per_label", "accuracy_per_unit")):
        per_label = common.load("fg2020", "metrics.json")[key]
        if name in per_label:
            common.assert_close(au_scores(au_counts(predictions, references))[figure], per_label[name], case, key)


def test_ensemble() -> None:
    """Single students, two merging rules and the threshold search on one validation set."""
    case, expected = common.case("fg2020", "ensemble"), common.load("fg2020", "ensemble.json")
    arrays = common.load("fg2020", "ensemble.npz")
    labels = {name: arrays[f"label_{name}"] for name in ORIGINAL}
    logits = {task: arrays[f"logits_{name}"].astype(np.float64) for name, task in ORIGINAL.items()}
    logits["valence_arousal"] = logits["valence_arousal"].reshape(*logits["valence_arousal"].shape[:2], 2, -1)

    def check(got: dict[str, np.ndarray], name: str, row: dict, thresholds: np.ndarray | float = 0.5) -> None:
        values = got[ORIGINAL[name]]
        values = values > thresholds if name == "AU" else values
        items, total = score(f"{name}_metric", values, labels[name])
        common.assert_close(items, row["items"], case, name)
        common.assert_close(total, row["total"], case, name)

    for row in expected["single_models"]:
        one = {task: z[row["model"] :][:1] for task, z in logits.items()}
        check(merging.merge(one, "single"), row["task"], row)
    probabilities = merging.sigmoid(logits["action_units"])
    found = np.array([merging.search_thresholds(p, labels["AU"]) for p in probabilities])
    wanted = expected["au_thresholds"]
    common.assert_close(found, wanted["per_model"], case, "thresholds per model")
    common.assert_close(found.mean(axis=0), wanted["intended_mean_over_models"], case, "mean of the thresholds")
    for rule, thresholds in (("first", 0.5), ("second", found[-1])):
        merged = merging.merge(logits, rule)
        for name, row in expected[f"merge_{rule}"].items():
            check(merged, name, row, thresholds)
        np.testing.assert_array_equal(merged["action_units"] > thresholds, arrays[f"{rule}_AU"])
        np.testing.assert_array_equal(merged["expression"].argmax(1), arrays[f"{rule}_EXPR"])
        common.assert_close(merged["valence_arousal"], arrays[f"{rule}_VA"], case, f"values of {rule}")
    check(merging.merge(logits, "predictor"), "AU", expected["au_with_intended_thresholds"], found.mean(axis=0))
    check(merging.merge(logits, "predictor"), "VA", expected["va_mean_of_expected_values"])


@pytest.mark.parametrize(
    "row", common.load("fg2020", "windows.json")["train_val"] + common.load("fg2020", "windows.json")["test"]
)
def test_windows(row: dict) -> None:
    """As the original's from a full window on, without its doubles; shorter clips lose frames there, not here."""
    n, length, mode = row["frames"], row["seq_len"], row.get("mode", "Test")
    got = windows(n, length, overlap=mode == "Train")
    if n < length:
        np.testing.assert_array_equal(got, [[*range(n), *[n - 1] * (length - n)]])
        return
    wanted = [w for i, w in enumerate(row["windows"]) if w not in row["windows"][:i]]
    if mode == "Validation":  # the original never scores an incomplete last window
        got = got[: len(wanted)]
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("row", WINDOWS["api"])
def test_windows_of_the_api(row: dict) -> None:
    got = windows(row["frames"], row["seq_len"]) + 1
    if row["frames"] >= row["seq_len"]:
        np.testing.assert_array_equal(got, [w for i, w in enumerate(row["windows"]) if w not in row["windows"][:i]])
    else:
        assert set(got.ravel()) == set(range(1, row["frames"] + 1))


@pytest.mark.parametrize("row", common.load("fg2020", "preprocess.json"), ids=lambda row: row["output"])
def test_preprocess(row: dict) -> None:
    case = common.case("fg2020", "preprocess")
    size = row["image_size"]
    x = fg2020(row["backbone"], size=size).input.tensor(make_input(row["image"])[None])[0]
    assert list(x.shape) == row["shape"]
    common.assert_close(x[:, ::5, ::5], common.load("fg2020", "preprocess.npz")[row["output"]], case)
    common.assert_close(x.double().mean(), row["mean"], case)
    common.assert_close(x.double().std(correction=0), row["std"], case)


@pytest.mark.parametrize("row", common.load("fg2020", "alignment.json")["cases"], ids=lambda row: row["output"])
def test_alignment(row: dict) -> None:
    points = np.array([row[p] for p in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")], float)
    image = make_input(row["image"])
    if row["rotate"]:
        angle = alignment.eye_angle(points)
        turned, moved = alignment.rotate(Image.fromarray(image), points, angle)
        assert angle == pytest.approx(row["angle_deg"], abs=1e-6)
        assert list(turned.size) == row["rotated_size_wh"]
        for i, name in enumerate(("left_eye_r", "right_eye_r", None, "mouth_left_r", "mouth_right_r")):
            if name:
                np.testing.assert_allclose(moved[i], row[name], atol=1e-6)
        np.testing.assert_allclose(
            alignment.face_square(moved)[2:] - alignment.face_square(moved)[:2], row["crop_size_wh"]
        )
    face = alignment.five_point_crop(image, points, 112, level=row["rotate"])[::3, ::3]
    difference = np.abs(face.astype(int) - common.load("fg2020", "alignment.npz")[row["output"]])
    assert (difference <= 2).mean() >= 0.99, difference.max()


def stacked(arrays: dict[str, np.ndarray], prefix: str, members: list) -> dict[str, torch.Tensor]:
    """Logits of some members as a model gives them."""
    logits = {t: np.stack([arrays[f"{prefix}__{m}__{name}"] for m in members]) for name, t in ORIGINAL.items()}
    logits["valence_arousal"] = logits["valence_arousal"].reshape(*logits["valence_arousal"].shape[:-1], 2, -1)
    return {task: torch.from_numpy(z) for task, z in logits.items()}


@lru_cache(maxsize=4)
def decoder(members: tuple[str, ...], frames: int, merge: str = "predictor") -> FG2020:
    """A model whose `decode` is wanted, not its weights."""
    return FG2020(dataclasses.replace(fg2020("test_resnet", members, frames), merge=merge))


def assert_files(got: dict[str, str], expected: dict[str, str], atol: float) -> None:
    """Same headers; numbers within `atol`; a decision may differ where the score is that near to a threshold."""
    assert set(expected) <= set(got)
    for name, text in expected.items():
        (head, *lines), (wanted_head, *wanted) = got[name].split("\n"), text.split("\n")
        assert head == wanted_head, name
        values, reference = (np.array([[float(v) for v in line.split(",")] for line in x]) for x in (lines, wanted))
        np.testing.assert_allclose(values, reference, rtol=0, atol=atol, err_msg=name)
        assert not got[name].endswith("\n")


@pytest.mark.parametrize("name", ["cnn", "rnn_batch1"])
def test_infer_files(name: str) -> None:
    """Also stands for "rnn_batch6", whose frame order is the original's fault."""
    case, row = common.case("fg2020", "infer_files"), common.load("fg2020", "infer_files.json")[name]
    arrays = common.load("fg2020", "infer_logits.npz")
    teacher, *students = row["models"]
    files = {}
    for members in ([teacher], students):
        logits = stacked(arrays, name, members)
        if row["model_type"] == "CNN-RNN":
            chosen = windows(row["frames"], row["seq_len"])
            np.testing.assert_array_equal(chosen, row["windows"])
            first = first_predictions(chosen)
            logits = {task: z.flatten(1, 2)[:, first] for task, z in logits.items()}
        tasks = decoder(tuple(members), row.get("seq_len", 0)).decode(logits)
        files |= exports.fg2020_files(tasks, members)
    assert_files(files, row["files"], case["atol"])


@pytest.mark.parametrize("name", ["cnn", "rnn_batch1"])
def test_api_csv(name: str) -> None:
    """Also stands for "rnn_batch4", whose frame order is the original's fault."""
    case, row = common.case("fg2020", "api_csv"), common.load("fg2020", "api_csv.json")[name]
    members = tuple(range(row["students"]))
    logits = stacked(common.load("fg2020", "api_logits.npz"), name, members)
    numbers = np.array(row["frame_numbers"])
    if row["temporal"]:
        numbers = numbers[windows(len(numbers), row["length"])]
        np.testing.assert_array_equal(numbers, row["windows"])
    model = decoder(tuple(f"student_{m}" for m in members), 32 if row["temporal"] else 0, "api")
    text = exports.fg2020_csv(numbers.ravel(), model.decode(logits))
    (head, *lines), (wanted_head, *wanted) = text.splitlines(), row["csv"].splitlines()
    assert head == wanted_head
    values, reference = (np.array([[float(v) for v in line.split(",")] for line in x]) for x in (lines, wanted))
    common.assert_close(values, reference, case)


@pytest.mark.parametrize("name", ["cnn", "cnn_rnn"])
@torch.inference_mode()
def test_e2e(name: str, tmp_path: Path) -> None:
    """Image files to text files; a decision may differ only where the score lies at its threshold."""
    case, row = common.case("fg2020", "e2e"), common.load("fg2020", "e2e.json")[name]
    for i, spec in enumerate(row["images"], start=1):
        Image.fromarray(make_input(spec)).save(tmp_path / f"{i:05d}.png")
    faces = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(tmp_path.iterdir())]
    teacher, *students = row["models_salt"]
    files, doubtful = {}, {}
    for members in ([teacher], students):
        salts = tuple(row["models_salt"][m] for m in members)
        model = load(row["keys"], salts, frames=row["seq_len"] or 0, tweaked=True)
        x = model.config.input.tensor(faces)
        embeddings = torch.cat([model.embed(part) for part in x.split(row["batch_size"])], dim=1)
        tasks = model.decode(model.sequence(embeddings))
        files |= exports.fg2020_files(tasks, members)
        units, expression = tasks["action_units"], tasks["expression"]
        for i, member in enumerate(members):
            doubtful[f"{member}/AU.txt"] = np.abs(units.members[i] - 0.5) < case["atol"]
            doubtful[f"{member}/EXPR.txt"] = lead(expression.members[i]) < case["atol"]
        doubtful["merged/AU.txt"] = np.abs(units.values - units.thresholds) < case["atol"]
        doubtful["merged/EXPR.txt"] = lead(expression.values) < case["atol"]
    for path, mask in doubtful.items():
        if path in row["files"]:  # take the original's decision where ours is within the tolerance of flipping
            files[path] = adopt(files[path], row["files"][path], mask)
    assert_files(files, row["files"], case["atol"])


def lead(scores: np.ndarray) -> np.ndarray:
    """By how much the best class is ahead of the second, [N, 1]."""
    return -np.diff(np.sort(scores, axis=1)[:, :-3:-1], axis=1)


def adopt(text: str, other: str, mask: np.ndarray) -> str:
    """`text` with the cells of `other` where the mask [N, columns] says so."""
    (head, *lines), (_, *theirs) = text.split("\n"), other.split("\n")
    rows = [
        ",".join(b if m else a for a, b, m in zip(mine.split(","), their.split(","), flags))
        for mine, their, flags in zip(lines, theirs, mask)
    ]
    return "\n".join([head, *rows])


def test_demo() -> None:
    row = common.load("fg2020", "demo.json")
    np.testing.assert_array_equal(dashboard.hold(row["detected"]), row["prediction_row_for_each_frame"])
    for spec in row["rectangles"]:
        points = np.array([spec[p] for p in ("left_eye", "right_eye", "left_eye", "mouth_left", "mouth_right")], float)
        square = alignment.face_square(points)
        np.testing.assert_array_equal(square, [*spec["top_left"], *spec["bottom_right"]])
    for spec in row["panel_fit"]:
        picture = np.zeros((*spec["image_hw"], 3), np.uint8)
        panel, corner = dashboard.fit_panel(picture, tuple(spec["panel_wh"]))
        y, x = np.nonzero(panel[..., 0] == 0)
        np.testing.assert_array_equal([x.min(), y.min(), x.max(), y.max()], spec["content_box_xyxy_inclusive"])
        assert corner == (x.min(), y.min())


@pytest.mark.parametrize("row", common.load("fg2020", "augmentation.json"))
def test_augmentation(row: dict) -> None:
    width, height = row["size_wh"]
    grid = np.stack([*np.meshgrid(np.arange(width), np.arange(height)), np.zeros((height, width), int)], axis=-1)
    crop = place(grid, tuple(row["shape"][:2]), row["v"], row["v"], row["flipped"])
    assert list(crop.shape) == row["shape"]
    assert crop[0, 0, :2].tolist() == row["top_left_source_xy"]
    assert crop[0, -1, :2].tolist() == row["top_right_source_xy"]
