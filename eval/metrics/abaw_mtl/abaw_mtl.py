"""The `evaluate` module of the ABAW multi-task score; the arithmetic is in abaw_mtl_core.py."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from .abaw_mtl_core import abaw_mtl
from .action_units_core import counts
from .ccc_core import ccc
from .expression_core import confusion

_COPIED = (counts, ccc, confusion)  # evaluate's loader copies what this file imports, and reads comments on those lines

_CITATION = (
    "Kollias: ABAW: Valence-Arousal Estimation, Expression Recognition, Action Unit Detection & MTL. CVPRW 2022."
)
_DESCRIPTION = "Mean CCC of valence and arousal + macro F1 of expressions + mean F1 of action units."
_INPUTS = """
Args:
    predictions: per frame {"valence_arousal": [v, a], "expression": class index, "action_units": [0 or 1, ...]}.
    references: the same; below -1 (valence, arousal), negative (expression), not 0 or 1 (units) is unlabelled.
    classes: number of expressions, default 8; F1 is averaged over all of them.
Returns:
    score, ccc_valence, ccc_arousal, expression_f1, action_unit_f1;
    a part without any label is NaN, and so is the score.
"""


class ABAWMultiTask(evaluate.Metric):
    """Configuration "default" only."""

    def _info(self) -> evaluate.MetricInfo:
        frame = {
            "valence_arousal": datasets.Sequence(datasets.Value("float64")),
            "expression": datasets.Value("int64"),
            "action_units": datasets.Sequence(datasets.Value("int8")),
        }
        features = datasets.Features({"predictions": frame, "references": frame})
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(self, predictions, references, classes=8):
        def columns(name):
            return [np.array([frame[name] for frame in frames]) for frames in (predictions, references)]

        parts = (columns(name) for name in ("valence_arousal", "expression", "action_units"))
        return abaw_mtl(*parts, classes)
