"""Pictures of predictions: boxes and chips over faces, heat maps over crops, and the one palette of the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from emotion.outputs import Result, Task

# After Okabe & Ito (2008): told apart by colour-blind eyes, visible on white and on black.
PALETTE = {
    "neutral": "#8C8C8C",
    "happiness": "#E69F00",
    "surprise": "#56B4E9",
    "sadness": "#0072B2",
    "anger": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "contempt": "#7B5EA7",
    "calm": "#B8B8B8",
}
UNLABELLED = "#5B7C99"
UNCERTAIN = 0.75  # the top quarter of the normalised uncertainty is drawn dashed
HEAT_MAP = "inferno"  # perceptually uniform
DIMMED = 0.45

Box = tuple[int, int, int, int]


def colour(label: str | None) -> str:
    """The colour of an expression as "#rrggbb"; grey-blue for anything that is not one."""
    return PALETTE.get(label or "", UNLABELLED)


def luminance(rgb: str) -> float:
    """Relative luminance in [0, 1] of "#rrggbb" (WCAG 2.2)."""
    levels = np.array([int(rgb[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def ink(background: str) -> str:
    """Black or white, whichever reads better on `background`; never below 4.5 : 1."""
    return max(("#000000", "#FFFFFF"), key=lambda text: contrast(text, background))


def percent(share: float) -> str:
    """A share in [0, 1] in words of per cent; what rounds to nothing but is not nothing is "<1 %"."""
    return "<1 %" if 0 < share < 0.005 else f"{share:.0%}".replace("%", " %")


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all drawings, `size` in pixels."""
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class Chip:
    """A label next to a face: its text, font size and box x0 y0 x1 y1 in whole pixels."""

    text: str
    font_size: int
    box: Box


