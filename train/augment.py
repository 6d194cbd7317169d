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
    """

    flip: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    erase: float = 0.0
    fill: str = "zeros"

    def __call__(self, x: Tensor) -> Tensor:
        """Vary faces [N, C, H, W] with levels 0 to 255 (uint8 or float); returns float32 of the same shape."""
        x = self._colour(x.float())
        return self._erase(self._warp(x))

    def _colour(self, x: Tensor) -> Tensor:
        if not self.jitter:
            return x
        brightness, contrast = (_uniform(x, 1 - self.jitter, 1 + self.jitter) for _ in range(2))
        bright = (x * brightness).clamp(0, 255)
        mean = bright.mean(dim=(1, 2, 3), keepdim=True)
        return ((bright - mean) * contrast + mean).clamp(0, 255)

    def _warp(self, x: Tensor) -> Tensor:
        angle = _uniform(x, -self.rotate, self.rotate).flatten() * math.pi / 180
        zoom = 1 / _uniform(x, *self.scale).flatten()
        mirror = 1 - 2 * (torch.rand(len(x), device=x.device) < self.flip).float()
        shift = (torch.rand(len(x), 2, device=x.device) * 2 - 1) * 2 * self.shift
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        rows = torch.stack([cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]], dim=1)
        grid = F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode=self.fill, align_corners=False)

    def _erase(self, x: Tensor) -> Tensor:
        if not self.erase:
            return x
        n, _, height, width = x.shape
        area, ratio = torch.empty(n, 2).uniform_(0.02, 0.2)[:, 0], torch.empty(n).uniform_(-1, 1).exp()
        tall, wide = (area * ratio).sqrt().clamp(max=1) * height, (area / ratio).sqrt().clamp(max=1) * width
        top, left = torch.rand(n) * (height - tall), torch.rand(n) * (width - wide)
        y, xs = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
        inside = (y >= _cell(top)) & (y < _cell(top + tall)) & (xs >= _cell(left)) & (xs < _cell(left + wide))
        inside &= (torch.rand(n) < self.erase).view(-1, 1, 1)
        return torch.where(inside.unsqueeze(1).to(x.device), _uniform(x, 0, 255), x)


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
