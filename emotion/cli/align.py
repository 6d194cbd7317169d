"""`python -m emotion align`: the aligned faces of videos as pictures, with their landmarks, in the FG-2020 manner."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from emotion import media
from emotion.alignment import five_point_crop
from emotion.cli.console import report, show
from emotion.detectors import Detector, detector
from emotion.errors import UserError
from emotion.video import decode

BATCH = 8  # frames that are searched for faces together
COLUMNS = ("frame", "detect", "nose", "mouth_right", "right_eye", "left_eye", "mouth_left")
ORDER = (2, 4, 1, 0, 3)  # of the columns, among our landmarks


def run(args: argparse.Namespace) -> int:
    """The command. Videos whose folder has files already are left out; a broken one is reported, the rest goes on."""
    if args.size < 1:
        raise UserError(f"--size must be at least 1 pixel, not {args.size}")
    root = args.source if args.source.is_dir() else args.source.parent
    videos = sorted(p for p in root.rglob("*") if media.is_video(p)) if args.source.is_dir() else [args.source]
    if not videos:
        raise UserError(f"no videos in {args.source}")
    find, failed = detector("mtcnn", device=args.device), 0
    for path in videos:
        folder = args.output / path.relative_to(root).with_suffix("")
        if folder.is_dir() and any(folder.iterdir()):
            show(f"{path.name}: {folder} has files already, left as it is")
            continue
        try:
            frames, found = align_video(path, folder, find, args.size, level=not args.no_rotation)
        except UserError as error:
            report(error)
            failed += 1
            continue
        show(f"{path.name}: {found} faces in {frames} frames, in {folder}")
    return 2 if failed else 0


def align_video(path: Path, folder: Path, find: Detector, size: int = 112, level: bool = True) -> tuple[int, int]:
    """Write `<frame>.jpg` (six digits from 1) for frames with a face, and keypoints.csv with a row for every frame.

    Of several faces the one with the highest confidence is taken. In the table, points are "(x, y)" in pixels of the
    video, zeros where there is no face; left and right are as seen in the picture.

    Args:
        path: the video.
        folder: created.
        find: a detector that gives landmarks.
        size: side of the faces in pixels.
        level: turn the eyes level.

    Returns:
        Number of frames, and of those with a face.

    Raises:
        UserError: the video cannot be read.
    """
    frames, rows = (picture for _, picture in decode(path)), []
    for pictures in _batches(frames, BATCH):
        folder.mkdir(parents=True, exist_ok=True)
        for picture, faces in zip(pictures, find(pictures)):
            number, points = len(rows) + 1, np.zeros((5, 2))
            if len(faces):
                points = faces.landmarks[int(faces.scores.argmax())]
                media.save_image(five_point_crop(picture, points, size, level), folder / f"{number:06d}.jpg")
            rows.append([number, int(len(faces) > 0), *(f"({x:g}, {y:g})" for x, y in points[list(ORDER)])])
    with (folder / "keypoints.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return len(rows), sum(row[1] for row in rows)


def _batches(frames: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while batch := list(islice(frames, size)):
        yield batch
