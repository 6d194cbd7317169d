"""The `evaluate` module of risk against coverage; the arithmetic is in risk_coverage_core.py."""

from __future__ import annotations

import datasets
import evaluate

from .risk_coverage_core import risk_coverage

_CITATION = "Geifman, El-Yaniv: Selective Classification for Deep Neural Networks. NIPS 2017."
_DESCRIPTION = "Does uncertainty find the errors? Error of the answers kept when the most uncertain are withheld."
_INPUTS = """
Args:
    predictions: uncertainties, larger is less sure; NaN is refused.
    references: errors: 0 or 1, or a loss; NaN is unlabelled and left out.
    curve: also give the whole curve.
Returns:
    aurc (mean risk over coverages), excess_aurc (above that of a perfect order), auroc (of finding wrong answers);
    coverage and risk with `curve`. NaN without any label; auroc also where all answers are right, or all wrong.
"""


class RiskCoverage(evaluate.Metric):
    """Configuration "default" only."""

    def _info(self) -> evaluate.MetricInfo:
        columns = {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, datasets.Features(columns), _INPUTS)

    def _compute(self, predictions, references, curve=False):
        out = risk_coverage(predictions, references)
        lines = {name: out.pop(name).tolist() for name in ("coverage", "risk")}
        return lines | out if curve else out
