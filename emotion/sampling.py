"""Which frames of a video are processed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from emotion.errors import UserError


def original_frames(total: int, per_30: int = 5) -> range:
    """The original ESR's rule, "process F of every 30 frames": indices of the processed frames.

    The last frame of every group of floor(30 / F) is taken, an incomplete group at the end is dropped. The 30 is fixed
    whatever the frame rate; a frame's timestamp is index / frame rate.

    Args:
        total: number of frames.
        per_30: F, 1 to 30.

    Raises:
        UserError: F outside 1 to 30.
    """
    if not 1 <= per_30 <= 30:
        raise UserError(f"frames per 30 must lie in 1 to 30, not {per_30}")
    step = 30 // per_30
    return range(step - 1, total, step)


def at_rate(timestamps: Iterable[float], fps: float) -> Iterator[int]:
    """Indices of the frames to process for `fps` true frames per second, from a stream of increasing timestamps.

    The first frame at or after every multiple of 1 / fps seconds since the first frame is taken; none twice, so a
    video with a lower frame rate gives all its frames.

    Raises:
        UserError: fps is not positive.
    """
    if not fps > 0:
        raise UserError(f"frames per second must be positive, not {fps}")
    start, due = None, 0
    for index, time in enumerate(timestamps):
        start = time if start is None else start
        slot = (time - start) * fps + 1e-6  # timestamps come rounded
        if slot >= due:
            yield index
            due = int(slot) + 1
