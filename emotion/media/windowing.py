"""How EMENet cuts videos into windows: which frames go together, and which sound belongs to a frame."""

from __future__ import annotations

import numpy as np

from emotion.errors import UserError
from emotion.media.audio import Sound

RATE, SOUND_WINDOW = 16000, 10080  # samples per second, samples per window (0.63 s)
HALF = SOUND_WINDOW // 2
CLOCKS = ("true", "faithful")


def inference_windows(n: int, length: int = 64, faithful: bool = False) -> np.ndarray:
    """Frame numbers [W, length] of the windows that cover a video of n frames; the last one ends with the video.

    A video shorter than a window is padded by repeating its last frame.

    Args:
        n: frames of the video, at least 1.
        length: frames per window.
        faithful: as the original: a video of whole windows has its last one twice, and of a video shorter than a
            window only the last n - (length - n) frames or fewer are seen.
    """
    if n < 1:
        raise UserError("a video without frames has no windows")
    starts = [*range(0, n - length + 1, length)]
    if faithful or n % length:
        starts.append(n - length)
    if faithful and n < length:  # a negative start counts from the end
        starts = [max(n + starts[0], 0)]
    return np.clip(np.maximum(starts, 0)[:, None] + np.arange(length), 0, n - 1)


def training_windows(n: int, length: int, fps: int = 30, tails: bool = False) -> np.ndarray:
    """Positions [W, length] of all training windows of a clip of n frames at 30 fps, taken at `fps`.

    Every 30 // fps-th frame is taken, from every possible first one on; windows do not overlap.

    Args:
        n: frames of the clip.
        length: frames per window.
        fps: frames per second to train at, 1 to 30.
        tails: add a last window that ends with the clip, where frames would be left over (the original drops them).
    """
    if not 1 <= fps <= 30:
        raise UserError(f"clips are cut at 1 to 30 frames per second, not {fps}")
    stride = 30 // fps
    rows = [np.zeros((0, length), np.int64)]
    for offset in range(stride):
        taken = np.arange(offset, n, stride)
        whole = len(taken) // length * length
        rows.append(taken[:whole].reshape(-1, length))
        if tails and whole < len(taken):
            rows.append(taken[np.maximum(np.arange(len(taken) - length, len(taken)), 0)][None])
    return np.concatenate(rows)


def sound_to_read(frames: np.ndarray, fps: float) -> tuple[int, int]:
    """First sample and number of samples that the original asks of the file for the frames of one window.

    It counts time with one frame per second too many ("faithful" clock), so sound runs ahead of the pictures.
    """
    clock = round(fps) + 1
    offset = int(max(0, frames[0] * RATE / clock - HALF))
    return offset, max(SOUND_WINDOW, int(frames[-1] * RATE / clock + HALF) - offset)


def sound_windows(frames: np.ndarray, fps: float, samples: int, clock: str = "true") -> np.ndarray:
    """Where the 0.63 s of sound around every frame begin.

    Args:
        frames: frame numbers of one window of frames, counted from 0.
        fps: frames per second.
        samples: length of the sound at 16 kHz.
        clock: "true": centred on the frame, reaching past both ends where needed; "faithful": as the original, which
            counts fps + 1 frames per second and moves windows into what it read of the file.

    Returns:
        First samples, int64 [n]; negative, or less than a window before the end, only for "true".

    Raises:
        UserError: unknown clock or frame rate.
    """
    if clock not in CLOCKS:
        raise UserError(f"the sound's clock is one of {', '.join(CLOCKS)}, not {clock!r}")
    if not fps > 0:
        raise UserError(f"frames per second must be positive, not {fps}")
    frames = np.asarray(frames)
    if clock == "true":
        return np.round((frames + 0.5) / fps * RATE).astype(np.int64) - HALF
    offset, count = sound_to_read(frames, fps)
    read = min(count, samples - offset)
    duration = 1 / (round(fps) + 1)
    middles = (frames * duration + (frames + 1) * duration) / 2  # in this form, for equal rounding
    centres = np.maximum(0, middles * RATE - offset)
    starts = np.maximum(0, centres - HALF).astype(np.int64)
    return offset + np.where(starts + SOUND_WINDOW > read, max(read - SOUND_WINDOW, 0), starts)


def cut_sound(sound: Sound, starts: np.ndarray) -> np.ndarray:
    """Windows float32 [n, 10080] of the sound from these samples (at 16 kHz) on; silence where there is none."""
    sound = sound.at_rate(RATE)
    return np.stack([sound.window(start / RATE, SOUND_WINDOW) for start in starts])


def video_sound_windows(frames: int, fps: float, samples: int, clock: str = "true") -> np.ndarray:
    """As `sound_windows`, for all frames of a video, int64 [frames].

    With the "faithful" clock a frame that two 64-frame windows share keeps the sound of the first.
    """
    if clock == "true":
        return sound_windows(np.arange(frames), fps, samples)
    starts = np.zeros(frames, np.int64)
    for window in inference_windows(frames)[::-1]:
        starts[window] = sound_windows(window, fps, samples, clock)
    return starts
