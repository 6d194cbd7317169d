"""Figures of the audiovisual original's evaluation code."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics.audiovisual import audiovisual_core as audiovisual
from tests.parity import common


@pytest.mark.parametrize("case", common.params("avfusion", kind="metrics"))
def test_audiovisual_figures(case: dict) -> None:
    expected = common.load("avfusion", f"{case['name']}.npz")
    recipe = case["logits"]
    logits = common.array(recipe["shape"], recipe["seed"], recipe["low"], recipe["high"])
    targets = expected["targets"]
    found = audiovisual.audiovisual(logits, targets)["both"]
    figures = [100 * found["accuracy"], 100 * found["top5"], found["loss"]]
    common.assert_close(figures, np.ravel(expected["result"]), case)
    three = audiovisual.audiovisual(logits[:, :3], targets % 3)["both"]
    common.assert_close([100 * three["accuracy"], 100 * three["top5"]], np.ravel(expected["three_class"]), case)
