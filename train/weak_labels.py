"""Weak labels: what a face model says about faces whose emotions nobody annotated.

They carry that model's errors, so only confident readings of legible faces count.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from emotion import faces as cropping
from emotion.datasets import Samples
from emotion.datasets.scenes import Scene, Scenes
from emotion.labels import VALENCE_AROUSAL
from emotion.predict import FacePredictor
from train.compose import LABELS, LEGIBLE, emotions

CONFIDENT = 0.5  # probability of the most likely expression from which on a reading counts
UPPER = 0.6  # share of a person's box, from its top, in which his or her face must lie
MARGIN = 0.1  # of the region that is searched for faces, in heights of it
BATCH = 64


def with_affect(data: Samples, reader: FacePredictor) -> Samples:
    """Face crops together with the valence and arousal that a face model reads in them."""
    rows = []
    for start in range(0, len(data), BATCH):
        pictures = [_rgb(data.picture(i)) for i in range(start, min(start + BATCH, len(data)))]
        whole = [cropping.given([[0, 0, p.shape[1], p.shape[0]]], (p.shape[1], p.shape[0])) for p in pictures]
        rows += [r.tasks["valence_arousal"].values for r in reader.images(pictures, faces=whole)]
    affect = np.concatenate(rows).astype(np.float32)
    return replace(
        data,
        labels={**data.labels, "valence_arousal": VALENCE_AROUSAL},
        targets={**data.targets, "valence_arousal": affect},
    )


def _rgb(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def of_people(data: Scenes, reader: FacePredictor) -> Scenes:
    """Scenes with emotions, valence and arousal of everybody whose face can be read with confidence."""
    scenes = tuple(
        _labelled(scene, data.picture(i), reader) if len(scene) else scene for i, scene in enumerate(data.scenes)
    )
    return replace(data, scenes=scenes, vocabulary=LABELS)


def _labelled(scene: Scene, picture: np.ndarray, reader: FacePredictor) -> Scene:
    x, y, right, bottom = _region(scene)
    if min(right - x, bottom - y) < LEGIBLE:
        return scene
    seen = reader.image(np.ascontiguousarray(picture[y:bottom, x:right]))
    labels: list[tuple[str, ...] | None] = [None] * len(scene)
    vad = np.full((len(scene), 3), np.nan)
    expression, affect = seen.tasks["expression"], seen.tasks["valence_arousal"].values
    names, certain = expression.names(), expression.values.max(axis=1, initial=0) >= CONFIDENT
    for face, box in enumerate(np.add(seen.faces.boxes, [x, y, x, y])):
        person = owner(box, scene.boxes)
        if person is None or scene.crowd[person] or not certain[face] or min(box[2:] - box[:2]) < LEGIBLE:
            continue
        valence, arousal = (float(v) for v in affect[face])
        labels[person] = emotions(names[face], valence, arousal)
        vad[person, :2] = 5 * (1 + valence), 5 * (1 + arousal)
    return replace(scene, labels=tuple(labels), vad=vad)


def _region(scene: Scene) -> tuple[int, int, int, int]:
    """Where the people's faces can be, x0 y0 x1 y1: searching the whole picture takes several times as long."""
    x0, y0, x1, y1 = scene.boxes.T
    low, high = y0.min(), (y0 + UPPER * (y1 - y0)).max()
    margin = MARGIN * (high - low)
    corners = np.array([x0.min() - margin, low - margin, x1.max() + margin, high])
    return tuple(np.rint(corners).astype(int).clip(0, [*scene.size, *scene.size]).tolist())


def owner(face: np.ndarray, boxes: np.ndarray) -> int | None:
    """The person (of boxes [P, 4]) to whom a face belongs: the smallest box with its centre in the upper part."""
    x, y = (face[:2] + face[2:]) / 2
    x0, y0, x1, y1 = boxes.T
    inside = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y0 + UPPER * (y1 - y0))
    area = np.where(inside, (x1 - x0) * (y1 - y0), np.inf)
    return int(area.argmin()) if inside.any() else None
