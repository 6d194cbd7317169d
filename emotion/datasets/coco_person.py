"""Person boxes in COCO's format: a folder with `annotations.json` beside `images/` or `images.zip`.

A picture's `file_name` is its path below `images/`; in an archive it may also be its path from the top. Pictures may
carry a `split`; with none, all belong to "train". `complete_from_height` (pixels) says how far the annotation of a
picture is complete: people shorter than that may lack a box. Figures cut out exactly may lie beside them as `masks/` or
`masks.zip`: PNG files of the pictures' names and sizes, 255 where the person is.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from emotion.datasets.scenes import Scene, Scenes, make_scene, read_picture, told
from emotion.errors import UserError

PERSON = 1  # COCO's category
# What damaged archives make their reader raise; the last two: encryption, odd compression.
BROKEN = (OSError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
FIELDS = {"images": ("id", "file_name", "width", "height"), "annotations": ("image_id", "category_id", "bbox")}


def load(root: str | Path, split: str = "train", source: str = "", name: str = "coco_person") -> Scenes:
    """The pictures of one split, with and without people.

    Args:
        root: the data set's folder.
        split: as the file calls it.
        source: only pictures whose `source` starts with this.
        name: of the data set, for results.

    Raises:
        UserError: missing or damaged files, an unknown split, pictures that are listed but not there, annotations of
            pictures that are not listed.
    """
    root = Path(root)
    table = _read(root / "annotations.json")
    splits = sorted({image.get("split", "train") for image in table["images"]})
    chosen = [i for i in table["images"] if i.get("split", "train") == split and i.get("source", "").startswith(source)]
    if not chosen:
        raise UserError(f"{root / 'annotations.json'} has no {source} pictures of split {split!r}, only {splits}")
    of_image: dict[Any, list[tuple[int, dict[str, Any]]]] = {image["id"]: [] for image in table["images"]}
    if len(of_image) < len(table["images"]):
        raise UserError(f"{root / 'annotations.json'} has {len(table['images'])} images with {len(of_image)} ids")
    for row, annotation in enumerate(table["annotations"]):
        if annotation["image_id"] not in of_image:
            raise UserError(f"{root}: annotation {annotation.get('id', row)} is of image {annotation['image_id']}, "
                            "which the file does not list")  # fmt: skip
        if annotation["category_id"] == PERSON:
            of_image[annotation["image_id"]].append((row, annotation))
    notices: list[str] = []
    scenes = tuple(_scene(image, of_image[image["id"]], notices) for image in chosen)
    names, sizes = [s.file for s in scenes], [s.size for s in scenes]
    _check(root, names)
    masks = [str(PurePosixPath(name).with_suffix(".png")) for name in names]
    with_mask = _found(root, "masks", masks)
    data = Scenes(
        name,
        split,
        scenes,
        vocabulary=(),
        picture=lambda i: _picture(root, "images", names[i], sizes[i]),
        mask=(lambda i: _mask(root, masks[i], sizes[i]) if masks[i] in with_mask else None) if with_mask else None,
    )
    return told(data, notices)


def _mask(root: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    return _picture(root, "masks", name, size)[..., 0] == 255


def _read(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        bad = [k for k in FIELDS if not isinstance(table[k], list)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"cannot read {path} as COCO annotations: {type(error).__name__}: {error}") from error
    if bad:
        raise UserError(f"{path} has no list of {' and '.join(bad)}")
    for kind, fields in FIELDS.items():
        for number, row in enumerate(table[kind]):
            if missing := [f for f in fields if not isinstance(row, dict) or f not in row]:
                raise UserError(f"{path}, {kind}, entry {number} lacks {', '.join(missing)}")
            if not isinstance(row[fields[0]], (int, str)):
                raise UserError(f"{path}, {kind}, entry {number}: {fields[0]} {row[fields[0]]!r} is no id")
    return table


def _scene(image: dict[str, Any], people: list[tuple[int, dict[str, Any]]], notices: list[str]) -> Scene:
    try:
        boxes = np.array([a["bbox"] for _, a in people], np.float64).reshape(len(people), 4)
        size, complete_from = (int(image["width"]), int(image["height"])), float(image.get("complete_from_height", 0))
    except (TypeError, ValueError) as error:
        raise UserError(f"annotations.json, image {image['id']}: a size or box is not of numbers: {error}") from error
    boxes[:, 2:] += boxes[:, :2]
    return make_scene(
        str(image["file_name"]),
        size,
        boxes,
        notices,
        rows=np.array([row for row, _ in people], int),
        crowd=np.array([bool(a.get("iscrowd", 0)) for _, a in people], bool),
        complete_from=complete_from,
        about={"id": image["id"]},
    )


def _found(root: Path, kind: str, names: list[str]) -> set[str]:
    """Those of the names that `_picture` finds in the folder or archive."""
    archive = root / f"{kind}.zip"
    try:
        if not archive.is_file():
            return {n for n in names if (root / kind / n).is_file()}
        with zipfile.ZipFile(archive) as file:
            return {n for n in names if n and _inside(file, kind, n) in file.NameToInfo}
    except BROKEN as error:
        raise UserError(f"cannot read {archive}: {error}; is it complete?") from error


def _inside(file: zipfile.ZipFile, kind: str, name: str) -> str:
    """Where an archive has a picture: below a folder called as the archive, or from the top."""
    return f"{kind}/{name}" if f"{kind}/{name}" in file.NameToInfo else name


def _check(root: Path, names: list[str]) -> None:
    missing = sorted(set(names) - _found(root, "images", names))
    if missing:
        archive = root / "images.zip"
        where = f"{archive} (in its folder images/, or from its top)" if archive.is_file() else f"{root / 'images'}"
        raise UserError(f"{where} lacks {len(missing)} annotated pictures, e.g. {missing[0]}")


def _picture(root: Path, kind: str, name: str, size: tuple[int, int]) -> np.ndarray:
    archive = root / f"{kind}.zip"
    try:
        if not archive.is_file():
            return read_picture(root / kind / name, size=size)
        file = _archive(archive, archive.stat().st_mtime_ns)
        inside = _inside(file, kind, name)
        return read_picture(io.BytesIO(file.read(inside)), f"{archive}: {inside}", size)
    except BROKEN as error:
        raise UserError(f"cannot read {name} from {root / kind}: {error}") from error


@lru_cache(maxsize=4)
def _archive(path: Path, changed: int) -> zipfile.ZipFile:
    """An archive in memory: reading its directory for every picture takes ten times as long as the picture."""
    return zipfile.ZipFile(io.BytesIO(path.read_bytes()))


def fake(root: str | Path, pictures: int = 6, seed: int = 0) -> Path:
    """Write random pictures in three splits; every second one has a bright figure on dark ground, with mask and box."""
    root, rng = Path(root), np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": PERSON, "name": "person"}]}
    for split in ("train", "val", "test"):
        for k in range(pictures):
            name, number = f"{split}_{k}", len(table["images"])
            pixels = rng.integers(0, 80, (96, 128, 3), dtype=np.uint8)
            image = {"id": number, "file_name": f"{name}.png", "width": 128, "height": 96, "split": split}
            table["images"].append({**image, "source": "ccp" if k % 2 else "coco"})
            if k % 2:
                x, y = (int(v) for v in rng.integers(4, 40, 2))
                figure = np.zeros((96, 128), bool)
                figure[y : y + 50, x : x + 20] = True
                pixels[figure] = rng.integers(150, 256, 3, dtype=np.uint8)
                Image.fromarray(figure.astype(np.uint8) * 255).save(root / "masks" / f"{name}.png")
                box = {"id": number, "image_id": number, "category_id": PERSON, "bbox": [x, y, 20, 50], "iscrowd": 0}
                table["annotations"].append(box)
            Image.fromarray(pixels).save(root / "images" / f"{name}.png")
    (root / "annotations.json").write_text(json.dumps(table), encoding="utf-8")
    return root
