"""Person boxes in COCO's format: a folder with `annotations.json` beside `images/` or `images.zip`.

Pictures may carry a `split`; with none, all belong to "train". `complete_from_height` (pixels) says how far the
annotation of a picture is complete: people shorter than that may lack a box. Figures cut out exactly may lie beside
them as `masks/` or `masks.zip`: PNG files of the pictures' names and sizes, 255 where the person is.
"""

from __future__ import annotations

import io
import json
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emotion.datasets.scenes import Scene, Scenes, make_scene
from emotion.errors import UserError

PERSON = 1  # COCO's category


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
    for row, annotation in enumerate(table["annotations"]):
        if annotation["image_id"] not in of_image:
            raise UserError(f"{root}: annotation {annotation.get('id', row)} is of image {annotation['image_id']}, "
                            "which the file does not list")  # fmt: skip
        if annotation["category_id"] == PERSON:
            of_image[annotation["image_id"]].append((row, annotation))
    notices: list[str] = []
    scenes = tuple(_scene(image, of_image[image["id"]], notices) for image in chosen)
    names = [s.file for s in scenes]
    _check(root, names)
    with_mask = _names(root, "masks")
    stems = [Path(name).stem + ".png" for name in names]
    return Scenes(
        name,
        split,
        scenes,
        vocabulary=(),
        picture=lambda i: _picture(root, "images", names[i]),
        mask=(lambda i: _mask(root, stems[i]) if stems[i] in with_mask else None) if with_mask else None,
        notices=tuple(notices),
    )


def _mask(root: Path, name: str) -> np.ndarray:
    return _picture(root, "masks", name)[..., 0] == 255


def _read(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        bad = [k for k in ("images", "annotations") if not isinstance(table[k], list)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path} as COCO annotations: {type(error).__name__}: {error}") from error
    if bad:
        raise UserError(f"{path} has no list of {' and '.join(bad)}")
    return table


def _scene(image: dict[str, Any], people: list[tuple[int, dict[str, Any]]], notices: list[str]) -> Scene:
    boxes = np.array([a["bbox"] for _, a in people], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return make_scene(
        image["file_name"],
        (image["width"], image["height"]),
        boxes,
        notices,
        rows=np.array([row for row, _ in people], int),
        crowd=np.array([bool(a.get("iscrowd", 0)) for _, a in people], bool),
        complete_from=float(image.get("complete_from_height", 0)),
    )


def _names(root: Path, kind: str) -> set[str]:
    """File names in a folder or archive of pictures."""
    archive = root / f"{kind}.zip"
    if archive.is_file():
        with zipfile.ZipFile(archive) as file:
            return {Path(n).name for n in file.namelist()}
    return {p.name for p in (root / kind).glob("*")}


def _check(root: Path, names: list[str]) -> None:
    missing = sorted(set(names) - _names(root, "images"))
    if missing:
        raise UserError(f"{root}: images/ or images.zip lacks {len(missing)} annotated pictures, e.g. {missing[0]}")


def _picture(root: Path, kind: str, name: str) -> np.ndarray:
    archive = root / f"{kind}.zip"
    try:
        if not archive.is_file():
            return _decode((root / kind / name).read_bytes())
        file = _archive(archive, archive.stat().st_mtime_ns)
        inside = f"{kind}/{name}" if f"{kind}/{name}" in file.NameToInfo else name
        return _decode(file.read(inside))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {name} from {root / kind}: {error}") from error


@lru_cache(maxsize=4)
def _archive(path: Path, changed: int) -> zipfile.ZipFile:
    """An archive in memory: reading its directory for every picture takes ten times as long as the picture."""
    return zipfile.ZipFile(io.BytesIO(path.read_bytes()))


def _decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


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
