"""Aff-Wild2 as released for the ABAW challenge at FG 2020 (Kollias et al., arXiv 2001.11409).

    annotations/{AU_Set,EXPR_Set,VA_Set}/{Training_Set,Validation_Set}/<video>.txt
    cropped_aligned/<video>/00001.jpg ...        numbers from 1, with gaps where no face was found
    {aus,expression,va}_test_set.txt             one video name per line, for the test split
    videos/batch*/<video>.mp4                    test split only: gives the number of frames

A text file has a line of label names, then one row per video frame; row i (from 0) belongs to picture i + 1. Eight
0/1 action units (-1: not annotated), one expression 0...6 (-1), or valence and arousal (-5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from emotion import media
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import ABAW, ABAW1_ACTION_UNITS, VALENCE_AROUSAL
from emotion.media import containers

SPLITS = {"train": "Training_Set", "valid": "Validation_Set"}

# The FG-2020 system's thinning of expression frames: class, and every which of its frame positions is kept.
THINNING = ((ABAW.index("neutral"), 10), (ABAW.index("happiness"), 2), (ABAW.index("sadness"), 2))


@dataclass(frozen=True)
class Part:
    """One annotation set: its folder, test list, vocabulary, number of columns in the files, and marker."""

    folder: str
    test: str
    labels: tuple[str, ...]
    columns: int
    marker: float


PARTS = {
    "action_units": Part("AU_Set", "aus_test_set.txt", ABAW1_ACTION_UNITS, 8, -1),
    "expression": Part("EXPR_Set", "expression_test_set.txt", ABAW, 1, -1),
    "valence_arousal": Part("VA_Set", "va_test_set.txt", VALENCE_AROUSAL, 2, -5),
}


def load(root: str | Path, split: str = "train", task: str = "expression", published: bool = False) -> Samples:
    """Labelled frames of one annotation set, video after video in the order of their names.

    A frame is kept when its picture exists and no entry of its row is the marker. Videos without pictures give none.

    Args:
        root: folder in the layout above.
        split: "train", "valid" or "test" (frames without labels, every frame of the video, see `fill_gaps`).
        task: "action_units", "expression" or "valence_arousal".
        published: thin the training frames as the FG-2020 system: expressions by `THINNING`, valence and arousal to
            every fifth frame.

    Returns:
        Samples whose ids are picture paths below `root` and whose groups are videos.

    Raises:
        UserError: unknown split or task, missing folders, rows that do not parse or are too few for the pictures.
    """
    root = Path(root)
    if task not in PARTS:
        raise UserError(f"Aff-Wild2 (FG 2020) has {', '.join(PARTS)}, not {task!r}")
    if split == "test":
        return _test(root, task)
    if split not in SPLITS:
        raise UserError(f"Aff-Wild2 (FG 2020) has the splits train, valid and test, not {split!r}")
    found = tables(root, split, task)
    rows = np.concatenate([values for _, values in found.values()])
    ids = [picture_path(video, number) for video, (numbers, _) in found.items() for number in numbers]
    groups = [video for video, (numbers, _) in found.items() for _ in numbers]
    samples = _samples(root, split, task, ids, _targets(rows, task), groups)
    return samples.subset(_published(rows, task)) if published and split == "train" else samples


def tables(root: str | Path, split: str, task: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per video the kept frames: row numbers int64 [n] (from 0) and label rows float64 [n, columns].

    Raises:
        UserError: as `load`.
    """
    part = PARTS[task]
    folder = Path(root) / "annotations" / part.folder / SPLITS[split]
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise UserError(f"no annotation files in {folder}")
    out = {}
    for path in files:
        rows = label_rows(path, part.columns)
        present = np.array(pictures_present(Path(root), path.stem), np.int64) - 1
        if len(present) and present[-1] >= len(rows):
            raise UserError(f"{path} has {len(rows)} rows, but there is picture {present[-1] + 1} of {path.stem}")
        kept = present[(rows[present] != part.marker).all(axis=1)]
        out[path.stem] = (kept, rows[kept])
    if not any(len(numbers) for numbers, _ in out.values()):
        raise UserError(f"no frame of {folder} has both a label and a picture in {Path(root) / 'cropped_aligned'}")
    return out


def fill_gaps(present: list[int], length: int) -> list[int]:
    """Picture number for every frame of a test video: a missing one takes the last present, or at first the next.

    Args:
        present: picture numbers from 1, ascending, not empty.
        length: frames of the video + 1, as the original counts; with as many pictures, or one more, each is a frame.
    """
    if len(present) in (length, length + 1):
        return list(present)
    where = np.searchsorted(present, np.arange(1, length + 1), side="right") - 1
    return [present[max(i, 0)] for i in where]


def thin(classes: np.ndarray, rules: Sequence[tuple[int, int]]) -> np.ndarray:
    """Undersampling of frequent classes along a sequence of frames: sorted indices of what is kept.

    Args:
        classes: [N], in the order of the frames.
        rules: (class, step): of this class only frames whose position is a multiple of step stay; rules are applied
            in turn, positions counted anew each time over all that is left.
    """
    classes = np.asarray(classes)
    kept = np.arange(len(classes))
    for label, step in rules:
        kept = kept[(classes[kept] != label) | (np.arange(len(kept)) % step == 0)]
    return kept


