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


def best_thresholds(probabilities: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Per unit the threshold (present from it on) with the highest F1; to be searched on validation data only.

    Args:
        probabilities: [N, U] in [0, 1]; references: as for `counts`.

    Returns:
        [U]; of equally good ones the highest, and 0.5 for a unit without a positive label.
    """
    probabilities, references = np.asarray(probabilities, np.float64), np.asarray(references)
    if probabilities.shape != references.shape or probabilities.ndim != 2:
        raise ValueError(f"probabilities of shape {probabilities.shape} for references of shape {references.shape}")
    columns = zip(probabilities.T, references.T)
    return np.array([_best_threshold(p[(y == 0) | (y == 1)], y[(y == 0) | (y == 1)] == 1) for p, y in columns])


def _best_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    if not positive.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], positive[order].cumsum()
    last = np.append(scores[1:] != scores[:-1], True)  # equal scores become positive together
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    return float(scores[last][f1[last].argmax()])
