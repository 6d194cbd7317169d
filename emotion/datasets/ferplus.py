"""FER+: the 48x48 grey faces of FER2013 with ten votes each (Barsoum et al., ICMI 2016, arXiv 1608.01041).

Three layouts are read:
- table: `fer2013.csv` or `icml_face_data.csv` (Kaggle) beside `fer2013new.csv` (microsoft/FERPlus);
- folder: `FER2013Train/`, `FER2013Valid/`, `FER2013Test/` with PNG files and `label.csv` inside, or the same names
  below `Images/` and `Labels/`;
- packed: `train.png`, `valid.png` (atlases of 96 faces a row) with `index.csv` and `label_csv_votes.csv`.

The votes exist in two public versions that differ in about 1,600 rows, `label.csv` (used by published accuracies) and
`fer2013new.csv`; a result must say which one it used.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import FERPLUS

VOTES = (*FERPLUS, "unknown", "NF")
SPLITS = {
    "train": ("FER2013Train", "Training"),
    "valid": ("FER2013Valid", "PublicTest"),
    "test": ("FER2013Test", "PrivateTest"),
}
SIDE = 48
ATLAS_COLUMNS = 96

# A layout's reader gives: names, grey faces [N, 48, 48], votes [N, 10], version of the votes.
Rows = tuple[list[str], np.ndarray, np.ndarray, str]


def load(root: str | Path, split: str = "train", protocol: str = "majority", votes: str | None = None) -> Samples:
    """The usable faces of one split.

    Args:
        root: folder in one of the three layouts.
        split: "train", "valid" or "test".
        protocol: "majority" (one class, as every published accuracy), "crossentropy" (distribution over up to three
            classes), "multi" (classes with at least 30 % of the votes) or "votes" (all emotion votes above one;
            keeps every face that shows some emotion, for training with soft targets).
        votes: "label.csv" or "fer2013new.csv" where the layout has both; default: label.csv if it is there.

    Returns:
        Samples with "expression" targets [N, 8] in the order of `labels.FERPLUS`, rows sum to 1.

    Raises:
        UserError: unknown split or protocol, missing files, rows that do not parse.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"FER+ has the splits {', '.join(SPLITS)}, not {split!r}")
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown FER+ label protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    names, faces, ballots, version = _layout(root)(root, split, votes)
    targets, kept = PROTOCOLS[protocol](ballots)
    faces, targets = faces[kept], targets[kept].astype(np.float32)
    return Samples(
        dataset="ferplus",
        split=split,
        ids=tuple(n for n, k in zip(names, kept) if k),
        picture=lambda i: faces[i],
        labels={"expression": FERPLUS},
        targets={"expression": targets},
        protocol=f"{protocol}, votes of {version}",
    )


def _layout(root: Path) -> Callable[[Path, str, str | None], Rows]:
    if (root / "index.csv").is_file():
        return _read_packed
    if any((root / name).is_file() for name in ("fer2013.csv", "icml_face_data.csv")):
        return _read_table
    if any((root / part / folder).is_dir() for folder, _ in SPLITS.values() for part in ("", "Labels")):
        return _read_folder
    raise UserError(
        f"{root} is no FER+ folder. Expected one of: fer2013.csv (or icml_face_data.csv) with fer2013new.csv; "
        "FER2013Train/label.csv with its PNG files; train.png with index.csv."
    )


def _version(asked: str | None, available: tuple[str, ...], root: Path) -> str:
    if asked is not None and asked not in available:
        raise UserError(f"{root} has the votes of {' and '.join(available)}, not of {asked!r}")
    return asked or available[0]


# -- layouts ---------------------------------------------------------------------------------------------------------


def _read_table(root: Path, split: str, votes: str | None) -> Rows:
    version = _version(votes, ("fer2013new.csv",), root)
    source = next(root / n for n in ("fer2013.csv", "icml_face_data.csv") if (root / n).is_file())
    pictures = _read_csv(source, ("emotion", "pixels", "Usage"))
    ballots = _read_csv(root / version, ("Usage", "Image name", *VOTES))
    if len(pictures) != len(ballots):
        raise UserError(f"{source.name} has {len(pictures)} rows, {version} has {len(ballots)}: they must correspond")
    names, faces, rows = [], [], []
    for line, (picture, ballot) in enumerate(zip(pictures, ballots), start=2):
        if picture["Usage"] != ballot["Usage"]:
            raise UserError(f"{source.name} and {version} disagree on the split in line {line}")
        if ballot["Usage"] != SPLITS[split][1] or not ballot["Image name"]:
            continue  # rows without a name are not faces (10 votes for NF)
        names.append(ballot["Image name"])
        faces.append(_levels(picture["pixels"] or "", f"{source} line {line}"))
        rows.append(_ballot([ballot[v] for v in VOTES], root / version, line))
    return names, _stack(faces, root, split), np.array(rows), version


