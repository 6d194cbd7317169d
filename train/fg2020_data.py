"""Images and windows of frames for FG-2020: how they are cropped, and steps that hold a batch of every task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.models.base import FaceInput, enlarge
from emotion.models.fg2020 import windows
from train.data import Batch, FaceData, films


class Units(FaceData):
    """Training units: single images, or windows of `length` frames of one video.

    Args:
        parts, spec, labels: as for `FaceData`.
        length: frames per window; 0 for single images. Frames of one video are those of one group, in order.
        overlap: whether windows overlap by half (training).
        crops: "free" or "once", see `train.fg2020.Options`.

    Raises:
        UserError: windows are wanted of samples without groups, or an unknown choice of crops.
    """

    def __init__(
        self,
        parts: Sequence[Samples],
        spec: FaceInput,
        labels: dict[str, tuple[str, ...]],
        length: int = 0,
        overlap: bool = False,
        crops: str = "free",
    ) -> None:
        super().__init__(parts, spec, labels)
        if crops not in ("free", "once"):
            raise UserError(f"crops must be free or once, not {crops!r}")
        self.length = length
        self.once = float(torch.rand(())) if crops == "once" else None
        videos = self.videos()
        self.order = np.concatenate(videos)
        self.units = (
            np.concatenate([video[windows(len(video), length, overlap)] for video in videos])
            if length
            else np.arange(len(self.order))[:, None]
        )

    def __len__(self) -> int:
        return len(self.units)

    def videos(self) -> list[np.ndarray]:
        """Indices of the pictures of every video, in order; for single images one array per data set."""
        return films(self.parts) if self.length else np.split(np.arange(self.ends[-1]), self.ends[:-1])

    def labelled(self, task: str) -> np.ndarray:
        """Units in which any picture has a label of the task, int64."""
        known = self.targets[task].isfinite().any(dim=1).numpy()
        return np.flatnonzero(known[self.units].any(axis=1))

    def truth(self) -> dict[str, np.ndarray]:
        """Targets of all pictures in the order of `train.fg2020.predict`; tasks without any label are left out."""
        rows = {t: y.numpy()[self.order] for t, y in self.targets.items()}
        return {t: y for t, y in rows.items() if np.isfinite(y).any()}

    def source(self, index: int) -> np.ndarray:
        """Picture `index` as stored, uint8 [H, W, 3]."""
        part = int(np.searchsorted(self.ends, index, side="right"))
        picture = self.parts[part].picture(index - int(self.ends[part]) + len(self.parts[part]))
        return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)

    def __getitems__(self, rows: list[int]) -> Batch:
        """Cropped pictures of some units, uint8 [units * frames, 3, H, W], and their targets [units * frames, K]."""
        chosen = self.units[rows]
        faces = np.stack([face for unit in chosen for face in self._crop(unit)])
        where = torch.as_tensor(chosen.ravel())
        return torch.from_numpy(faces).permute(0, 3, 1, 2), {t: y[where] for t, y in self.targets.items()}

    def _crop(self, unit: np.ndarray) -> list[np.ndarray]:
        """The same place and mirroring for all frames of a unit; a repeated frame is read once."""
        across, down, mirror = torch.rand(3).tolist() if self.once is None else [self.once] * 3
        seen = {i: None for i in unit.tolist()}
        for i in seen:
            large = enlarge(self.source(i), self.spec.size, self.spec.zoom)
            seen[i] = place(large, self.spec.size, across, down, mirror < 0.5)
        return [seen[i] for i in unit.tolist()]


def place(image: np.ndarray, size: tuple[int, int], across: float, down: float, mirror: bool) -> np.ndarray:
    """A training crop.

    Args:
        image: [H, W, 3], at least `size` (height, width).
        size: of the crop.
        across, down: where it lies, from 0 (left, top) to 1 (right, bottom).
        mirror: whether it is then flipped horizontally.
    """
    top, left = int((image.shape[0] - size[0]) * down), int((image.shape[1] - size[1]) * across)
    crop = image[top : top + size[0], left : left + size[1]]
    return np.ascontiguousarray(crop[:, ::-1] if mirror else crop)


class TaskBatches(Sampler[list[int]]):
    """Steps that hold one batch of every task, in the tasks' order; an epoch ends with the shortest task.

    Args:
        pools: units labelled for each task.
        batch: units per task and step; all of them where there are fewer.
        weights: per task one weight per unit, for drawing with replacement; default: every unit once, shuffled.
    """

    def __init__(self, pools: list[np.ndarray], batch: int, weights: list[np.ndarray] | None = None) -> None:
        self.pools, self.weights = pools, weights
        self.sizes = [min(batch, len(pool)) for pool in pools]
        self.batch_size, self.drop_last = sum(self.sizes), True  # what accelerate asks for

    def __len__(self) -> int:
        return min(len(pool) // n for pool, n in zip(self.pools, self.sizes))

    def __iter__(self) -> Iterator[list[int]]:
        drawn = []
        for k, pool in enumerate(self.pools):
            if self.weights is None:
                order = torch.randperm(len(pool))
            else:
                order = torch.multinomial(torch.as_tensor(self.weights[k]), len(pool), replacement=True)
            drawn.append(pool[order.numpy()])
        for step in range(len(self)):
            yield [int(i) for pool, n in zip(drawn, self.sizes) for i in pool[step * n : (step + 1) * n]]


def whole(batch: Batch) -> Batch:
    """A batch that is ready as it is."""
    return batch
