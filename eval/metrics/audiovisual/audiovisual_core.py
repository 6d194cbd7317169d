"""Audiovisual expression recognition: top-k accuracy for every way of making one modality unusable."""

from __future__ import annotations

import numpy as np

from .expression_core import confusion, scores


def top_k(logits: np.ndarray, references: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether the reference is among the k largest scores, float64 [N]; NaN where the reference is negative.

    Of equal scores the class that comes first is taken. k is cut to the number of classes.

    Args:
        logits: [N, K]; references: class indices [N].

    Raises:
        ValueError: different lengths, an index outside the classes, or a score that is not a number.
    """
    logits, references = np.asarray(logits, np.float64), np.asarray(references, np.int64)
    if logits.ndim != 2 or len(logits) != len(references):
        raise ValueError(f"scores of shape {logits.shape} for {len(references)} references")
    if len(references) and references.max() >= logits.shape[1]:
        raise ValueError(f"class index {references.max()} outside 0 to {logits.shape[1] - 1}")
    if np.isnan(logits).any():
        raise ValueError("a score is not a number")
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return np.where(references < 0, np.nan, (best == references[:, None]).any(axis=1))


def cross_entropy(logits: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Negative log-probability of the reference, in nats, [N]; NaN where the reference is negative."""
    z, references = np.asarray(logits, np.float64), np.asarray(references, np.int64)
    z = z - z.max(axis=1, keepdims=True)
    right = np.take_along_axis(z, np.maximum(references, 0)[:, None], axis=1)[:, 0]
    return np.where(references < 0, np.nan, np.log(np.exp(z).sum(axis=1)) - right)


def audiovisual(
    logits: np.ndarray, references: np.ndarray, conditions: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """Figures for every condition.

    Args:
        logits: [N, K].
        references: class indices [N], negative where unlabelled.
        conditions: [N] names such as "both", "audio", "video", "noise"; None: one condition "both".

    Returns:
        condition -> "n", "accuracy", "top5" (all in [0, 1]), "mean_recall" (UAR), "f1" (macro over the classes in
        references or predictions) and "loss" (mean cross-entropy). NaN for a condition without any label.
    """
    logits, references = np.asarray(logits, np.float64), np.asarray(references, np.int64)
    names = np.full(len(references), "both") if conditions is None else np.asarray(conditions)
    if len(names) != len(references):
        raise ValueError(f"{len(names)} conditions for {len(references)} references")
    return {str(name): _figures(logits[names == name], references[names == name]) for name in dict.fromkeys(names)}


def _figures(logits: np.ndarray, references: np.ndarray) -> dict[str, float]:
    known = references >= 0
    logits, references = logits[known], references[known]
    table = scores(confusion(logits, references, logits.shape[1]))
    n = len(references)
    return {
        "n": n,
        "accuracy": float(table["accuracy"]),
        "top5": float(top_k(logits, references, 5).mean()) if n else float("nan"),
        "mean_recall": float(table["balanced_accuracy"]),
        "f1": float(table["f1"]),
        "loss": float(cross_entropy(logits, references).mean()) if n else float("nan"),
    }
