"""ESR against the original: every case of fixtures/esr, through the importer and the public interfaces."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
import torch

from emotion import explain, exports, hub, importers, labels, sampling
from emotion.models import esr
from tests.parity import common

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
    """(keys file, batch-norm reading) -> the network: written in the original's form, converted, saved and loaded."""

    @cache
    def original(keys):
        return write_original(tmp_path_factory.mktemp("original"), keys)

    @cache
    def load(keys, batchnorm):
        folder = tmp_path_factory.mktemp("converted") / "model"
        importers.convert("esr", original(keys), folder, batchnorm=batchnorm)
        return hub.load(folder)

    return load


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


def test_aggregate():
    case = common.case("esr", "aggregate")
    z = common.load("esr", "aggregate.npz")
    logits, affect = (torch.from_numpy(z[k]).transpose(0, 1) for k in ("emotion", "affect"))
    classes, values = esr.original_outputs(logits, affect)
    assert (classes[:, :-1] == z["branch_index"]).all()
    assert (classes[:, -1] == z["ensemble_index"]).all()
    common.assert_close(values, z["affect_out"], case)
    assert [exports.ESR_NAMES[labels.AFFECTNET[k]] for k in classes[0]] == case["names_first_case"]
    decoded = esr.ESR(esr.esr9(branches=1)).decode({"expression": logits, "valence_arousal": affect})
    assert (decoded["expression"].choice == z["ensemble_index"]).all()


def test_csv():
    fixture = common.load("esr", "csv.json")
    z = common.load("esr", "aggregate.npz")
    k = int(re.search(r"aggregate case (\d+)", fixture["rows_of"])[1])
    logits, affect = (torch.from_numpy(z[name][k : k + 1]).transpose(0, 1) for name in ("emotion", "affect"))
    classes, values = esr.original_outputs(logits, affect)
    lines = [line.split(",") for line in fixture["text"].splitlines()[1:]]
    rows = [(float(time), None if name == "None" else (classes[0], values[0])) for time, name, *_ in lines]
    assert [face is None for _, face in rows] == [False, True, True]
    assert exports.esr_table(rows, labels.AFFECTNET) == fixture["text"]
    assert exports.esr_csv_name(fixture["file_name_for"]) == fixture["file_name"]


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
