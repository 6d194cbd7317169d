"""The FG-2020 face crop: turn the eyes level, cut a square around eyes and mouth, resize (spec'd by five points)."""

from __future__ import annotations

import numpy as np
from PIL import Image


def eye_angle(landmarks: np.ndarray) -> float:
    """Slope of the line through the eyes in degrees, positive when the right one in the picture is lower.

    Args:
        landmarks: [5, 2] (x, y) of left eye, right eye, nose, left and right mouth corner as seen in the picture.
    """
    (left_x, left_y), (right_x, right_y) = np.asarray(landmarks, np.float64)[:2]
    return float(np.degrees(np.arctan2(right_y - left_y, right_x - left_x)))


def rotate(image: Image.Image, landmarks: np.ndarray, angle: float) -> tuple[Image.Image, np.ndarray]:
    """A picture turned counter-clockwise by `angle` degrees on a canvas that holds all of it, and its points there."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]])  # acts on row vectors
    width, height = image.size
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) @ turn
    canvas = np.ceil(corners.max(axis=0)) - np.floor(corners.min(axis=0))  # at most 1 pixel off Pillow's, as published
    middle = np.array(image.size) / 2
    points = (np.asarray(landmarks, np.float64) - middle) @ turn + canvas / 2
    return image.rotate(angle, expand=True), points


def face_square(landmarks: np.ndarray) -> np.ndarray:
    """The square x0, y0, x1, y1 around a face, in whole pixels (halves to even).

    Its centre lies halfway between eyes and mouth; half its side is the distance between the eyes (horizontally) or
    from eyes to mouth (vertically), whichever is larger.
    """
    points = np.asarray(landmarks, np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:5].mean(axis=0)
    half = max(points[1, 0] - points[0, 0], mouth[1] - eyes[1])
    centre = (eyes + mouth) / 2
    return np.round(np.concatenate([centre - half, centre + half])).astype(np.int64)


def five_point_crop(
    image: np.ndarray, landmarks: np.ndarray, size: int | None = None, level: bool = True
) -> np.ndarray:
    """The face as the FG-2020 system cuts it; outside the picture is black.

    Args:
        image: uint8 [H, W, 3], RGB.
        landmarks: [5, 2], as for `eye_angle`.
        size: side of the result; None keeps the square's own size (which rounding may make a pixel off square).
        level: turn the eyes level first.

    Returns:
        uint8 [size, size, 3].
    """
    picture, points = Image.fromarray(image), landmarks
    if level:
        picture, points = rotate(picture, points, eye_angle(points))
    face = picture.crop(tuple(face_square(points)))
    return np.asarray(face if size is None else face.resize((size, size), Image.Resampling.BICUBIC))


def five_point_matrices(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`five_point_crop` as one affine map per face, for `emotion.faces`: no rounding, one interpolation.

    Args:
        landmarks: [N, 5, 2], in pixels.
        size: height and width of the crop.

    Returns:
        float64 [N, 2, 3], from the picture's pixel coordinates to the crop's (centres of pixels at whole numbers).
    """
    points = np.asarray(landmarks, np.float64)
    eye_line = points[:, 1] - points[:, 0]
    angle = np.arctan2(eye_line[:, 1], eye_line[:, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], axis=1)
    eyes, mouth = points[:, :2].mean(axis=1), points[:, 3:].mean(axis=1)
    down = np.einsum("nij,nj->ni", turn, mouth - eyes)[:, 1]
    half = np.maximum(np.maximum(np.hypot(*eye_line.T), down), 1e-6)
    out = np.array(size[::-1], np.float64)
    linear = turn * (out / (2 * half[:, None]))[:, :, None]
    # A pixel's centre lies half a pixel from its corner, where the published geometry counts from.
    shift = out / 2 - 0.5 - np.einsum("nij,nj->ni", linear, (eyes + mouth) / 2 - 0.5)
    return np.concatenate([linear, shift[:, :, None]], axis=2)


# Eye centres, tip of the nose and mouth corners in OpenFace 2's aligned 112-pixel faces (scale 0.7, as its program cuts
# them): its 68-point mean shape times 0.7, centred (Baltrusaitis et al., FG 2018; Zadeh et al., ICCVW 2017).
OPENFACE = np.array([[32.95, 29.20], [78.96, 28.87], [56.86, 50.11], [35.76, 76.03], [76.16, 75.66]]) / 112
