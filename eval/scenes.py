"""Scenes: figures of detected people and their emotions, of our models or of a COCO results file.

A results file is a JSON list. Entries with `bbox` are detections: `{"image": FILE or "image_id": N, "bbox": [x, y,
width, height], "score": S, "emotions": [...]}`, emotions optional. Entries with `person` are read at an annotated box:
`{"image": FILE, "person": K, "emotions": [...]}`, K counting the picture's people from 0. `image_id` counts pictures
from 0 in the reader's order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emotion.datasets.scenes import Scene, Scenes
from emotion.errors import UserError
from eval.bootstrap import LEVEL
from eval.metrics.detection_ap import detection_ap_core as detection
from eval.metrics.emotic_map import emotic_map_core as emotic_map
from eval.predictions import SHOWN
from eval.results import DataInfo, Figure, TaskResult, read_json

DRAWS = 200  # average precision is not additive: every resample is computed anew
INTERVALS = ("AP", "AP .5", "AP .75")
Found = dict[str, np.ndarray]  # of one picture: "boxes" [D, 4], "scores" [D], perhaps "emotions" [D, K] and
# "people" [P, K], the emotions read at annotated boxes


def info(data: Scenes) -> DataInfo:
    """What was asked."""
    return DataInfo(data.dataset, data.split, "people by IoU, emotions at annotated boxes", data.fingerprint, len(data))


def score(found: list[Found], data: Scenes, draws: int = DRAWS) -> dict[str, TaskResult]:
    """Figures of detection, and of emotions where both sides have them.

    Raises:
        UserError: there is nothing to score.
    """
    out = {}
    if any("boxes" in f for f in found):
        nobody = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0)}
        out["detection"] = _detection([nobody | f for f in found], data, draws)
    if data.vocabulary and all("people" in f for f, s in zip(found, data.scenes) if len(s)):
        out["emotions"] = _emotions(found, data, draws)
    if not out:
        raise UserError(f"nothing to score: neither detections nor emotions of {data.dataset}'s people")
    return out


def _detection(found: list[Found], data: Scenes, draws: int) -> TaskResult:
    truth = [{"boxes": s.boxes, "crowd": s.crowd, "ignore": _short(s)} for s in data.scenes]

    def figures(rows: np.ndarray) -> dict[str, float]:
        values = detection.detection_ap([found[i] for i in rows], [truth[i] for i in rows])
        return {k: v for k, v in values.items() if v >= 0}

    metrics = _with_intervals(figures, len(data), INTERVALS, draws)
    people = sum(int((~s.crowd).sum()) for s in data.scenes)
    small = sum(int(_short(s).sum()) for s in data.scenes)
    notes = (f"{small} people below the size from which annotations are complete count neither way",) if small else ()
    return TaskResult(("person",), people, metrics, notes=notes)


def _short(scene: Scene) -> np.ndarray:
    return scene.boxes[:, 3] - scene.boxes[:, 1] < scene.complete_from


def _emotions(found: list[Found], data: Scenes, draws: int) -> TaskResult:
    filled = [(f, s) for f, s in zip(found, data.scenes) if len(s)]
    labels = np.concatenate([data.targets(s)[0] for _, s in filled])
    scores = np.concatenate([f["people"] for f, _ in filled])
    known = np.isfinite(labels).all(axis=1)
    picture = np.repeat(np.arange(len(filled)), [len(s) for _, s in filled])[known]
    labels, scores = labels[known], scores[known]
    rows_of = [np.flatnonzero(picture == i) for i in range(len(filled))]

    def figures(pictures: np.ndarray) -> dict[str, float]:
        rows = np.concatenate([rows_of[i] for i in pictures])
        values = emotic_map.emotic_map(labels[rows], scores[rows])
        return {name: float(values[name]) for name in ("mAP", "mAP interpolated")}

    metrics = _with_intervals(figures, len(filled), ("mAP", "mAP interpolated"), draws)
    each = emotic_map.average_precision(labels, scores)
    per_label = {"AP": {name: float(v) for name, v in zip(data.vocabulary, each)}}
    return TaskResult(data.vocabulary, int(known.sum()), metrics, per_label)


def _with_intervals(
    figures: Callable[[np.ndarray], dict[str, float]], n: int, names: tuple[str, ...], draws: int
) -> dict[str, Figure]:
    """Figures of all n pictures; those in `names` with an interval from `draws` resamples of pictures."""
    rng = np.random.default_rng(0)
    whole = figures(np.arange(n))
    drawn = [figures(rng.integers(0, n, n)) for _ in range(draws)]
    out = {}
    for name, value in whole.items():
        values = [d[name] for d in drawn if name in d] if name in names else []
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if values else (None, None)
        out[name] = Figure(float(value)) if low is None else Figure(float(value), float(low), float(high))
    return out


# -- our models -------------------------------------------------------------------------------------------------------


def predict(model: Any, data: Scenes, quiet: bool = False) -> list[Found]:
    """What a scene model finds in every picture, and reads at annotated boxes where the data set has emotions.

    Args:
        model: a loaded scene model; averaged with the mirrored picture, as published figures are.
        quiet: no progress bar.

    Raises:
        UserError: the model does not read scenes.
    """
    from rich.console import Console
    from rich.progress import track

    from emotion.models.benet_decode import SceneInput
    from eval import emotic

    if not isinstance(getattr(model.config, "input", None), SceneInput):
        raise UserError(
            "this model does not read scenes; `python -m emotion models --method benet` lists those that do"
        )
    emotions = bool(data.vocabulary) and model.config.labels == data.vocabulary
    boxes = [s.boxes if emotions else s.boxes[:0] for s in data.scenes]
    rows = track(range(len(data)), f"{data.dataset} {data.split}", console=Console(stderr=True), disable=quiet)
    outputs = emotic.collect(model, (data.picture(i) for i in rows), boxes)
    ends = np.cumsum([len(b) for b in boxes])
    read = outputs.scores["bu"][:, : len(data.vocabulary)]
    out = []
    for found, own, end in zip(outputs.detections, boxes, ends):
        one = {k: found[k] for k in ("boxes", "scores")} if "det" in model.config.heads else {}
        out.append(one | ({"people": read[end - len(own) : end]} if emotions else {}))
    return out


# -- COCO results files -----------------------------------------------------------------------------------------------


def read(path: Path, data: Scenes) -> list[Found]:
    """Detections (and emotions of annotated people) of every scene.

    Raises:
        UserError: unreadable, or lists wrong entries by number.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise UserError(f"{path} is no COCO results file: expected a list of entries")
    places = {s.file: i for i, s in enumerate(data.scenes)} | {i: i for i in range(len(data))}
    boxes: list[list[tuple]] = [[] for _ in data.scenes]
    people: list[dict[int, list]] = [{} for _ in data.scenes]
    problems = []
    for number, entry in enumerate(entries):
        try:
            place = _place(entry, places)
            _add(entry, data.scenes[place], len(data.vocabulary), boxes[place], people[place])
        except ValueError as error:
            problems.append(f"{path} entry {number}: {error}")
    for scene, rows in zip(data.scenes, people):
        if any(people) and data.vocabulary and len(rows) != len(scene):
            problems.append(f"{path}: {scene.file} has {len(scene)} people, emotions are given for {len(rows)}")
    if problems:
        more = f"\n... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError("\n".join(problems[:SHOWN]) + more)
    found = [_found(b, p, s) for b, p, s in zip(boxes, people, data.scenes)]
    return found if any(boxes) else [{k: f[k] for k in f.keys() & {"people"}} for f in found]


