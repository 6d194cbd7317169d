"""Clips of voice and face as batches: features in memory, augmentation of pictures, dropout of whole modalities."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from emotion.datasets import Samples
from emotion.datasets.borrowed import pools
from emotion.datasets.clips import middle
from emotion.errors import UserError
from emotion.faces import fit_picture
from emotion.media.audio import Sound
from emotion.models.avfusion import CONDITIONS, Clips
from emotion.models.avfusion_audio import clip_samples, mfcc
from emotion.models.base import AudioInput, ClipInput, FaceInput, VectorInput
from train.data import arrange

DROPOUTS = ("softhard", "hard", "noise", "none")

HARD = {"sound": 0.25, "pictures": 0.5}  # shares of clips that lose it; voices are harder to learn

Batch = tuple[np.ndarray | None, np.ndarray | None, Tensor]  # sound features, crops or measurements, classes


@dataclass(frozen=True)
class Turn:
    """How much to vary the pictures of a clip, all of them alike: the original's augmentation.

    Attributes:
        flip: probability of a mirror image.
        degrees: largest rotation, in whole degrees, black corners.
    """

    flip: float = 0.0
    degrees: int = 0

    def __call__(self, crops: np.ndarray, draw: Any = random) -> np.ndarray:
        """Vary uint8 [T, H, W, 3]; `draw` is Python's `random` or a generator of it."""
        if draw.random() < self.flip:
            crops = crops[:, :, ::-1]
        angle = draw.randint(-self.degrees, self.degrees)
        crops = np.ascontiguousarray(crops)
        if not angle:
            return crops
        return np.stack([np.asarray(Image.fromarray(c).rotate(angle, Image.Resampling.BILINEAR)) for c in crops])


@dataclass(frozen=True)
class Vary:
    """How much to vary the sound of a clip.

    Attributes:
        speeds: how fast it is played, pitch and all (Ko et al., Interspeech 2015); the features of each are kept.
        shift: largest move in time, in columns, around the ends.
        masks, columns: how many stretches are blotted out, each how long at most (SpecAugment, Park et al. 2019).
    """

    speeds: tuple[float, ...] = (1.0,)
    shift: int = 0
    masks: int = 0
    columns: int = 0

    def __post_init__(self) -> None:
        if not self.speeds or self.speeds[0] != 1:
            raise ValueError("speeds start with 1.0, the speed that is tested")

    def __call__(self, x: Tensor) -> Tensor:
        """Vary standardised features [B, coefficients, columns]; blots are zero, which is the mean."""
        if self.shift:
            moves = torch.randint(-self.shift, self.shift + 1, (len(x),)).tolist()
            x = torch.stack([clip.roll(move, -1) for clip, move in zip(x, moves)])
        places = torch.arange(x.shape[-1])
        for _ in range(self.masks):
            length = torch.randint(0, self.columns + 1, (len(x), 1))
            start = (torch.rand(len(x), 1) * (x.shape[-1] - length)).long()
            blot = (places >= start) & (places < start + length)
            x = x.masked_fill(blot[:, None].to(x.device), 0.0)
        return x


