"""The `evaluate` module of audiovisual expression recognition; the arithmetic is in audiovisual_core.py."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from .audiovisual_core import audiovisual
from .expression_core import scores

_COPIED = (scores,)  # evaluate's loader copies what this file imports, and reads comments on those lines

_CITATION = (
    "Chumachenko et al.: Self-attention fusion for audiovisual emotion recognition with incomplete data. ICPR 2022."
)
_DESCRIPTION = "Accuracy, top-5 accuracy, recall, F1 and loss per modality condition (both, audio, video, noise ...)."
_INPUTS = """
Args:
    predictions: per clip a list of logits, one per class; NaN is refused.
    references: class index; a negative one is unlabelled and left out.
    conditions: name of the condition of every clip (configuration "conditions" only).
Returns:
    per condition ("both" without the column): n, accuracy, top5, mean_recall, f1, loss; NaN without any label.
"""


class Audiovisual(evaluate.Metric):
    """Configurations: "default", and "conditions" with a column of that name."""

    def _info(self) -> evaluate.MetricInfo:
        columns = {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
        if self.config_name == "conditions":
            columns["conditions"] = datasets.Value("string")
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, datasets.Features(columns), _INPUTS)

    def _compute(self, predictions, references, conditions=None):
        return audiovisual(np.asarray(predictions).reshape(len(predictions), -1), references, conditions)
