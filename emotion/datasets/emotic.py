"""EMOTIC: people in context with 26 emotions and valence, arousal, dominance (Kosti et al., CVPR 2017, PAMI 2019).

Two layouts are read:
- `Annotations.mat`, alone or below `PAMI/Annotations/` or `Annotations/`, with the pictures in `emotic/` or
  `PAMI/emotic/`;
- arrays: `annots_arrs/annot_arrs_<split>.csv` beside `img_arrs/*.npy`, the newer release, whose pictures are shrunk.

Non-commercial research and education only, on request from its authors.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emotion.datasets.scenes import Scene, Scenes, check_pictures, check_size, make_scene, read_picture, told
from emotion.errors import UserError
from emotion.labels import EMOTIC, VAD

SPLITS = ("train", "val", "test")
_MAT = ("Annotations.mat", "PAMI/Annotations/Annotations.mat", "Annotations/Annotations.mat")
_PICTURES = ("PAMI/emotic", "emotic", "emotic/emotic", ".")
_COLUMNS = ("filename", "folder", "width", "height", "x1", "y1", "x2", "y2", "arr_name")


def load(root: str | Path, split: str = "train", pictures: bool = True) -> Scenes:
    """The scenes of one split.

    Args:
        root: the data set's folder.
        split: "train", "val" or "test". Emotions of val and test are the union over annotators, the continuous
            values their mean.
        pictures: check that every picture is there.

    Raises:
        UserError: unknown split, no known layout, damaged annotations, missing pictures, unknown emotions.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"EMOTIC has the splits {', '.join(SPLITS)}, not {split!r}")
    mat = next((root / m for m in _MAT if (root / m).is_file()), None)
    table = root / "annots_arrs" / f"annot_arrs_{split}.csv"
    if mat is None and not table.is_file():
        raise UserError(
            f"{root} is no EMOTIC folder: it has neither {_MAT[1]} (or {_MAT[0]}) nor annots_arrs/{table.name}"
        )
    notices: list[str] = []
    scenes = _read_mat(mat, split, notices) if mat is not None else _read_arrays(table, notices)
    files = [s.file for s in scenes]
    if mat is None:
        folder, read = root / "img_arrs", _read_array
    else:
        folder = next((root / p for p in _PICTURES if files and (root / p / files[0]).is_file()), root / _PICTURES[0])
        read = read_picture
    if pictures:
        check_pictures(folder, files)
    data = Scenes("emotic", split, tuple(scenes), EMOTIC, lambda i: read(folder / files[i], size=scenes[i].size))
    return told(data, notices)


def _read_mat(path: Path, split: str, notices: list[str]) -> list[Scene]:
    from scipy.io.matlab import MatReadError, loadmat

    damaged = (MatReadError, OSError, ValueError, KeyError, AttributeError, NotImplementedError, TypeError)
    try:
        table = loadmat(path, squeeze_me=True, struct_as_record=False, variable_names=list(SPLITS))
        entries = _several(table[split])
        scenes, row = [], 0
        for entry in entries:
            people = _several(entry.person)
            scenes.append(_scene_of_mat(entry, people, row, notices))
            row += len(people)
    except damaged as error:
        kind = type(error).__name__
        raise UserError(f"cannot read {path}: {kind}: {error}; is it EMOTIC's Annotations.mat?") from error
    return scenes


def _scene_of_mat(entry: Any, people: list[Any], row: int, notices: list[str]) -> Scene:
    name, info = entry.original_database.name, entry.original_database.info
    ids = {k: getattr(info, k) for k in ("image_id", "annotations_id")} if name == "mscoco" else []
    about = {
        "database": "EMOTIC",
        "file_name": str(entry.filename),
        "folder": str(entry.folder),
        "name": str(name),
        "coco_ids": ids,
    }
    persons = [{"coco_ids": ids, "gender": str(p.gender), "age": str(p.age)} for p in people]
    return make_scene(
        f"{entry.folder}/{entry.filename}",
        (int(entry.image_size.n_col), int(entry.image_size.n_row)),
        [p.body_bbox for p in people],
        notices,
        labels=[_emotions(p) for p in people],
        vad=[_affect(p) for p in people],
        rows=np.arange(row, row + len(people)),
        about=about,
        people=tuple(persons),
    )


def _several(value: Any) -> list[Any]:
    """A struct array or cell as a list; with one element the reader gives the element alone."""
    return list(value) if isinstance(value, np.ndarray) else [value]


