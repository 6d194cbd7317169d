"""Mean average precision over emotion categories, with annotated people's centres and with detected people.

Two definitions of average precision are in use for EMOTIC and must not be mixed: the plain sum over recall steps
(scikit-learn's, BENet's), and the data set's own script, which first makes precision non-increasing and is never lower.
"""

from __future__ import annotations

import numpy as np


def average_precision(labels: np.ndarray, scores: np.ndarray, interpolated: bool = False) -> np.ndarray:
    """Average precision per category, [K] in [0, 1]; 0 where a category has no positive.

    Args:
        labels: 0 or 1, [N, K].
        scores: [N, K]; equal scores count as one step.
        interpolated: make precision non-increasing with falling recall first (EMOTIC's own script).

    Raises:
        ValueError: different shapes.
    """
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"labels of shape {labels.shape} for scores of shape {scores.shape}")
    n, positives = len(labels), labels.sum(axis=0)
    if not n:
        return np.zeros(labels.shape[1])
    order = np.argsort(-scores, axis=0, kind="stable")
    labels, scores = np.take_along_axis(labels, order, axis=0), np.take_along_axis(scores, order, axis=0)
    right = labels.cumsum(axis=0)
    precision = right / np.arange(1, n + 1)[:, None]
    if not interpolated:
        precision = _at_end_of_tie(precision, scores)
    else:
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    return (precision * labels).sum(axis=0) / np.maximum(positives, 1)


def _at_end_of_tie(values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Every value replaced by that of the last row with the same score; rows are sorted by score."""
    n = len(scores)
    last = np.vstack([scores[1:] != scores[:-1], np.ones((1, scores.shape[1]), bool)])
    end = np.minimum.accumulate(np.where(last, np.arange(n)[:, None], n)[::-1], axis=0)[::-1]
    return np.take_along_axis(values, end, axis=0)


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
