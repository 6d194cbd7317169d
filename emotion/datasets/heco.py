"""HECO: people in context with eight emotions and valence, arousal, dominance (Yang et al., ECCV 2022).

Layout: `Labels/HECO_Labels.csv` beside `Images/` (some copies call it `Data/`). Research only, on request from its
authors; without splits, used for training. The misspelt label "Happinesst" of the published file is mended.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from emotion.datasets.scenes import Scenes, check_pictures, make_scene, picture_size, read_picture, told
from emotion.errors import UserError
from emotion.labels import HECO, VAD

TABLE = "Labels/HECO_Labels.csv"
_FOLDERS = ("Images", "Data")
_COLUMNS = ("Image", "xmin", "ymin", "xmax", "ymax", "Category", "Valence", "Arousal", "Dominance")
_MENDED = {"Happinesst": "Happiness"}


def load(root: str | Path, split: str = "train", published: bool = False) -> Scenes:
    """All scenes; pictures are grouped, the file's order of people is kept in `Scene.rows`.

    Args:
        root: the data set's folder.
        split: "train" is all there is.
        published: keep the misspelt label, as the original does (its own conversion then differs further: see
            `scenes.person_table`).

    Raises:
        UserError: missing table, folder or pictures, a picture that cannot be read, a row that does not parse, an
            unknown emotion.
    """
    root = Path(root)
    if split != "train":
        raise UserError(f"HECO has the one split train, not {split!r}")
    folder = next((root / f for f in _FOLDERS if (root / f).is_dir()), None)
    if folder is None or not (root / TABLE).is_file():
        raise UserError(f"{root} is no HECO folder: it needs {TABLE} and {' or '.join(f + '/' for f in _FOLDERS)}")
    rows = _read(root / TABLE)
    check_pictures(folder, (row["Image"] for row in rows))
    notices: list[str] = []
    of_picture: dict[str, list[int]] = {}
    for k, row in enumerate(rows):
        of_picture.setdefault(row["Image"], []).append(k)
        if row["Category"] in _MENDED:
            notices.append(f"line {k + 2}: {row['Category']!r} read as {_MENDED[row['Category']]!r}")
    scenes = []
    for file, ks in of_picture.items():
        size = picture_size(folder / file)
        boxes = [_numbers(rows[k], _COLUMNS[1:5], root, k) for k in ks]
        vad = [_numbers(rows[k], [a.capitalize() for a in VAD], root, k) for k in ks]
        names = [rows[k]["Category"] for k in ks]
        labels = [(name if published else _MENDED.get(name, name),) for name in names]
        about = {"database": "HECO", "file_name": file, "folder": "HECO/Images"}
        scenes.append(make_scene(file, size, boxes, notices, labels=labels, vad=vad, rows=np.array(ks), about=about))
    vocabulary = (*HECO, *_MENDED) if published else HECO
    files = list(of_picture)
    data = Scenes("heco", split, tuple(scenes), vocabulary, lambda i: read_picture(folder / files[i]))
    return told(data, notices)


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    missing = [c for c in _COLUMNS if rows and c not in rows[0]]
    if missing or not rows:
        raise UserError(f"{path} has no {'column ' + ', '.join(missing) if missing else 'rows'}")
    rows = [{c: (row[c] or "").strip() for c in _COLUMNS} for row in rows]  # a short row has None at its end
    if nameless := [k for k, row in enumerate(rows) if not row["Image"]]:
        raise UserError(f"{path}, line {nameless[0] + 2}: no Image; complete the row or remove it")
    return rows


def _numbers(row: dict[str, str], columns: tuple[str, ...] | list[str], root: Path, k: int) -> list[float]:
    try:
        return [float(row[c]) if row[c] else float("nan") for c in columns]
    except (TypeError, ValueError):
        raise UserError(f"{root / TABLE}, line {k + 2}: {', '.join(columns)} must be numbers") from None


def fake(root: str | Path, seed: int = 0) -> Path:
    """Write a small random copy: three pictures, five people, one misspelt label, rows of one picture apart."""
    root, rng = Path(root), np.random.default_rng(seed)
    (root / "Images").mkdir(parents=True, exist_ok=True)
    (root / "Labels").mkdir(exist_ok=True)
    for k in range(3):
        Image.fromarray(rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)).save(root / "Images" / f"heco_{k}.png")
    with (root / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, "Label_SA"])
        for k, category in zip((0, 1, 2, 0, 1), (*HECO[:4], "Happinesst")):
            x, y = (int(v) for v in rng.integers(0, 40, 2))
            writer.writerow([f"heco_{k}.png", x, y, x + 30, y + 35, category, *rng.integers(1, 11, 3), "sa1"])
    return root
