"""Training units for EMENet: single frames or windows of frames, with soft labels and sound where there are any."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emotion.datasets import Samples
from emotion.datasets.affwild2 import find_video, frame_rate, parse_path
from emotion.errors import UserError
from emotion.media import audio
from emotion.media.audio import Sound
from emotion.media.windowing import RATE, cut_sound, sound_windows, training_windows
from emotion.models.base import FaceInput
from emotion.models.emenet import EMENetConfig
from train.data import Batch, FaceData, films
from train.fg2020_data import TaskBatches

Cutter = Callable[[list[str]], np.ndarray]


class Clips(FaceData):
    """Windows of `frames` pictures of one clip, or single pictures.

    Args:
        parts, spec, labels: as for `FaceData`.
        frames: pictures per window; clips are the samples' groups, their pictures in order. 1: every picture is a
            unit, clips or not.
        fps: frames per second of the windows, for clips of 30.
        sound: from the ids of a window's pictures to its sound [frames, 10080], for models that hear.

    Raises:
        UserError: windows are wanted of samples without groups.
    """

    def __init__(
        self,
        parts: Sequence[Samples],
        spec: FaceInput,
        labels: dict[str, tuple[str, ...]],
        frames: int = 1,
        fps: int = 30,
        sound: Cutter | None = None,
    ) -> None:
        super().__init__(parts, spec, labels)
        self.ids = [i for part in self.parts for i in part.ids]
        self.labels, self.frames, self.sound = labels, frames, sound
        self.soft: dict[str, Tensor] = {}
        self.films = films(self.parts) if frames > 1 else []
        windows = [film[training_windows(len(film), frames, fps)] for film in self.films]
        self.units = np.concatenate(windows) if frames > 1 else np.arange(len(self.ids))[:, None]

    def __len__(self) -> int:
        return len(self.units)

    @property
    def names(self) -> tuple[str, ...]:
        """Data set and id of every picture."""
        return tuple(f"{part.dataset}/{name}" for part in self.parts for name in part.ids)

    def seen_as(self, spec: FaceInput) -> Clips:
        """The same data for a network with another input."""
        other = copy(self)
        other.spec, other._kept = spec, {}
        return other

    def inputs(self, pictures: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Some pictures as a network reads them: [n, C, H, W], and their sound [n, 10080] where there is any."""
        faces = torch.from_numpy(np.stack([self.picture(i) for i in pictures])).permute(0, 3, 1, 2)
        sound = torch.from_numpy(self.sound([self.ids[i] for i in pictures])) if self.sound else None
        return self.spec.normalise(faces.float()), sound

    def labelled(self, task: str) -> np.ndarray:
        """Units all of whose pictures have a label of the task, int64."""
        known = self.targets[task].isfinite().all(dim=1).numpy()
        return np.flatnonzero(known[self.units].all(axis=1))

    def __getitems__(self, indices: list[int]) -> Batch:
        """Some units: uint8 [units * frames, C, H, W]; labels, "soft.<task>" labels and "sound" in the same order."""
        chosen = self.units[indices]
        faces, targets = super().__getitems__(chosen.ravel().tolist())
        where = torch.as_tensor(chosen.ravel())
        targets |= {f"soft.{task}": values[where] for task, values in self.soft.items()}
        if self.sound:
            cut = [self.sound([self.ids[i] for i in unit]) for unit in chosen]
            targets["sound"] = torch.from_numpy(np.concatenate(cut))
        return faces, targets


def cutter(
    config: EMENetConfig, parts: list[Samples], folders: dict[str, Path], folder: str | None = None
) -> Cutter | None:
    """Where a model that hears gets the sound of training pictures from; None for one that does not.

    Args:
        config: of the model.
        parts: the samples.
        folders: of the data sets.
        folder: of extracted sound below the data set's, see `affwild2_sound`.

    Raises:
        UserError: samples without sound.
    """
    if not config.sound:
        return None
    if any(p.dataset != "affwild2" for p in parts):
        raise UserError("only Aff-Wild2 has sound to train a model that hears; set sound: false in the model")
    root = folders["affwild2"]
    return affwild2_sound(root, config.audio_clock, root / folder if folder else None)


def affwild2_sound(root: Path, clock: str, folder: Path | None = None) -> Cutter:
    """The sound around frames of Aff-Wild2, from picture ids.

    Args:
        root: the data set.
        clock: "true" or "faithful", see `clips.sound_windows`.
        folder: WAV files from `affwild2_tables.extract_sound`; default: the films themselves.
    """

    @lru_cache(maxsize=8)
    def film(clip: str) -> tuple[Sound, float]:
        video = clip.removesuffix("_left").removesuffix("_right")
        path = folder / f"{video}.wav" if folder else find_video(root, clip)
        sound = audio.read(path)
        if sound is None:
            sound = Sound(np.zeros(RATE, np.float32), RATE)
        return sound.at_rate(RATE), frame_rate(root, clip)

    def cut(ids: list[str]) -> np.ndarray:
        parts = []
        for clip, pictures in groupby(map(parse_path, ids), key=itemgetter(0)):
            sound, fps = film(clip)
            frames = np.array([frame for _, frame in pictures])
            parts.append(cut_sound(sound, sound_windows(frames, fps, len(sound.samples), clock)))
        return np.concatenate(parts)

    return cut


class LongBatches(TaskBatches):
    """As `TaskBatches`, but an epoch ends with the longest task; shorter ones start over, shuffled anew."""

    def __len__(self) -> int:
        return max(len(pool) // n for pool, n in zip(self.pools, self.sizes))

    def __iter__(self) -> Iterator[list[int]]:
        drawn = []
        for pool, n in zip(self.pools, self.sizes):
            rounds = math.ceil(len(self) * n / len(pool))
            drawn.append(pool[torch.cat([torch.randperm(len(pool)) for _ in range(rounds)]).numpy()])
        for step in range(len(self)):
            yield [int(i) for pool, n in zip(drawn, self.sizes) for i in pool[step * n : (step + 1) * n]]
