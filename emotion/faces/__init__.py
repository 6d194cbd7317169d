"""From detected faces to network inputs: choose faces, cut them out, align them by their landmarks.

The detectors (`MTCNN` and others) are in emotion/faces/detectors.py and offered here too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from emotion.errors import UserError
from emotion.faces import alignment
from emotion.faces.detectors import MTCNN, Detector, Dlib, FirstFace, Haar, detector
from emotion.models.base import FaceInput, enlarge, middle
from emotion.outputs import Faces

__all__ = [
    "MTCNN",
    "SELECTIONS",
    "TEMPLATES",
    "Detector",
    "Dlib",
    "FirstFace",
    "Haar",
    "crop",
    "detector",
    "fit_picture",
    "given",
    "select",
    "similarity",
    "warp",
]

SELECTIONS = ("all", "largest", "closest-to-centre")

# Where the five landmarks (order of `Faces.landmarks`) lie in an aligned crop: [5, 2] as parts of its width and height;
# or a rule (landmarks [N, 5, 2], (height, width)) -> matrices [N, 2, 3] as `similarity` gives them.
TEMPLATES: dict[str, np.ndarray | Callable[[np.ndarray, tuple[int, int]], np.ndarray]] = {
    # The 112x112 crop of ArcFace (Deng et al. 2019, arXiv 1801.07698), the usual one for face recognition.
    "arcface": np.array(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    )
    / 112,
    # OpenFace's aligned faces, which much of the affect literature feeds its networks.
    "openface": alignment.OPENFACE,
    # Eyes level, square around eyes and mouth (FG-2020).
    "five_point": alignment.five_point_matrices,
}


def select(faces: Faces, which: str, picture_size: tuple[int, int]) -> Faces:
    """All faces, or the one that is largest or closest to the picture's centre.

    Args:
        faces: of one picture.
        which: one of `SELECTIONS`.
        picture_size: width and height of the picture.

    Raises:
        UserError: unknown `which`.
    """
    if which not in SELECTIONS:
        raise UserError(f"cannot select faces by {which!r}; use one of {', '.join(SELECTIONS)}")
    if which == "all" or not len(faces):
        return faces
    if which == "largest":
        return faces[int(faces.areas.argmax())]
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    return faces[int(np.hypot(*(centres - np.divide(picture_size, 2)).T).argmin())]


def given(boxes: Any, picture_size: tuple[int, int]) -> Faces:
    """The user's own boxes, in the user's order, instead of a detector's.

    Args:
        boxes: [N, 4] numbers x0, y0, x1, y1 in pixels; parts outside the picture are cut off.
        picture_size: width and height of the picture.

    Returns:
        Faces with score 1 and without landmarks.

    Raises:
        UserError: not N x 4 finite numbers, or a box that is empty or wholly outside the picture.
    """
    try:
        boxes = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError("boxes must be numbers: x0, y0, x1, y1 for every face") from error
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UserError(f"boxes have shape {boxes.shape}; expected x0, y0, x1, y1 for every face, [N, 4]")
    if not np.isfinite(boxes).all():
        raise UserError("boxes have values that are not finite (NaN or infinity)")
    inside = np.clip(boxes.reshape(-1, 2, 2), 0, picture_size).reshape(-1, 4)
    bad = np.flatnonzero((inside[:, 2:] <= inside[:, :2]).any(axis=1))
    if len(bad):
        size = "x".join(map(str, picture_size))
        raise UserError(
            f"box {bad[0]} {boxes[bad[0]].tolist()} covers nothing of the {size} picture; give x0, y0, x1, y1"
        )
    return Faces(inside, np.ones(len(inside)))


def crop(picture: np.ndarray, faces: Faces, spec: FaceInput) -> np.ndarray:
    """Every face cut out of its picture as `spec` says: by its box, or aligned to a landmark template.

    Boxes are rounded to whole pixels (halves to even), at least one, and stretched to `spec.size` by bilinear
    interpolation with half-pixel centres. With a template, the box and margin, square and shift play no part.

    Args:
        picture: uint8 [H, W, 3], RGB.
        faces: N faces; boxes may lie anywhere, what is outside the picture is black.
        spec: what the model eats.

    Returns:
        uint8 [N, height, width, 3], RGB.

    Raises:
        UserError: the model needs landmarks and the detector gave none.
    """
    out = np.zeros((len(faces), *spec.size, 3), np.uint8)
    if spec.template is not None:
        for i, matrix in enumerate(_alignment(faces, spec)):
            out[i] = warp(picture, matrix, spec.size, spec.antialias)
        return out
    for i, region in enumerate(_regions(faces.boxes, spec, picture.shape[1::-1])):
        out[i] = _resize(_cut(picture, region), spec.size, spec.antialias)
    return out


def in_picture(points: np.ndarray, faces: Faces, spec: FaceInput, picture_size: tuple[int, int]) -> np.ndarray:
    """Where points of what `crop` cut out lie in the picture.

    Args:
        points: [N, K, 2] (x, y) as fractions of the crop's sides.
        faces, spec: as for `crop`.
        picture_size: width and height.

    Returns:
        float64 [N, K, 2], pixels from the picture's left upper corner.
    """
    points = np.asarray(points, np.float64)
    if spec.template is None:
        regions = _regions(faces.boxes, spec, picture_size)[:, None]
        return regions[..., :2] + points * (regions[..., 2:] - regions[..., :2])
    matrices = _alignment(faces, spec)
    inside = points * spec.size[::-1] - 0.5 - matrices[:, None, :, 2]
    return np.linalg.solve(matrices[:, None, :, :2], inside[..., None])[..., 0] + 0.5


def fit_picture(picture: np.ndarray, spec: FaceInput) -> np.ndarray:
    """A picture that is a face crop already (as data sets have them), brought to a model's size and channels.

    Args:
        picture: uint8, grey [H, W] or RGB [H, W, 3].
        spec: what the model eats; margin, square, shift and template play no part.

    Returns:
        uint8 [height, width, C] in the channel order of `spec`: ready for `spec.normalise`.
    """
    if picture.ndim == 3 and spec.channels == "gray":
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    height, width = spec.size
    if spec.zoom != 1:
        picture = middle(enlarge(picture, spec.size, spec.zoom), spec.size)
    elif picture.shape[:2] != (height, width):
        shrinking = picture.shape[0] > height and spec.antialias
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], spec.depth, axis=2)
    return np.ascontiguousarray(picture[..., ::-1] if spec.channels == "bgr" else picture)


def _regions(boxes: np.ndarray, spec: FaceInput, picture_size: tuple[int, int]) -> np.ndarray:
    """What to cut for every box: int [N, 4], x0 y0 x1 y1, at least one pixel."""
    corners = boxes.astype(np.float64).reshape(-1, 2, 2)
    sides = corners[:, 1] - corners[:, 0]
    centres = corners.mean(axis=1) + [[0, spec.shift]] * sides
    if spec.square:
        sides = np.repeat(sides.max(axis=1, keepdims=True), 2, axis=1)
    half = sides * (0.5 + spec.margin)
    # However far a box reaches, no cut is larger than three picture sizes.
    limits = np.array(picture_size)
    first = np.clip(np.rint(centres - half), -limits, 2 * limits - 1)
    last = np.clip(np.rint(centres + half), first + 1, 2 * limits)
    return np.concatenate([first, last], axis=1).astype(int)


def _cut(picture: np.ndarray, region: Sequence[int]) -> np.ndarray:
    """Pixels x0 <= x < x1, y0 <= y < y1; black outside the picture, a view where all is inside."""
    x0, y0, x1, y1 = (int(v) for v in region)
    height, width = picture.shape[:2]
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        return picture[y0:y1, x0:x1]
    out = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    inner = picture[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    if inner.size:
        top, left = max(-y0, 0), max(-x0, 0)
        out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return out


def _resize(pixels: np.ndarray, size: tuple[int, int], antialias: bool) -> np.ndarray:
    height, width = size
    if antialias:
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def _alignment(faces: Faces, spec: FaceInput) -> np.ndarray:
    if spec.template not in TEMPLATES:
        raise UserError(f"unknown landmark template {spec.template!r}; known: {', '.join(TEMPLATES)}")
    if faces.landmarks is None:
        raise UserError("this model aligns faces by their landmarks, which are missing; use the detector mtcnn")
    template = TEMPLATES[spec.template]
    if callable(template):
        return template(faces.landmarks, spec.size)
    return similarity(faces.landmarks, template * spec.size[::-1])


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotation, scale and shift that bring `points` closest to `target` (least squares; Umeyama 1991, no mirroring).

    With points as complex numbers z, w the map is w = a z + b, and a = sum(conj(z) w) / sum(|z|^2) of centred z, w.

    Args:
        points: [N, K, 2]; target: [K, 2] or [N, K, 2].

    Returns:
        float64 [N, 2, 3]: x' = M[:, :2] x + M[:, 2]. Points that all coincide give a map to the target's centre.
    """
    z, w = (np.asarray(p, np.float64) @ [1, 1j] for p in (points, target))
    z_mean, w_mean = z.mean(axis=-1, keepdims=True), w.mean(axis=-1, keepdims=True)
    z0 = z - z_mean
    spread = (np.abs(z0) ** 2).sum(axis=-1)
    a = (z0.conj() * (w - w_mean)).sum(axis=-1) / np.maximum(spread, 1e-12)
    b = w_mean[..., 0] - a * z_mean[..., 0]
    rows = [[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]]
    return np.moveaxis(np.array(rows), -1, 0)


