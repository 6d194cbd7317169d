"""The BENet of a parity case, and how detections are compared."""

from __future__ import annotations

import copy
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from emotion import hub, importers
from emotion.importers.benet import rename
from emotion.models.benet import BENet
from tests.parity import common

METHOD = "benet"


@lru_cache(maxsize=1)
def checkpoint(variant: str, salt: int) -> BENet:
    """The network from an original checkpoint file filled with the generator's weights, through the importer."""
    tensors = common.state_dict(METHOD, f"keys_{variant}.json", salt)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model_best.pth.tar"
        torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, path)
        imported = importers.read(METHOD, path)
    model = BENet(imported.config)
    hub.fit(model, imported.tensors)
    return model.eval()


def network(case: dict) -> BENet:
    """The network of a case, in evaluation mode, with the case's changes to single weights."""
    model = copy.deepcopy(checkpoint(case["variant"], case["salt"]))
    state = model.state_dict()
    for name, value in case.get("multiply_weights", {}).items():
        state[rename(name)] *= torch.tensor(value)
    for name, value in case.get("add_to_weights", {}).items():
        state[rename(name)] += torch.tensor(value)
    return model


def assert_found(faces, emotions: np.ndarray, expected: np.ndarray, case: dict) -> None:
    """Every expected person is found once: box, score and emotions, whatever the order of near-equal scores."""
    assert len(faces) == len(expected)
    free = list(range(len(faces)))
    for row in expected:
        match = min(free, key=lambda i: np.abs(faces.boxes[i] - row[:4]).max() + np.abs(emotions[i] - row[5:]).max())
        free.remove(match)
        assert np.abs(faces.boxes[match] - row[:4]).max() <= case["atol_boxes"]
        assert abs(faces.scores[match] - row[4]) <= case["atol_scores"]
        assert np.abs(emotions[match] - row[5:]).max() <= case["atol_scores"]
