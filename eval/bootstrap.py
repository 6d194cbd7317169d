"""Bootstrap intervals and paired tests of figures that are functions of additive terms.

Frames of one video are not independent, so whole groups are drawn where there are any. A figure is computed from sums
of per-sample terms (counts of a confusion matrix, moments): a replicate then costs one matrix product, not a pass
over the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

REPLICATES = 1000
LEVEL = 0.95
UNKNOWN = (float("nan"), float("nan"))  # limits of a figure that resamples say nothing about
CELLS = 10_000_000  # numbers of the weight table held at a time

Figures = Callable[[np.ndarray], dict[str, np.ndarray]]  # sums [..., T] -> figures, each [...]


def by_group(terms: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Terms [N, T] added up within groups, [G, T]; unchanged without groups."""
    if groups is None:
        return terms
    _, where = np.unique(groups, return_inverse=True)
    out = np.zeros((where.max(initial=-1) + 1, terms.shape[1]))
    np.add.at(out, where, terms)
    return out


def replicates(units: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """Sums [r, T] of `count` resamples of the units [U, T], some at a time; equal units are drawn together."""
    distinct, often = np.unique(units, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // max(len(distinct), 1))
    for first in range(0, count, step):
        size = min(step, count - first)
        yield rng.multinomial(len(units), often / len(units), size=size) @ distinct


def intervals(
    terms: np.ndarray, figures: Figures, groups: np.ndarray | None = None, count: int = REPLICATES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile interval (95 %) of every scalar figure.

    Args:
        terms: [N, T], N >= 1.
        figures: sums [..., T] -> name -> [...]; entries with further axes are left out.
        groups: [N] video or subject.
        count, seed: of the resampling.

    Returns:
        name -> lower and upper limit; NaN where a figure is not a number in most resamples, and for a single unit,
        of which every resample is the same.
    """
    units = by_group(terms, groups)
    parts = [figures(sums) for sums in replicates(units, count, seed)]
    out = {}
    for name in parts[0]:
        values = np.concatenate([p[name] for p in parts])
        if values.ndim == 1:
            out[name] = limits(values, len(units)) if np.isfinite(values).mean() > 0.5 else UNKNOWN
    return out


def limits(values: ArrayLike, units: int) -> tuple[float, float]:
    """Percentile limits of figures of resamples of so many units; those that are not numbers are left out.

    NaN below two units: their resamples are all the same and say nothing.
    """
    if units < 2:
        return UNKNOWN
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def multiplicities(n: int, count: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """How often each of n units is drawn in `count` resamples, [count, n]; for figures that are not additive."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=count)


def paired(
    a: np.ndarray, b: np.ndarray, figures: Figures, groups: np.ndarray | None = None, count: int = 10_000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Difference of two models on the same samples.

    The interval is from a paired bootstrap. The p-value is from a permutation test: under the null hypothesis it makes
    no difference which model a unit's terms come from, so they are exchanged at random.

    Args:
        a, b: terms of both models for the same samples, [N, T] each.
        figures, groups, count, seed: as for `intervals`.

    Returns:
        figure -> "a", "b", "difference" (a minus b), "low", "high" (NaN for a single unit), "p" (two-sided).
    """
    a, b = by_group(a, groups), by_group(b, groups)
    t = a.shape[1]
    drawn = [(figures(s[:, :t]), figures(s[:, t:])) for s in replicates(np.hstack([a, b]), count, seed)]
    exchanged = [
        (figures(b.sum(axis=0) + swapped), figures(a.sum(axis=0) - swapped))
        for swapped in _swaps(a - b, count, seed + 1)
    ]
    of_a, of_b = figures(a.sum(axis=0)), figures(b.sum(axis=0))
    names = [name for name, value in of_a.items() if not np.ndim(value)]
    return {name: verdict(name, (of_a, of_b), drawn, exchanged, len(a)) for name in names}


Pair = tuple[dict[str, Any], dict[str, Any]]  # figures of both models, of one resample or of several


def verdict(name: str, whole: Pair, drawn: list[Pair], exchanged: list[Pair], units: int) -> dict[str, float]:
    """What resamples say about the difference of one figure; see `paired`.

    Args:
        name: of the figure.
        whole: both models on all units.
        drawn: on bootstrap resamples.
        exchanged: with units exchanged between them at random.
        units: how many there are.
    """
    a, b = float(whole[0][name]), float(whole[1][name])
    low, high = limits(_differences(drawn, name), units)
    null = np.abs(_differences(exchanged, name))
    p = (1 + (null >= abs(a - b) - 1e-12).sum()) / (1 + len(null))
    return {"a": a, "b": b, "difference": a - b, "low": low, "high": high, "p": float(p)}


def _swaps(gain: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """Sums of `gain` [U, T] over random halves of the units, [r, T]."""
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // max(len(gain), 1))
    for first in range(0, count, step):
        yield rng.integers(0, 2, (min(step, count - first), len(gain))) @ gain


def _differences(pairs: list[Pair], name: str) -> np.ndarray:
    return np.concatenate([np.atleast_1d(x[name] - y[name]) for x, y in pairs])


def holm(p: list[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, np.float64)[order] * np.arange(len(p), 0, -1)
    out = np.empty(len(p))
    out[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return out.tolist()
