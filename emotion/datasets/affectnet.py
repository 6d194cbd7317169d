"""AffectNet: faces from the web with expression, valence and arousal (Mollahosseini et al. 2017, arXiv 1708.03985).

Three layouts are read:
- release of 2017: `Manually_training.csv`, `Manually_validation.csv` and `automatically_annotated.csv` (at the top or
  in the release's `..._file_lists` folders) with `Manually_Annotated_Images/` and `Automatically_Annotated_Images/`;
- release of 2021: `train_set/` and `val_set/`, each with `images/` and `annotations/` (one .npy file per value);
- prepared: `<set>/<id // 500>/<name>.jpg`, the labels in the names, as `prepare` writes it and the ESR framework reads.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import cv2
import numpy as np
from PIL import Image

from emotion.datasets import Prepared, Samples
from emotion.errors import UserError
from emotion.labels import AFFECTNET, VALENCE_AROUSAL

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


NAMED = {8: "eight", 7: "seven"}


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


def load(root: str | Path, split: str = "train", classes: int = 8) -> Samples:
    """The faces of one split that show one of the expressions; pictures are read and cropped when asked for.

    Args:
        root: folder in one of the three layouts.
        split: "train" and "valid" (annotated by hand) or "automatic" (annotated by a network).
        classes: 8, or 7 without contempt, as a part of the literature has it.

    Returns:
        Samples with "expression" [N, classes] one-hot in the order of `labels.AFFECTNET` and "valence_arousal" [N, 2]
        in [-1, 1], NaN where not rated.

    Raises:
        UserError: unknown split, missing files, rows that do not parse or lie outside their range.
    """
    root, place = Path(root), _place(split)
    faces = [_checked(f) for f in _layout(root)(root, place)]
    if classes not in NAMED:
        raise UserError(f"AffectNet is used with 8 or 7 expressions, not {classes}")
    faces = [f for f in faces if f.expression < classes]
    if not faces:
        raise UserError(f"{root} holds no face with an expression in the {split} split")
    affect = np.array([[f.valence, f.arousal] for f in faces], dtype=np.float32)
    affect[(affect <= UNLABELLED).any(axis=1)] = np.nan
    return Samples(
        dataset="affectnet",
        split=split,
        ids=tuple(f.name for f in faces),
        picture=lambda i: _picture(faces[i]),
        labels={"expression": AFFECTNET[:classes], "valence_arousal": VALENCE_AROUSAL},
        targets={
            "expression": np.eye(classes, dtype=np.float32)[[f.expression for f in faces]],
            "valence_arousal": affect,
        },
        protocol=f"{NAMED[classes]} expressions, "
        + ("annotated automatically" if split == "automatic" else "annotated by hand"),
    )


def quadrants(affect: np.ndarray) -> np.ndarray:
    """Quarter of the valence/arousal plane of every row [N, 2]: int64 [N], -1 where not rated.

    0: both at least 0; 1: valence below 0, arousal at least 0; 2: both below 0; 3: valence at least 0, arousal below.
    """
    valence, arousal = np.asarray(affect, dtype=np.float64).T
    quarter = np.where(arousal >= 0, np.where(valence >= 0, 0, 1), np.where(valence >= 0, 3, 2))
    return np.where((valence > UNLABELLED) & (arousal > UNLABELLED), quarter, -1)


def _place(split: str) -> Place:
    if split not in SPLITS:
        raise UserError(f"AffectNet has the splits {', '.join(SPLITS)}, not {split!r}")
    return SPLITS[split]


def _layout(root: Path) -> Callable[[Path, Place], Iterator[Face]]:
    if any((root / p.prepared).is_dir() for p in SPLITS.values()):
        return _read_prepared
    if any((root / p.release_2021).is_dir() for p in SPLITS.values() if p.release_2021):
        return _read_2021
    if any((root / t).is_file() for p in SPLITS.values() for t in p.table):
        return _read_2017
    raise UserError(
        f"{root} is no AffectNet folder. Expected one of: Manually_training.csv with Manually_Annotated_Images/ "
        "(release of 2017); train_set/ and val_set/ (2021); Training_Labeled/ and Validation/ (prepared)."
    )


def _checked(face: Face) -> Face:
    if face.expression not in range(11):
        raise UserError(f"{face.path}: expression must be 0 to 10, found {face.expression}")
    for value in (face.valence, face.arousal):
        if not (-1 <= value <= 1 or value == UNLABELLED):
            raise UserError(f"{face.path}: valence and arousal must lie in -1 to 1 (or be -2), found {value}")
    return face


def _picture(face: Face) -> np.ndarray:
    """The face, uint8 [H, W, 3] RGB: columns from the box's left and width, rows from its top and height."""
    try:
        with Image.open(face.path) as picture:
            left, top, width, height = face.box or (0, 0, *picture.size)
            right, bottom = min(left + width, picture.width), min(top + height, picture.height)
            left, top = max(left, 0), max(top, 0)
            if right <= left or bottom <= top:
                raise UserError(f"{face.path}: the face box {face.box} lies outside the picture {picture.size}")
            return np.asarray(picture.convert("RGB").crop((left, top, right, bottom)))
    except OSError as error:
        raise UserError(f"cannot read the face {face.path}: {error}") from error


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


def _read_prepared(root: Path, place: Place) -> Iterator[Face]:
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


