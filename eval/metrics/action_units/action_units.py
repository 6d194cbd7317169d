"""The `evaluate` module of action unit detection; the arithmetic is in action_units_core.py."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from .action_units_core import best_thresholds, counts, scores

_CITATION = "Kollias et al.: Analysing Affective Behavior in the First ABAW 2020 Competition. FG 2020."
_DESCRIPTION = "F1 per action unit, their mean, accuracy, and the ABAW challenges' total (mean F1 + accuracy) / 2."
_INPUTS = """
Args:
    predictions: per frame a list of probabilities (or 0 and 1), one per unit; NaN is refused.
    references: per frame a list of 0 and 1; -1 is unlabelled and left out.
    threshold: a unit is present from here on; one number or one per unit. Default 0.5.
    search: also give the thresholds with the highest F1 (for validation data).
Returns:
    f1, accuracy, total, f1_per_unit (0 for a unit neither labelled nor predicted positive), accuracy_per_unit;
    best_thresholds with `search`. Accuracy and total are NaN without any label.
"""


class ActionUnits(evaluate.Metric):
    """Configuration "default" only."""

    def _info(self) -> evaluate.MetricInfo:
        columns = {
            "predictions": datasets.Sequence(datasets.Value("float64")),
            "references": datasets.Sequence(datasets.Value("int8")),
        }
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, datasets.Features(columns), _INPUTS)

    def _compute(self, predictions, references, threshold=0.5, search=False):
        probabilities = np.asarray(predictions, np.float64).reshape(len(predictions), -1)
        if np.isnan(probabilities).any():
            raise ValueError("a probability is not a number")
        references = np.asarray(references).reshape(len(references), -1)
        out = {k: v.tolist() for k, v in scores(counts(probabilities >= threshold, references)).items()}
        return out | ({"best_thresholds": best_thresholds(probabilities, references).tolist()} if search else {})
