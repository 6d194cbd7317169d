"""Synthetic voices and faces of the audiovisual parity cases; every number is part of the fixtures' definition."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile

from tests.parity.common import array


def waveform(
    sr: int,
    seconds: float,
    tones: list[list[float]],
    centre: float,
    width: float,
    chirp: list[float],
    noise: float,
    seed: int,
) -> np.ndarray:
    """float32 mono: sines [amplitude, hertz, phase] and a chirp [amplitude, from, to] that swell and fade; noise."""
    n = round(sr * seconds)
    t = np.arange(n, dtype=np.float64) / sr
    loudness, low, high = chirp
    y = np.zeros(n)
    for amplitude, hertz, phase in tones:
        y += amplitude * np.sin(2 * np.pi * hertz * t + phase)
    y += loudness * np.sin(2 * np.pi * (low * t + 0.5 * (high - low) * t * t / seconds))
    y *= np.exp(-(((t - centre) / width) ** 2))
    return (y + noise * array([n], seed, -1.0, 1.0).astype(np.float64)).astype(np.float32)


def wav(channels: list[dict[str, Any]]) -> bytes:
    """A 16-bit WAV file with one waveform per channel."""
    levels = [np.rint(waveform(**c).astype(np.float64) * 32767).clip(-32768, 32767) for c in channels]
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack(levels, axis=1).astype(np.int16), channels[0]["sr"], format="WAV")
    return buffer.getvalue()


# The head from back to front, in half-heights around its centre: x, y, half width, half height, softness, colour,
# opacity. Shapes with a side are drawn left and right; a pair [constant, factor] depends on how open the mouth is.
SHOULDERS_TO_HAIRLINE = [
    (0, 1.9, 1.5, 1.0, 0.08, (40, 40, 60), 1),
    (0, 0.95, 0.38, 0.5, 0.08, (190, 145, 120), 1),
    (0, -0.18, 0.86, 1.0, 0.08, (45, 32, 25), 1),
    (0, 0.05, 0.70, 0.92, 0.08, (215, 170, 145), 1),
    (0, -0.62, 0.66, 0.26, 0.15, (45, 32, 25), 1),
]
CHEEK = [(0.35, 0.3, 0.22, 0.2, 0.4, (225, 150, 130), 0.5)]
EYE = [
    (0.29, -0.08, 0.2, 0.13, 0.3, (165, 120, 100), 0.8),
    (0.29, -0.08, 0.13, 0.07, 0.12, (245, 245, 245), 1),
    (0.29, -0.08, 0.06, 0.068, 0.15, (40, 30, 25), 1),
    (0.29, -0.29, 0.18, 0.035, 0.3, (50, 36, 28), 1),
]
NOSE_AND_MOUTH = [
    (0, 0.17, 0.05, 0.25, 0.5, (235, 195, 170), 0.7),
    (0, 0.33, 0.13, 0.05, 0.4, (160, 110, 95), 0.8),
    (0, 0.56, 0.25, (0.06, 0.08), 0.2, (170, 75, 75), 1),
    (0, 0.56, 0.2, (0.015, 0.07), 0.25, (70, 25, 25), 1),
]


def face_frame(h: int, w: int, cx: float, cy: float, s: float, mouth: float, face: bool = True) -> np.ndarray:
    """uint8 [h, w, 3], RGB: a drawn head of half-height `s` at (cx, cy) before a plain background."""
    rows, columns = np.mgrid[0:h, 0:w].astype(np.float64)
    picture = np.array((70.0, 80.0, 90.0)) + ((columns / w - 0.5) * 20)[..., None] + np.zeros((h, w, 3))
    shapes = [(1, shape) for shape in SHOULDERS_TO_HAIRLINE]
    shapes += [(side, shape) for part in (CHEEK, EYE) for side in (-1, 1) for shape in part]
    shapes += [(1, shape) for shape in NOSE_AND_MOUTH]
    for side, (x, y, wide, high, soft, colour, opacity) in shapes if face else []:
        if isinstance(high, tuple):
            high = high[0] + high[1] * mouth
        radius = np.hypot((columns - cx - side * x * s) / (wide * s), (rows - cy - y * s) / (high * s))
        alpha = opacity / (1 + np.exp(np.clip((radius - 1) / soft, -60, 60)))[..., None]
        picture = picture * (1 - alpha) + alpha * np.array(colour, float)
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def clip_frame(number: int, clip: dict[str, Any]) -> np.ndarray:
    """Frame `number` of a clip: the head sways, breathes and talks; `clip["blank"]` lists frames without it."""
    phase = 2 * np.pi * number / clip["period"]
    return face_frame(
        clip["h"],
        clip["w"],
        cx=clip["cx"] + clip["dx"] * np.sin(phase),
        cy=clip["cy"] + clip["dy"] * np.cos(phase),
        s=clip["s"] * (1 + clip["ds"] * np.sin(0.5 * phase)),
        mouth=0.5 + 0.5 * np.sin(3 * phase),
        face=number not in clip["blank"],
    )


def two_faces(left: dict[str, Any], right: dict[str, Any]) -> np.ndarray:
    """The left half of one picture beside the right half of another."""
    middle = left["w"] // 2
    return np.concatenate([face_frame(**left)[:, :middle], face_frame(**right)[:, middle:]], axis=1)
