"""A small synthetic copy of a release of Aff-Wild2: pictures, labels, films with a tone, test lists."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from emotion.datasets.affwild2_2020 import Part, picture_path

RATE = 16000


def write(root: Path, parts: Mapping[str, Part], splits: Mapping[str, str], frames: tuple[int, int], seed: int) -> Path:
    """Two clips per task and split, one of them a second person in the other's film.

    There are unlabelled rows, missing pictures, three rows more than pictures, one clip of at most 20 frames, films of
    25 and 30 frames a second with a tone each, and test lists.

    Args:
        root: created.
        parts, splits: of the release.
        frames: least and largest number of frames per clip.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    for number, (task, split) in enumerate((t, s) for t in parts for s in (*splits, "test")):
        part, video = parts[task], f"{number}-1280x720"
        lengths = [int(rng.integers(frames[0], frames[1] + 1)) for _ in range(2)]
        if number == 0:
            lengths[1] = min(20, frames[0])
        write_video(root / "videos" / f"batch{number % 2 + 1}" / f"{video}.avi", max(lengths), (25, 30)[number % 2])
        for clip, length in zip((video, f"{video}_left"), lengths):
            rows = _rows(part, length + 3, rng)
            _pictures(root, clip, rows[:length], rng)
            if split == "test":
                with (root / part.test).open("a", encoding="utf-8") as file:
                    file.write(f"{clip}\n")
            else:
                _annotations(root / "annotations" / part.folder / splits[split] / f"{clip}.txt", part, rows)
    return root


def _rows(part: Part, n: int, rng: np.random.Generator) -> np.ndarray:
    if part.columns == 1:
        rows = rng.permutation(np.arange(n) % len(part.labels))[:, None].astype(float)
    elif part.columns > 2:
        rows = rng.integers(0, 2, (n, part.columns)).astype(float)
    else:
        rows = rng.uniform(-1, 1, (n, 2)).round(3)
    rows[3] = part.marker
    rows[5, -1] = part.marker
    return rows


def _annotations(path: Path, part: Part, rows: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(f"{v:g}" for v in row) for row in rows]
    path.write_text("\n".join([",".join(part.labels), *lines]), encoding="utf-8")


def _pictures(root: Path, clip: str, rows: np.ndarray, rng: np.random.Generator) -> None:
    """Noise whose brightness follows the labels; every seventh picture but the first and last is missing."""
    for frame, row in enumerate(rows):
        if 0 < frame < len(rows) - 1 and frame % 7 == 0:
            continue
        path = root / picture_path(clip, frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        level = 40 + 150 * (np.abs(row).sum() % 7) / 7
        noise = rng.normal(level, 20, (14, 14, 3)).repeat(8, 0).repeat(8, 1)
        Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)


def write_video(path: Path, frames: int, fps: int, tone: float = 440.0) -> None:
    """A film of grey noise 64 x 64 with a mono tone of the same length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(frames)
    samples = frames * RATE // fps
    sound = (8000 * np.sin(2 * np.pi * tone / RATE * np.arange(samples))).astype(np.int16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=fps)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (64, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, samples, 1024):
            block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
