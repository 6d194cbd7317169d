"""Annotated scenes: pictures with boxes of people, their emotions and valence, arousal, dominance.

Readers (`emotic`, `heco`, `coco_person`) give `Scenes`. `coco_table` and `person_table` are the two JSON forms in use
with BENet's original (COCO style, and one entry per person), `convert` writes all of its annotation files at once.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emotion.errors import UserError
from emotion.labels import VAD

FORMATS = ("x1y1x2y2", "xywh")
SHOWN = 5  # notices that are logged

_LOG = logging.getLogger(__name__)

# The category that COCO's keypoint files have, part of both JSON forms.
_JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
PERSON = {
    "supercategory": "person",
    "id": 1,
    "name": "person",
    "keypoints": ["nose", *(f"{side}_{part}" for part in ("eye", "ear", *_JOINTS) for side in ("left", "right"))],
    "skeleton": [
        [16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10], [9, 11],
        [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7],
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """One picture and its P people.

    Attributes:
        file: path below the data set's picture folder.
        size: width and height in pixels.
        boxes: float64 [P, 4], x0 y0 x1 y1 inside the picture.
        labels: emotions of every person, None where not labelled.
        vad: float64 [P, 3] on the annotators' scale of 1 to 10, NaN where missing.
        rows: int64 [P], position of every person in the annotation file.
        crowd: bool [P], regions of many people (COCO), never a single person.
        annotated: float64 [P, 4], boxes as the annotation file has them.
        complete_from: people at least so tall (pixels) are all annotated, smaller ones perhaps not; 0 for all.
        about: what else is known about the picture, as the JSON forms have it.
        people: the same about every person.
    """

    file: str
    size: tuple[int, int]
    boxes: np.ndarray
    labels: tuple[tuple[str, ...] | None, ...]
    vad: np.ndarray
    rows: np.ndarray
    crowd: np.ndarray
    annotated: np.ndarray
    complete_from: float = 0.0
    about: dict[str, Any] = field(default_factory=dict)
    people: tuple[dict[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(self.boxes)


def make_scene(
    file: str, size: tuple[int, int], boxes: Any, notices: list[str], labels: Any = None, vad: Any = None, **more: Any
) -> Scene:
    """A scene from raw annotations: boxes are clipped to the picture, what is odd is noted in `notices`.

    Raises:
        UserError: a box without numbers.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    n, (width, height) = len(boxes), size
    if len(bad := np.flatnonzero(~np.isfinite(boxes).all(axis=1))):
        raise UserError(f"{file}: person {bad[0] + 1} has no box, but {boxes[bad[0]].tolist()}")
    clipped = boxes.clip(0, [width, height] * 2)
    for k in np.flatnonzero((clipped[:, 2:] <= clipped[:, :2]).any(axis=1)):
        notices.append(f"{file}: person {k + 1} has a box without area, {boxes[k].tolist()}")
    outside = int((abs(clipped - boxes) > 0.01).any(axis=1).sum())  # less is rounding
    if outside:
        notices.append(f"{file}: {outside} boxes reach outside the picture and were cut")
    return Scene(
        file=file,
        size=(int(width), int(height)),
        boxes=clipped,
        labels=(None,) * n if labels is None else tuple(None if x is None else tuple(x) for x in labels),
        annotated=boxes,
        vad=np.full((n, 3), np.nan) if vad is None else np.asarray(vad, np.float64).reshape(n, 3),
        **{"rows": np.arange(n), "crowd": np.zeros(n, bool), **more},
    )


