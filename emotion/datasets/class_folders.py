"""Faces of your own sorted into folders by expression.

    train/happy/a.png      or, without splits,      happy/a.png
    train/sad/b.jpg                                 sad/b.jpg

Every picture is one face, cut out already. Folders are named after expressions in any usual spelling; which of the
names are there (in any split) is the vocabulary. Sub-folders of an expression's folder stand for persons or videos,
whose pictures are not independent: all pictures lie in them, or none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from emotion import media
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import AFFECTNET, canonical

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
WHOLE = "all"  # the split of a folder without splits
ORDER = (*AFFECTNET, "calm")


def load(root: str | Path, split: str = WHOLE) -> Samples:
    """The faces of one split.

    Args:
        root: folder in one of the layouts above.
        split: name of a folder in it, or "all" where expressions lie there directly.

    Returns:
        Samples with "expression" one-hot [N, K]. Ids are the pictures' paths below `root`, `groups` the names of
        sub-folders: `happy/anna` and `sad/anna` are one person.

    Raises:
        UserError: no such split, a folder that is no expression, two for the same one, a file that is no picture,
            pictures both in sub-folders and beside them, or none at all.
    """
    root = Path(root)
    whole, splits = _layout(root)
    if split not in splits:
        raise UserError(f"{root} has the split{'s' * (len(splits) > 1)} {', '.join(splits)}, not {split!r}")
    folders = [root] if whole else [root / name for name in splits]
    names = {name for folder in folders for name in _expressions(folder)}
    labels = tuple(name for name in ORDER if name in names)
    chosen = root if whole else root / split
    files, classes = [], []
    for name, folder in sorted(_expressions(chosen).items()):
        found = _pictures(folder)
        files += found
        classes += [labels.index(name)] * len(found)
    if not files:
        raise UserError(f"no pictures below {chosen}")
    depth = len(chosen.relative_to(root).parts) + 2  # split, expression, file
    ids = tuple(path.relative_to(root).as_posix() for path in files)
    deep = [len(path.relative_to(root).parts) > depth for path in files]
    if any(deep) and not all(deep):
        raise UserError(f"{root / ids[deep.index(False)]} lies beside sub-folders; put all pictures into some, or none")
    return Samples(
        dataset="class_folders",
        split=split,
        ids=ids,
        picture=lambda i: media.read_image(files[i]),
        labels={"expression": labels},
        targets={"expression": np.eye(len(labels), dtype=np.float32)[classes]},
        groups=np.array([path.parent.name for path in files]) if all(deep) else None,
        protocol="folder per expression",
    )


def _layout(root: Path) -> tuple[bool, list[str]]:
    """Whether expressions lie in `root` itself, and the splits."""
    inside = _folders(root)
    if not inside:
        raise UserError(f"{root} has no folders; it needs one per expression, or one per split with these in it")
    if any(_canonical(f.name) for f in inside):
        return True, [WHOLE]
    return False, [f.name for f in inside]


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _canonical(name: str) -> str:
    try:
        return canonical(name)
    except ValueError:
        return ""


def _expressions(folder: Path) -> dict[str, Path]:
    out: dict[str, Path] = {}
    for path in _folders(folder):
        name = _canonical(path.name)
        if not name:
            raise UserError(f"{path} is named after no expression; known: {', '.join(ORDER)}")
        if name in out:
            raise UserError(f"{out[name]} and {path} are the same expression, {name}")
        out[name] = path
    if not out:
        raise UserError(f"{folder} has no folders; it needs one per expression")
    return out


def _pictures(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    for path in files:
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path} is no picture; expected {', '.join(SUFFIXES)}")
    return files


def fake(root: str | Path, per_class: int = 2, seed: int = 0) -> Path:
    """Write a small synthetic copy: three expressions in two splits, brightness by class."""
    root, rng = Path(root), np.random.default_rng(seed)
    for split in ("train", "test"):
        for c, name in enumerate(("Neutral", "happy", "angry")):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for k in range(per_class):
                noise = rng.normal(60 + 60 * c, 20, (64, 64, 3))
                Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(folder / f"{k}.png")
    return root