def label_rows(path: Path, columns: int) -> np.ndarray:
    """The rows of an annotation file, float64 [frames, columns].

    Raises:
        UserError: rows that do not parse.
    """
    lines = path.read_text(encoding="utf-8").rstrip().split("\n")[1:]
    try:
        rows = np.array([line.split(",") for line in lines], np.float64)
    except ValueError:
        rows = np.zeros((0, 0))
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise UserError(f"{path}: expected a header and rows of {columns} numbers separated by commas")
    return rows


def pictures_present(root: Path, video: str) -> list[int]:
    """Numbers of the face pictures of a clip, ascending, from 1."""
    folder = root / "cropped_aligned" / video
    return sorted(int(p.stem) for p in folder.glob("*.jpg") if p.stem.isdecimal())


def picture_path(video: str, frame: int) -> str:
    """Where the picture of a frame (from 0) lies below the data set's folder."""
    return f"cropped_aligned/{video}/{frame + 1:05d}.jpg"


def listed_clips(path: Path) -> list[str]:
    """The clip names of a test list.

    Raises:
        UserError: it cannot be read or names none.
    """
    try:
        clips = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise UserError(f"cannot read the test list {path}: {error.strerror or error}") from error
    if not clips:
        raise UserError(f"the test list {path} names no clip")
    return clips


def frames_to_predict(root: Path, clip: str) -> np.ndarray:
    """For every frame of a test clip the frame whose picture stands for it, from 0, see `fill_gaps`.

    Raises:
        UserError: the clip has no pictures or no video.
    """
    present = pictures_present(root, clip)
    if not present:
        raise UserError(f"the test clip {clip} has no pictures in {root / 'cropped_aligned' / clip}")
    length = frame_count(find_video(root, clip)) + 1  # as the challenge's own lists count
    if present[-1] > length + 1:
        raise UserError(f"{clip} has a picture number {present[-1]}, but its video has {length - 1} frames")
    return np.array(fill_gaps(present, length), np.int64) - 1


def _targets(rows: np.ndarray, task: str) -> np.ndarray:
    classes = len(PARTS[task].labels)
    if task != "expression":
        return rows.astype(np.float32)
    if not np.isin(rows, np.arange(classes)).all():
        raise UserError(f"expressions must be 0 to {classes - 1} or -1, found {np.setdiff1d(rows, np.arange(classes))}")
    return np.eye(classes, dtype=np.float32)[rows[:, 0].astype(np.int64)]


def _published(rows: np.ndarray, task: str) -> np.ndarray:
    if task == "expression":
        return thin(rows[:, 0], THINNING)
    return np.arange(0, len(rows), 5 if task == "valence_arousal" else 1)


def _samples(root: Path, split: str, task: str, ids: list[str], targets: np.ndarray, groups: list[str]) -> Samples:
    return Samples(
        dataset="affwild2_2020",
        split=split,
        ids=tuple(ids),
        picture=lambda i: media.read_image(root / ids[i]),
        labels={task: PARTS[task].labels},
        targets={task: targets},
        groups=np.array(groups),
        films=True,
        protocol=f"{PARTS[task].folder}, frames with a face and a complete annotation",
    )


def _test(root: Path, task: str) -> Samples:
    ids, groups = [], []
    for video in listed_clips(root / PARTS[task].test):
        frames = frames_to_predict(root, video)
        ids += [picture_path(video, frame) for frame in frames]
        groups += [video] * len(frames)
    missing = np.full((len(ids), len(PARTS[task].labels)), np.nan, np.float32)
    return _samples(root, "test", task, ids, missing, groups)


def find_video(root: Path, clip: str) -> Path:
    """The video file of a clip; `_left` and `_right` are persons in the video without that ending.

    Raises:
        UserError: there is none.
    """
    name = clip.removesuffix("_left").removesuffix("_right")
    files = sorted((root / "videos").glob(f"batch*/{name}.*"))
    if not files:
        raise UserError(f"no video {name} in {root / 'videos'}/batch*: its length is needed")
    return files[0]


def frame_count(path: Path) -> int:
    """Frames of a video.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with containers.opened(path) as container:
            stream = container.streams.video[0]
            return stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
    except (OSError, IndexError, av.FFmpegError) as error:
        raise UserError(f"cannot read the video {path}: {error}") from error


def fake(root: str | Path, frames: int = 24, seed: int = 0) -> Path:
    """Write a small synthetic copy: noise whose brightness follows the labels.

    It has unlabelled and partly labelled rows, missing pictures, more labels than pictures, a video of two persons,
    and a test list per task.
    """
    from emotion.datasets import affwild2_fake

    return affwild2_fake.write(Path(root), PARTS, SPLITS, (frames, frames), seed)
