"""Tables made from Aff-Wild2 (ABAW 2): annotations, test lists, their statistics, and the films' sound as WAV files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emotion.datasets.affwild2 import PARTS, SPLITS, frame_rate, frames_to_predict, labelled, listed_clips, picture_path
from emotion.errors import UserError
from emotion.media import audio
from emotion.media.windowing import RATE

HEAD = ("set", "split", "clip", "frame", "picture", "fps")


def write_annotations(root: str | Path, out: str | Path, task: str) -> dict[str, dict[str, int]]:
    """One CSV with every labelled frame of a task in training and validation: `HEAD`, then the label columns.

    Args:
        root: the data set; out: file to write; task: key of `affwild2.PARTS`.

    Returns:
        Per split the number of clips and of frames.

    Raises:
        UserError: as `affwild2.load`, or the file cannot be written.
    """
    root, part = Path(root), PARTS[task]

    def rows() -> Iterator[list[Any]]:
        for split in SPLITS:
            for clip, frames, values in labelled(root, split, task):
                fps = frame_rate(root, clip)
                for frame, value in zip(frames.tolist(), values):
                    yield [part.folder, split, clip, frame, picture_path(clip, frame), fps, *(f"{v:g}" for v in value)]

    return _write(Path(out), (*HEAD, *(part.labels if task != "expression" else ("label",))), rows())


def write_test_list(root: str | Path, out: str | Path, task: str, clips: str | Path | None = None) -> dict[str, dict]:
    """One CSV with every frame of the test clips of a task, a missing picture replaced as `fill_gaps` says.

    Args:
        root: the data set; out: file to write; task: key of `affwild2.PARTS`.
        clips: text file with one clip name per line (default: the one in the data set).

    Returns:
        The number of clips and of frames, under "test".

    Raises:
        UserError: list, pictures or videos missing, or the file cannot be written.
    """
    root, part = Path(root), PARTS[task]
    names = listed_clips(Path(clips) if clips else root / part.test)

    def rows() -> Iterator[list[Any]]:
        for clip in names:
            fps = frame_rate(root, clip)
            for frame, shown in enumerate(frames_to_predict(root, clip)):
                yield [part.folder, "test", clip, frame, picture_path(clip, int(shown)), fps]

    return _write(Path(out), HEAD, rows())


def _write(out: Path, header: tuple[str, ...], rows: Iterator[list[Any]]) -> dict[str, dict[str, int]]:
    clips: dict[str, set[str]] = {}
    frames: dict[str, int] = {}
    partial = out.with_name(out.name + ".part")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for row in rows:
                writer.writerow(row)
                clips.setdefault(row[1], set()).add(row[2])
                frames[row[1]] = frames.get(row[1], 0) + 1
        partial.replace(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return {split: {"clips": len(clips[split]), "frames": frames[split]} for split in frames}


def distribution(targets: np.ndarray, task: str) -> np.ndarray:
    """How often each label occurs.

    Args:
        targets: [N, K] of the task, as in `Samples`; rows with NaN are left out.

    Returns:
        Counts [K] (expression, action units), or of valence by arousal in 20 x 20 equal cells [20, 20].
    """
    known = targets[np.isfinite(targets).all(axis=1)]
    if task == "valence_arousal":
        return np.histogram2d(known[:, 0], known[:, 1], bins=20, range=[(-1, 1), (-1, 1)])[0].astype(np.int64)
    return known.sum(axis=0).astype(np.int64)


def extract_sound(root: str | Path, out: str | Path) -> tuple[list[Path], list[str]]:
    """The sound of every video as mono 16-bit WAV of 16 kHz, named as the video; existing files are left alone.

    Args:
        root: the data set; out: folder, created.

    Returns:
        The files there are now, and the names of videos without sound.

    Raises:
        UserError: no videos, one cannot be read, or a file cannot be written.
    """
    import soundfile

    videos = sorted(p for p in (Path(root) / "videos").glob("batch*/*") if p.is_file())
    if not videos:
        raise UserError(f"no videos in {Path(root) / 'videos'}/batch*")
    out, written, silent = Path(out), [], []
    out.mkdir(parents=True, exist_ok=True)
    for video in videos:
        path = out / f"{video.stem}.wav"
        if not path.exists():
            sound = audio.read(video)
            if sound is None:
                silent.append(video.name)
                continue
            samples = sound.window(0.0, round((sound.start + sound.seconds) * sound.rate))  # on the pictures' clock
            partial = path.with_suffix(".part")
            soundfile.write(partial, audio.resample(samples, sound.rate, RATE), RATE, "PCM_16", format="WAV")
            partial.replace(path)
        written.append(path)
    return written, silent
