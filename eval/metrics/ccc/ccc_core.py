"""Concordance correlation coefficient (Lin, Biometrics 1989): agreement in value, not in shape alone."""

from __future__ import annotations

import numpy as np


def ccc(predictions: np.ndarray, references: np.ndarray) -> float:
    """2 cov / (var + var + difference of means squared), population statistics, over all values at once.

    Args:
        predictions, references: N numbers each, of any shape; pairs with a reference that is not finite (unlabelled)
            are left out.

    Returns:
        A value in [-1, 1]; 0 where either side is constant (the formula has no value there), NaN without any pair.

    Raises:
        ValueError: different numbers of values.
    """
    references = np.asarray(references, np.float64).ravel()
    known = references[np.isfinite(references)]
    origin = known.mean() if len(known) else 0.0
    return float(ccc_from_sums(sums(predictions, references, origin)))


def sums(predictions: np.ndarray, references: np.ndarray, origin: float = 0.0) -> np.ndarray:
    """What `ccc_from_sums` needs, additive over videos: n, sum x, sum y, sum xx, sum yy, sum xy.

    Args:
        predictions, references: as for `ccc`.
        origin: subtracted from both (the coefficient does not change); near the mean it saves precision.
    """
    x, y = (np.asarray(v, np.float64).ravel() for v in (predictions, references))
    if len(x) != len(y):
        raise ValueError(f"{len(x)} predictions for {len(y)} references")
    known = np.isfinite(y)
    x, y = x[known] - origin, y[known] - origin
    return np.array([len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y])


def ccc_from_sums(totals: np.ndarray) -> np.ndarray:
    """The coefficient of every row of `sums` [..., 6]."""
    n, x, y, xx, yy, xy = np.moveaxis(np.asarray(totals, np.float64), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y, xx, yy, xy = (v / n for v in (x, y, xx, yy, xy))
        var_x, var_y = xx - x * x, yy - y * y
        value = 2 * (xy - x * y) / (var_x + var_y + (x - y) ** 2)
    constant = (var_x <= 1e-13 * xx) | (var_y <= 1e-13 * yy)
    return np.where(n > 0, np.where(constant, 0.0, value), np.nan)
