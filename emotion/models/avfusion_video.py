"""Pictures of the audiovisual fusion: which frames of a clip, and the one face followed through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emotion.faces import Detector, crop
from emotion.models.base import ClipInput, FaceInput
from emotion.outputs import Faces

COUNTED_FPS = 30  # frames per second that counting by index assumes


@dataclass(frozen=True)
class FaceStretch:
    """The face crops of one stretch of a clip.

    Attributes:
        crops: uint8 [T, H, W, 3], RGB; black where the clip has no picture any more.
        boxes: float32 [T, 4], x0 y0 x1 y1 in pixels; NaN where there is no picture.
        found: bool [T], whether a face was found in this very frame (elsewhere a neighbour's box is used).
    """

    crops: np.ndarray
    boxes: np.ndarray
    found: np.ndarray


def middle_frames(frames: int, total: int) -> np.ndarray:
    """The middle frame of each of `frames` equal parts of `total` frames, int64 [frames]."""
    return np.arange(frames) * total // frames + total // (2 * frames)


def frame_numbers(config: ClipInput) -> np.ndarray:
    """Frames of a stretch, counted from its first one at 30 per second, int64 [T]."""
    return middle_frames(config.frames, int(config.seconds * COUNTED_FPS))


def choose_frames(
    film: Iterator[tuple[float, np.ndarray]], config: ClipInput, start: float = 0.0
) -> list[np.ndarray | None]:
    """The pictures of one stretch, T of them; where the film is over None, or, with timing "time", its last one again.

    Args:
        film: as `emotion.media.video.decode` gives it; read no further than needed.
        config: how many frames; with timing "index" they are counted from the film's first frame.
        start: of the stretch in seconds, with timing "time"; the first frame at or after each due time is taken.
    """
    by_index = config.timing == "index"
    due = frame_numbers(config) if by_index else start + frame_numbers(config) / COUNTED_FPS
    chosen: list[np.ndarray | None] = []
    last = None
    for number, (seconds, picture) in enumerate(film):
        while len(chosen) < len(due) and (number if by_index else seconds + 1e-3) >= due[len(chosen)]:
            chosen.append(picture)
        if len(chosen) == len(due):
            break
        last = None if by_index else picture
    return chosen + [last] * (len(due) - len(chosen))


def follow(detections: Sequence[Faces]) -> tuple[np.ndarray, np.ndarray] | None:
    """One box per frame: the largest face's, or that of the last frame with a face, or else of the next.

    Returns:
        boxes float32 [T, 4], found bool [T]; None where no frame has a face.
    """
    found = np.array([len(faces) > 0 for faces in detections])
    if not found.any():
        return None
    numbers = np.flatnonzero(found)
    source = numbers[np.maximum(np.searchsorted(numbers, np.arange(len(found)), side="right") - 1, 0)]
    return np.stack([detections[i].boxes[detections[i].areas.argmax()] for i in source]), found


def face_stretch(pictures: Sequence[np.ndarray | None], detector: Detector, face: FaceInput) -> FaceStretch | None:
    """Find, follow and cut out the face of a stretch.

    Args:
        pictures: uint8 [H, W, 3], RGB, or None where there is none.
        detector: of `emotion.faces`.
        face: the crop's size and margins.

    Returns:
        The crops; None where no picture shows a face.
    """
    there = [i for i, picture in enumerate(pictures) if picture is not None]
    followed = follow(detector([pictures[i] for i in there])) if there else None
    if followed is None:
        return None
    crops = np.zeros((len(pictures), *face.size, 3), np.uint8)
    boxes, found = np.full((len(pictures), 4), np.nan, np.float32), np.zeros(len(pictures), bool)
    boxes[there], found[there] = followed
    for i in there:
        crops[i] = crop(pictures[i], Faces(boxes[i : i + 1], np.ones(1)), face)[0]
    return FaceStretch(crops, boxes, found)
