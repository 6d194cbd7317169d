"""Where AffectNet's faces and labels lie: its two releases, and our prepared copy.

- release of 2017: `Manually_training.csv`, `Manually_validation.csv` and `automatically_annotated.csv` (at the top or
  in the release's `..._file_lists` folders) with `Manually_Annotated_Images/` and `Automatically_Annotated_Images/`;
- release of 2021: `train_set/` and `val_set/`, each with `images/` and `annotations/` (one .npy file per value);
- prepared: `<set>/<id // 500>/<name>.jpg`, the labels in the names, as `affectnet.prepare` writes it and the ESR
  framework reads.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from emotion.errors import UserError
from emotion.labels import AFFECTNET

COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
)  # fmt: skip
UNLABELLED = -2.0  # valence and arousal of faces that nobody rated
# Expression ids from 8 on (none, uncertain, no face) are no expressions; such pictures are left out.


@dataclass(frozen=True)
class Place:
    """Where a split lies in each layout."""

    prepared: str
    table: tuple[str, ...]
    images: tuple[str, ...]
    release_2021: str = ""


_MANUAL = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images")
SPLITS = {
    "train": Place(
        prepared="Training_Labeled",
        table=("Manually_training.csv", "Manually_Annotated_file_lists/training.csv"),
        images=_MANUAL,
        release_2021="train_set",
    ),
    "valid": Place(
        prepared="Validation",
        table=("Manually_validation.csv", "Manually_Annotated_file_lists/validation.csv"),
        images=_MANUAL,
        release_2021="val_set",
    ),
    "automatic": Place(
        prepared="Training_Unlabeled",
        table=("automatically_annotated.csv", "Automatically_annotated_file_list/automatically_annotated.csv"),
        images=("Automatically_Annotated_Images", "Automatically_Annotated/Automatically_Annotated_Images"),
    ),
}


class Face(NamedTuple):
    """One row: `box` is left, top, width, height in the picture, None where the picture is a crop already; `number`
    counts the rows of the list."""

    name: str
    path: Path
    box: tuple[int, int, int, int] | None
    expression: int
    valence: float
    arousal: float
    number: int = -1


def place_of(split: str) -> Place:
    """Where a split lies; UserError for one that there is not."""
    if split not in SPLITS:
        raise UserError(f"AffectNet has the splits {', '.join(SPLITS)}, not {split!r}")
    return SPLITS[split]


def reader_of(root: Path) -> Callable[[Path, Place], Iterator[Face]]:
    """What reads a folder: its layout is told by what lies in it.

    Raises:
        UserError: no AffectNet folder.
    """
    if any((root / p.prepared).is_dir() for p in SPLITS.values()):
        return read_prepared
    if any((root / p.release_2021).is_dir() for p in SPLITS.values() if p.release_2021):
        return _read_2021
    if any((root / t).is_file() for p in SPLITS.values() for t in p.table):
        return _read_2017
    raise UserError(
        f"{root} is no AffectNet folder. Expected one of: Manually_training.csv with Manually_Annotated_Images/ "
        "(release of 2017); train_set/ and val_set/ (2021); Training_Labeled/ and Validation/ (prepared)."
    )


def checked(face: Face) -> Face:
    """The row itself; UserError where its values lie outside their range."""
    if face.expression not in range(11):
        raise UserError(f"{face.path}: expression must be 0 to 10, found {face.expression}")
    for value in (face.valence, face.arousal):
        if not (-1 <= value <= 1 or value == UNLABELLED):
            raise UserError(f"{face.path}: valence and arousal must lie in -1 to 1 (or be -2), found {value}")
    return face


def splits(root: str | Path) -> tuple[str, ...]:
    """The splits that a folder in one of the layouts holds.

    Raises:
        UserError: no AffectNet folder.
    """
    root, read = Path(root), reader_of(Path(root))

    def there(place: Place) -> bool:
        if read is _read_2017:
            return any((root / t).is_file() for t in place.table)
        folder = place.prepared if read is read_prepared else place.release_2021
        return bool(folder) and (root / folder).is_dir()

    return tuple(name for name, place in SPLITS.items() if there(place))


# -- release of 2017 -------------------------------------------------------------------------------------------------


def _read_2017(root: Path, place: Place) -> Iterator[Face]:
    table = _first(root, place.table)
    images = _first(root, place.images)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline().strip().split(",")
            if "subDirectory_filePath" not in header:  # the published validation list has none
                header = list(COLUMNS)
                file.seek(0)
            missing = [c for c in COLUMNS if c not in header and c != "facial_landmarks"]
            if missing:
                raise UserError(f"{table} has no column {', '.join(missing)}")
            for line, row in enumerate(csv.DictReader(file, header), start=1):
                yield _parse_row(row, images, f"{table} row {line}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {table}: {error}") from error


def _parse_row(row: dict[str, str], images: Path, where: str) -> Face:
    name = row["subDirectory_filePath"] or ""
    try:
        expression, valence, arousal = int(row["expression"]), float(row["valence"]), float(row["arousal"])
        boxed = expression < len(AFFECTNET)  # pictures without a face have no box either
        box = tuple(int(float(row[c])) for c in COLUMNS[1:5]) if boxed else None
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: box, expression, valence and arousal must be numbers ({error})") from None
    if not name or ".." in Path(name).parts or Path(name).is_absolute():
        raise UserError(f"{where}: {name!r} is no path below {images.name}")
    return Face(name, images / name, box, expression, valence, arousal)


def _first(root: Path, places: tuple[str, ...]) -> Path:
    found = next((root / p for p in places if (root / p).exists()), None)
    if found is None:
        raise UserError(f"{root} has no {' nor '.join(places)}")
    return found


# -- release of 2021 -------------------------------------------------------------------------------------------------


def _read_2021(root: Path, place: Place) -> Iterator[Face]:
    if not place.release_2021:
        raise UserError(f"{root} is the release of 2021, which has no automatically annotated faces")
    folder = root / place.release_2021
    images = sorted((folder / "images").glob("*.jpg"), key=lambda p: (len(p.stem), p.stem))
    if not images:
        raise UserError(f"{folder / 'images'} holds no .jpg pictures")
    for path in images:
        values = [_number(folder / "annotations" / f"{path.stem}_{kind}.npy") for kind in ("exp", "val", "aro")]
        if not values[0].is_integer():
            raise UserError(f"{path}: expression must be 0 to 10, found {values[0]}")
        yield Face(path.name, path, None, int(values[0]), *values[1:])


def _number(path: Path) -> float:
    try:
        return float(np.load(path, allow_pickle=False).item())
    except (OSError, ValueError, EOFError, AttributeError, BadZipFile) as error:  # the last two: an archive
        raise UserError(f"cannot read the annotation {path}: {error}") from error


# -- prepared --------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"(\d{7,})s(\d+)s(-?\d+)s(-?\d+)\.jpg")


def file_name(number: int, expression: int, valence: float, arousal: float) -> str:
    """Name of a prepared face: number, expression, and valence and arousal in thousandths, truncated toward zero."""
    return f"{number:07d}s{expression}s{int(valence * 1000)}s{int(arousal * 1000)}.jpg"


def parse_name(name: str) -> tuple[int, int, float, float]:
    """Number, expression, valence and arousal of a prepared face.

    Raises:
        UserError: not a name that `file_name` makes.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise UserError(f"{name} is no prepared AffectNet face; expected a name like 0000317s2s984s-80.jpg")
    number, expression, valence, arousal = map(int, match.groups())
    return number, expression, valence / 1000, arousal / 1000


def read_prepared(root: Path, place: Place) -> Iterator[Face]:
    """The faces of a prepared split, by number."""
    folder = root / place.prepared
    if not folder.is_dir():
        raise UserError(f"{root} has no {place.prepared}")
    parts = [p for p in folder.iterdir() if p.is_dir()]
    odd = [p.name for p in parts if not p.name.isdecimal()]
    if odd:
        raise UserError(f"{folder} must hold numbered folders only, found {odd[0]}")
    for part in sorted(parts, key=lambda p: int(p.name)):
        for path in sorted(part.glob("*.jpg")):
            yield Face(f"{part.name}/{path.name}", path, None, *parse_name(path.name)[1:])
