"""Concordance correlation coefficient (Lin, Biometrics 1989): agreement in value, not in shape alone."""

from __future__ import annotations

import numpy as np


def ccc(predictions: np.ndarray, references: np.ndarray, ddof: int = 0) -> float:
    """2 cov / (var + var + difference of means squared), over all values at once.

    Args:
        predictions, references: N numbers each, of any shape; pairs with a reference that is not finite (unlabelled)
            are left out.
        ddof: variances and covariance are divided by N - ddof: 0 (Lin's, the ABAW challenges') or 1.

    Returns:
        A value in [-1, 1]; 0 where either side is constant (the formula has no value there), NaN without any pair or
        where a prediction is NaN.

    Raises:
        ValueError: different numbers of values.
    """
    references = np.asarray(references, np.float64).ravel()
    known = references[np.isfinite(references)]
    origin = known.mean() if len(known) else 0.0
    return float(ccc_from_sums(sums(predictions, references, origin), ddof))


def ccc_of_groups(predictions: np.ndarray, references: np.ndarray, groups: np.ndarray, ddof: int = 0) -> float:
    """Mean of the coefficients of single groups (videos); groups without any pair are left out, NaN without any group.

    Args:
        predictions, references, ddof: as for `ccc`, [N].
        groups: [N], the video of every pair.
    """
    predictions, references, groups = (np.asarray(v).ravel() for v in (predictions, references, groups))
    values = [ccc(predictions[groups == g], references[groups == g], ddof) for g in np.unique(groups)]
    values = [v for v in values if not np.isnan(v)]
    return float(np.mean(values)) if values else float("nan")


def ccc_of_batches(predictions: np.ndarray, references: np.ndarray, size: int, ddof: int = 0) -> float:
    """Mean of the coefficients of consecutive batches of `size` pairs, the last one perhaps smaller.

    What training loops report; it depends on the order and is no figure to publish.
    """
    return ccc_of_groups(predictions, references, np.arange(np.size(references)) // size, ddof)


def sums(predictions: np.ndarray, references: np.ndarray, origin: float = 0.0) -> np.ndarray:
    """What `ccc_from_sums` needs, additive over videos: n, sum x, sum y, sum xx, sum yy, sum xy.

    Args:
        predictions, references: as for `ccc`.
        origin: subtracted from both (the coefficient does not change); near the mean it saves precision.
    """
    return terms(predictions, references, origin).sum(axis=0)


def terms(predictions: np.ndarray, references: np.ndarray, origin: float = 0.0) -> np.ndarray:
    """What every pair adds to `sums`, [N, 6]; zeros for an unlabelled one."""
    x, y = (np.asarray(v, np.float64).ravel() for v in (predictions, references))
    if len(x) != len(y):
        raise ValueError(f"{len(x)} predictions for {len(y)} references")
    known = np.isfinite(y)
    x, y = np.where(known, x - origin, 0), np.where(known, y - origin, 0)
    return np.stack([known.astype(np.float64), x, y, x * x, y * y, x * y], axis=1)


def ccc_from_sums(totals: np.ndarray, ddof: int = 0) -> np.ndarray:
    """The coefficient of every row of `sums` [..., 6]."""
    n, x, y, xx, yy, xy = np.moveaxis(np.asarray(totals, np.float64), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y, xx, yy, xy = (v / n for v in (x, y, xx, yy, xy))
        share = n / (n - ddof)
        var_x, var_y, covariance = (share * v for v in (xx - x * x, yy - y * y, xy - x * y))
        value = 2 * covariance / (var_x + var_y + (x - y) ** 2)
    constant = (xx - x * x <= 1e-13 * xx) | (yy - y * y <= 1e-13 * yy)
    return np.where(n > 0, np.where(constant, 0.0, value), np.nan)
