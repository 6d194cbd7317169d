"""Variation of scenes in training: a random crop with rotation and perspective, mirroring, colour, noise and blur.

"published" geometry repeats the original's: boxes follow two corners, and each resolution its own matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as photo

from emotion.models.benet_decode import SceneInput

KEPT = 0.25  # share of a box that must stay inside the crop for its person to stay a target


def areas(boxes: np.ndarray) -> np.ndarray:
    """[P] from boxes [P, 4]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def intersections(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Areas [P] that a box shares with others [P, 4]."""
    side = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return side.clip(0).prod(axis=1)


@dataclass(frozen=True)
class Variation:
    """How much training pictures vary.

    Attributes:
        scale: smallest and largest crop, in multiples of the picture's shorter side.
        rotate: largest rotation in degrees.
        move: largest move of the crop's centre, in 200ths of the crop's side (always to the lower right).
        perspective: largest perspective entry of the matrix.
        flip: probability of mirroring.
        noise: largest variance of Gaussian noise.
        jitter: smallest factor of brightness, contrast and saturation; the largest is 1.
        hue: largest turn of the hue circle.
        blur: smallest and largest sigma of the 3x3 blur.
        anywhere: crops lie anywhere in the picture instead of at its middle.
    """

    scale: tuple[float, float] = (0.75, 1.5)
    rotate: float = 5.0
    move: float = 1.5
    perspective: float = 0.5e-4
    flip: float = 0.5
    noise: float = 0.0005
    jitter: float = 0.85
    hue: float = 0.1
    blur: tuple[float, float] = (0.1, 2.0)
    anywhere: bool = False


@dataclass(frozen=True)
class Draw:
    """One random crop: size and rotation and moves as uniform numbers in [0, 1), and whether to mirror."""

    scale: float
    rotation: float
    dx: float
    dy: float
    perspective: tuple[float, float]
    flip: bool


def draw(rng: np.random.Generator, flip: float = 0.5) -> Draw:
    """A random crop."""
    scale, rotation, dx, dy, p, q = rng.random(6)
    return Draw(scale, rotation, dx, dy, (p, q), bool(rng.random() < flip))


def matrix(d: Draw, size: tuple[int, int], resolution: int, longer: bool, how: Variation) -> np.ndarray:
    """Picture -> square of side `resolution`, 3x3 (without mirroring).

    Args:
        d: the draw.
        size: width and height of the picture.
        resolution: side of the result.
        longer: measure the crop by the picture's longer side (crops of persons) instead of the shorter one.
        how: ranges.
    """
    side = (how.scale[0] + d.scale * (how.scale[1] - how.scale[0])) * (max(size) if longer else min(size))
    centre = np.floor(np.array(size) / 2 + 0.5)
    if how.anywhere:
        centre += (np.array([d.dx, d.dy]) - 0.5) * (np.array(size) - side).clip(0)
    else:
        centre += side / 200 * how.move * np.array([d.dx, d.dy])
    angle = -math.radians((2 * d.rotation - 1) * how.rotate)
    zoom = np.diag([resolution / side, resolution / side, 1])
    zoom[:2, 2] = resolution / 2 - zoom[0, 0] * centre
    cos, sin, middle = math.cos(angle), math.sin(angle), resolution / 2
    turn = np.array(
        [[cos, -sin, middle - cos * middle + sin * middle], [sin, cos, middle - sin * middle - cos * middle]]
    )
    out = np.vstack([turn, [0, 0, 1]]) @ zoom
    if angle:
        out[2, :2] = (2 * np.array(d.perspective) - 1) * how.perspective
    return out


def warp(picture: np.ndarray, m: np.ndarray, resolution: int, flip: bool) -> np.ndarray:
    """uint8 [r, r, 3]: bilinear, black outside."""
    # Not OpenCV's: version 4 rounds positions to 1/32 pixel.
    y, x = np.mgrid[:resolution, :resolution]
    u, v, w = np.linalg.inv(m) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    width, height = picture.shape[1], picture.shape[0]
    grid = np.stack([(2 * u / w + 1) / width - 1, (2 * v / w + 1) / height - 1], axis=1)
    grid = torch.from_numpy(grid.reshape(1, resolution, resolution, 2).astype(np.float32))
    pixels = torch.tensor(picture).permute(2, 0, 1)[None].float()
    out = F.grid_sample(pixels, grid, align_corners=False)[0].round().byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(out[:, ::-1]) if flip else out


def through(boxes: np.ndarray, m: np.ndarray, corners: int = 4) -> np.ndarray:
    """The boxes around boxes' corners after a matrix, [P, 4] -> [P, 4]; with 2, around upper left and lower right."""
    x0, y0, x1, y1 = boxes.T
    points = [(x0, y0), (x1, y1), (x1, y0), (x0, y1)][:corners]
    moved = m @ np.stack([np.stack([x, y, np.ones_like(x)]) for x, y in points])  # [corners, 3, P]
    moved = moved[:, :2] / moved[:, 2:]
    if corners == 2:
        return np.concatenate([moved[0], moved[1]]).T
    return np.concatenate([moved.min(axis=0), moved.max(axis=0)]).T


def move_boxes(boxes: np.ndarray, m: np.ndarray, side: int, flip: bool, published: bool = False) -> np.ndarray:
    """Boxes [P, 4] through a matrix to a square of `side`, clipped to it and mirrored.

    The original ("published") moves two corners only.
    """
    moved = through(np.asarray(boxes, float), m, corners=2 if published else 4).clip(0, side - 1)
    return np.stack([side - 1 - moved[:, 2], moved[:, 1], side - 1 - moved[:, 0], moved[:, 3]], 1) if flip else moved


def inside(boxes: np.ndarray, m: np.ndarray, side: int) -> np.ndarray:
    """bool [P]: enough of each box (`KEPT` of its area) lies inside the square."""
    moved = through(boxes, m)
    return areas(moved.clip(0, side - 1)) >= KEPT * np.maximum(areas(moved), 1e-9)


def photometric(picture: np.ndarray, rng: np.random.Generator, how: Variation, spec: SceneInput) -> Tensor:
    """Network input float32 [3, r, r] from a uint8 square: noise, colour, blur, normalisation."""
    x = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
    noise = rng.standard_normal(tuple(x.shape), dtype=np.float32) * math.sqrt(rng.uniform(0, how.noise))
    x = (x + torch.from_numpy(noise)).clamp(0, 1)
    brightness, contrast, saturation = rng.uniform(how.jitter, 1, 3)
    x = jitter(x, brightness, contrast, saturation, rng.uniform(0, how.hue))
    x = blur(x, rng.uniform(*how.blur))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    return (x - mean) / std


def jitter(x: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """Colours [3, h, w] in [0, 1] changed in this order."""
    x = photo.adjust_brightness(x, brightness)
    x = photo.adjust_contrast(x, contrast)
    x = photo.adjust_saturation(x, saturation)
    return photo.adjust_hue(x, hue) if hue else x  # by far the slowest of them


def blur(x: Tensor, sigma: float) -> Tensor:
    """A 3x3 Gaussian over [3, h, w]."""
    pixels = np.ascontiguousarray(x.permute(1, 2, 0).numpy())
    return torch.from_numpy(cv2.GaussianBlur(pixels, (3, 3), sigma)).permute(2, 0, 1)  # the border is mirrored
