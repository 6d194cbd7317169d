"""What is found in scenes: by our models, or in a COCO results file of any tool.

A results file is a JSON list. Entries with `bbox` are detections: `{"image": FILE or "image_id": N, "bbox": [x, y,
width, height], "score": S, "emotions": [...]}`, emotions in all of them or none. Entries with `person` are read at an
annotated box: `{"image": FILE, "person": K, "emotions": [...], "vad": [valence, arousal, dominance]}`, K counting the
picture's people from 0, values in [0, 1], `vad` optional. `image_id` is the id in COCO's annotations, or, in data sets
without such ids, the picture's place in the reader's order from 0. Entries of another `category_id` than 1 are skipped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from emotion.datasets.coco_person import PERSON
from emotion.datasets.scenes import Scene, Scenes
from emotion.errors import UserError
from emotion.labels import VAD
from eval.arrays import DAMAGED, read_arrays, unreadable, write_arrays
from eval.parts import finish, in_parts, slices
from eval.predictions import SHOWN, origin
from eval.results import read_json
from eval.scenes import Found

LARGEST = sys.float_info.max  # integers of JSON have no end
CHUNK = 16  # pictures per part that is kept on disk until the run is complete


# -- our models -------------------------------------------------------------------------------------------------------


def predict(
    model: Any, data: Scenes, out: Path, published: bool = False, quiet: bool = False, heads: bool = False
) -> tuple[list[Found], float | None]:
    """What a scene model finds in every picture, and reads at annotated boxes where the data set has emotions.

    Averaged with the mirrored picture, as published figures are. Also written to `out` (.npz); see `runner.predict`.

    Args:
        model: a loaded scene model.
        data: the scenes.
        out: the file; finished parts lie beside it until the run is complete.
        published: find people as BENet's original does.
        quiet: no progress bar.
        heads: ask BENet's person, background and fusion heads, too.

    Returns:
        One per scene, and the pictures per second of what was computed now (None if nothing was).

    Raises:
        UserError: the model does not read scenes, or has no such heads.
    """
    from emotion.models import benet_decode as decode
    from eval import emotic

    if not isinstance(getattr(model.config, "input", None), decode.SceneInput):
        raise UserError(
            "this model does not read scenes; `python -m emotion models --method benet` lists those that do"
        )
    more = [head for head, ours in emotic.VECTORS.items() if heads and ours in model.config.heads]
    if heads and not more:
        raise UserError(f"this model has only the heads {', '.join(model.config.heads)}; leave out --heads")
    about = origin(model, data) | {"published": published, "heads": more}
    parts, speed = in_parts(
        slices(len(data), CHUNK),
        out.with_suffix(".parts"),
        compute=lambda rows: _read_rows(model, data.subset(np.array(rows)), published, more),
        write=lambda part, path: write(part, about, path),
        read=lambda path, rows: read_own(path, about),
        title=f"{about['model']} on {data.dataset}",
        quiet=quiet,
    )
    found = [one for part in parts for one in part]
    write(found, about, out)
    finish(out.with_suffix(".parts"))
    return found, speed


def _read_rows(model: Any, data: Scenes, published: bool, more: list[str]) -> list[Found]:
    """What the model finds in every picture, and what its heads, "bu" and `more`, read of annotated people."""
    from emotion.models import benet_decode as decode
    from eval import emotic

    k = len(data.vocabulary) if model.config.labels == data.vocabulary else 0
    boxes = [s.boxes if k else s.boxes[:0] for s in data.scenes]
    options = decode.PUBLISHED if published else decode.DEFAULT
    asked = ["det", "bu", *(emotic.VECTORS[head] for head in more)]
    outputs = emotic.collect(model, map(data.picture, range(len(data))), boxes, options, heads=asked)
    heads = {}
    for head in ("bu", *more):
        values = outputs.scores.get(head, np.zeros((0, model.config.outputs)))  # none where nobody is
        counts = [min(len(b), 1) if head == "context" else len(b) for b in boxes]
        heads[head] = np.split(values, np.cumsum(counts)[:-1])
    out = []
    for i, detections in enumerate(outputs.detections):
        read = heads["bu"][i]
        one = {key: detections[key] for key in ("boxes", "scores")} if "det" in model.config.heads else {}
        if k:
            detected, with_vad = "boxes" in one, model.config.affect == VAD
            one |= {"people": read[:, :k]} | ({"vad": read[:, k:]} if with_vad else {})
            one |= {"emotions": detections["emotions"][:, :k]} if detected else {}
            one |= {"detected vad": detections["emotions"][:, k:]} if detected and with_vad else {}
            one |= {head: heads[head][i] for head in more}
        out.append(one)
    return out


def write(found: list[Found], about: dict[str, Any], path: Path) -> None:
    """Write the .npz file: rows of all pictures together, and how many of them belong to each."""
    arrays = {}
    for key in {key for one in found for key in one}:
        arrays[key] = np.concatenate([one[key] for one in found])
        arrays[f"{key} per picture"] = np.array([len(one[key]) for one in found])
    write_arrays({"about": about}, arrays, path)


def read_own(path: Path, about: dict[str, Any]) -> list[Found] | None:
    """What `write` wrote, if it is of the same model (where `about` names one) and data; else None.

    Raises:
        UserError: unreadable, or something else.
    """
    head, arrays = read_arrays(path)
    try:
        if any(head["about"].get(name) != value for name, value in about.items()):
            return None
        keys = [key for key in arrays if f"{key} per picture" in arrays]
        parts = [np.split(arrays[key], arrays[f"{key} per picture"].cumsum()[:-1]) for key in keys]
        return [dict(zip(keys, one)) for one in zip(*parts, strict=True)]
    except DAMAGED as error:
        raise unreadable(path, error) from error


def _check(one: Found, scene: Scene, emotions: int) -> None:
    """What one picture's part of a file of ours must hold; see `Found`. In published mode boxes may have no area.

    Raises:
        ValueError: says what does not.
    """
    rows = {"people": len(scene), "vad": len(scene), "pc": len(scene), "fusion": len(scene)}
    rows |= {"context": min(len(scene), 1), "boxes": len(one["boxes"]) if "boxes" in one else 0}
    columns = {"boxes": (4,), "scores": (), "people": (emotions,), "emotions": (emotions,)}
    columns |= {"vad": (3,), "detected vad": (3,)}
    for key, values in one.items():
        shape = (rows.get(key, rows["boxes"]), *columns.get(key, values.shape[1:]))
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError(f"{scene.file}: {key} of shape {values.shape}, expected finite numbers of shape {shape}")
        if key in ("people", "emotions") and not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{scene.file}: {key} are not from 0 to 1")


# -- COCO results files -----------------------------------------------------------------------------------------------


Entry = tuple[list[float], list[float]]  # of a detection: box and score, emotions; of a person: emotions, vad


def read(path: Path, data: Scenes) -> list[Found]:
    """Detections (and emotions of annotated people) of every scene.

    Raises:
        UserError: unreadable, of other data, or lists wrong entries by number.
    """
    if path.suffix == ".npz":
        found = read_own(path, {"fingerprint": data.fingerprint})
        if found is None or len(found) != len(data):
            raise UserError(f"{path} is of other scenes or labels than this {data.dataset} {data.split}; run it again")
        try:
            for one, scene in zip(found, data.scenes):
                _check(one, scene, len(data.vocabulary))
        except DAMAGED as error:
            raise unreadable(path, error) from error
        return found
    entries = read_json(path)
    if not isinstance(entries, list):
        raise UserError(f"{path} is no COCO results file: expected a list of entries")
    places = {s.file: i for i, s in enumerate(data.scenes)}
    places |= {s.about.get("id", i): i for i, s in enumerate(data.scenes)}
    boxes: list[list[Entry]] = [[] for _ in data.scenes]
    people: list[dict[int, Entry]] = [{} for _ in data.scenes]
    problems, persons = [], 0
    for number, entry in enumerate(entries):
        try:
            if not _is_person(entry):
                continue
            persons += 1
            place = _place(entry, places)
            _add(entry, data.scenes[place], len(data.vocabulary), boxes[place], people[place])
        except ValueError as error:
            problems.append(f"{path} entry {number}: {error}")
    if entries and not persons:
        problems.append(f"{path}: none of {len(entries)} entries is of category {PERSON}, person")
    problems += [f"{path}: {text}" for text in _incomplete(boxes, people, data)]
    if problems:
        more = f"\n... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError("\n".join(problems[:SHOWN]) + more)
    found = [_found(b, p, s) for b, p, s in zip(boxes, people, data.scenes)]
    if any(boxes) or not any(people):
        return found
    return [{k: f[k] for k in f.keys() & {"people", "vad"}} for f in found]


def _incomplete(boxes: list[list[Entry]], people: list[dict[int, Entry]], data: Scenes) -> list[str]:
    """What is given for some and not for others."""
    problems = []
    with_emotions = [bool(emotions) for rows in boxes for _, emotions in rows]
    if any(with_emotions) and not all(with_emotions):
        problems.append(f"{with_emotions.count(False)} of {len(with_emotions)} detections have no emotions")
    with_vad = [bool(vad) for rows in people for _, vad in rows.values()]
    if any(with_vad) and not all(with_vad):
        problems.append(f"{with_vad.count(False)} of {len(with_vad)} people have no vad")
    for scene, rows in zip(data.scenes, people):
        if any(people) and len(rows) != len(scene):
            problems.append(f"{scene.file} has {len(scene)} people, emotions are given for {len(rows)}")
    return problems


def _is_person(entry: Any) -> bool:
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    category = entry.get("category_id", PERSON)
    if type(category) is not int:
        raise ValueError(f"category_id is {category!r}, expected a number, {PERSON} for persons")
    return category == PERSON


def _place(entry: dict[str, Any], places: dict[Any, int]) -> int:
    name = entry.get("image", entry.get("image_id"))
    if not isinstance(name, (str, int)) or isinstance(name, bool) or name not in places:
        raise ValueError(f"no picture {name!r} in this split")
    return places[name]


def _add(entry: dict[str, Any], scene: Scene, emotions: int, boxes: list[Entry], people: dict[int, Entry]) -> None:
    if "emotions" in entry and not emotions:
        raise ValueError("emotions are given, the data set has none")
    given = _vector(entry["emotions"], emotions, "emotions", 0, 1) if "emotions" in entry else None
    if "person" in entry:
        person = entry["person"]
        if not isinstance(person, int) or isinstance(person, bool) or not 0 <= person < len(scene) or given is None:
            raise ValueError(f"person {person!r} with emotions expected, {scene.file} has {len(scene)} people")
        if person in people:
            raise ValueError(f"person {person} of {scene.file} again")
        people[person] = given, _vector(entry["vad"], 3, "vad", 0, 1) if "vad" in entry else []
        return
    x, y, width, height = _vector(entry.get("bbox"), 4, "bbox", -np.inf, np.inf)
    (score,) = _vector([entry.get("score")], 1, "score", -np.inf, np.inf)
    if width <= 0 or height <= 0:
        raise ValueError(f"bbox {entry['bbox']} has no area")
    if x >= scene.size[0] or y >= scene.size[1] or x + width <= 0 or y + height <= 0:
        raise ValueError(f"bbox {entry['bbox']} lies outside {scene.file} ({scene.size[0]} x {scene.size[1]})")
    boxes.append(([x, y, x + width, y + height, score], given or []))


def _vector(values: Any, length: int, name: str, low: float, high: float) -> list[float]:
    wrong = not isinstance(values, list) or len(values) != length
    if wrong or not all(type(v) in (int, float) and low <= v <= high and abs(v) <= LARGEST for v in values):
        limits = f" from {low:g} to {high:g}" if np.isfinite(high) else ""
        given = repr(values) if length < 10 or not isinstance(values, list) else f"a list of {len(values)}"
        raise ValueError(f"{name} is {given}, expected {length} numbers{limits}")
    return [float(v) for v in values]


def _found(boxes: list[Entry], people: dict[int, Entry], scene: Scene) -> Found:
    table = np.array([box for box, _ in boxes], np.float64).reshape(-1, 5)
    out = {"boxes": table[:, :4], "scores": table[:, 4]}
    if any(emotions for _, emotions in boxes):
        out["emotions"] = np.array([emotions for _, emotions in boxes])
    if people:
        emotions, vad = zip(*(people[i] for i in range(len(scene))))
        out |= {"people": np.array(emotions)} | ({"vad": np.array(vad)} if vad[0] else {})
    return out
