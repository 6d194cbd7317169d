"""Aff-Wild2 as released for the second ABAW challenge, ICCV 2021 (Kollias, Zafeiriou, arXiv 2106.15318).

    annotations/{AU_Set,EXPR_Set,VA_Set}/{Train_Set,Validation_Set}/<clip>.txt
    cropped_aligned/<clip>/00001.jpg ...         numbers from 1, with gaps where no face was found
    videos/batch{1,2}/<video>.mp4                for frame rates, test lengths and sound
    {AU,EXPR,VA}_test_set.txt                    one clip name per line, for the test split

A text file has a line of label names, then one row per video frame; row i (from 0) belongs to picture i + 1. Twelve
0/1 action units or one expression 0...6 (any -1: not annotated), or valence and arousal (any -5). A video with two
persons has the clips <video> and <video>_left or <video>_right.

A clip in one task's validation set may be in another task's training set: students that learn from all tasks have
then seen validation clips.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from emotion import media
from emotion.datasets import Samples, affwild2_2020
from emotion.datasets.affwild2_2020 import (
    Part,
    find_video,
    frames_to_predict,
    label_rows,
    listed_clips,
    picture_path,
    pictures_present,
)
from emotion.errors import UserError
from emotion.labels import ABAW, ABAW2_ACTION_UNITS, VALENCE_AROUSAL
from emotion.media import containers

SPLITS = {"train": "Train_Set", "valid": "Validation_Set"}


PARTS = {
    "expression": Part("EXPR_Set", "EXPR_test_set.txt", ABAW, 1, -1),
    "action_units": Part("AU_Set", "AU_test_set.txt", ABAW2_ACTION_UNITS, 12, -1),
    "valence_arousal": Part("VA_Set", "VA_test_set.txt", VALENCE_AROUSAL, 2, -5),
}


def load(root: str | Path, split: str = "train", task: str | None = None) -> Samples:
    """Frames that have a picture and a complete annotation, clip after clip in the order of their names.

    Args:
        root: folder in the layout above.
        split: "train", "valid" or "test" (every frame of the listed clips, without labels, see `fill_gaps`).
        task: "expression", "action_units" or "valence_arousal"; None: all three, frames joined by clip and number.

    Returns:
        Samples whose ids are picture paths below `root` and whose groups are clips.

    Raises:
        UserError: unknown split or task, missing folders, rows that do not parse, or no labelled frame at all.
    """
    root = Path(root)
    tasks = tuple(PARTS) if task is None else (task,)
    if unknown := [t for t in tasks if t not in PARTS]:
        raise UserError(f"Aff-Wild2 has {', '.join(PARTS)}, not {unknown[0]!r}")
    if split not in (*SPLITS, "test"):
        raise UserError(f"Aff-Wild2 has the splits train, valid and test, not {split!r}")
    if split == "test":
        return _test(root, tasks)
    rows: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for name in tasks:
        for clip, frames, values in labelled(root, split, name):
            for frame, value in zip(frames.tolist(), values):
                rows.setdefault((clip, frame), {})[name] = value
    if not rows:
        raise UserError(f"no frame in {root} has both a {split} label and a picture in cropped_aligned")
    rows = dict(sorted(rows.items()))
    targets = {
        name: np.stack([_target(name, row.get(name)) for row in rows.values()]).astype(np.float32) for name in tasks
    }
    return _samples(root, split, [*rows], targets)


def labelled(root: Path, split: str, task: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Per clip of one annotation set: its name, frame numbers from 0, and label rows [n, columns]."""
    part = PARTS[task]
    folder = root / "annotations" / part.folder / SPLITS[split]
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise UserError(f"no annotation files in {folder}")
    for path in files:
        rows = label_rows(path, part.columns)
        frames = np.array(pictures_present(root, path.stem), np.int64) - 1
        if len(frames) and frames[-1] >= len(rows):
            warnings.warn(f"{path} has {len(rows)} rows; later pictures of {path.stem} are left out", stacklevel=2)
            frames = frames[frames < len(rows)]
        kept = keep_labelled(rows, frames, part.marker)
        if task == "expression" and not np.isin(rows[kept], np.arange(len(ABAW))).all():
            raise UserError(f"{path}: expressions must be 0 to {len(ABAW) - 1} or -1")
        yield path.stem, kept, rows[kept]


def keep_labelled(rows: np.ndarray, frames: np.ndarray, marker: float) -> np.ndarray:
    """Those of `frames` whose row has no entry equal to `marker`."""
    return frames[(rows[frames] != marker).all(axis=1)]


def list_of_test_clips(root: Path, task: str) -> Path:
    """The list of test clips of a task, as this release or that of FG 2020 names it."""
    names = (PARTS[task].test, affwild2_2020.PARTS[task].test)
    return next((root / n for n in names if (root / n).is_file()), root / names[0])


def parse_path(identifier: str) -> tuple[str, int]:
    """Clip and frame number (from 0) of a sample's id."""
    _, clip, file = identifier.split("/")
    return clip, int(file.removesuffix(".jpg")) - 1


def frame_rate(root: Path, clip: str) -> float:
    """Frames per second of a clip's video.

    Raises:
        UserError: there is no such video, or it cannot be read.
    """
    path = find_video(root, clip)
    try:
        with containers.opened(path) as container:
            return float(container.streams.video[0].average_rate)
    except (OSError, IndexError, TypeError, av.FFmpegError) as error:
        raise UserError(f"cannot read the video {path}: {error}") from error


def _test(root: Path, tasks: tuple[str, ...]) -> Samples:
    clips = dict.fromkeys(clip for name in tasks for clip in listed_clips(root / PARTS[name].test))
    frames = [(clip, int(frame)) for clip in clips for frame in frames_to_predict(root, clip)]
    targets = {name: np.full((len(frames), len(PARTS[name].labels)), np.nan, np.float32) for name in tasks}
    return _samples(root, "test", frames, targets)


def _target(task: str, row: np.ndarray | None) -> np.ndarray:
    classes = len(PARTS[task].labels)
    if row is None:
        return np.full(classes, np.nan)
    return np.eye(classes)[int(row[0])] if task == "expression" else row


def _samples(root: Path, split: str, frames: list[tuple[str, int]], targets: dict[str, np.ndarray]) -> Samples:
    ids = tuple(picture_path(clip, frame) for clip, frame in frames)
    return Samples(
        dataset="affwild2",
        split=split,
        ids=ids,
        picture=lambda i: media.read_image(root / ids[i]),
        labels={task: PARTS[task].labels for task in targets},
        targets=targets,
        groups=np.array([clip for clip, _ in frames]),
        films=True,
        protocol="ABAW 2, frames with a face and a complete annotation" if split != "test" else "ABAW 2, every frame",
    )


def fake(root: str | Path, frames: tuple[int, int] = (70, 140), seed: int = 0) -> Path:
    """Write a small synthetic copy; see `affwild2_fake.write`."""
    from emotion.datasets import affwild2_fake

    return affwild2_fake.write(Path(root), PARTS, SPLITS, frames, seed)