class BorrowedFaces:
    """Faces of other people with a clip's expression, see `emotion.datasets.borrowed`.

    Args:
        parts: labelled face crops.
        labels: the network's expressions.
        face: the network's crop.
        stand_ins: expression of a clip -> expression of the faces it gets, where the pictures lack it.
        measure: turns crops [N, H, W, 3] into numbers [N, V], which are then lent in place of the crops.

    Raises:
        UserError: no picture shows one of the expressions.
    """

    def __init__(
        self,
        parts: Sequence[Samples],
        labels: tuple[str, ...],
        face: FaceInput,
        stand_ins: dict[str, str],
        measure: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.face = replace(face, channels="rgb")  # crops are RGB until the network's input is made
        lent = pools(parts, labels, stand_ins, limited=measure is not None)
        self.measured: dict[str, np.ndarray] = {}
        if measure is not None:
            by_name = {stand_ins.get(label, label): pool for label, pool in lent.items()}
            self.measured = {name: measure(np.stack([self._crop(*f) for f in pool])) for name, pool in by_name.items()}
        self.pools = [self.measured.get(stand_ins.get(label, label), pool) for label, pool in lent.items()]

    def _crop(self, part: Samples, i: int) -> np.ndarray:
        return fit_picture(part.picture(i), self.face)

    def __call__(self, label: int, frames: int, draw: Any = random) -> np.ndarray:
        """Random faces of class `label`, uint8 [T, H, W, 3], RGB, or their measurements [T, V].

        `draw` is Python's `random` or a generator of it.
        """
        chosen = draw.choices(self.pools[label], k=frames)
        return np.stack(chosen if self.measured else [self._crop(*face) for face in chosen])


class ClipData(Dataset):
    """Clips of one or more data sets.

    Where none has sound, they are of pictures alone; where none has pictures and nobody lends any, of sound alone.

    Args:
        parts: samples whose `picture` gives a `Clip`.
        config: the network's input.
        labels: its expressions.
        borrowed: gives pictures to clips of sound alone.
        fixed: give a clip the same faces and speed every time.
        speeds: that the sound may be played at, the first being the one of fixed clips.

    Raises:
        UserError: crops or measurements of another shape, some clips without them or without sound, damaged files, or
            labels that the network lacks.
    """

    def __init__(
        self,
        parts: Sequence[Samples],
        config: ClipInput,
        labels: tuple[str, ...],
        borrowed: BorrowedFaces | None = None,
        fixed: bool = True,
        speeds: tuple[float, ...] = (1.0,),
    ) -> None:
        self.parts, self.config, self.borrowed, self.fixed = list(parts), config, borrowed, fixed
        self.where = [(part, i) for part in self.parts for i in range(len(part))]
        self.groups = np.concatenate([part.groups for part in self.parts])
        targets = np.concatenate([arrange(part, "expression", labels) for part in self.parts])
        self.classes = torch.from_numpy(targets).argmax(dim=1)
        heard, values, deaf, blind = [], [], set(), set()
        for part, i in self.where:  # one at a time: crops stay open files for as long as they are kept
            clip = part.picture(i)
            deaf.add(clip.sound is None)
            blind.add(clip.visual is None)
            if clip.sound is not None:
                heard.append([self._features(clip.sound, speed) for speed in speeds])
            if isinstance(config.visual, VectorInput):
                values.append(clip.visual)
        if borrowed is None and len(blind) > 1:
            raise UserError("some clips have sound alone: borrow faces for them, or load all clips without pictures")
        if len(deaf) > 1:
            raise UserError("some clips have pictures alone: load all clips without sound (sound: false), or none")
        self.sound_alone = borrowed is None and True in blind
        self.variants = None if True in deaf else np.stack(heard, axis=1)
        self.vectors = None
        if isinstance(config.visual, VectorInput) and borrowed is None and not self.sound_alone:
            self.vectors = np.stack(values)
            if self.vectors.shape[1:] != config.visual_shape:
                raise UserError(f"the measurements have shape {self.vectors.shape[1:]}, expected {config.visual_shape}")

    def _features(self, sound: Sound, speed: float) -> np.ndarray:
        sound = replace(sound, rate=round(sound.rate * speed))
        start = middle(sound.seconds, self.config, sound.start)
        return mfcc(clip_samples(sound, self.config, start), self.config.audio)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The keys of `CONDITIONS` that a network can be tested under."""
        if self.variants is None:
            return "video", "noisy video"
        return ("audio", "noisy audio") if self.sound_alone else tuple(CONDITIONS)

    @property
    def features(self) -> np.ndarray | None:
        """Raw sound features [N, coefficients, columns] at the first speed; None for clips of pictures alone."""
        return None if self.variants is None else self.variants[0]

    def only(self, chosen: np.ndarray, borrowed: BorrowedFaces | None = None, fixed: bool = True) -> ClipData:
        """These clips alone (bool [N]), with faces lent by `borrowed`; nothing is computed again."""
        rows, out = np.flatnonzero(chosen), copy.copy(self)
        out.where, out.groups, out.classes = [self.where[i] for i in rows], self.groups[rows], self.classes[rows]
        out.variants = None if self.variants is None else self.variants[:, rows]
        out.vectors = None if self.vectors is None else self.vectors[rows]
        out.borrowed, out.fixed = borrowed, fixed
        return out

    def __len__(self) -> int:
        return len(self.where)

    def _crops(self, index: int) -> np.ndarray:
        if self.borrowed is not None:
            draw = random.Random(index) if self.fixed else random
            return self.borrowed(int(self.classes[index]), self.config.frames, draw)
        part, i = self.where[index]
        crops, face = part.picture(i).visual, self.config.visual
        expected = (self.config.frames, *face.size, 3)
        if crops.shape != expected:
            raise UserError(f"{part.ids[i]} has face crops {crops.shape}, the model reads {expected}: prepare it anew")
        return crops

    def __getitems__(self, indices: list[int]) -> Batch:
        """Raw features [B, C, columns] or None, uint8 crops [B, T, H, W, 3] or measurements [B, T, V] or None, and
        classes [B]."""
        visual = None
        if not self.sound_alone:
            visual = np.stack([self._crops(i) for i in indices]) if self.vectors is None else self.vectors[indices]
        if self.variants is None:
            return None, visual, self.classes[indices]
        speeds = [0 if self.fixed else random.randrange(len(self.variants)) for _ in indices]
        return self.variants[speeds, indices], visual, self.classes[indices]

    def loader(self, batch: int, shuffle: bool, workers: int = 0) -> DataLoader:
        """Batches; a last small one is kept, unless shuffling leaves a single clip over."""
        ragged = shuffle and len(self) > batch and len(self) % batch == 1  # batch norm cannot train on one clip
        return DataLoader(self, batch, shuffle=shuffle, num_workers=workers, collate_fn=_whole, drop_last=ragged)


def _whole(batch: Batch) -> Batch:
    return batch


def standardised(data: ClipData) -> ClipInput:
    """The data's input description with mean and deviation of its sound features and measurements filled in."""
    config = data.config
    audio = config.audio if data.features is None else _standardised_sound(config.audio, data.features)
    if data.sound_alone or not isinstance(config.visual, VectorInput):
        return replace(config, audio=audio)
    values = np.concatenate(list(data.borrowed.measured.values()) if data.vectors is None else data.vectors)
    spread = np.maximum(values.std(axis=0), 1e-3)  # a measurement that hardly varies must not be blown up
    visual = replace(config.visual, mean=_floats(values.mean(axis=0)), std=_floats(spread))
    return replace(config, audio=audio, visual=visual)


def _standardised_sound(config: AudioInput, features: np.ndarray) -> AudioInput:
    columns = features.transpose(0, 2, 1).reshape(-1, features.shape[1])
    return replace(config, mean=_floats(columns.mean(axis=0)), std=_floats(columns.std(axis=0)))


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(v), 5) for v in values)


