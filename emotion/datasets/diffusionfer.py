"""DiffusionFER: synthetic colour faces with expression, valence and arousal (Kim and Kang 2023, CC0 1.0).

Layout: `index.csv` (file, expression, valence, arousal, split, face_prob) beside `cropped_224.zip`, or the unpacked
folders of that archive.
"""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import AFFECTNET, VALENCE_AROUSAL, canonical

LABELS = AFFECTNET[:-1]  # no contempt
COLUMNS = ("file", "expression", "valence", "arousal", "split", "face_prob")


def load(root: str | Path, split: str = "train", task: str | None = None) -> Samples:
    """The faces of one split ("train" or "test"); pictures without any detectable face are left out.

    Args:
        root: folder with index.csv and the pictures.
        split: "train" or "test".
        task: keep the labels of one task only ("expression" or "valence_arousal"); default both.

    Returns:
        Samples with "expression" [N, 7] one-hot and "valence_arousal" [N, 2] in [-1, 1].

    Raises:
        UserError: missing files, unknown split, rows that do not parse or lie outside [-1, 1].
    """
    root = Path(root)
    if split not in ("train", "test"):
        raise UserError(f"DiffusionFER has the splits train and test, not {split!r}")
    rows = [r for r in _index(root / "index.csv") if r["split"] == split and float(r["face_prob"]) > 0]
    if not rows:
        raise UserError(f"{root / 'index.csv'} lists no face of the {split} split")
    archive = root / "cropped_224.zip"
    stored = _unpack(archive, [r["file"] for r in rows]) if archive.is_file() else None
    affect = np.array([[float(r["valence"]), float(r["arousal"])] for r in rows], dtype=np.float32)
    classes = [LABELS.index(canonical(r["expression"])) for r in rows]
    targets = {"expression": np.eye(len(LABELS), dtype=np.float32)[classes], "valence_arousal": affect}

    def picture(i: int) -> np.ndarray:
        return _decode(stored[i] if stored else root / rows[i]["file"])

    return Samples(
        dataset="diffusionfer",
        split=split,
        ids=tuple(r["file"] for r in rows),
        picture=picture,
        labels={"expression": LABELS, "valence_arousal": VALENCE_AROUSAL},
        targets={k: v for k, v in targets.items() if task in (None, k)},
        protocol="annotators' class and values",
    )


def _index(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    for line, row in enumerate(rows, start=2):
        missing = [c for c in COLUMNS if row.get(c) in (None, "")]
        if missing:
            raise UserError(f"{path} line {line} has no {', '.join(missing)}")
        try:
            values = [float(row[c]) for c in ("valence", "arousal", "face_prob")]
            canonical(row["expression"])
        except ValueError as error:
            raise UserError(f"{path} line {line}: {error}") from None
        if not all(-1 <= v <= 1 for v in values):
            raise UserError(f"{path} line {line}: valence and arousal must lie in [-1, 1], found {values[:2]}")
    return rows


def _unpack(archive: Path, names: list[str]) -> list[bytes]:
    try:
        with zipfile.ZipFile(archive) as file:
            return [file.read(name) for name in names]
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {archive}: {error}") from error


def _decode(source: bytes | Path) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise UserError(f"cannot read a face: {error}") from error


def fake(root: str | Path, per_class: int = 2, seed: int = 0) -> Path:
    """Write a small synthetic copy: colour noise whose brightness follows valence."""
    root, rng = Path(root), np.random.default_rng(seed)
    rows = []
    for split in ("train", "test"):
        for name in LABELS:
            for k in range(per_class):
                valence, arousal = np.round(rng.uniform(-1, 1, 2), 1)
                file = f"{name}/{split}{k}.png"
                (root / name).mkdir(parents=True, exist_ok=True)
                noise = rng.normal(128 + 80 * valence, 30, (64, 64, 3))
                Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(root / file)
                rows.append([file, name, valence, arousal, split, 0.99])
    with (root / "index.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return root
