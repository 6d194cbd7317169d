"""Who is who through a video: detections of successive frames become tracks with stable ids.

Every track moves at constant velocity (of its centre) until it is seen again. Detections and tracks are assigned to
each other at the lowest total cost 1 - IoU + distance, where the distance of the centres is measured in face sizes
(Hungarian method). There is no appearance model: persons who change places while nobody sees them change ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from emotion.outputs import Faces

PATIENCE = 1.0  # seconds that a person may be out of sight and keep the id
COAST = 0.4  # seconds that an unseen track goes on moving: longer, and noise of the velocity carries it away
REACH = 1.0  # largest distance of a detection from where its track should be, in face sizes,
SPREAD = 1.5  # and by how much it grows in every second that the track is not seen
GROWTH = 2.0  # largest ratio of sizes between detection and track
INERTIA = 0.5  # share of the old velocity in the new one

_FAR = 1e6


@dataclass(frozen=True)
class Tracks:
    """T persons that were seen lately.

    Attributes:
        faces: where and how each was last seen, with `track_ids`.
        velocity: float64 [T, 2], of the box's centre, in pixels per second.
        seen: float64 [T], when that was, in seconds.
        next_id: of the next new person.
        searched: when faces were last searched for, in seconds.
    """

    faces: Faces
    velocity: np.ndarray
    seen: np.ndarray
    next_id: int
    searched: float = -np.inf

    @classmethod
    def start(cls) -> Tracks:
        """Nobody yet; ids count from 1."""
        nobody = replace(Faces.empty(), track_ids=np.zeros(0, np.int64))
        return cls(nobody, np.zeros((0, 2)), np.zeros(0), 1)

    def __getitem__(self, index: np.ndarray) -> Tracks:
        return replace(self, faces=self.faces[index], velocity=self.velocity[index], seen=self.seen[index])

    def shifts(self, seconds: float) -> np.ndarray:
        """How far each has moved since it was seen, pixels [T, 2]."""
        return self.velocity * np.clip(seconds - self.seen, 0.0, COAST)[:, None]


def advance(tracks: Tracks, faces: Faces, seconds: float, patience: float = PATIENCE) -> tuple[Tracks, Faces]:
    """Take in the detections of the next frame.

    Args:
        tracks: what the last call returned, `Tracks.start()` at first.
        faces: detections; their order does not matter.
        seconds: the frame's time, not before the last one's.
        patience: seconds without a detection after which a person is forgotten.

    Returns:
        The new tracks, and the detections in their order with `track_ids`, each id once.
    """
    tracks = tracks[np.flatnonzero(seconds - tracks.seen <= patience + 1e-6)]
    order = np.lexsort((*faces.boxes.T, -faces.areas))  # largest first, whatever order they came in
    rows, columns = _assign(tracks, faces[order], seconds)
    known = order[columns]
    new = order[np.isin(order, known, invert=True)]
    ids = np.zeros(len(faces), np.int64)
    ids[known], ids[new] = tracks.faces.track_ids[rows], tracks.next_id + np.arange(len(new))
    named = replace(faces, track_ids=ids)

    elapsed = np.maximum(seconds - tracks.seen[rows], 1e-3)[:, None]
    moved = (_centres(faces)[known] - _centres(tracks.faces)[rows]) / elapsed
    velocity = np.zeros((len(faces), 2))
    velocity[known] = INERTIA * tracks.velocity[rows] + (1 - INERTIA) * moved

    lost = tracks[np.setdiff1d(np.arange(len(tracks.seen)), rows)]
    next_id = tracks.next_id + len(new)
    if not len(faces) + len(lost.seen):
        return replace(Tracks.start(), next_id=next_id, searched=seconds), named
    after = Tracks(
        Faces.concatenate([named, lost.faces]),
        np.concatenate([velocity, lost.velocity]),
        np.concatenate([np.full(len(faces), seconds), lost.seen]),
        next_id,
        seconds,
    )
    return after, named


def coast(tracks: Tracks, seconds: float, size: tuple[int, int]) -> Faces:
    """Where the persons of the last frame that was searched are by now, without looking; landmarks move along.

    Args:
        tracks: of the last frame that was searched for faces.
        seconds: the time of this one.
        size: width and height of the picture, which no box leaves.
    """
    there = tracks[np.flatnonzero(tracks.seen == tracks.searched)]
    shift = there.shifts(seconds)
    boxes = np.clip((there.faces.boxes.reshape(-1, 2, 2) + shift[:, None]), 0, size).reshape(-1, 4)
    landmarks = there.faces.landmarks
    landmarks = None if landmarks is None else (landmarks + shift[:, None]).astype(np.float32)
    moved = replace(there.faces, boxes=boxes, landmarks=landmarks)
    return moved[np.flatnonzero((boxes[:, 2:] > boxes[:, :2] + 1).all(axis=1))]


def track(frames: Sequence[Faces], timestamps: Sequence[float], patience: float = PATIENCE) -> list[Faces]:
    """The detections of every frame with `track_ids`; see `advance`."""
    tracks, out = Tracks.start(), []
    for faces, seconds in zip(frames, timestamps, strict=True):
        tracks, named = advance(tracks, faces, seconds, patience)
        out.append(named)
    return out


def _assign(tracks: Tracks, faces: Faces, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of tracks and of detections that belong together."""
    expected = tracks.faces.boxes.astype(np.float64) + np.tile(tracks.shifts(seconds), 2)
    found = faces.boxes.astype(np.float64)
    sizes = [np.maximum(np.sqrt(f.areas.astype(np.float64)), 1e-3) for f in (tracks.faces, faces)]
    ratio = sizes[0][:, None] / sizes[1]
    gap = (expected[:, None, :2] + expected[:, None, 2:] - found[:, :2] - found[:, 2:]) / 2
    distance = np.hypot(*np.moveaxis(gap, -1, 0)) / np.maximum(sizes[0][:, None], sizes[1])
    reach = REACH + SPREAD * (seconds - tracks.seen)[:, None]
    allowed = (distance <= reach) & (ratio <= GROWTH) & (ratio >= 1 / GROWTH)
    cost = np.where(allowed, 1 - iou(expected, found) + distance, _FAR)
    rows, columns = linear_sum_assignment(cost)
    kept = cost[rows, columns] < _FAR
    return rows[kept], columns[kept]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes a [K, 4] and b [M, 4]: [K, M] in [0, 1]."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    common = np.prod(np.maximum(sides, 0), axis=-1)
    areas = [np.prod(x[:, 2:] - x[:, :2], axis=-1) for x in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-9)


def _centres(faces: Faces) -> np.ndarray:
    return (faces.boxes[:, :2].astype(np.float64) + faces.boxes[:, 2:]) / 2
