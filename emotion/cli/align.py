"""`python -m emotion align`: aligned faces of videos or folders of frames, with landmarks, as FG-2020 has them."""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from emotion import exports, media
from emotion.cli.console import report, show
from emotion.errors import UserError
from emotion.faces import crop as cut_face
from emotion.faces.alignment import five_point_crop
from emotion.faces.cropped import SUFFIXES, crop_files
from emotion.faces.detectors import Detector, detector
from emotion.media.video import decode
from emotion.models.base import FaceInput

CROPS = ("five_point", "openface")  # as FG-2020's script cuts faces, and as its programming interface does
TABLE = "keypoints.csv"
BATCH = 8  # frames that are searched for faces together
COLUMNS = ("frame", "detect", "nose", "mouth_right", "right_eye", "left_eye", "mouth_left")
ORDER = (2, 4, 1, 0, 3)  # of the columns, among our landmarks
Numbered = tuple[int, np.ndarray]


def run(args: argparse.Namespace) -> int:
    """The command. Films that are done are left out; a broken one is reported, the rest goes on."""
    if args.size < 1:
        raise UserError(f"--size must be at least 1 pixel, not {args.size}")
    if args.no_rotation and args.crop != "five_point":
        raise UserError("--no-rotation is for --crop five_point: the other crop turns every face to its template")
    root = args.source if args.source.is_dir() else args.source.parent
    films = find_films(root) if args.source.is_dir() else [args.source]
    if not films:
        raise UserError(f"no videos and no frames in {args.source}")
    find, failed = detector("mtcnn", device=args.device), 0
    for path, place in places(films, root).items():
        folder = args.output / place
        if (folder / TABLE).is_file():
            show(f"{path.name}: {folder} is done already, left as it is")
            continue
        try:
            frames, found = align_film(path, folder, find, args.size, not args.no_rotation, args.crop)
        except UserError as error:
            report(error)
            failed += 1
            continue
        show(f"{path.name}: {found} faces in {frames} frames, in {folder}")
    return 2 if failed else 0


def find_films(root: Path) -> list[Path]:
    """The videos in a folder and those below it; where there are none, the folders that hold pictures."""
    below = sorted(root.rglob("*"))
    folders = [p for p in (root, *below) if p.is_dir()]
    videos = [p for p in below if p.is_file() and media.is_video(p)]
    return videos or [p for p in folders if any(f.suffix.lower() in SUFFIXES for f in p.iterdir())]


def places(films: Sequence[Path], root: Path) -> dict[Path, Path]:
    """Film -> its folder below the output: its own place below `root`, without extension unless two would share it."""
    bare = {film: (film if film.is_dir() else film.with_suffix("")).relative_to(root) for film in films}
    counts = Counter(str(place).casefold() for place in bare.values())
    return {f: f.relative_to(root) if counts[str(place).casefold()] > 1 else place for f, place in bare.items()}


def numbered_frames(film: Path) -> Iterator[Numbered]:
    """Frames of a video, counted from 1; or the pictures of a folder, by the numbers in their names where all have one.

    Raises:
        UserError: something cannot be read.
    """
    if not film.is_dir():
        yield from enumerate((picture for _, picture in decode(film)), start=1)
        return
    files = crop_files(film)
    numbered = all(p.stem.rpartition("_")[2].isdecimal() for p in files)
    for count, path in enumerate(files, start=1):
        yield (exports.frame_number(path) if numbered else count), media.read_image(path)


def align_film(
    film: Path, folder: Path, find: Detector, size: int = 112, level: bool = True, crop: str = "five_point"
) -> tuple[int, int]:
    """Write `<frame>.jpg` (six digits) for frames with a face, and at last keypoints.csv with a row for every frame.

    Of several faces the one with the highest confidence is taken. In the table, points are "(x, y)" in pixels of the
    video, zeros where there is no face; left and right are as seen in the picture.

    Args:
        film: a video, or a folder of pictures, see `numbered_frames`.
        folder: created, or one that an earlier run did not finish.
        find: a detector that gives landmarks.
        size: side of the faces in pixels.
        level: turn the eyes level; with "five_point".
        crop: one of `CROPS`.

    Returns:
        Number of frames, and of those with a face.

    Raises:
        UserError: the film cannot be read, or the folder has files of another kind.
    """
    rows: list[list[object]] = []
    partial = folder / f"{TABLE}.part"  # marks a folder of ours
    if folder.is_dir() and any(folder.iterdir()) and not partial.is_file():
        raise UserError(f"{film.name}: {folder} has other files; empty it or choose another folder with -o")
    for batch in _batches(numbered_frames(film), BATCH):
        folder.mkdir(parents=True, exist_ok=True)
        partial.touch()
        for (number, picture), faces in zip(batch, find([picture for _, picture in batch])):
            points = np.zeros((5, 2))
            if len(faces):
                surest = faces[int(faces.scores.argmax())]
                points = surest.landmarks[0]
                if crop == "five_point":
                    face = five_point_crop(picture, points, size, level)
                else:
                    face = cut_face(picture, surest, FaceInput(size=(size, size), template=crop))[0]
                media.save_image(face, folder / f"{number:06d}.jpg")
            rows.append([number, int(len(faces) > 0), *(f"({x:g}, {y:g})" for x, y in points[list(ORDER)])])
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    partial.replace(folder / TABLE)
    return len(rows), sum(row[1] for row in rows)


def _batches(frames: Iterator[Numbered], size: int) -> Iterator[list[Numbered]]:
    while batch := list(islice(frames, size)):
        yield batch