def splits(root: str | Path) -> tuple[str, ...]:
    """The splits that a folder in one of the layouts holds.

    Raises:
        UserError: no AffectNet folder.
    """
    root, read = Path(root), _layout(Path(root))

    def there(place: Place) -> bool:
        if read is _read_2017:
            return any((root / t).is_file() for t in place.table)
        folder = place.prepared if read is _read_prepared else place.release_2021
        return bool(folder) and (root / folder).is_dir()

    return tuple(name for name, place in SPLITS.items() if there(place))


def prepare(
    root: str | Path,
    out: str | Path,
    split: str,
    size: int = 96,
    progress: Callable[[list[Face]], Iterable[Face]] = iter,
) -> Prepared:
    """Cut the faces of one split out of the release of 2017 or 2021 and write them in the prepared layout.

    Faces that are there already are kept, so an interrupted run goes on where it stopped. Numbers are row numbers of
    the release's list (its file numbers for 2021); rows without an expression are not written. Pictures that cannot be
    read are left out and told.

    Args:
        root: the release.
        out: where the prepared faces go.
        split: "train", "valid" or "automatic".
        size: side of the faces in pixels.
        progress: is given all rows and yields them, to show how far it is.

    Raises:
        UserError: as `load`; `root` is prepared already.
    """
    root, place = Path(root), _place(split)
    read = _layout(root)
    if read is _read_prepared:
        raise UserError(f"{root} is prepared already")
    faces = [face._replace(number=k) for k, face in enumerate(map(_checked, read(root, place)))]
    done, problems = 0, []
    for face in progress([f for f in faces if f.expression < len(AFFECTNET)]):
        number = int(face.path.stem) if face.box is None and face.path.stem.isdecimal() else face.number
        name = file_name(number, face.expression, face.valence, face.arousal)
        target = Path(out) / place.prepared / str(number // 500) / name
        try:
            if not target.is_file():
                _write_face(face, target, size)
            done += 1
        except UserError as error:
            problems.append(str(error))
    return Prepared(done, tuple(problems))


def _write_face(face: Face, target: Path, size: int) -> None:
    # bilinear without smoothing, as ESR's networks have their faces cut at prediction
    pixels = cv2.resize(_picture(face), (size, size), interpolation=cv2.INTER_LINEAR)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    Image.fromarray(pixels).save(partial, format="JPEG", quality=95, subsampling=0)
    partial.replace(target)


# -- synthetic copy --------------------------------------------------------------------------------------------------


def fake(root: str | Path, layout: str = "prepared", per_class: int = 2, seed: int = 0) -> Path:
    """Write random faces whose colour depends on the expression and whose brightness on the arousal.

    Every split has `per_class` faces of each expression with both signs of valence and arousal, one without an
    expression (id 8) and one without valence and arousal; prepared faces lie in the folders 2 and 10.
    """
    root, rng = Path(root), np.random.default_rng(seed)
    write = {"prepared": _fake_prepared, "2017": _fake_2017, "2021": _fake_2021}
    if layout not in write:
        raise UserError(f"fake AffectNet data comes as {', '.join(write)}, not {layout!r}")
    for place in SPLITS.values():
        rows = [(k, *rng.uniform(-1, 1, 2).round(3)) for k in range(8) for _ in range(per_class)]
        rows += [(8, -2.0, -2.0), (0, -2.0, -2.0), (1, 0.5, 0.5), (2, -0.5, -0.5), (3, 0.5, -0.5), (4, -0.5, 0.5)]
        write[layout](root, place, [(row, _fake_face(row[0], row[2], rng)) for row in rows])
    return root


Fakes = list[tuple[tuple[int, float, float], np.ndarray]]


def _fake_face(expression: int, arousal: float, rng: np.random.Generator) -> np.ndarray:
    colour = 128 + 60 * np.cos(expression * 0.8 + np.array([0, 2, 4])) + 40 * max(arousal, -1)
    return np.clip(colour + rng.normal(0, 15, (96, 96, 3)), 0, 255).astype(np.uint8)


def _fake_prepared(root: Path, place: Place, rows: Fakes) -> None:
    for index, (row, face) in enumerate(rows):
        number = (1000 if index % 2 else 5000) + index
        path = root / place.prepared / str(number // 500) / file_name(number, *row)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(path)


def _fake_2017(root: Path, place: Place, rows: Fakes) -> None:
    folder = root / place.images[0] / "1"
    folder.mkdir(parents=True, exist_ok=True)
    with (root / place.table[0]).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for index, ((expression, valence, arousal), face) in enumerate(rows):
            picture = np.zeros((120, 200, 3), np.uint8)  # the face lies right of the centre, so swapped axes miss it
            picture[10:106, 90:186] = face
            name = f"{place.prepared}{index}.png"
            Image.fromarray(picture).save(folder / name)
            writer.writerow([f"1/{name}", 90, 10, 96, 96, "", expression, valence, arousal])


def _fake_2021(root: Path, place: Place, rows: Fakes) -> None:
    if not place.release_2021:
        return
    folder = root / place.release_2021
    for part in ("images", "annotations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index, ((expression, valence, arousal), face) in enumerate(rows):
        Image.fromarray(face).save(folder / "images" / f"{index}.jpg")
        for kind, value in (("exp", expression), ("val", valence), ("aro", arousal)):
            np.save(folder / "annotations" / f"{index}_{kind}.npy", np.array(str(value)))