def warp(picture: np.ndarray, matrix: np.ndarray, size: tuple[int, int], antialias: bool = True) -> np.ndarray:
    """The picture seen through an affine map; bilinear, black outside the picture.

    Args:
        picture: uint8 [H, W, 3].
        matrix: [2, 3], from the picture's pixel coordinates to the result's (centres of pixels at whole numbers).
        size: height and width of the result.
        antialias: average pixels first where the map shrinks to less than half.

    Returns:
        uint8 [height, width, 3].
    """
    height, width = size
    out = np.zeros((height, width, 3), np.uint8)
    scale = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if scale < 1e-6:
        return out
    step = max(1, int(1 / scale)) if antialias else 1
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) - matrix[:, 2]
    source = corners @ np.linalg.inv(matrix[:, :2]).T
    first = np.clip(np.floor(source.min(axis=0)) - 2 * step, 0, picture.shape[1::-1]).astype(int)
    last = np.clip(np.ceil(source.max(axis=0)) + 2 * step, 0, picture.shape[1::-1]).astype(int)
    if (last <= first).any():
        return out
    pixels = picture[first[1] : last[1], first[0] : last[0]]
    full = np.array(pixels.shape[1::-1])
    step = max(step, math.ceil(full.max() / 32_000))  # OpenCV warps nothing wider than 32,767 pixels
    small = np.maximum(1, np.rint(full / step)).astype(int)
    if step > 1:
        pixels = cv2.resize(pixels, small.tolist(), interpolation=cv2.INTER_AREA)
    ratio = full / small  # a shrunken pixel x is at (x + 0.5) * ratio - 0.5 + first in the picture
    shift = matrix[:, :2] @ (0.5 * ratio - 0.5 + first) + matrix[:, 2]
    return cv2.warpAffine(pixels, np.column_stack([matrix[:, :2] * ratio, shift]), (width, height))