def _levels(text: str, where: str) -> np.ndarray:
    """A face from its grey levels in words, uint8 [48, 48]."""
    words = text.split()
    if len(words) != SIDE * SIDE or not all(len(w) < 4 and w.isascii() and w.isdigit() and int(w) < 256 for w in words):
        raise UserError(f"{where}: expected {SIDE * SIDE} grey levels in 0 to 255")
    return np.array(words, np.int64).astype(np.uint8).reshape(SIDE, SIDE)


def _read_folder(root: Path, split: str, votes: str | None) -> Rows:
    version = _version(votes, ("label.csv",), root)
    folder = SPLITS[split][0]
    table = next((p for p in (root / "Labels" / folder / version, root / folder / version) if p.is_file()), None)
    if table is None:
        raise UserError(f"{root} has no {folder}/{version} (nor Labels/{folder}/{version})")
    pictures = root / "Images" / folder if (root / "Images" / folder).is_dir() else table.parent
    names, faces, rows = [], [], []
    try:
        lines = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {table}: {error}") from error
    for line, row in enumerate(lines, start=1):
        if len(row) != 12:
            raise UserError(f"{table} line {line}: expected name, box and ten votes, found {len(row)} fields")
        name, box = row[0], row[1]
        if not box.strip("() ").endswith(str(SIDE)):
            raise UserError(f"{table} line {line}: face box {box} does not end with {SIDE}")
        names.append(name)
        faces.append(_grey(pictures / name))
        rows.append(_ballot(row[2:], table, line))
    return names, _stack(faces, root, split), np.array(rows), version


def _read_packed(root: Path, split: str, votes: str | None) -> Rows:
    version = _version(votes, ("label.csv", "fer2013new.csv"), root)
    atlas = root / f"{split}.png"
    if not atlas.is_file():
        raise UserError(f"{root} has no {split}.png: this packed copy does not hold the {split} split")
    columns = [v.lower() for v in VOTES]
    table = _read_csv(root / "index.csv", ("row", "split", "name", "source", *columns))
    index = [row for row in table if row["split"] == split]
    changed = {}
    if version == "label.csv":
        changed = {row["row"]: row for row in _read_csv(root / "label_csv_votes.csv", ("row", *columns))}
    levels = _picture(atlas)
    if levels.shape[1] != ATLAS_COLUMNS * SIDE or levels.shape[0] % SIDE:
        raise UserError(f"{atlas} is {levels.shape[1]}x{levels.shape[0]}; faces lie {ATLAS_COLUMNS} in a row of {SIDE}")
    cells = levels.reshape(-1, SIDE, ATLAS_COLUMNS, SIDE).transpose(0, 2, 1, 3).reshape(-1, SIDE, SIDE)
    if len(cells) < len(index):
        raise UserError(f"{atlas} holds {len(cells)} faces, index.csv lists {len(index)}")
    usable, seen = [], set()
    for k, row in enumerate(index):
        again = version == "label.csv" and row["name"] in seen  # label.csv lists a name once, four occur twice
        if row["name"] and row["source"] == "png" and not again:
            usable.append(k)
        seen.add(row["name"])
    ballots = []
    for k in usable:
        source = changed.get(index[k]["row"], index[k])
        ballots.append(_ballot([source[c] for c in columns], root / "index.csv", k + 2))
    return [index[k]["name"] for k in usable], cells[usable], np.array(ballots), version


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = [f.strip() for f in reader.fieldnames or ()]
            missing = [c for c in columns if c not in reader.fieldnames]
            if missing:
                raise UserError(f"{path} has no column {', '.join(missing)}")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _ballot(cells: list[str], path: Path, line: int) -> list[int]:
    try:
        counts = [int(c) for c in cells]
    except (TypeError, ValueError):
        raise UserError(f"{path} line {line}: votes must be whole numbers, found {cells}") from None
    if min(counts) < 0:
        raise UserError(f"{path} line {line}: negative votes {counts}")
    return counts


def _picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:  # ValueError: odd characters in its name
        raise UserError(f"cannot read {path}: {error}") from error


def _grey(path: Path) -> np.ndarray:
    grey = _picture(path)
    if grey.shape != (SIDE, SIDE):
        raise UserError(f"{path} is {grey.shape[1]}x{grey.shape[0]} pixels, expected {SIDE}x{SIDE}")
    return grey


def _stack(faces: list[np.ndarray], root: Path, split: str) -> np.ndarray:
    if not faces:
        raise UserError(f"{root} holds no faces of the {split} split")
    return np.stack(faces)


# -- label protocols: votes [N, 10] -> targets [N, 8], kept [N] -------------------------------------------------------


def without_single_votes(votes: np.ndarray) -> np.ndarray:
    """Votes with counts of one removed, as every protocol of the paper does first."""
    return np.where(votes > 1, votes, 0)


