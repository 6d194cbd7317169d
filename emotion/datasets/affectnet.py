"""AffectNet: faces from the web with expression, valence and arousal (Mollahosseini et al. 2017, arXiv 1708.03985).

`load` reads both releases and the copy that `prepare` writes; what lies where in them is in `affectnet_layouts`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from emotion.datasets import Prepared, Samples
from emotion.datasets import affectnet_layouts as layouts
from emotion.datasets.affectnet_layouts import COLUMNS, SPLITS, UNLABELLED, Face, Place
from emotion.errors import UserError
from emotion.labels import AFFECTNET, VALENCE_AROUSAL

NAMED = {8: "eight", 7: "seven"}


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
    root, place = Path(root), layouts.place_of(split)
    faces = [layouts.checked(f) for f in layouts.reader_of(root)(root, place)]
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
    root, place = Path(root), layouts.place_of(split)
    read = layouts.reader_of(root)
    if read is layouts.read_prepared:
        raise UserError(f"{root} is prepared already")
    faces = [face._replace(number=k) for k, face in enumerate(map(layouts.checked, read(root, place)))]
    done, problems = 0, []
    for face in progress([f for f in faces if f.expression < len(AFFECTNET)]):
        number = int(face.path.stem) if face.box is None and face.path.stem.isdecimal() else face.number
        name = layouts.file_name(number, face.expression, face.valence, face.arousal)
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
        path = root / place.prepared / str(number // 500) / layouts.file_name(number, *row)
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
