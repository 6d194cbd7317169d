"""Annotated films: the video with every face's box and label drawn in, and its sound kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emotion import draw, timeline
from emotion.errors import UserError
from emotion.media import video
from emotion.outputs import Faces, Result

if TYPE_CHECKING:
    from emotion.predict import Progress

Beside = Callable[[Result, int], np.ndarray]  # one frame's result, height -> uint8 [height, W, 3]


def annotate(
    source: video.Video,
    result: Result,
    path: str | Path,
    smoothing: float = timeline.DRAWN,
    until: float = np.inf,
    progress: Progress | None = None,
    beside: Beside | None = None,
) -> bool:
    """Write a video with what was predicted for it, as MP4 (see `video.VideoWriter`).

    All frames are written, also those that were not processed: between two processed frames boxes move evenly, labels
    stay those of the earlier one.

    Args:
        source: the video that `result` is of.
        result: its faces, with track ids.
        path: the film.
        smoothing: time constant in seconds of what is drawn, see `emotion.timeline`; 0: the numbers as they are.
        until: the film ends after this second.
        progress: as in `FacePredictor.video`; the film ends where it returns False.
        beside: draws what stands to the right of every frame.

    Returns:
        Whether the whole film was written (up to `until`).

    Raises:
        UserError: the video cannot be read any more, or the place cannot be written to.
    """
    info, drawn = video.probe(source, result.source), timeline.smooth(result, smoothing)
    with video.VideoWriter(path, info.rate, sound=source if info.sound else None) as out:
        for seconds, picture in _readable(video.decode(source, result.source)):
            if seconds > until:
                break
            canvas = draw.overlay(picture, at(drawn, seconds))
            if beside is not None:
                canvas = np.concatenate([canvas, beside(at(result, seconds), len(canvas))], axis=1)
            out.write(canvas, seconds)
            if progress is not None and progress(seconds, min(info.seconds, until)) is False:
                return False
    return True


def _readable(frames: Iterator[video.Frame]) -> Iterator[video.Frame]:
    """Frames up to where a video cannot be read on, which the result's notes tell; at least one."""
    some = False
    try:
        for frame in frames:
            yield frame
            some = True
    except UserError:
        if not some:
            raise


def at(result: Result, seconds: float) -> Result:
    """The one frame that a video shows at some second: the last processed one before, with boxes moved to that time."""
    f = int(np.searchsorted(result.timestamps, seconds + 1e-6, side="right")) - 1
    low, high = np.searchsorted(result.frame, [f, f + 1])
    now = result[slice(low, high)]
    faces = _moved(result, f, slice(low, high), seconds)
    return replace(now, timestamps=np.array([seconds]), frame=np.zeros(len(now), np.int64), faces=faces)


def _moved(result: Result, f: int, rows: slice, seconds: float) -> Faces:
    """The faces of frame f on their way to where their tracks are in the next one."""
    faces, ids, times = result.faces[rows], result.faces.track_ids, result.timestamps
    if ids is None or not len(faces) or f + 1 >= len(times):
        return faces
    later = slice(rows.stop, int(np.searchsorted(result.frame, f + 2)))
    share = (seconds - times[f]) / (times[f + 1] - times[f])
    _, here, there = np.intersect1d(faces.track_ids, ids[later], return_indices=True)
    boxes = faces.boxes.copy()
    boxes[here] += np.float32(share) * (result.faces.boxes[later][there] - boxes[here])
    return replace(faces, boxes=boxes)