def layout(
    size: tuple[int, int],
    boxes: np.ndarray,
    texts: Sequence[Sequence[str]],
    font_size: int,
    gap: int = 0,
    first: int | None = None,
    inside: bool = False,
) -> list[Chip | None]:
    """Place one chip per face next to its box: inside the picture, over no face and over no other chip.

    Where a text finds no room, shorter and smaller ones are tried; where nothing fits, the face has no chip.

    Args:
        size: width and height of the picture.
        boxes: [N, 4] faces.
        texts: for every face its texts, longest first.
        font_size: in pixels, tried first; then three quarters and half of it.
        gap: pixels between box and chip.
        first: face whose chip is placed first; the others follow from the largest face on.
        inside: chips lie in the boxes, which are of whole persons; then only chips keep off each other.

    Returns:
        N chips or None.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = sorted(range(len(boxes)), key=lambda i: (i != first, -areas[i], i))
    sizes = [max(8, round(font_size * k)) for k in (1, 0.75, 0.5)]
    obstacles = boxes[:0] if inside else boxes
    chips: list[Chip | None] = [None] * len(boxes)
    for i in order:
        *words, number = texts[i]
        tries = [(t, s) for s in sizes[:2] for t in words] + [(number, s) for s in sizes]
        for text, points in tries:
            spots = (_spots_inside if inside else _spots)(boxes[i], _chip_size(text, points), size, gap)
            free = spots[~_overlap(spots, obstacles).any(axis=1)]
            if len(free):
                chips[i] = Chip(text, points, tuple(int(v) for v in free[0]))
                obstacles = np.concatenate([obstacles, free[:1]])
                break
    return chips


def _chip_size(text: str, font_size: int) -> tuple[int, int]:
    return int(np.ceil(font(font_size).getlength(text) + 0.9 * font_size)), round(1.45 * font_size)


def _spots(box: np.ndarray, chip: tuple[int, int], size: tuple[int, int], gap: int) -> np.ndarray:
    """Boxes [K, 4] around a face that lie inside the picture, best first: above, below, right, left."""
    (width, height), (w, h) = size, chip
    x0, y0 = np.floor(box[:2]).astype(int)
    x1, y1 = np.ceil(box[2:]).astype(int)
    columns = [x0, x1 - w, (x0 + x1 - w) // 2]
    rows = [y0, y1 - h, (y0 + y1 - h) // 2]
    spots = [(x, y) for y in (y0 - gap - h, y1 + gap) for x in np.clip(columns, 0, max(0, width - w))]
    spots += [(x, y) for x in (x1 + gap, x0 - gap - w) for y in np.clip(rows, 0, max(0, height - h))]
    near = np.array(spots)
    far = near + np.array(chip)
    inside = (near >= 0).all(axis=1) & (far <= np.array(size)).all(axis=1)
    return np.concatenate([near, far], axis=1)[inside]


def _spots_inside(box: np.ndarray, chip: tuple[int, int], size: tuple[int, int], gap: int) -> np.ndarray:
    """Boxes [K, 4] at a person's lower edge, then up the sides: the face stays free as long as possible."""
    limit = np.array(size) - chip
    x0, y0, x1, y1 = (*np.floor(box[:2]).astype(int) + gap, *np.ceil(box[2:]).astype(int) - gap - chip)
    spots = np.array([(x, y) for y in np.linspace(y1, y0, 6).astype(int) for x in (x0, x1)])
    spots = spots[: len(spots) if (limit >= 0).all() else 0].clip(0, np.maximum(limit, 0))
    return np.concatenate([spots, spots + chip], axis=1)


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which of boxes a [K, 4] and b [M, 4] share any area, bool [K, M]."""
    a, b = a[:, None], b[None]
    return (np.minimum(a[..., 2:], b[..., 2:]) > np.maximum(a[..., :2], b[..., :2])).all(axis=-1)


def overlay(picture: np.ndarray, result: Result, frame: int = 0, selected: int | None = None) -> np.ndarray:
    """Draw the faces of one frame: rounded box in the class colour, chip with number, label and probability.

    Numbers count from 1 within the frame, or are the track ids of a video. Very uncertain faces
    (`UNCERTAIN`) have a dashed box.

    Args:
        picture: uint8 [H, W, 3]; may be smaller or larger than `result.size`, boxes are scaled.
        result: what was predicted.
        frame: index into `result.timestamps`.
        selected: number (from 0 within the frame) of a face to emphasise; the others are dimmed.

    Returns:
        uint8 [H, W, 3], a new array.
    """
    height, width = picture.shape[:2]
    members = np.flatnonzero(np.asarray(result.frame) == frame)
    boxes = result.faces.boxes[members] * np.tile([width / result.size[0], height / result.size[1]], 2)
    unit = max(width, height)
    line = max(2, round(unit / 400))
    names, dashed = _names(result, members), _dashed(result, members)
    canvas = picture.copy()
    for n, box in enumerate(boxes):
        thickness = 2 * line if n == selected else line
        opacity = 1.0 if selected in (None, n) else DIMMED
        _draw_box(canvas, box, colour(names[n]), thickness, bool(dashed[n]), opacity)
    texts = _texts(result, members, names)
    persons = "emotions" in result.tasks
    points = round(unit / 46) if persons else _font_size(unit, boxes)
    chips = layout((width, height), boxes, texts, max(12, points), gap=line, first=selected, inside=persons)
    for n, chip in enumerate(chips):
        if chip is not None:
            _draw_chip(canvas, chip, colour(names[n]), 1.0 if selected in (None, n) else DIMMED)
    return canvas


def _font_size(unit: int, boxes: np.ndarray) -> int:
    """Readable on a page, and smaller in a crowd of small faces."""
    typical = float(np.median(boxes[:, 3] - boxes[:, 1])) if len(boxes) else 0.0
    return max(12, round(float(np.clip(0.4 * typical, unit / 64, unit / 46))))


def _names(result: Result, members: np.ndarray) -> list[str | None]:
    task = result.tasks.get("expression")
    return [None] * len(members) if task is None else task[members].names()


def _dashed(result: Result, members: np.ndarray) -> np.ndarray:
    task = result.tasks.get("expression")
    total = None if task is None else task.uncertainty.get("total")
    return np.zeros(len(members), bool) if total is None else total[members] >= UNCERTAIN


def _texts(result: Result, members: np.ndarray, names: list[str | None]) -> list[list[str]]:
    ids = result.faces.track_ids
    numbers = [str(n + 1) if ids is None else str(ids[i]) for n, i in enumerate(members)]
    if "emotions" in result.tasks:
        words = present(result.tasks["emotions"][members])
        return [[f"{a} {b[0]}", a] if b else [a] for a, b in zip(numbers, words)]
    if "expression" not in result.tasks:
        return [[number] for number in numbers]
    task = result.tasks["expression"][members]
    chances = task.values[np.arange(len(members)), task.choice]
    return [[f"{a} {b} {percent(c)}", f"{a} {b}", a] for a, b, c in zip(numbers, names, chances)]


def present(task: Task) -> list[list[str]]:
    """Per row the labels of a multi-label task that reach their thresholds, those farthest above first."""
    limits = np.broadcast_to(0.5 if task.thresholds is None else task.thresholds, task.values.shape[1])
    above = task.values - limits
    return [[task.labels[k] for k in np.argsort(-row) if row[k] >= 0] for row in above]


def _draw_box(canvas: np.ndarray, box: np.ndarray, rgb: str, line: int, dashed: bool, opacity: float) -> None:
    x0, y0 = (int(v) for v in np.floor(box[:2]))
    x1, y1 = (int(v) for v in np.ceil(box[2:]))
    halo = max(1, line // 3)  # a thin dark rim keeps the line visible on bright and busy pictures
    for paint, grow, strength in (("#000000", halo, 0.35 * opacity), (rgb, 0, opacity)):
        size = (x1 - x0 + 2 * grow, y1 - y0 + 2 * grow)
        if min(size) > 0:
            mask = _outline(size, line + 2 * grow, dashed)
            _paint(canvas, (x0 - grow, y0 - grow), np.asarray(mask) * (strength / 255), ImageColor.getrgb(paint))


def _paint(canvas: np.ndarray, corner: tuple[int, int], mask: np.ndarray, paint: np.ndarray | Sequence[int]) -> None:
    """Blend a colour or a patch into `canvas` in place where `mask` [h, w] in [0, 1] says so; parts outside are cut."""
    x, y = corner
    rows = slice(max(0, -y), max(0, min(len(mask), canvas.shape[0] - y)))
    columns = slice(max(0, -x), max(0, min(mask.shape[1], canvas.shape[1] - x)))
    mask = mask[rows, columns, None].astype(np.float32)
    paint = np.asarray(paint, dtype=np.float32)
    paint = paint if paint.ndim == 1 else paint[rows, columns]
    region = canvas[y + rows.start : y + rows.stop, x + columns.start : x + columns.stop]
    region[:] = np.rint(region + mask * (paint - region))


def _outline(size: tuple[int, int], line: int, dashed: bool) -> Image.Image:
    """Mask of a rounded frame, drawn larger and reduced so that its corners are smooth."""
    k = 4 if max(size) <= 300 else 2 if max(size) <= 900 else 1
    (w, h), t = (k * size[0], k * size[1]), k * line
    radius = min(4 * t, w // 4, h // 4)
    mask = Image.new("L", (w, h))
    draw = ImageDraw.Draw(mask)
    draw.rounded_rectangle((0, 0, w - 1, h - 1), radius, outline=255, width=t)
    if dashed:
        for x in range(radius + 2 * t, w - radius - 2 * t, 5 * t):
            draw.rectangle((x, 0, x + 2 * t, t), fill=0)
            draw.rectangle((x, h - 1 - t, x + 2 * t, h), fill=0)
        for y in range(radius + 2 * t, h - radius - 2 * t, 5 * t):
            draw.rectangle((0, y, t, y + 2 * t), fill=0)
            draw.rectangle((w - 1 - t, y, w, y + 2 * t), fill=0)
    return mask.reduce(k) if k > 1 else mask


def _draw_chip(canvas: np.ndarray, chip: Chip, rgb: str, opacity: float) -> None:
    x0, y0, x1, y1 = chip.box
    k, size = 3, (x1 - x0, y1 - y0)
    shape = Image.new("L", (k * size[0], k * size[1]))
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, shape.width - 1, shape.height - 1), shape.height // 4, fill=255)
    patch = Image.new("RGB", size, rgb)
    middle = (size[0] / 2, size[1] / 2)
    ImageDraw.Draw(patch).text(middle, chip.text, fill=ink(rgb), font=font(chip.font_size), anchor="mm")
    mask = np.asarray(shape.reduce(k)) * ((0.65 + 0.35 * opacity) / 255)  # text stays readable
    _paint(canvas, (x0, y0), mask, np.asarray(patch))


@lru_cache(maxsize=4)
def heat_colours(levels: int = 256) -> np.ndarray:
    """The colours of heat maps from 0 to 1 in equal steps, uint8 [levels, 3]."""
    from matplotlib import colormaps

    return (colormaps[HEAT_MAP](np.linspace(0, 1, levels))[:, :3] * 255).round().astype(np.uint8)


def heat(crop: np.ndarray, values: np.ndarray, alpha: float = 0.5, bar: bool = True) -> np.ndarray:
    """A map in [0, 1] in colours over the picture it belongs to.

    Args:
        crop: uint8 [H, W, 3].
        values: float [h, w] in [0, 1], stretched smoothly to the crop.
        alpha: opacity of the map, 0 (crop alone) to 1 (map alone).
        bar: append a scale bar from 0 to 1 on the right, W // 5 pixels wide but at least 16.

    Returns:
        uint8 [H, W', 3].
    """
    height, width = crop.shape[:2]
    small = Image.fromarray(np.asarray(values, dtype=np.float32))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    colours = heat_colours()[(smooth * 255).round().astype(np.uint8)]
    blend = (crop * (1 - alpha) + colours * alpha).round().astype(np.uint8)
    return np.concatenate([blend, _scale_bar(height, max(16, width // 5))], axis=1) if bar else blend


def _scale_bar(height: int, width: int) -> np.ndarray:
    """The colours from 1 (top) to 0 (bottom) on white, with both ends written, uint8 [height, width, 3]."""
    strip = heat_colours()[np.linspace(255, 0, height).round().astype(int)]
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[:, width // 8 : width // 2] = strip[:, None]
    image = Image.fromarray(canvas)
    draw, letters = ImageDraw.Draw(image), font(max(8, width // 3))
    draw.text((width * 0.6, 1), "1", fill="#000000", font=letters, anchor="la")
    draw.text((width * 0.6, height - 1), "0", fill="#000000", font=letters, anchor="ld")
    return np.asarray(image)