def majority(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class with more than half of the remaining votes; other faces are dropped, so are unknown and no-face."""
    v = without_single_votes(votes)
    top = v.argmax(axis=1)
    kept = (v.max(axis=1) > 0.5 * v.sum(axis=1)) & (top < len(FERPLUS))
    return np.eye(len(VOTES))[top][:, : len(FERPLUS)] * kept[:, None], kept


def crossentropy(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distribution over the one to three strongest classes that cover three quarters of the votes."""
    taken = np.array([_strongest(v) for v in without_single_votes(votes)]).reshape(-1, len(VOTES))
    return _finish(taken)


def _strongest(votes: np.ndarray) -> np.ndarray:
    """Votes of the classes taken from the strongest down; all zero when no usable mixture remains."""
    left, taken, count = votes.copy(), np.zeros_like(votes), 0
    while taken.sum() < 0.75 * votes.sum() and count < 3:
        level = left.max()
        for k in np.flatnonzero(left == level):
            if k >= len(FERPLUS):  # unknown or no face ends the search; it counts only where nothing came before
                if count == 0:
                    return np.zeros_like(votes)
                return _enough(taken, votes, count)
            taken[k], left[k], count = level, 0, count + 1
    return _enough(taken, votes, count)


def _enough(taken: np.ndarray, votes: np.ndarray, count: int) -> np.ndarray:
    return taken if taken.sum() > 0.5 * votes.sum() and count <= 3 else np.zeros_like(votes)


def multi(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All classes with at least 30 % of the votes, if together they have more than half."""
    v = without_single_votes(votes)
    total = v.sum(axis=1, keepdims=True)
    taken = np.where(v >= 0.3 * total, v, 0)
    return _finish(np.where(taken.sum(axis=1, keepdims=True) > 0.5 * total, taken, 0))


def all_votes(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plain distribution over the eight emotions, of every face whose strongest vote is an emotion."""
    v = without_single_votes(votes)
    return _finish(np.where((v.argmax(axis=1) < len(FERPLUS))[:, None], v, 0))


def _finish(taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop faces whose strongest class is no emotion, renormalise the eight emotions."""
    kept = (taken.sum(axis=1) > 0) & (taken.argmax(axis=1) < len(FERPLUS))
    emotions = taken[:, : len(FERPLUS)] * kept[:, None]
    return emotions / np.maximum(emotions.sum(axis=1, keepdims=True), 1e-12), kept


PROTOCOLS = {"majority": majority, "crossentropy": crossentropy, "multi": multi, "votes": all_votes}


# -- synthetic copy --------------------------------------------------------------------------------------------------


def fake(root: str | Path, layout: str = "folder", per_class: int = 1, seed: int = 0) -> Path:
    """Write random faces whose brightness pattern depends on the class, in one of the public layouts.

    Every split holds `per_class` faces of each class, a tie, an unknown and a no-face row; the table layout also has
    one row without a name.
    """
    root, rng = Path(root), np.random.default_rng(seed)
    one = np.eye(len(VOTES), dtype=int)
    ballots = [9 * one[k] + one[8] for k in range(len(FERPLUS)) for _ in range(per_class)]
    ballots += [5 * one[0] + 5 * one[3], 10 * one[8], 10 * one[9]]
    rows = []
    for split, (folder, usage) in SPLITS.items():
        for ballot in ballots:
            face = _fake_face(int(ballot.argmax()), rng)
            rows.append((split, folder, usage, f"fer{len(rows):07d}.png", ballot, face))
    write = {"folder": _fake_folder, "table": _fake_table}
    if layout not in write:
        raise UserError(f"fake FER+ data comes as {' or '.join(write)}, not {layout!r}")
    write[layout](root, rows)
    return root


def _fake_face(kind: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    wave = np.sin((x * np.cos(kind) + y * np.sin(kind)) * 2 * np.pi / (6 + kind))
    return np.clip(128 + 80 * wave + rng.normal(0, 15, (SIDE, SIDE)), 0, 255).astype(np.uint8)


def _fake_folder(root: Path, rows: list[tuple]) -> None:
    for split, folder, *_ in {r[0]: r for r in rows}.values():
        (root / folder).mkdir(parents=True, exist_ok=True)
        with (root / folder / "label.csv").open("w", newline="", encoding="utf-8") as file:
            mine = [r for r in rows if r[0] == split]
            csv.writer(file).writerows([name, "(0, 0, 48, 48)", *ballot] for *_, name, ballot, _ in mine)
        for *_, name, _, face in mine:
            Image.fromarray(face).save(root / folder / name)


def _fake_table(root: Path, rows: list[tuple]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    blank = ("train", "FER2013Train", "Training", "", np.eye(10, dtype=int)[9] * 10, np.zeros((SIDE, SIDE), np.uint8))
    rows = [*rows, blank]
    with (root / "fer2013.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        writer.writerows([0, " ".join(map(str, face.ravel())), usage] for _, _, usage, _, _, face in rows)
    with (root / "fer2013new.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Usage", "Image name", *VOTES])
        writer.writerows([usage, name, *ballot] for _, _, usage, name, ballot, _ in rows)
