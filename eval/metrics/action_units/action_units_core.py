"""Action unit detection: F1 per unit, their mean, accuracy and the ABAW challenges' total."""

from __future__ import annotations

import numpy as np


def counts(predictions: np.ndarray, references: np.ndarray) -> np.ndarray:
    """True positives, false positives, false negatives and true negatives per unit, [U, 4]; additive over videos.

    Args:
        predictions: 0 or 1, [N, U].
        references: 0 or 1, [N, U]; anything else (-1, NaN) is unlabelled and left out.

    Raises:
        ValueError: different shapes.
    """
    predictions, references = np.asarray(predictions), np.asarray(references)
    if predictions.shape != references.shape or predictions.ndim != 2:
        raise ValueError(f"predictions of shape {predictions.shape} for references of shape {references.shape}")
    said, there, absent = predictions > 0.5, references == 1, references == 0
    cells = (said & there, said & absent, ~said & there, ~said & absent)
    return np.stack([c.sum(axis=0) for c in cells], axis=-1)


def scores(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Figures of counts [..., U, 4].

    Returns:
        "f1" (mean over units; a unit neither labelled nor predicted positive counts as 0), "accuracy" (over all
        labelled entries), "total" (their mean) [...], and "f1_per_unit", "accuracy_per_unit" [..., U].
        Accuracy and total are NaN without any labelled entry.
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(cells, np.float64), -1, 0)
    f1 = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    n = tp + fp + fn + tn
    with np.errstate(invalid="ignore", divide="ignore"):
        per_unit = (tp + tn) / n
        accuracy = (tp + tn).sum(-1) / n.sum(-1)
    mean = f1.mean(-1)
    return {
        "f1": mean,
        "accuracy": accuracy,
        "total": 0.5 * mean + 0.5 * accuracy,
        "f1_per_unit": f1,
        "accuracy_per_unit": per_unit,
    }