@dataclass(frozen=True)
class Scenes:
    """The scenes of one split.

    Attributes:
        dataset, split: where they come from.
        scenes: in the order of the annotation file.
        vocabulary: the emotions that labels come from; () for sets of boxes only.
        picture: index -> uint8 [H, W, 3].
        mask: index -> bool [H, W], true where the (only) person is, or None where unknown; None without any masks.
        notices: what is odd in the annotations, for people to read; nothing is dropped silently.
    """

    dataset: str
    split: str
    scenes: tuple[Scene, ...]
    vocabulary: tuple[str, ...]
    picture: Callable[[int], np.ndarray]
    mask: Callable[[int], np.ndarray | None] | None = None
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = set(self.vocabulary)
        for scene in self.scenes:
            for k, names in enumerate(scene.labels):
                unknown = [n for n in names or () if n not in known]
                if unknown:
                    raise UserError(
                        f"{self.dataset} {self.split}, {scene.file}: person {k + 1} has the unknown emotion "
                        f"{unknown[0]!r}; known: {', '.join(self.vocabulary)}"
                    )

    def __len__(self) -> int:
        return len(self.scenes)

    def subset(self, index: Any) -> Scenes:
        """Some scenes, by index array or mask."""
        where, picture, mask = np.arange(len(self))[index], self.picture, self.mask
        return replace(
            self,
            scenes=tuple(self.scenes[i] for i in where),
            picture=lambda i: picture(int(where[i])),
            mask=mask and (lambda i: mask(int(where[i]))),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over file names, boxes and labels: two results with the same fingerprint saw the same data."""
        rows = [(s.file, s.boxes.round(3).tolist(), s.labels, s.vad.round(6).tolist()) for s in self.scenes]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def targets(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Emotions 0 or 1, float32 [P, K], and valence, arousal, dominance / 10, float32 [P, 3]; NaN where missing."""
        table = np.full((len(scene), len(self.vocabulary)), np.nan, np.float32)
        for k, names in enumerate(scene.labels):
            if names is not None:
                table[k] = [name in names for name in self.vocabulary]
        return table, (scene.vad / 10).astype(np.float32)


def told(data: Scenes, notices: list[str]) -> Scenes:
    """The scenes with notices, of which the first are logged; commands show them on stderr."""
    if notices:
        lines = [*notices[:SHOWN], *(["..."] if len(notices) > SHOWN else [])]
        _LOG.warning("%s %s: odd annotations (%d):\n  %s", data.dataset, data.split, len(notices), "\n  ".join(lines))
    return replace(data, notices=tuple(notices))


def read_picture(file: Path | io.BytesIO, where: Path | str = "", size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 [H, W, 3] of a picture file.

    Args:
        file: path or content.
        where: what messages call it (default: its path).
        size: width and height that it was annotated with.

    Raises:
        UserError: missing, unreadable or of another size.
    """
    with _opened(file, where) as picture:
        pixels, there = np.asarray(picture.convert("RGB")), picture.size
    check_size(where or file, there, size or there)
    return pixels


def check_size(where: Path | str | io.BytesIO, size: tuple[int, int], annotated: tuple[int, int]) -> None:
    """A picture is as large as its annotations say, width and height.

    Raises:
        UserError: it is not.
    """
    if size != annotated:
        here, there = (f"{w} x {h}" for w, h in (size, annotated))
        raise UserError(f"{where} has {here} pixels, but its boxes are of {there}: use the original picture")


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture file, from its head.

    Raises:
        UserError: missing or unreadable.
    """
    with _opened(path) as picture:
        return picture.size


@contextmanager
def _opened(file: Path | io.BytesIO, where: Path | str = "") -> Iterator[Image.Image]:
    try:
        with Image.open(file) as picture:
            yield picture
    except Exception as error:  # a decoder meets damaged bytes with any exception type
        raise UserError(f"cannot read the picture {where or file}: {error}") from error


def check_pictures(root: Path, files: Iterable[str]) -> None:
    """Every picture is there.

    Raises:
        UserError: some are missing; names the first ones.
    """
    missing = [f for f in dict.fromkeys(files) if not (root / f).is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"{root} lacks {', '.join(missing[:3])}{more}, which the annotations name")


# -- JSON forms ------------------------------------------------------------------------------------------------------


def _box(scene: Scene, k: int, form: str) -> list[int]:
    """Person k's box, cut as published: its start at 0, its end at the picture's, so that one outside turns round."""
    if form not in FORMATS:
        raise UserError(f"boxes come as {' or '.join(FORMATS)}, not {form!r}")
    x0, y0 = scene.annotated[k, :2].clip(0)
    x1, y1 = np.minimum(scene.annotated[k, 2:], scene.size)
    return [int(v) for v in ((x0, y0, x1, y1) if form == "x1y1x2y2" else (x0, y0, x1 - x0, y1 - y0))]


def _continuous(values: np.ndarray, scale: float) -> dict[str, Any]:
    return {name: float(v) / scale if np.isfinite(v) else "None" for name, v in zip(VAD, values)}


def _image(scene: Scene, number: int) -> dict[str, Any]:
    return {**scene.about, "height": scene.size[1], "width": scene.size[0], "id": number}


def coco_table(data: Scenes, form: str = "x1y1x2y2") -> dict[str, Any]:
    """COCO style: one image per picture, one annotation per person; boxes cut to whole numbers."""
    images = [_image(s, i) for i, s in enumerate(data.scenes)]
    people = [(i, s, k) for i, s in enumerate(data.scenes) for k in range(len(s))]
    annotations = [
        {
            "image_id": i,
            "id": number,
            "category_id": 1,
            "bbox": _box(scene, k, form),
            "annotations_categories": list(scene.labels[k] or ()),
            "annotations_continuous": _continuous(scene.vad[k], scale=1),
            **(scene.people[k] if scene.people else {}),
        }
        for number, (i, scene, k) in enumerate(people)
    ]
    return {"images": images, "annotations": annotations, "categories": [PERSON]}


def person_table(data: Scenes, form: str = "x1y1x2y2", vad_scale: float = 1, published: bool = False) -> dict[str, Any]:
    """One image and one annotation per person: that person first, then the others of the picture.

    Args:
        data: the scenes.
        form: of the boxes.
        vad_scale: valence, arousal and dominance are divided by it.
        published: everybody else in a picture gets the box of its first person, as in the original's HECO files.
    """
    people = sorted((int(s.rows[k]), i, k) for i, s in enumerate(data.scenes) for k in range(len(s)))
    images, annotations = [], []
    for number, (_, i, k) in enumerate(people):
        scene = data.scenes[i]
        order = [k, *(j for j in range(len(scene)) if j != k)]
        images.append({name: v for name, v in _image(scene, number).items() if name != "coco_ids"})
        annotations.append(
            {
                "image_id": number,
                "id": number,
                "category_id": 1,
                "bbox": [_box(scene, k if published else j, form) for j in order],
                "annotations_categories": [list(scene.labels[j] or ()) for j in order],
                "annotations_continuous": [_continuous(scene.vad[j], vad_scale) for j in order],
            }
        )
    return {"images": images, "annotations": annotations, "categories": [PERSON]}


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two person tables as one; the second's ids follow the first's."""
    shift = len(first["annotations"])
    images = [{**row, "id": row["id"] + shift} for row in second["images"]]
    moved = [{**row, "id": row["id"] + shift, "image_id": row["image_id"] + shift} for row in second["annotations"]]
    return {
        "images": first["images"] + images,
        "annotations": first["annotations"] + moved,
        "categories": first["categories"],
    }


def convert(
    out: str | Path, emotic: str | Path | None = None, heco: str | Path | None = None, form: str = "x1y1x2y2"
) -> list[Path]:
    """Write every annotation file of BENet's original for the data sets at hand.

    Per EMOTIC split the COCO-style table and the person table, for HECO the person table, and with both the merged
    training set.

    Args:
        out: folder, created.
        emotic, heco: the data sets' folders, or None.
        form: of the boxes.

    Raises:
        UserError: neither set given, an unknown form, a folder that cannot be written, or a set's own complaints.
    """
    from emotion.datasets import emotic as emotic_reader
    from emotion.datasets import heco as heco_reader

    if form not in FORMATS:
        raise UserError(f"boxes come as {' or '.join(FORMATS)}, not {form!r}")
    if emotic is None and heco is None:
        raise UserError("nothing to convert: give the folder of EMOTIC, of HECO, or both")
    tables: dict[str, dict[str, Any]] = {}
    for split in emotic_reader.SPLITS if emotic is not None else ():
        data = emotic_reader.load(emotic, split)
        tables[f"EMOTIC_{split}_{form}"] = coco_table(data, form)
        tables[f"EMOTIC_{split}_{form}_tdpc"] = person_table(data, form)
    if heco is not None:
        tables[f"HECO_{form}_tdpc"] = person_table(heco_reader.load(heco), form, vad_scale=10)
        if emotic is not None:
            both = merge(tables[f"EMOTIC_train_{form}_tdpc"], tables[f"HECO_{form}_tdpc"])
            tables[f"EMOTIC_and_HECO_train_{form}_tdpc"] = both
    folder = Path(out)
    paths = [folder / f"{name}.json" for name in tables]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, table in zip(paths, tables.values()):
            path.write_text(json.dumps(table), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); name a folder that can be made") from error
    return paths
