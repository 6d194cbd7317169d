"""The `evaluate` module of calibration; the arithmetic is in calibration_core.py."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from .calibration_core import of_classes, of_labels

_CITATION = "Naeini et al.: Obtaining Well Calibrated Probabilities Using Bayesian Binning. AAAI 2015."
_DESCRIPTION = "How far probabilities can be believed: expected, average and maximum calibration error, Brier, NLL."
_INPUTS = """
Args:
    predictions: per sample a list of probabilities, one per class (or per independent label); NaN is refused.
    references: class index, negative where unlabelled; with configuration "labels" a list of 0 and 1, -1 unlabelled.
    bins: number of equal bins over [0, 1], default 10.
Returns:
    ece, ace (mean over filled bins), mce, bias (positive: too sure), brier, nll (nats); NaN without any label.
"""


class Calibration(evaluate.Metric):
    """Configurations: "default" for one of several classes, "labels" for independent labels."""

    def _info(self) -> evaluate.MetricInfo:
        independent = self.config_name == "labels"
        truth = datasets.Sequence(datasets.Value("int8")) if independent else datasets.Value("int64")
        columns = {"predictions": datasets.Sequence(datasets.Value("float64")), "references": truth}
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, datasets.Features(columns), _INPUTS)

    def _compute(self, predictions, references, bins=10):
        measure = of_labels if self.config_name == "labels" else of_classes
        return measure(np.asarray(predictions).reshape(len(predictions), -1), np.asarray(references), bins)
