"""ExpW, Expression in the Wild: faces of web pictures with one of seven expressions (Zhang et al., IJCV 2018).

    label/label.lst      lines `image face top left right bottom confidence label`
    image/origin/        the pictures

Labels there are 0 anger, 1 disgust, 2 fear, 3 happiness, 4 sadness, 5 surprise, 6 neutral; here in ABAW's order. Faces
are cut at the given box, without alignment or margin. Rows whose picture is absent are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from emotion import media
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import ABAW, FER2013, index_map

ORDER = index_map(FER2013, ABAW)  # ExpW numbers its classes as FER2013 does


def load(root: str | Path, split: str = "all", min_confidence: float = 0.0) -> Samples:
    """All labelled faces; the data set has no split.

    Args:
        root: folder in the layout above.
        split: "all" or "train", which mean the same.
        min_confidence: smallest face detector's confidence (0 to 100) to accept.

    Returns:
        Samples with "expression" one-hot [N, 7] in ABAW's order. Ids are `<image>_<face>`, because a picture may hold
        several faces.

    Raises:
        UserError: unknown split, missing files, rows that do not parse, empty boxes.
    """
    root = Path(root)
    if split not in ("all", "train"):
        raise UserError(f"ExpW has no {split} split; use all")
    names, numbers = _rows(root / "label" / "label.lst")
    folder = root / "image" / "origin"
    present = {p.name for p in folder.glob("*")}
    kept = [i for i, name in enumerate(names) if name in present and numbers[i, 5] >= min_confidence]
    if not kept:
        raise UserError(f"no picture named in {root / 'label' / 'label.lst'} is in {folder}")
    names, numbers = [names[i] for i in kept], numbers[kept]
    boxes = numbers[:, [2, 1, 3, 4]].astype(np.int64)  # left, top, right, bottom

    def picture(i: int) -> np.ndarray:
        face = Image.fromarray(media.read_image(folder / names[i]))
        return np.asarray(face.crop(tuple(boxes[i])))

    classes = np.array(ORDER)[numbers[:, 6].astype(np.int64)]
    return Samples(
        dataset="expw",
        split=split,
        ids=tuple(f"{Path(name).stem}_{int(face)}" for name, face in zip(names, numbers[:, 0])),
        picture=picture,
        labels={"expression": ABAW},
        targets={"expression": np.eye(len(ABAW), dtype=np.float32)[classes]},
        groups=np.array(names),
        protocol="given boxes" + (f" of confidence {min_confidence:g} and more" if min_confidence else ""),
    )


def _rows(path: Path) -> tuple[list[str], np.ndarray]:
    """Picture names, and [N, 7]: face number, top, left, right, bottom, confidence, label."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    names, numbers = [], []
    for line, text in enumerate(lines, start=1):
        name, *cells = text.split() or [""]
        try:
            row = [float(c) for c in cells]
        except ValueError:
            row = []
        if len(row) != 7:
            raise UserError(f"{path} line {line}: expected `image face top left right bottom confidence label`")
        _, top, left, right, bottom, _, label = row
        if right <= left or bottom <= top or label not in range(len(ORDER)):
            raise UserError(f"{path} line {line}: empty box or a label outside 0 to 6")
        names.append(name)
        numbers.append(row)
    return names, np.array(numbers).reshape(-1, 7)


def fake(root: str | Path, per_class: int = 3, size: int = 80, seed: int = 0) -> Path:
    """Write a small synthetic copy: two faces per picture, brightness by class; the last row's picture is absent."""
    root, rng = Path(root), np.random.default_rng(seed)
    (root / "label").mkdir(parents=True, exist_ok=True)
    (root / "image" / "origin").mkdir(parents=True, exist_ok=True)
    labels = rng.permutation(np.arange(7).repeat(2 * per_class)).reshape(-1, 2)
    lines = []
    for k, pair in enumerate(labels):
        image = rng.normal(128, 20, (size, 2 * size, 3))
        for face, label in enumerate(pair):
            left = face * size + 5
            image[5 : size - 5, left : left + size - 10] += 15 * (label - 3)
            lines.append(f"{k}.jpg {face} 5 {left} {left + size - 10} {size - 5} {90 - face} {label}")
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(root / "image" / "origin" / f"{k}.jpg")
    lines.append("absent.jpg 0 1 2 30 40 50.0 3")
    (root / "label" / "label.lst").write_text("\n".join(lines), encoding="utf-8")
    return root
