"""Does uncertainty find the errors? Risk against coverage, and detection of errors (Geifman & El-Yaniv, NIPS 2017)."""

from __future__ import annotations

import numpy as np


def risk_coverage(uncertainty: np.ndarray, errors: np.ndarray) -> dict[str, np.ndarray | float]:
    """Error of the answers that are kept when the most uncertain ones are withheld.

    Answers of equal uncertainty are kept together, each adding their mean error: the order of the rows is irrelevant.

    Args:
        uncertainty: [N], larger is less sure; not NaN.
        errors: [N], 0 or 1, or any loss that is not negative; NaN is unlabelled and left out.

    Returns:
        "coverage" 1/N ... 1 and "risk" (mean error of that share) [N]; "aurc", the mean risk over all coverages;
        "excess_aurc", how much more than with a perfect order; "auroc", the probability that a wrong answer is more
        uncertain than a right one (a loss above 0 is wrong). Empty and NaN without any label; "auroc" is NaN where all
        answers are right or all wrong.

    Raises:
        ValueError: different lengths, or an uncertainty that is NaN.
    """
    u, e = np.asarray(uncertainty, np.float64).ravel(), np.asarray(errors, np.float64).ravel()
    if len(u) != len(e):
        raise ValueError(f"{len(u)} uncertainties for {len(e)} errors")
    u, e = u[~np.isnan(e)], e[~np.isnan(e)]
    if np.isnan(u).any():
        raise ValueError("an uncertainty is not a number")
    n = len(e)
    if not n:
        nothing = float("nan")
        empty = np.zeros(0)
        return {"coverage": empty, "risk": empty, "aurc": nothing, "excess_aurc": nothing, "auroc": nothing}
    risk = _risk(u, e)
    aurc = float(risk.mean())
    return {
        "coverage": np.arange(1, n + 1) / n,
        "risk": risk,
        "aurc": aurc,
        "excess_aurc": aurc - float(_risk(e, e).mean()),
        "auroc": auroc(u, e > 0),
    }


def _risk(uncertainty: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Mean error of the 1, 2, ... N surest answers."""
    _, level, counts = np.unique(uncertainty, return_inverse=True, return_counts=True)
    means = np.bincount(level, errors) / counts
    return np.repeat(means, counts).cumsum() / np.arange(1, len(errors) + 1)


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the receiver operating characteristic: P(score of a positive > of a negative), ties count half.

    Args:
        scores: [N]; positive: bool [N].

    Returns:
        A value in [0, 1]; NaN where one of both kinds is missing.
    """
    positive = np.asarray(positive, bool)
    _, level, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[level]  # mean rank among equals, from 1
    p = int(positive.sum())
    n = len(positive) - p
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n)) if p and n else float("nan")