def _place(entry: Any, places: dict[Any, int]) -> int:
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    name = entry.get("image", entry.get("image_id"))
    if isinstance(name, (list, dict)) or name not in places:
        raise ValueError(f"no picture {name!r} in this split")
    return places[name]


def _add(entry: dict[str, Any], scene: Scene, emotions: int, boxes: list[tuple], people: dict[int, list]) -> None:
    given = _vector(entry["emotions"], emotions, "emotions", 0, 1) if "emotions" in entry else None
    if "person" in entry:
        person = entry["person"]
        if not isinstance(person, int) or not 0 <= person < len(scene) or given is None:
            raise ValueError(f"person {person!r} with emotions expected, {scene.file} has {len(scene)} people")
        if person in people:
            raise ValueError(f"person {person} of {scene.file} again")
        people[person] = given
        return
    x, y, width, height = _vector(entry.get("bbox"), 4, "bbox", -np.inf, np.inf)
    (score,) = _vector([entry.get("score")], 1, "score", -np.inf, np.inf)
    if width <= 0 or height <= 0:
        raise ValueError(f"bbox {entry['bbox']} has no area")
    if x >= scene.size[0] or y >= scene.size[1] or x + width <= 0 or y + height <= 0:
        raise ValueError(f"bbox {entry['bbox']} lies outside {scene.file} ({scene.size[0]} x {scene.size[1]})")
    boxes.append((x, y, x + width, y + height, score))


def _vector(values: Any, length: int, name: str, low: float, high: float) -> list[float]:
    wrong = not isinstance(values, list) or len(values) != length
    if wrong or not all(isinstance(v, (int, float)) and low <= v <= high and np.isfinite(v) for v in values):
        limits = f" from {low:g} to {high:g}" if np.isfinite(high) else ""
        raise ValueError(f"{name} is {values!r}, expected {length} numbers{limits}")
    return [float(v) for v in values]


def _found(boxes: list[tuple], people: dict[int, list], scene: Scene) -> Found:
    table = np.array(boxes, np.float64).reshape(-1, 5)
    out = {"boxes": table[:, :4], "scores": table[:, 4]}
    return out | ({"people": np.array([people[k] for k in range(len(scene))])} if people else {})
