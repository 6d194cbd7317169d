"""Single-label expression recognition: accuracy, macro F1 and the ABAW challenges' weighted total."""

from __future__ import annotations

import numpy as np


def confusion(predictions: np.ndarray, references: np.ndarray, classes: int) -> np.ndarray:
    """Counts [classes, classes], references in rows, predictions in columns; additive over videos.

    Args:
        predictions: class indices [N], or scores [N, classes] whose largest counts.
        references: class indices [N]; a negative index means unlabelled and is left out.
        classes: number of classes.

    Raises:
        ValueError: different lengths, an index outside the classes, or a score that is not a number.
    """
    predictions, references = np.asarray(predictions), np.asarray(references)
    if predictions.ndim == 2:
        if np.isnan(predictions).any():
            raise ValueError("a score is not a number")
        predictions = predictions.argmax(axis=1)
    if predictions.shape != references.shape:
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    known = references >= 0
    predictions, references = predictions[known].astype(np.int64), references[known].astype(np.int64)
    if len(references) and (max(predictions.max(), references.max()) >= classes or predictions.min() < 0):
        raise ValueError(f"class index outside 0 to {classes - 1}")
    return np.bincount(references * classes + predictions, minlength=classes**2).reshape(classes, classes)


def scores(matrix: np.ndarray, fixed: bool = False) -> dict[str, np.ndarray]:
    """Figures of confusion matrices [..., K, K].

    Args:
        matrix: from `confusion`, or sums of such.
        fixed: average F1 over all K classes; default: over those present in references or predictions.

    Returns:
        "accuracy", "f1" (macro), "balanced_accuracy" (mean recall of the classes in the references),
        "total" (0.67 F1 + 0.33 accuracy) [...] and "f1_per_class" [..., K], 0 for an absent class.
        Everything is NaN for an empty matrix.
    """
    matrix = np.asarray(matrix, np.float64)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    there, said = matrix.sum(-1), matrix.sum(-2)
    n = there.sum(-1)
    f1 = 2 * hits / np.maximum(there + said, 1)
    counted = np.ones_like(there, bool) if fixed else (there + said) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = hits.sum(-1) / n
        macro = np.where(n > 0, (f1 * counted).sum(-1) / counted.sum(-1), np.nan)
        recall = (hits / np.maximum(there, 1)).sum(-1) / (there > 0).sum(-1)
    total = 0.67 * macro + 0.33 * accuracy
    return {"accuracy": accuracy, "f1": macro, "balanced_accuracy": recall, "total": total, "f1_per_class": f1}
