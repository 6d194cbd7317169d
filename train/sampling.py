"""Against imbalance: how often each sample is drawn, for single labels, several labels at once, and two real values.

Every rule gives a weight per sample; an epoch draws as many samples as the set has, with replacement, in proportion
(`sampler`). The rules are those of the FG-2020 system (Deng, Chen, Shi 2020); ML-ROS is by Charte et al.,
Neurocomputing 163 (2015).
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

from emotion.datasets.affwild2_2020 import THINNING, thin

__all__ = [
    "THINNING",
    "class_weights",
    "clone_weights",
    "grid_cells",
    "grid_weights",
    "imbalance",
    "ml_ros",
    "multilabel_weights",
    "sampler",
    "thin",
]


def imbalance(labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Imbalance ratio per label, IRLbl = most positives of any label / its own, and their mean, MeanIR.

    Args:
        labels: 0 or 1, [N, L], or counts of positives [L].

    Returns:
        IRLbl float64 [L], infinite for a label without positives, and MeanIR over the labels that have some
        (NaN without any).
    """
    counts = np.asarray(labels, np.float64)
    counts = counts.sum(axis=0) if counts.ndim == 2 else counts
    ratios = np.divide(counts.max(), counts, out=np.full(len(counts), np.inf), where=counts > 0)
    return ratios, float(np.mean(ratios[counts > 0])) if (counts > 0).any() else float("nan")


def ml_ros(
    labels: np.ndarray, seed: int = 0, threshold: float = 2.0, limit: float = 0.5, chunk: int = 32
) -> np.ndarray:
    """Multi-label random oversampling: how many clones of every sample to add.

    Labels with IRLbl above the threshold are visited in order; positives (and clones) of each are cloned in chunks
    until its IRLbl, clones counted, is no larger than the threshold, or until the limit of clones is reached.

    Args:
        labels: 0 or 1, [N, L]; other values (-1, NaN) count as 0.
        seed: of numpy's legacy generator, so that published draws can be repeated.
        threshold: largest IRLbl to accept; 0 stands for the set's MeanIR.
        limit: largest number of clones as a part of N.
        chunk: clones drawn at a time.

    Returns:
        int64 [N].
    """
    positive = np.asarray(labels) == 1
    counts = positive.sum(axis=0).astype(np.int64)
    ratios, mean = imbalance(counts)
    threshold = threshold or mean
    rng = np.random.RandomState(seed)
    clones = np.zeros(len(positive), np.int64)
    for label in np.flatnonzero((ratios > threshold) & (counts > 0)):
        pool = np.flatnonzero(positive[:, label])
        while True:
            drawn = rng.choice(pool, chunk)
            pool = np.concatenate([pool, drawn])
            np.add.at(clones, drawn, 1)
            counts += positive[drawn].sum(axis=0)
            if clones.sum() >= limit * len(positive):
                return clones
            if counts.max() <= threshold * counts[label]:
                break
    return clones


def clone_weights(clones: np.ndarray, original: bool = False) -> np.ndarray:
    """Weights that stand for a set with clones.

    Args:
        clones: [N] from `ml_ros`.
        original: max(1, clones) as the FG-2020 system did by accident, where the first clone has no effect;
            default 1 + clones.
    """
    return (np.maximum(1, clones) if original else 1 + clones).astype(np.float64)


def class_weights(classes: np.ndarray) -> np.ndarray:
    """1 / size of the sample's class, [N]; 0 for unlabelled samples (negative class)."""
    classes = np.asarray(classes).astype(np.int64)
    counts = np.bincount(classes[classes >= 0], minlength=1)
    return np.where(classes >= 0, 1 / np.maximum(counts[np.maximum(classes, 0)], 1), 0.0)


def grid_cells(values: np.ndarray, bins: int = 20) -> np.ndarray:
    """Cell of every pair of values in a grid over the data's own range, int64 [N]; -1 where a value is not finite.

    Args:
        values: valence and arousal, [N, 2].
        bins: cells per axis, equally wide from the axis's smallest to its largest value.
    """
    values = np.asarray(values)
    known = np.isfinite(values).all(axis=1)
    cells = np.full(len(values), -1, np.int64)
    if known.any():
        columns = []
        for axis in values[known].T:
            edges = np.linspace(axis.min(), axis.max(), bins + 1).astype(axis.dtype)
            columns.append(np.clip(np.digitize(axis, edges) - 1, 0, bins - 1))
        cells[known] = columns[0] * bins + columns[1]
    return cells


def grid_weights(values: np.ndarray, bins: int = 20) -> np.ndarray:
    """1 / number of samples in the same cell of `grid_cells`, [N]; 0 for unlabelled samples."""
    return class_weights(grid_cells(values, bins))


def sampler(weights: np.ndarray, seed: int = 0) -> WeightedRandomSampler:
    """Draws as many samples per epoch as there are weights, with replacement and in proportion to them."""
    generator = torch.Generator().manual_seed(seed)
    return WeightedRandomSampler(torch.as_tensor(weights, dtype=torch.float64), len(weights), generator=generator)


def multilabel_weights(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """ML-ROS as weights [N]; 0 for samples without any label."""
    known = np.isfinite(np.asarray(labels, np.float64)).any(axis=1)
    return clone_weights(ml_ros(labels, seed)) * known
