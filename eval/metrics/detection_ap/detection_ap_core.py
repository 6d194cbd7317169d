"""Average precision and recall of boxes of one class, as COCO defines them (Lin et al., ECCV 2014).

All IoU thresholds, size ranges and pictures are matched at once; only the detections of one picture are taken one
after the other, as greedy matching demands. In mode "coco" the figures equal pycocotools' `COCOeval`.

BENet's original differs: a surplus detection outside a size range counts as wrong in that range (mode "corrected"),
and by two faults it reads boxes x0 y0 x1 y1 as x y width height and counts a detection matched with the very first
annotation as wrong (mode "published").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
SIZES = {"all": (0, 1e10), "S": (0, 32**2), "M": (32**2, 96**2), "L": (96**2, 1e10)}
LIMITS = (1, 10, 100)
MODES = ("coco", "corrected", "published")

Pictures = Sequence[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Matches:
    """The greedy matching of all pictures: D detections, G annotations, A size ranges, T thresholds.

    Attributes:
        scores, rank, picture: [D], a detection's score, its position within its picture by score, and that picture.
        true, counted: [D, A, T], matched with an annotation; counts at all (not ignored).
        annotations: [P, A], how many annotations count in each of P pictures.
        detection_of: [G, T], the detection that an annotation got, counted through all pictures as given, or -1.
    """

    scores: np.ndarray
    rank: np.ndarray
    picture: np.ndarray
    true: np.ndarray
    counted: np.ndarray
    annotations: np.ndarray
    detection_of: np.ndarray


def detection_ap(predictions: Pictures, references: Pictures, mode: str = "coco") -> dict[str, float]:
    """COCO's twelve figures, in [0, 1]; -1 where no annotation counts.

    Args:
        predictions: per picture "boxes" [D, 4] (x0 y0 x1 y1) and "scores" [D].
        references: per picture "boxes" [G, 4] and, where wanted, "area" [G] (default: the box's), "crowd" [G]
            (regions: detections inside them are ignored, however many) and "ignore" [G] (neither needed nor wrong).
        mode: one of `MODES`.

    Raises:
        ValueError: different numbers of pictures, an unknown mode, or a detection that is not a number.
    """
    return figures(match(predictions, references, mode))


def match(predictions: Pictures, references: Pictures, mode: str = "coco") -> Matches:
    """Match the 100 strongest detections of every picture; arguments as of `detection_ap`."""
    if len(predictions) != len(references):
        raise ValueError(f"predictions for {len(predictions)} pictures, references for {len(references)}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    found, truth = _detections(predictions, mode), _annotations(references, mode)
    low, high = np.array(list(SIZES.values())).T
    excluded = (truth["area"][:, None] < low) | (truth["area"][:, None] > high) | truth["ignore"][:, None]
    owner = _greedy(found, truth, excluded)
    matched = owner >= 0
    of_excluded = matched & excluded[owner, np.arange(len(SIZES))[:, None]] if len(excluded) else matched
    uncounted = of_excluded
    if mode == "coco":
        outside = (found["area"][:, None] < low) | (found["area"][:, None] > high)
        uncounted = of_excluded | (~matched & outside[:, :, None])
    detection_of = np.full((len(excluded), len(THRESHOLDS)), -1)
    d, t = np.nonzero(matched[:, 0])
    detection_of[owner[d, 0, t], t] = found["index"][d]
    true = matched & (owner != 0) if mode == "published" else matched
    annotations = np.zeros((len(references), len(SIZES)), int)
    np.add.at(annotations, truth["picture"], ~excluded)
    return Matches(found["score"], found["rank"], found["picture"], true, ~uncounted, annotations, detection_of)


def _boxes(pictures: Pictures, mode: str) -> dict[str, np.ndarray]:
    """All boxes in one array, with the picture each belongs to and its area."""
    parts = [np.asarray(p["boxes"], np.float64).reshape(-1, 4) for p in pictures]
    boxes = np.concatenate([np.zeros((0, 4)), *parts])
    if mode == "published":
        boxes[:, 2:] += boxes[:, :2]
    side = boxes[:, 2:] - boxes[:, :2]
    counts = np.array([len(p) for p in parts], int)
    return {"box": boxes, "area": side[:, 0] * side[:, 1], "picture": np.arange(len(parts)).repeat(counts)}


def _detections(pictures: Pictures, mode: str) -> dict[str, np.ndarray]:
    found = _boxes(pictures, mode)
    found["score"] = np.concatenate([np.zeros(0), *(np.asarray(p["scores"], np.float64).ravel() for p in pictures)])
    if np.isnan(found["score"]).any() or np.isnan(found["box"]).any():
        raise ValueError("a detection's box or score is not a number")
    found["index"] = np.arange(len(found["score"]))
    order = np.lexsort((-found["score"], found["picture"]))  # stable: equal scores keep their order
    found = {k: v[order] for k, v in found.items()}
    found["rank"] = np.arange(len(order)) - np.searchsorted(found["picture"], found["picture"])
    return {k: v[found["rank"] < LIMITS[-1]] for k, v in found.items()}


def _annotations(pictures: Pictures, mode: str) -> dict[str, np.ndarray]:
    truth = _boxes(pictures, mode)
    given = {"crowd": False, "ignore": False, "area": truth["area"]}
    ends = np.cumsum([len(np.reshape(p["boxes"], (-1, 4))) for p in pictures])
    for name, default in given.items():
        column = np.array(np.broadcast_to(default, len(truth["box"])))
        for picture, end in zip(pictures, ends):
            if name in picture and mode == "coco":
                values = np.ravel(picture[name])
                column[end - len(values) : end] = values
        truth[name] = column
    truth["ignore"] = truth["ignore"] | truth["crowd"]
    return truth


def _greedy(found: dict[str, np.ndarray], truth: dict[str, np.ndarray], excluded: np.ndarray) -> np.ndarray:
    """Index of the annotation that every detection gets, or -1: [D, A, T].

    The strongest detection of each picture chooses first. It takes the free annotation with the highest IoU (the
    later one on ties); an excluded one only where no other reaches the threshold.
    """
    shape = (len(SIZES), len(THRESHOLDS))
    owner = np.full((len(found["score"]), *shape), -1)
    taken = np.zeros((len(excluded), *shape), bool)
    picture = truth["picture"]
    first, last = (np.searchsorted(picture, found["picture"], side) for side in ("left", "right"))
    width = 2 ** np.ceil(np.log2(np.maximum(last - first, 1))).astype(int)  # pictures of similar size go together
    for rank in range(found["rank"].max(initial=-1) + 1):
        for w in np.unique(width[(found["rank"] == rank) & (last > first)]):
            d = np.flatnonzero((found["rank"] == rank) & (last > first) & (width == w))
            g = first[d, None] + np.arange(w)
            real = g < last[d, None]
            g = np.minimum(g, last[d, None] - 1)
            _choose(d, g, real, found, truth, excluded, taken, owner)
    return owner


def _choose(d, g, real, found, truth, excluded, taken, owner) -> None:
    """Let detections `d` [B] of B pictures choose among annotations `g` [B, W]; fills `owner` and `taken`."""
    iou = _iou(found["box"][d, None], truth["box"][g], truth["crowd"][g])
    free = ~taken[g] | truth["crowd"][g][..., None, None]
    enough = iou[..., None, None] >= np.minimum(THRESHOLDS, 1 - 1e-10)
    possible = free & enough & real[..., None, None]  # [B, W, A, T]
    preferred = possible & ~excluded[g][..., None]
    possible = np.where(preferred.any(axis=1, keepdims=True), preferred, possible)
    value = np.where(possible, iou[..., None, None], -1)[:, ::-1]
    best = g.shape[1] - 1 - value.argmax(axis=1)  # [B, A, T]; the last of equal ones
    row, a, t = np.nonzero(possible.any(axis=1))
    chosen = g[row, best[row, a, t]]
    owner[d[row], a, t] = chosen
    taken[chosen, a, t] = True


def _iou(box: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union [B, W]; for a crowd region over the detection's own area."""
    side = np.minimum(box[..., 2:], others[..., 2:]) - np.maximum(box[..., :2], others[..., :2])
    inside = side.clip(0).prod(axis=-1)
    own, other = ((b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) for b in (box, others))
    union = np.where(crowd, own, own + other - inside)
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def figures(matches: Matches) -> dict[str, float]:
    """COCO's twelve figures from a matching."""
    precision = {size: average_precision(matches, a) for a, size in enumerate(SIZES)}
    everything = precision["all"]
    out = {"AP": everything.mean(), "AP .5": everything[0], "AP .75": everything[5]}
    out |= {f"AP ({size})": precision[size].mean() for size in ("S", "M", "L")}
    out |= {f"AR-{limit}": recall(matches, 0, limit).mean() for limit in LIMITS}
    out |= {f"AR ({size})": recall(matches, a, LIMITS[-1]).mean() for a, size in enumerate(SIZES) if a}
    return {k: float(v) for k, v in out.items()}


def recall(matches: Matches, size: int, limit: int) -> np.ndarray:
    """Share of annotations found by the `limit` strongest detections of every picture, [T]; -1 without any."""
    wanted = matches.annotations[:, size].sum()
    if not wanted:
        return np.full(len(THRESHOLDS), -1.0)
    right = matches.true[:, size] & matches.counted[:, size] & (matches.rank < limit)[:, None]
    return right.sum(axis=0) / wanted


def average_precision(matches: Matches, size: int = 0, weights: np.ndarray | None = None) -> np.ndarray:
    """Precision, made non-increasing, averaged over 101 recalls, [T]; -1 without any annotation.

    Args:
        matches: of P pictures.
        size: index of a range of `SIZES`.
        weights: [P], how often every picture counts (a bootstrap resample); default once.
    """
    weights = np.ones(len(matches.annotations), int) if weights is None else weights
    wanted = weights @ matches.annotations[:, size]
    if not wanted:
        return np.full(len(THRESHOLDS), -1.0)
    order = np.argsort(-matches.scores, kind="stable")
    often = (matches.counted[:, size] * weights[matches.picture][:, None])[order]
    true = matches.true[:, size][order]
    right, wrong = (often * true).cumsum(axis=0), (often * ~true).cumsum(axis=0)
    precision = right / (right + wrong + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    precision = np.vstack([precision, np.zeros(len(THRESHOLDS))])
    reached = right / wanted
    return np.array([precision[np.searchsorted(reached[:, t], RECALLS), t].mean() for t in range(len(THRESHOLDS))])
