"""Labelled faces as batches of tensors: several data sets side by side, missing labels as NaN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.faces import fit_picture
from emotion.labels import index_map
from emotion.models.base import FaceInput

Batch = tuple[Tensor, dict[str, Tensor]]
KEPT = 256_000_000  # bytes of fitted faces that a data set keeps in memory, so that small ones are decoded once


class FaceData(Dataset):
    """Faces of one or more data sets, ready for augmentation.

    Args:
        parts: the samples; pictures are taken as face crops already.
        spec: size and channels of the network's input.
        labels: vocabulary per task, in the network's order; targets are rearranged to it. A task that a data set
            lacks is NaN for its samples.

    Raises:
        UserError: a data set has labels of a task that the network's vocabulary does not contain.
    """

    def __init__(self, parts: Sequence[Samples], spec: FaceInput, labels: dict[str, tuple[str, ...]]) -> None:
        self.parts, self.spec = list(parts), spec
        self._kept: dict[int, np.ndarray] = {}
        self.ends = np.cumsum([len(p) for p in self.parts])
        columns = {t: [arrange(p, t, names) for p in self.parts] for t, names in labels.items()}
        self.targets = {task: torch.from_numpy(np.concatenate(rows)) for task, rows in columns.items()}

    def __len__(self) -> int:
        return int(self.ends[-1])

    def picture(self, index: int) -> np.ndarray:
        """Face `index` as uint8 [H, W, C] in the network's size and channel order."""
        if index in self._kept:
            return self._kept[index]
        part = int(np.searchsorted(self.ends, index, side="right"))
        first = int(self.ends[part]) - len(self.parts[part])
        face = fit_picture(self.parts[part].picture(index - first), self.spec)
        if (len(self._kept) + 1) * face.nbytes <= KEPT:
            self._kept[index] = face
        return face

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch at once: uint8 [N, C, H, W] and float32 targets [N, K] per task."""
        faces = torch.from_numpy(np.stack([self.picture(i) for i in indices])).permute(0, 3, 1, 2)
        where = torch.as_tensor(indices)
        return faces, {task: values[where] for task, values in self.targets.items()}

    def classes(self, task: str = "expression") -> np.ndarray:
        """Most likely class of every face, int64 [N]; -1 where the task is not labelled."""
        values = self.targets[task].numpy()
        return np.where(np.isfinite(values).all(axis=1), np.nan_to_num(values).argmax(axis=1), -1)


def films(parts: Sequence[Samples]) -> list[np.ndarray]:
    """Indices of the pictures of every video, in order, counted over all parts.

    Raises:
        UserError: a data set without videos.
    """
    out, start = [], 0
    for part in parts:
        if part.groups is None:
            raise UserError(f"{part.dataset} has no videos to cut windows from; frames: 1 (fg2020: 0) reads pictures")
        order = np.argsort(part.groups, kind="stable")
        ends = np.flatnonzero(part.groups[order][1:] != part.groups[order][:-1]) + 1
        out += [start + film for film in np.split(order, ends)]
        start += len(part)
    return out


def loader(data: Dataset, batch: int, shuffle: bool, workers: int = 0) -> DataLoader:
    """Batches of a `FaceData` or a subset of one; a last small batch is kept, but never a single shuffled sample."""
    ragged = shuffle and len(data) > batch and len(data) % batch == 1  # batch norm cannot train on one sample
    return DataLoader(data, batch, shuffle=shuffle, num_workers=workers, collate_fn=_whole, drop_last=ragged)


def _whole(batch: Batch) -> Batch:
    return batch


def arrange(samples: Samples, task: str, names: tuple[str, ...]) -> np.ndarray:
    """Targets of a task in the order of `names`, float32 [N, K]; NaN where `samples` lacks the task."""
    if task not in samples.targets:
        return np.full((len(samples), len(names)), np.nan, dtype=np.float32)
    where = index_map(samples.labels[task], names)
    unknown = [label for label, k in zip(samples.labels[task], where) if k < 0]
    if unknown and np.nansum(samples.targets[task][:, [k < 0 for k in where]]) > 0:
        raise UserError(f"{samples.dataset} has {task} labels that the model lacks: {', '.join(unknown)}")
    out = np.zeros((len(samples), len(names)), dtype=np.float32)
    for column, k in enumerate(where):
        if k >= 0:
            out[:, k] = samples.targets[task][:, column]
    return out


def balance(classes: np.ndarray, least: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of a random subset with bounded class sizes, sorted; samples of class -1 are left out.

    Args:
        classes: int [N].
        least: classes with fewer samples are repeated up to this number (0: never).
        most: classes with more samples are cut down to this number (0: never).
        rng: chooses what is kept and what is repeated.
    """
    picked = []
    for c in np.unique(classes[classes >= 0]):
        members = rng.permutation(np.flatnonzero(classes == c))
        wanted = max(len(members), least)
        picked.append(np.resize(members, min(wanted, most) if most else wanted))
    return np.sort(np.concatenate(picked)) if picked else np.zeros(0, dtype=int)