def modality_dropout(clips: Clips, classes: Tensor, kind: str) -> tuple[Clips, Tensor]:
    """The batch with copies of every clip that lack or disturb a modality (section 3.4 of the paper), shuffled.

    Draws come from torch's global CPU generator, whatever device the clips are on.

    Args:
        clips: both modalities; those of one alone stay as they are.
        classes: [B], or probabilities [B, K].
        kind: "softhard" (4 B clips: whole, blended as c audio and (1 - c) pictures with c in 0, 0.01 ... 0.99, pictures
            alone, audio alone, the other being zero), "noise" (3 B: whole, standard normal audio, standard normal
            pictures), "hard" (ours, B: clips lose one at random, see `HARD`) or "none".

    Raises:
        UserError: unknown kind.
    """
    if kind not in DROPOUTS:
        raise UserError(f"unknown modality dropout {kind!r}; known: {', '.join(DROPOUTS)}")
    if kind == "none" or clips.visual is None or clips.audio is None:
        return clips, classes
    audio, visual, _ = clips
    if kind == "hard":
        draw = torch.rand(len(audio)).to(audio.device)
        seen = draw < 1 - HARD["pictures"]
        seen[0] |= not seen.any()
        return Clips(_scale(audio, (draw >= HARD["sound"]).float()), visual[seen], seen), classes
    if kind == "softhard":
        share = (torch.randint(0, 100, (len(audio),)) / 100).to(audio.device)
        sounds = [audio, _scale(audio, share), torch.zeros_like(audio), audio]
        pictures = [visual, _scale(visual, 1 - share), visual, torch.zeros_like(visual)]
    else:
        noise = torch.randn(audio.shape).to(audio)
        shape = visual.transpose(1, 2).shape  # drawn with time behind the channels, as the original's layout has it
        sounds = [audio, noise, audio]
        pictures = [visual, visual, torch.randn(shape).transpose(1, 2).to(visual)]
    order = torch.randperm(len(sounds) * len(audio)).to(audio.device)
    return Clips(torch.cat(sounds)[order], torch.cat(pictures)[order]), torch.cat([classes] * len(sounds))[order]


def mixup(clips: Clips, targets: Tensor, strength: float) -> tuple[Clips, Tensor]:
    """Every clip blended with another of the batch, and their targets [B, K] alike (Zhang et al., ICLR 2018).

    Args:
        clips: both modalities, or one.
        targets: probabilities.
        strength: both parameters of the Beta distribution that the one share is drawn from.
    """
    share = float(torch.distributions.Beta(strength, strength).sample())
    order = torch.randperm(len(targets)).to(targets.device)
    audio, visual, targets = (x if x is None else share * x + (1 - share) * x[order] for x in (*clips[:2], targets))
    return Clips(audio, visual), targets


def _scale(x: Tensor, share: Tensor) -> Tensor:
    return x * share.view(-1, *[1] * (x.ndim - 1))
