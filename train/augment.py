"""Augmentation of whole batches of faces on the training device: a few tensor operations, no per-picture loop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """How much to vary a face; every field is a strength, 0 (or 1 for scale) turns it off.

    Attributes:
        flip: probability of a horizontal flip.
        rotate: largest rotation in degrees.
        shift: largest move, as a part of the side.
        scale: smallest and largest magnification.
        jitter: brightness and contrast are multiplied by 1 - jitter ... 1 + jitter.
        erase: probability of covering a rectangle of 2 to 20 % of the area with a random grey.
        fill: what lies outside the picture: "zeros" (black) or "border".
        saturation: multiplied by 1 - saturation ... 1 + saturation; it, brightness and contrast then come in any order.
        clips: vary all frames of a clip alike, instead of each on its own.
    """

    flip: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    erase: float = 0.0
    fill: str = "zeros"
    saturation: float = 0.0
    clips: bool = False

    def __call__(self, x: Tensor, frames: int = 1) -> Tensor:
        """Vary faces [N, C, H, W] with levels 0 to 255 (uint8 or float); returns float32 of the same shape.

        Args:
            x: `frames` pictures of every clip, one clip after the other.
            frames: of a clip.
        """
        alike = frames if self.clips else 1
        x = self._colour(x.float(), alike)
        return self._erase(self._warp(x, alike), alike)

    def _colour(self, x: Tensor, alike: int) -> Tensor:
        first = x[::alike]
        if self.saturation:
            strengths = (self.jitter, self.jitter, self.saturation)
            factors = torch.stack([_uniform(first, 1 - s, 1 + s).flatten() for s in strengths], dim=1)
            order = torch.rand(len(first), 3, device=x.device).argsort(dim=1)
            return recolour(x, factors.repeat_interleave(alike, 0), order.repeat_interleave(alike, 0))
        if not self.jitter:
            return x
        drawn = (_uniform(first, 1 - self.jitter, 1 + self.jitter) for _ in range(2))
        brightness, contrast = (factor.repeat_interleave(alike, 0) for factor in drawn)
        bright = (x * brightness).clamp(0, 255)
        mean = bright.mean(dim=(1, 2, 3), keepdim=True)
        return ((bright - mean) * contrast + mean).clamp(0, 255)

    def _warp(self, x: Tensor, alike: int) -> Tensor:
        first = x[::alike]
        angle = _uniform(first, -self.rotate, self.rotate).flatten() * math.pi / 180
        zoom = 1 / _uniform(first, *self.scale).flatten()
        mirror = 1 - 2 * (torch.rand(len(first), device=x.device) < self.flip).float()
        shift = (torch.rand(len(first), 2, device=x.device) * 2 - 1) * 2 * self.shift
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        rows = torch.stack([cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]], dim=1)
        rows = rows.repeat_interleave(alike, 0)
        grid = F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode=self.fill, align_corners=False)

    def _erase(self, x: Tensor, alike: int) -> Tensor:
        if not self.erase:
            return x
        first = x[::alike]
        n, _, height, width = first.shape
        area, ratio = torch.empty(n, 2).uniform_(0.02, 0.2)[:, 0], torch.empty(n).uniform_(-1, 1).exp()
        tall, wide = (area * ratio).sqrt().clamp(max=1) * height, (area / ratio).sqrt().clamp(max=1) * width
        top, left = torch.rand(n) * (height - tall), torch.rand(n) * (width - wide)
        y, xs = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
        inside = (y >= _cell(top)) & (y < _cell(top + tall)) & (xs >= _cell(left)) & (xs < _cell(left + wide))
        inside &= (torch.rand(n) < self.erase).view(-1, 1, 1)
        inside, grey = (t.repeat_interleave(alike, 0) for t in (inside, _uniform(first, 0, 255)))
        return torch.where(inside.unsqueeze(1).to(x.device), grey, x)


def recolour(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Multiply brightness, contrast and saturation of faces, each in an order of its own.

    As Pillow's enhancers do: away from black, from the picture's mean grey level and from its grey version.

    Args:
        x: [N, C, H, W], grey or red, green and blue, levels 0 to 255.
        factors: [N, 3], of brightness, contrast and saturation.
        order: int [N, 3], which of the three comes first, second and third.
    """
    away_from = (torch.zeros_like, lambda face: _grey(face).mean(dim=(2, 3), keepdim=True), _grey)
    x = x.clone()
    for step in order.unbind(1):
        for kind, start in enumerate(away_from):
            rows = step == kind
            base = start(x[rows])
            x[rows] = (base + factors[rows, kind].view(-1, 1, 1, 1) * (x[rows] - base)).clamp(0, 255)
    return x


def _grey(x: Tensor) -> Tensor:
    """Brightness of faces, [N, 1, H, W] (ITU-R BT.601)."""
    return x if x.shape[1] == 1 else (x * x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)


def mixup(x: Tensor, targets: Tensor, alpha: float, probability: float = 1.0) -> tuple[Tensor, Tensor]:
    """Blend every sample with another one, pictures and target distributions alike (Zhang et al. 2018).

    Args:
        x: [N, ...]; targets: [N, K].
        alpha: of the Beta distribution that the share is drawn from, one share per batch.
        probability: that the batch is mixed at all.
    """
    if not alpha or torch.rand(()) >= probability:
        return x, targets
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.randperm(len(x), device=x.device)
    return x.lerp(x[other], 1 - share), targets.lerp(targets[other], 1 - share)


def _uniform(x: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(low, high)


def _cell(edge: Tensor) -> Tensor:
    return edge.round().view(-1, 1, 1)
