"""What an ensemble of teachers says about training pictures, and how its classes go together."""

from __future__ import annotations

import numpy as np


def affinity(probabilities: np.ndarray) -> np.ndarray:
    """Cosine similarity of every pair of classes over all pictures, with a zero diagonal.

    Args:
        probabilities: [N, K], columns of any tasks side by side.

    Returns:
        [K, K], symmetric, in [0, 1].
    """
    p = np.asarray(probabilities, np.float64)
    lengths = np.maximum(np.linalg.norm(p, axis=0), np.finfo(np.float64).tiny)
    matrix = (p.T @ p) / lengths / lengths[:, None]
    np.fill_diagonal(matrix, 0.0)
    return matrix
