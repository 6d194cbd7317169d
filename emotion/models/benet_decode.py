"""From pictures to BENet's input, and from its maps to people: pure functions on arrays.

A `Frame` says how a picture lies in the network's input. Maps of both scales and of the mirrored picture are merged
at half the input's resolution; people are the heatmap's peaks at full resolution. Emotions are read at the peaks
alone, so that the cost hardly depends on how many people there are.

"published" mode repeats what the original computes, faults included, for comparison with published numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from emotion.errors import UserError
from emotion.models.base import finite
from emotion.outputs import Faces, Task

if TYPE_CHECKING:
    from emotion.models.benet import BENetConfig

Merged = dict[str, Tensor]  # "heatmap", "size", "bu" [N, ., h, w]; "pc", "bg", "fusion" [N, K]


@dataclass(frozen=True)
class Frame:
    """Where a picture lies in the network's input: point p goes to `scale * p + shift`.

    Attributes:
        source: width and height of the picture in pixels.
        size: width and height of the network's input.
        scale: network pixels per picture pixel.
        shift: x and y of the picture's origin in the network's input.
    """

    source: tuple[int, int]
    size: tuple[int, int]
    scale: float
    shift: tuple[float, float]

    def forward(self, points: np.ndarray) -> np.ndarray:
        """Picture -> network, points [..., 2] (x, y)."""
        return np.asarray(points, np.float64) * self.scale + self.shift

    def inverse(self, points: np.ndarray) -> np.ndarray:
        """Network -> picture, points [..., 2] (x, y)."""
        return (np.asarray(points, np.float64) - self.shift) / self.scale

    def warp(self, image: np.ndarray) -> np.ndarray:
        """uint8 picture [h, w, 3] -> uint8 [H, W, 3]: bilinear, black outside; costs nothing per source pixel."""
        columns, right = _taps(self.size[0], self.scale, self.shift[0], self.source[0])
        rows, low = _taps(self.size[1], self.scale, self.shift[1], self.source[1])
        out = np.zeros((self.size[1], self.size[0], image.shape[2]), np.float32)
        for y, wy in zip(rows, low):
            for x, wx in zip(columns, right):
                out += image[np.ix_(y, x)] * (wy[:, None] * wx)[..., None]
        return np.rint(out).astype(np.uint8)


def _taps(n: int, scale: float, shift: float, length: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per output position the two nearest source positions and their weights (0 outside the source)."""
    at = (np.arange(n) - shift) / scale
    first = np.floor(at).astype(int)
    fraction = (at - first).astype(np.float32)
    index = [first, first + 1]
    weight = [np.where((i >= 0) & (i < length), w, np.float32(0)) for i, w in zip(index, (1 - fraction, fraction))]
    return [i.clip(0, length - 1) for i in index], weight


LONGEST_SIDE = 16_384  # pixels


@dataclass(frozen=True)
class SceneInput:
    """How a whole picture becomes network input.

    Attributes:
        size: the shorter side in pixels.
        multiple: the longer side is rounded up to a multiple of it (at least 32).
        longest: a picture longer than this after resizing is shrunk further, so that no strip exhausts the memory.
        mean, std: of RGB in [0, 1] (ImageNet's), subtracted and divided.
    """

    size: int = 512
    multiple: int = 64
    longest: int = 8192
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.size % 32 or self.multiple % 32 or min(self.size, self.multiple) < 32:
            raise ValueError(f"size {self.size} and multiple {self.multiple} must be multiples of 32")
        if not max(self.size, self.multiple) <= self.longest <= LONGEST_SIDE or 0 in self.std:
            raise ValueError(f"sides of {self.size} to {self.longest}: at most {LONGEST_SIDE}; std has no zeros")

    def frame(self, width: int, height: int) -> Frame:
        """The frame of a picture: shorter side to `size`, picture centred, black bars at the long side's ends."""
        short, long = min(width, height), max(width, height)
        scale = min(self.size / short, self.longest / long)
        padded = int((scale * long + self.multiple - 1) / self.multiple) * self.multiple
        size = (self.size, padded) if width < height else (padded, self.size)
        centre = np.floor(np.array([width, height]) / 2 + 0.5)
        shift = np.array(size) / 2 - scale * centre
        return Frame((width, height), size, scale, (float(shift[0]), float(shift[1])))

    def crop_frame(self, width: int, height: int, whole: Frame, published: bool = False) -> Frame:
        """The frame of a person's crop that shares a batch with the whole picture's.

        By default the crop is as large as fits, and centred. The original scales by the whole picture's orientation
        and, in portrait frames, places the crop by its own height, so that it may be cut.
        """
        w, h = whole.size
        scale = self.size / width if w < h else self.size / height
        middle = np.array(whole.size) / 2
        if published:
            middle[1] = self.size / 2 if w >= h else int((scale * height + 63) / 64) * 64 / 2
        else:
            scale = min(w / width, h / height)
        shift = middle - scale * np.floor(np.array([width, height]) / 2 + 0.5)
        return Frame((width, height), whole.size, scale, (float(shift[0]), float(shift[1])))

    def tensor(self, images: Sequence[np.ndarray]) -> Tensor:
        """Network input float32 [N, 3, H, W] (channels last) from uint8 RGB pictures [H, W, 3] of one size."""
        x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Decoding:
    """How people are taken from maps.

    Attributes:
        threshold: heatmap value above which a peak is a person.
        people: at most so many people per picture, the strongest.
        window: side of the square in which a peak must be the maximum, in network pixels (odd).
        published: whole-number boxes clipped to the network's input, as the original does; otherwise fractional
            boxes, a quarter pixel shifted towards the higher neighbour, clipped to the picture.
    """

    threshold: float = 0.1
    people: int = 300
    window: int = 5
    published: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"the threshold of people lies between 0 and 1, not at {self.threshold:g}")
        if self.people < 1:
            raise ValueError(f"people must be 1 or more, not {self.people}")
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"the window must be an odd number of pixels, not {self.window}")