def _emotions(person: Any) -> list[str]:
    combined = getattr(person, "combined_categories", None)
    given = person.annotations_categories.categories if combined is None else combined
    return [str(name) for name in _several(given)]


def _affect(person: Any) -> list[float]:
    given = getattr(person, "combined_continuous", None) or person.annotations_continuous
    return [float(getattr(given, name)) for name in VAD]


def _read_arrays(path: Path, notices: list[str]) -> list[Scene]:
    """Scenes of the newer release; boxes are scaled to the stored arrays."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{k.strip().lower(): v for k, v in row.items() if k} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    wanted = [*_COLUMNS, *(e.lower() for e in EMOTIC)]
    missing = [c for c in wanted if rows and c not in rows[0]]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}")
    of_picture: dict[str, list[int]] = {}
    for k, row in enumerate(rows):
        of_picture.setdefault((row["arr_name"] or "").replace("\\", "/"), []).append(k)
    return [_scene_of_rows(path, file, [rows[k] for k in ks], ks, notices) for file, ks in of_picture.items()]


def _scene_of_rows(path: Path, file: str, rows: list[dict[str, str]], lines: list[int], notices: list[str]) -> Scene:
    first = rows[0]
    try:
        stored = np.load(path.parent.parent / "img_arrs" / file, mmap_mode="r", allow_pickle=False).shape
        size = (int(stored[1]), int(stored[0]))
        factor = np.array(size * 2) / [float(first[c]) for c in ("width", "height") * 2]
        boxes = np.array([[float(row[c]) for c in ("x1", "y1", "x2", "y2")] for row in rows]) * factor
        labels = [[e for e in EMOTIC if float(row[e.lower()] or 0) > 0] for row in rows]
        vad = [[float(row.get(a) or "nan") for a in VAD] for row in rows]
    except (OSError, EOFError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{path}, line {lines[0] + 2} ({file}): {error}") from error
    about = {"database": "EMOTIC", "file_name": first["filename"], "folder": first["folder"]}
    return make_scene(file, size, boxes, notices, labels=labels, vad=vad, rows=np.array(lines), about=about)


def _read_array(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        picture = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"cannot read the picture {path}: {error}") from error
    if picture.ndim != 3 or picture.shape[2] < 3:
        raise UserError(f"{path} is no picture in colours: it has the shape {picture.shape}")
    check_size(path, (picture.shape[1], picture.shape[0]), size)
    return np.ascontiguousarray(picture[..., :3]).astype(np.uint8)


def fake(root: str | Path, scenes: int = 3, seed: int = 0) -> Path:
    """Write random pictures with annotations in the layout of `Annotations.mat`; every split has `scenes` pictures."""
    from scipy.io import savemat

    root, rng = Path(root), np.random.default_rng(seed)
    table = {split: _fake_split(root, split, scenes, rng) for split in SPLITS}
    (root / "PAMI/Annotations").mkdir(parents=True, exist_ok=True)
    savemat(root / "PAMI/Annotations/Annotations.mat", table)
    return root


def _fake_split(root: Path, split: str, count: int, rng: np.random.Generator) -> np.ndarray:
    entries = []
    for k in range(count):
        folder, file = "framesdb/images", f"{split}_{k}.png"
        width, height = (int(v) for v in rng.integers(64, 128, 2))
        (root / "PAMI/emotic" / folder).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "PAMI/emotic" / folder / file)
        people = [_fake_person(split, width, height, rng) for _ in range(1 + k % 3)]
        entries.append(
            {
                "filename": file,
                "folder": folder,
                "image_size": {"n_col": float(width), "n_row": float(height)},
                "original_database": {"name": "framesdb", "info": {"url": "none"}},
                "person": np.array(people, dtype=object),
            }
        )
    return np.array(entries, dtype=object)


def _fake_person(split: str, width: int, height: int, rng: np.random.Generator) -> dict[str, Any]:
    x, y = rng.uniform(0, [width / 2, height / 2])
    box = [x, y, x + rng.uniform(12, width / 2), y + rng.uniform(16, height / 2)]
    names = np.array(rng.choice(EMOTIC, rng.integers(1, 4), replace=False), dtype=object)
    affect = {a: float(rng.integers(1, 11)) for a in VAD}
    person = {"body_bbox": np.array(box), "annotations_categories": {"categories": names}}
    if split != "train":
        person["combined_categories"] = names
    person["annotations_continuous"] = affect
    if split != "train":
        person["combined_continuous"] = affect
    return {**person, "gender": "Female", "age": "Adult"}
