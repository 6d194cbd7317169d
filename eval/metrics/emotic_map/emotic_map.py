"""The `evaluate` module of EMOTIC's mean average precision; the arithmetic is in emotic_map_core.py."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from .emotic_map_core import emotic_map, mean_absolute_error

_CITATION = "Kosti et al.: Context Based Emotion Recognition using EMOTIC Dataset. TPAMI 2019."
_DESCRIPTION = "Average precision per emotion category and its mean, in both definitions in use; error of VAD."
_INPUTS = """
Args:
    predictions: per person a list of scores, one per category (26 in EMOTIC); NaN is refused. In configuration "vad" a
        list of values (valence, arousal, dominance) instead.
    references: per person a list of 0 and 1; in configuration "vad" of values, people with any NaN are left out.
Returns:
    mAP and AP per category (as scikit-learn's average_precision_score; 0 where a category has no positive, and for
    no person at all), "mAP interpolated" and "AP interpolated" (EMOTIC's own script; never lower).
    Configuration "vad": "VAD error", the mean of the mean absolute errors per axis "VAD errors"; 0 without any person.
"""


class EmoticMAP(evaluate.Metric):
    """Configurations: "default" (categories) and "vad" (continuous dimensions)."""

    def _info(self) -> evaluate.MetricInfo:
        kind = "float64" if self.config_name == "vad" else "int8"
        columns = {
            "predictions": datasets.Sequence(datasets.Value("float64")),
            "references": datasets.Sequence(datasets.Value(kind)),
        }
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, datasets.Features(columns), _INPUTS)

    def _compute(self, predictions, references):
        given, wanted = (np.asarray(rows).reshape(len(rows), -1) for rows in (predictions, references))
        if self.config_name == "vad":
            errors = mean_absolute_error(wanted, given)
            return {"VAD error": float(errors.mean()) if len(errors) else 0.0, "VAD errors": errors.tolist()}
        return {name: np.asarray(value).tolist() for name, value in emotic_map(wanted, given).items()}
