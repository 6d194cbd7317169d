"""The `evaluate` module of the concordance correlation coefficient; the arithmetic is in ccc_core.py."""

from __future__ import annotations

import datasets
import evaluate

from .ccc_core import ccc, ccc_of_batches, ccc_of_groups

_CITATION = "Lin: A concordance correlation coefficient to evaluate reproducibility. Biometrics 45(1), 1989."
_DESCRIPTION = "Agreement of continuous values such as valence and arousal, in [-1, 1]."
_INPUTS = """
Args:
    predictions: numbers; a NaN makes the figure NaN.
    references: numbers; NaN is unlabelled and left out.
    groups: video of every pair (configuration "video" only).
    ddof: divide variances by N - ddof: 0 (default, the ABAW challenges') or 1.
    batch_size: also give the mean over consecutive batches of this size.
Returns:
    ccc: over all pairs at once; 0 where a side is constant, NaN without any pair.
    ccc_per_group: mean over videos (configuration "video" only).
    ccc_per_batch: mean over batches (with batch_size only).
"""


class CCC(evaluate.Metric):
    """Configurations: "default", and "video" with a column `groups`."""

    def _info(self) -> evaluate.MetricInfo:
        columns = {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        if self.config_name == "video":
            columns["groups"] = datasets.Value("string")
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, datasets.Features(columns), _INPUTS)

    def _compute(self, predictions, references, groups=None, ddof=0, batch_size=None):
        out = {"ccc": ccc(predictions, references, ddof)}
        if groups is not None:
            out["ccc_per_group"] = ccc_of_groups(predictions, references, groups, ddof)
        if batch_size is not None:
            out["ccc_per_batch"] = ccc_of_batches(predictions, references, batch_size, ddof)
        return out