DEFAULT = Decoding()
PUBLISHED = Decoding(people=15, published=True)


def merge(
    logits: dict[str, Tensor], mirrored: dict[str, Tensor] | None = None, affect_from: int | None = None
) -> Merged:
    """One map per quantity from both scales and, where given, from the mirrored picture.

    Heatmap and emotions are means of probabilities, sizes means of pixels of the half-resolution map (the original's
    scale 1); vectors are means of probabilities.

    Args:
        logits: outputs of `BENet.forward`.
        mirrored: outputs for the left-right mirrored pictures.
        affect_from: published mode: index of the first continuous map; the original overwrites the mirrored ones, so
            that these maps become three quarters of the unmirrored ones.
    """
    logits = finite(logits)
    merged = {name: _merge_scales(logits, name) for name in ("heatmap", "size", "bu") if f"{name}0" in logits}
    merged |= {name: logits[name].float().sigmoid() for name in ("pc", "bg", "fusion") if name in logits}
    if mirrored is None:
        return merged
    other = merge(mirrored)
    both = {k: (v + (other[k].flip(-1) if v.dim() == 4 else other[k])) / 2 for k, v in merged.items()}
    if affect_from is not None:
        both["bu"][:, affect_from:] = merged["bu"][:, affect_from:] * 0.75
    return both


def _merge_scales(logits: dict[str, Tensor], name: str) -> Tensor:
    low, high = logits[f"{name}0"].float(), logits[f"{name}1"].float()
    low = F.interpolate(low, size=high.shape[-2:], mode="bilinear")
    return low + high / 2 if name == "size" else (low.sigmoid() + high.sigmoid()) / 2


def project(merged: Merged, size: tuple[int, int]) -> Merged:
    """All maps at another resolution, width and height `size` (usually the frame's), sizes in its pixels."""
    out = {}
    for name, value in merged.items():
        if value.dim() == 4:
            factor = size[0] / value.shape[-1] if name == "size" else 1
            value = F.interpolate(value, size=size[::-1], mode="bilinear") * factor
        out[name] = value
    return out


def sample(maps: Tensor, x: Tensor, y: Tensor, size: tuple[int, int]) -> Tensor:
    """What `project` would give at whole-number places, without projecting everything.

    Args:
        maps: [N, C, h, w].
        x, y: int64 [N, K], places in a projection of width and height `size`.

    Returns:
        [N, K, C].
    """
    n, c, h, w = maps.shape
    flat = maps.reshape(n, c, h * w)
    (left, right, wx), (top, bottom, wy) = _between(x, w, size[0]), _between(y, h, size[1])

    def at(row: Tensor, column: Tensor) -> Tensor:
        return flat.gather(2, (row * w + column).unsqueeze(1).expand(-1, c, -1))

    upper = torch.lerp(at(top, left), at(top, right), wx)
    lower = torch.lerp(at(bottom, left), at(bottom, right), wx)
    return torch.lerp(upper, lower, wy).transpose(1, 2)


