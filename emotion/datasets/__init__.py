"""Data sets: one file each, `load(root, split, ...) -> Samples` and `fake(root)`, which writes a small synthetic copy.

Readers check the layout first and name the file or row that is wrong. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from emotion.errors import UserError


@dataclass(frozen=True)
class Samples:
    """N labelled pictures of one split; pictures are decoded when asked for.

    Attributes:
        dataset, split: where they come from.
        ids: a stable name per sample.
        picture: index -> uint8 [H, W, 3] RGB or [H, W] grey; in sets of clips, a `clips.Clip`.
        labels: vocabulary per task.
        targets: task -> float32 [N, K] (distribution over classes, 0/1 per action unit, or values);
            NaN where a sample has no label for that task.
        groups: [N] video or subject of every sample where samples are dependent, else None.
        protocol: how labels were made and samples chosen, in words.
        films: every group is one film, its samples are frames of one person, in order and side by side.
    """

    dataset: str
    split: str
    ids: tuple[str, ...]
    picture: Callable[[int], np.ndarray]
    labels: dict[str, tuple[str, ...]]
    targets: dict[str, np.ndarray]
    groups: np.ndarray | None = None
    protocol: str = ""
    films: bool = False

    def __post_init__(self) -> None:
        for task, values in self.targets.items():
            if values.shape != (len(self.ids), len(self.labels[task])):
                raise ValueError(f"{task} targets have shape {values.shape} for {len(self.ids)} samples")

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, index: Any) -> Samples:
        """Some samples, by index array or mask."""
        where = np.arange(len(self))[index]
        picture = self.picture
        return replace(
            self,
            ids=tuple(self.ids[i] for i in where),
            picture=lambda i: picture(int(where[i])),
            targets={k: v[where] for k, v in self.targets.items()},
            groups=None if self.groups is None else self.groups[where],
        )

    def classes(self, task: str = "expression") -> np.ndarray:
        """Most likely class of every sample, int64 [N]; -1 where the task is not labelled."""
        values = self.targets[task]
        known = np.isfinite(values).all(axis=1)
        return np.where(known, np.nan_to_num(values).argmax(axis=1), -1)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over sample ids and labels: two results with the same fingerprint saw the same data."""
        digest = hashlib.sha256("\n".join(self.ids).encode())
        for task in sorted(self.targets):
            digest.update(task.encode())
            digest.update(np.round(self.targets[task].astype(np.float64), 6).tobytes())
        return digest.hexdigest()


class Prepared(NamedTuple):
    """What a reader's `prepare` has done: how many faces the copy holds, and what could not be used, in words."""

    faces: int
    problems: tuple[str, ...]


READERS = (
    "ferplus",
    "diffusionfer",
    "affectnet",
    "ckplus",
    "affwild2_2020",
    "affwild2",
    "disfa",
    "expw",
    "afewva",
    "emotic",
    "heco",
    "coco_person",
    "persons",
    "ravdess",
    "clips",
    "class_folders",
    "csv_table",
)


def reader(name: str) -> Any:
    """The module that reads data set `name`: it has `load(root, split, ...)` and `fake(root)`.

    Raises:
        UserError: unknown data set.
    """
    if name not in READERS:
        raise UserError(f"no reader for data set {name!r}; there are: {', '.join(READERS)}")
    return importlib.import_module(f"emotion.datasets.{name}")
