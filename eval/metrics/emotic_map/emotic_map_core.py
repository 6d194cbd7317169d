"""Mean average precision over emotion categories, with annotated people's centres and with detected people.

Two definitions of average precision are in use for EMOTIC and must not be mixed: the plain sum over recall steps
(scikit-learn's, BENet's), and the data set's own script, which first makes precision non-increasing and is never lower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def average_precision(
    labels: np.ndarray, scores: np.ndarray, interpolated: bool = False, weights: np.ndarray | None = None
) -> np.ndarray:
    """Average precision per category, [K] in [0, 1]; 0 where a category has no positive.

    Args:
        labels: 0 or 1, [N, K].
        scores: [N, K]; equal scores count as one step.
        interpolated: make precision non-increasing with falling recall first (EMOTIC's own script).
        weights: [N], how often every person counts (a bootstrap resample); default once.

    Raises:
        ValueError: different shapes, or a score that is not a number.
    """
    return of_ranking(rank(labels, scores), interpolated, weights)


@dataclass(frozen=True)
class Ranking:
    """N people sorted by falling score, category by category: all that average precision depends on.

    Attributes:
        labels: bool [N, K], sorted.
        order: [N, K], which person stands where.
        tie_end: [N, K], the last place with the same score.
    """

    labels: np.ndarray
    order: np.ndarray
    tie_end: np.ndarray


def rank(labels: np.ndarray, scores: np.ndarray) -> Ranking:
    """Sort once, to measure many resamples; arguments as of `average_precision`."""
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"labels of shape {labels.shape} for scores of shape {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    n = len(labels)
    order = np.argsort(-scores, axis=0, kind="stable")
    scores = np.take_along_axis(scores, order, axis=0)
    last = np.vstack([scores[1:] != scores[:-1], np.ones((min(n, 1), scores.shape[1]), bool)])
    tie_end = np.minimum.accumulate(np.where(last, np.arange(n)[:, None], n)[::-1], axis=0)[::-1]
    return Ranking(np.take_along_axis(labels, order, axis=0) > 0, order, tie_end)


def of_ranking(ranking: Ranking, interpolated: bool = False, weights: np.ndarray | None = None) -> np.ndarray:
    """`average_precision` of people sorted already."""
    n, k = ranking.labels.shape
    if not n:
        return np.zeros(k)
    often = np.ones((n, 1)) if weights is None else np.asarray(weights, np.float64)[ranking.order]
    positive = ranking.labels * often
    right, seen = positive.cumsum(axis=0), np.broadcast_to(often, (n, k)).cumsum(axis=0)
    precision = np.divide(right, seen, out=np.zeros((n, k)), where=seen > 0)
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    else:
        precision = np.take_along_axis(precision, ranking.tie_end, axis=0)
    wanted = right[-1]
    return np.divide((precision * positive).sum(axis=0), wanted, out=np.zeros(k), where=wanted > 0)


def emotic_map(labels: np.ndarray, scores: np.ndarray) -> dict[str, float | np.ndarray]:
    """ "AP" [K] per category, "mAP" their mean, "AP interpolated" and "mAP interpolated" by the other definition."""
    plain, other = average_precision(labels, scores), average_precision(labels, scores, interpolated=True)
    return {"mAP": plain.mean(), "AP": plain, "mAP interpolated": other.mean(), "AP interpolated": other}


def mean_absolute_error(values: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Per axis, [C]; rows [N, C] with a missing value (NaN) are left out; 0 without any row."""
    known = np.isfinite(values).all(axis=1)
    return np.abs(values - predictions)[known].mean(axis=0) if known.any() else np.zeros(values.shape[1])


def with_detections(
    labels: np.ndarray, scores: np.ndarray, detected: np.ndarray, detection_of: np.ndarray, measure=average_precision
) -> dict[str, np.ndarray]:
    """How well people's emotions are known when people must be found first.

    Args:
        labels: of N annotated people, [N, K].
        scores: read at the annotated centres, [N, K].
        detected: of all detections, [D, K].
        detection_of: for every person and IoU threshold the detection matched with him or her, or -1, [N, T].
        measure: (labels, scores) -> [K].

    Returns:
        Per threshold, each [T, K]: "all_dets" (people who were not found stay, with scores 0), "only_det" (they are
        left out) and "mixed" (they keep the scores read at their centres).
    """
    rows: dict[str, list[np.ndarray]] = {"all_dets": [], "only_det": [], "mixed": []}
    for match in detection_of.T:
        found = match >= 0
        of_detection = np.zeros_like(scores)
        of_detection[found] = detected[match[found]]
        rows["all_dets"].append(measure(labels, of_detection))
        rows["only_det"].append(measure(labels[found], of_detection[found]))
        rows["mixed"].append(measure(labels, np.where(found[:, None], of_detection, scores)))
    return {k: np.array(v) for k, v in rows.items()}
