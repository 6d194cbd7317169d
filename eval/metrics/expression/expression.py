"""The `evaluate` module of single-label expression recognition; the arithmetic is in expression_core.py."""

from __future__ import annotations

import datasets
import evaluate

from .expression_core import confusion, scores

_CITATION = "Kollias et al.: Analysing Affective Behavior in the First ABAW 2020 Competition. FG 2020."
_DESCRIPTION = "Accuracy, macro F1 and the ABAW challenges' total 0.67 F1 + 0.33 accuracy, with the confusion matrix."
_INPUTS = """
Args:
    predictions: class indices.
    references: class indices; a negative one is unlabelled and left out.
    classes: number of classes; default: one more than the largest index.
    fixed: average F1 over all classes; default: over those that occur in references or predictions.
Returns:
    accuracy, f1, balanced_accuracy, total (all NaN without any label), f1_per_class (0 for an absent class),
    confusion (references in rows).
"""


class Expression(evaluate.Metric):
    """Configuration "default" only."""

    def _info(self) -> evaluate.MetricInfo:
        columns = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, datasets.Features(columns), _INPUTS)

    def _compute(self, predictions, references, classes=None, fixed=False):
        classes = classes or 1 + max((*predictions, *references), default=0)
        matrix = confusion(predictions, references, classes)
        out = {name: value.tolist() for name, value in scores(matrix, fixed).items()}
        return out | {"confusion": matrix.tolist()}