def _between(place: Tensor, length: int, projected: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells between which a projected place lies, and the weight [N, 1, K] of the second."""
    at = ((place.float() + 0.5) * (length / projected) - 0.5).clamp(min=0)
    first = at.long().clamp(max=length - 1)
    return first, (first + 1).clamp(max=length - 1), (at - first).unsqueeze(1)


@dataclass(frozen=True)
class Peaks:
    """The K strongest peaks of N pictures: `boxes` [N, K, 4] in network pixels, `scores` [N, K], emotion `values`
    [N, K, C], and whether each peak is a person, `valid` [N, K]."""

    boxes: Tensor
    scores: Tensor
    values: Tensor
    valid: Tensor


def peaks(merged: Merged, size: tuple[int, int], options: Decoding = DEFAULT) -> Peaks:
    """The people of N pictures in network coordinates, strongest first.

    Args:
        merged: maps of N pictures.
        size: width and height of the network's input.
        options: threshold, number of people, mode.
    """
    heat = F.interpolate(merged["heatmap"], size=size[::-1], mode="bilinear")
    n, width = len(heat), size[0]
    highest = F.max_pool2d(heat, options.window, stride=1, padding=options.window // 2)
    flat = torch.where(heat == highest, heat, 0).reshape(n, -1)
    scores, place = flat.topk(min(options.people, flat.shape[1]), dim=1)
    x, y = place % width, place // width
    factor = width / merged["size"].shape[-1]
    height_width = sample(merged["size"], x, y, size) * factor
    half = height_width.flip(-1) / 2
    centre = torch.stack([x, y], dim=-1)
    if options.published:
        boxes = torch.cat([centre - half, centre + half], dim=-1).trunc()
    else:
        centre = centre + 0.5 + 0.25 * _uphill(heat[:, 0], x, y)
        boxes = torch.cat([centre - half, centre + half], dim=-1)
    return Peaks(boxes, scores, sample(merged["bu"], x, y, size), scores > options.threshold)


def _uphill(heat: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Per peak and axis +1 where the next cell is higher than the one before, else -1: [N, K, 2]."""
    n, height, width = heat.shape
    picture = torch.arange(n, device=heat.device)[:, None]
    right, left = heat[picture, y, (x + 1).clamp(max=width - 1)], heat[picture, y, (x - 1).clamp(min=0)]
    below, above = heat[picture, (y + 1).clamp(max=height - 1), x], heat[picture, (y - 1).clamp(min=0), x]
    return torch.stack([torch.where(right > left, 1, -1), torch.where(below > above, 1, -1)], dim=-1)


def people(
    merged: Merged, frames: Sequence[Frame], config: BENetConfig, options: Decoding = DEFAULT
) -> list[tuple[Faces, dict[str, Task]]]:
    """Boxes in pixels of every picture and the emotions of everybody in it.

    Raises:
        UserError: the model has no detector.
    """
    if "heatmap" not in merged:
        raise UserError("this BENet has no person detector (head 'det'); give the people's boxes instead")
    # of the strongest peaks some may lie in the margin beside the picture; the original counts them too
    wanted = options if options.published else replace(options, people=max(options.people, DEFAULT.people))
    found = peaks(merged, frames[0].size, wanted)
    boxes, scores, values, valid = (
        t.cpu().numpy() for t in (found.boxes, found.scores, found.values.float(), found.valid)
    )
    out = []
    for i, frame in enumerate(frames):
        keep = valid[i]
        on_image = to_image(boxes[i][keep], frame, options.published)
        rows, picture_scores = values[i][keep], scores[i][keep]
        if not options.published:  # a box that lies outside the picture, or has a negative size, is nobody
            real = (on_image[:, 2] > on_image[:, 0]) & (on_image[:, 3] > on_image[:, 1])
            real = np.flatnonzero(real)
            if config.overlap < 1:
                found_boxes, strength = (torch.from_numpy(np.float32(v[real])) for v in (on_image, picture_scores))
                real = real[nms(found_boxes, strength, config.overlap).numpy()]
            real = real[: options.people]
            on_image, rows, picture_scores = on_image[real], rows[real], picture_scores[real]
        out.append((Faces(on_image, picture_scores), tasks(rows, config)))
    return out


def to_image(boxes: np.ndarray, frame: Frame, published: bool = False) -> np.ndarray:
    """Boxes [P, 4] from network to picture, clipped to the picture (published: to the network's input)."""
    width, height = frame.size if published else frame.source
    corners = frame.inverse(boxes.reshape(-1, 2, 2))
    return corners.clip(0, [width - 1, height - 1]).reshape(-1, 4)


def tasks(values: np.ndarray, config: BENetConfig) -> dict[str, Task]:
    """The emotions (and continuous values in [0, 1]) of P people, from rows [P, K]."""
    n = len(config.labels)
    thresholds = np.broadcast_to(np.float32(config.thresholds), n)
    out = {"emotions": Task("multilabel", config.labels, values[:, :n], thresholds=thresholds)}
    if config.affect:
        out["vad"] = Task("continuous", config.affect, values[:, n:])
    return out


def read_out(merged: Merged, frame: Frame, boxes: np.ndarray, picture: int = 0) -> np.ndarray:
    """Emotion probabilities [P, K] at the centres of known boxes [P, 4] (pixels of the picture)."""
    maps = merged["bu"][picture : picture + 1]
    at = torch.from_numpy(positions(frame, boxes)).to(maps.device)
    return sample(maps, at[None, :, 0], at[None, :, 1], frame.size)[0].cpu().numpy()


def positions(frame: Frame, boxes: np.ndarray) -> np.ndarray:
    """Network pixels (x, y), int64 [P, 2], at which the emotions of known boxes are read."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int)
    return frame.forward(centre).astype(int).clip(0, np.array(frame.size) - 1)


def centres(frame: Frame, boxes: np.ndarray, stride: int) -> np.ndarray:
    """Cells (x, y) of the boxes' centres on the raw maps, int64 [P, 2]; `stride` is 4 for scale 0, 2 for scale 1."""
    corners = frame.forward(np.asarray(boxes, np.float64).reshape(-1, 2, 2)) / stride
    limit = np.array(frame.size) // stride - 1
    return corners.mean(axis=1).astype(int).clip(0, limit)
