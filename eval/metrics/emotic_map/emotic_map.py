"""The `evaluate` module of EMOTIC's mean average precision; the arithmetic is in emotic_map_core.py."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from .emotic_map_core import emotic_map

_CITATION = "Kosti et al.: Context Based Emotion Recognition using EMOTIC Dataset. TPAMI 2019."
_DESCRIPTION = "Average precision per emotion category and its mean, in both definitions in use."
_INPUTS = """
Args:
    predictions: per person a list of scores, one per category (26 in EMOTIC).
    references: per person a list of 0 and 1.
Returns:
    mAP and AP per category (as scikit-learn's average_precision_score; 0 where a category has no positive),
    "mAP interpolated" and "AP interpolated" (EMOTIC's own script; never lower).
"""


class EmoticMAP(evaluate.Metric):
    """Configuration "default" only."""

    def _info(self) -> evaluate.MetricInfo:
        columns = {
            "predictions": datasets.Sequence(datasets.Value("float64")),
            "references": datasets.Sequence(datasets.Value("int8")),
        }
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, datasets.Features(columns), _INPUTS)

    def _compute(self, predictions, references):
        labels = np.asarray(references).reshape(len(references), -1)
        found = emotic_map(labels, np.asarray(predictions).reshape(len(predictions), -1))
        return {name: np.asarray(value).tolist() for name, value in found.items()}
