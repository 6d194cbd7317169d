"""FG-2020 against values measured on the original with filled weights."""

from __future__ import annotations

import dataclasses
import re
from functools import lru_cache

import numpy as np
import pytest
import torch

from emotion import hub
from emotion.importers import fg2020 as importer
from emotion.models.fg2020 import FG2020, TASKS, fg2020
from tests.parity import common

ORIGINAL = dict(zip(("EXPR", "AU", "VA"), TASKS))


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
