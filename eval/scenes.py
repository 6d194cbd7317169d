"""Scenes: figures of detected people and their emotions, with intervals, and paired tests of two models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emotion.datasets.scenes import Scene, Scenes
from emotion.errors import UserError
from emotion.labels import VAD
from eval import bootstrap
from eval.metrics.detection_ap import detection_ap_core as detection
from eval.metrics.emotic_map import emotic_map_core as emotic_map
from eval.results import DataInfo, Figure, TaskResult

CORRECTED = "emotions at annotated boxes, people matched by IoU"
PUBLISHED = "BENet's published mode (wrong IoU)"
Found = dict[str, np.ndarray]  # of one picture: "boxes" [D, 4], "scores" [D], perhaps "emotions" [D, K]; of its people
# "people" [P, K] and "vad" [P, 3], read at their annotated boxes, "detected vad" [D, 3]; of BENet's other heads, with
# emotions and VAD side by side: "pc" and "fusion" [P, K + 3], "context" [1, K + 3] or [0, K + 3] where nobody is


def info(data: Scenes, published: bool = False) -> DataInfo:
    """What was asked."""
    protocol = PUBLISHED if published else CORRECTED
    return DataInfo(data.dataset, data.split, protocol, data.fingerprint, len(data))


@dataclass(frozen=True)
class Measured:
    """One task's figures, and how they follow from how often every picture counts.

    Attributes:
        result: figures of all pictures once, without intervals.
        figures: weights [pictures] -> name -> value, for those that have intervals and can be compared.
    """

    result: TaskResult
    figures: Callable[[np.ndarray], dict[str, float]]


def score(
    found: list[Found], data: Scenes, published: bool = False, draws: int = bootstrap.REPLICATES
) -> dict[str, TaskResult]:
    """Figures of detection, and of emotions where both sides have them; see `measure`.

    Args:
        found, data, published: as of `measure`.
        draws: resamples of pictures for intervals.
    """
    weights = bootstrap.multiplicities(len(data), draws)
    out = {}
    for task, measured in measure(found, data, published).items():
        drawn = [measured.figures(row) for row in weights]
        metrics = dict(measured.result.metrics)
        for name in drawn[0]:
            low, high = bootstrap.limits([d[name] for d in drawn], len(data))
            metrics[name] = metrics[name] if np.isnan(low) else replace(metrics[name], low=low, high=high)
        out[task] = replace(measured.result, metrics=metrics)
    return out


def measure(found: list[Found], data: Scenes, published: bool = False) -> dict[str, Measured]:
    """Detection, and emotions where both sides have them.

    Args:
        found: one per scene.
        data: the scenes.
        published: match people as BENet's original does, faults included, to compare with its published figures only.

    Raises:
        UserError: there is nothing to score.
    """
    out, matches = {}, None
    if any("boxes" in f for f in found):
        nobody = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0)}
        truth = [{"boxes": s.boxes, "crowd": s.crowd, "ignore": _short(s)} for s in data.scenes]
        matches = detection.match([nobody | f for f in found], truth, "published" if published else "coco")
        if matches.annotations[:, 0].any():
            out["detection"] = _detection(matches, data)
    if data.vocabulary and any({"people", "emotions"} & f.keys() for f in found):
        out["emotions"] = _emotions(found, data, matches)
    if not out:
        raise UserError(f"nothing to score: neither detections nor emotions of {data.dataset}'s people")
    return out


def paired(
    a: list[Found], b: list[Found], data: Scenes, draws: int = bootstrap.REPLICATES
) -> dict[str, dict[str, dict[str, float]]]:
    """Differences of two models on the same scenes: task -> figure -> as `bootstrap.paired` gives them.

    Both are measured as one set of twice as many scenes, in which one model's or the other's scenes count.

    Raises:
        UserError: the models have nothing in common that could be compared.
    """
    a, b = _in_common(a, b)
    n, weights = len(data), bootstrap.multiplicities(len(data), draws)
    swaps = np.random.default_rng(1).integers(0, 2, (draws, n))
    both = measure([*a, *b], data.subset(np.tile(np.arange(n), 2)))
    out = {}
    for task, measured in both.items():

        def of(left: np.ndarray, right: np.ndarray, figures: Any = measured.figures) -> dict[str, float]:
            return figures(np.concatenate([left, right]))

        none, once = np.zeros(n, int), np.ones(n, int)
        whole = of(once, none), of(none, once)
        drawn = [(of(w, none), of(none, w)) for w in weights]
        exchanged = [(of(s, 1 - s), of(1 - s, s)) for s in swaps]
        out[task] = {name: bootstrap.verdict(name, whole, drawn, exchanged, n) for name in whole[0]}
    return out


def _in_common(a: list[Found], b: list[Found]) -> tuple[list[Found], list[Found]]:
    """What both models say: boxes, emotions of detected people, emotions or VAD of annotated people."""
    said_a, said_b = ({key for one in found for key in one} for found in (a, b))
    if not said_a & said_b:
        said = (", ".join(sorted(said)) or "nothing" for said in (said_a, said_b))
        raise UserError("nothing to compare: A gives {}, B gives {}".format(*said))
    a, b = ([{key: one[key] for key in one.keys() & said_a & said_b} for one in found] for found in (a, b))
    return a, b


def differences(a: list[Found], b: list[Found]) -> np.ndarray:
    """By how much what two models say of every scene differs, float [scenes]: emotions of its annotated people where
    both were asked, and the number of people found."""
    out = np.zeros(len(a))
    for i, (x, y) in enumerate(zip(a, b)):
        if "people" in x and "people" in y:
            out[i] += np.abs(x["people"] - y["people"]).sum()
        if "boxes" in x and "boxes" in y:
            out[i] += abs(len(x["boxes"]) - len(y["boxes"]))
    return out


def _detection(matches: detection.Matches, data: Scenes) -> Measured:
    def figures(weights: np.ndarray | None) -> dict[str, float]:
        ap = detection.average_precision(matches, weights=weights)
        return {"AP": float(ap.mean()), "AP .5": float(ap[0]), "AP .75": float(ap[5])}

    people = sum(int((~s.crowd).sum()) for s in data.scenes)
    small = sum(int(_short(s).sum()) for s in data.scenes)
    notes = (f"{small} people below the size from which annotations are complete count neither way",) if small else ()
    values = {k: Figure(v) for k, v in detection.figures(matches).items() if v >= 0}
    return Measured(TaskResult(("person",), people, values, notes=notes), figures)


def _short(scene: Scene) -> np.ndarray:
    return scene.boxes[:, 3] - scene.boxes[:, 1] < scene.complete_from


def _emotions(found: list[Found], data: Scenes, matches: detection.Matches | None) -> Measured:
    """Average precision per category: of people read at annotated boxes, and of people who had to be found."""
    labels, vad = (np.concatenate(parts) for parts in zip(*map(data.targets, data.scenes)))
    known = np.isfinite(labels).all(axis=1)
    picture = np.repeat(np.arange(len(data)), [len(s) for s in data.scenes])
    annotated = detected = errors = None
    if all("people" in f for f, s in zip(found, data.scenes) if len(s)):
        scores = np.concatenate([f["people"] for f in found if "people" in f])
        annotated = emotic_map.rank(labels[known], scores[known])
    if matches is not None and any("emotions" in f for f in found):
        detected = _of_detected(found, labels, known, matches)
    heads = _of_heads(found, labels, picture)
    if any("vad" in f for f in found):
        errors = np.abs(np.concatenate([f["vad"] for f in found if "vad" in f]) - vad)
        errors = errors if np.isfinite(errors).all(axis=1).any() else None  # the data set has no VAD

    def figures(weights: np.ndarray) -> dict[str, float]:
        often = weights[picture]
        out: dict[str, float] = {}
        if annotated is not None:
            for name, interpolated in (("mAP", False), ("mAP interpolated", True)):
                out[name] = emotic_map.of_ranking(annotated, interpolated, often[known]).mean()
        if detected is not None:
            each = emotic_map.of_ranking(detected, weights=often[known]).reshape(-1, labels.shape[1])
            out |= {"mAP detected": each.mean(), "mAP detected .5": each[0].mean()}
        for name, (ranking, where) in heads.items():
            out[f"mAP {name}"] = emotic_map.of_ranking(ranking, weights=weights[where]).mean()
        if errors is not None:
            there = np.isfinite(errors).all(axis=1)
            axes = often[there] @ errors[there] / max(often[there].sum(), 1)
            out |= {"VAD error": axes.mean()} | {f"VAD error {axis}": v for axis, v in zip(VAD, axes)}
        return {name: float(value) for name, value in out.items()}

    per_label = {}
    if annotated is not None:
        each = (emotic_map.of_ranking(annotated, interpolated).tolist() for interpolated in (False, True))
        per_label = {name: dict(zip(data.vocabulary, ap)) for name, ap in zip(("AP", "AP interpolated"), each)}
    values = {name: Figure(value) for name, value in figures(np.ones(len(data), int)).items()}
    return Measured(TaskResult(data.vocabulary, int(known.sum()), values, per_label), figures)


def _of_detected(
    found: list[Found], labels: np.ndarray, known: np.ndarray, matches: detection.Matches
) -> emotic_map.Ranking:
    """Every person by what was said of the detection he or she got; 0 where nobody was found.

    Columns: all categories at the first IoU threshold, then at the next.
    """
    emotions = np.concatenate([f["emotions"] for f in found if "emotions" in f])
    rows = np.vstack([emotions, np.zeros(labels.shape[1])])[matches.detection_of[known]]  # [P, T, K]
    wide = rows.reshape(len(rows), -1)
    return emotic_map.rank(np.tile(labels[known], rows.shape[1]), wide)


def _of_heads(
    found: list[Found], labels: np.ndarray, picture: np.ndarray
) -> dict[str, tuple[emotic_map.Ranking, np.ndarray]]:
    """BENet's other heads and means of heads, as far as they were asked: name -> ranking, and the picture of every row.

    "context" is judged once per picture, by everything that anybody there feels.
    """
    from eval import emotic

    keys = {"bu": "people"} | {head: head for head in emotic.VECTORS}
    scores = {h: np.concatenate([f[key] for f in found]) for h, key in keys.items() if all(key in f for f in found)}
    if not len(picture) or scores.keys() <= {"bu"}:
        return {}
    scores = {head: rows[:, : labels.shape[1]] for head, rows in scores.items()}
    first = np.flatnonzero(np.diff(picture, prepend=-1))  # person of every picture that has any
    of_person, of_picture = (labels, picture), (np.maximum.reduceat(labels, first), picture[first])
    out = {}
    for name, rows in emotic.combined(scores, picture).items():
        wanted, where = of_picture if name == "context" else of_person
        known = np.isfinite(wanted).all(axis=1)
        out[name] = emotic_map.rank(wanted[known], rows[known]), where[known]
    return out
