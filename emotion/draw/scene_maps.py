"""Pictures of what a scene model sees where: one map over its picture, and all maps beside each other."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from emotion import draw
from emotion.predict.scenes import SceneMaps

COLUMNS = 4
CELL = 320  # pixels, the longer side of a picture in a sheet
GAP = 8
PAPER, INK = (255, 255, 255), (0, 0, 0)


def over(picture: np.ndarray, values: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """A map in [0, 1] in colours over its picture, uint8 [H, W, 3]: a smaller value is more transparent.

    Args:
        picture: uint8 [H, W, 3].
        values: float [h, w] in [0, 1], stretched smoothly to the picture.
        alpha: opacity where the map is 1.
    """
    smooth = _stretched(values, picture.shape[1::-1])
    colours = draw.heat_colours()[(smooth * 255).round().astype(np.uint8)]
    share = alpha * smooth[..., None]
    return (picture * (1 - share) + colours * share).round().astype(np.uint8)


def grey(values: np.ndarray) -> np.ndarray:
    """A map as a grey picture with a fixed scale: 0 black, 1 white; uint8 [h, w, 3]."""
    levels = (np.asarray(values, np.float32).clip(0, 1) * 255).round().astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)


def sheet(picture: np.ndarray, maps: SceneMaps, coloured: bool = False) -> np.ndarray:
    """The picture, the heatmap of people's centres and every map, four in a row, each with its range as title.

    Args:
        picture: uint8 [H, W, 3].
        maps: of this picture.
        coloured: maps in colours over the picture, instead of grey from black (0) to white (1).
    """
    scale = CELL / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    named = [("people", maps.heatmap)] if maps.heatmap is not None else []
    named += list(zip(maps.labels, maps.maps))
    cells = [("picture", small)]
    for name, values in named:
        values = _stretched(values, size)
        title = f"{name} {values.min():.3f} to {values.max():.3f}"
        cells.append((title, over(small, values, alpha=0.8) if coloured else grey(values)))
    return _grid(cells, size)


def _stretched(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR)).clip(0, 1)


def _grid(cells: list[tuple[str, np.ndarray]], size: tuple[int, int]) -> np.ndarray:
    """Titled pictures of one size, four in a row on white."""
    font_size = CELL // 20
    head = 2 * font_size
    columns, rows = min(COLUMNS, len(cells)), -(-len(cells) // COLUMNS)
    step = (size[0] + GAP, size[1] + head + GAP)
    page = Image.new("RGB", (columns * step[0] + GAP, rows * step[1] + GAP), PAPER)
    pen = ImageDraw.Draw(page)
    for k, (title, pixels) in enumerate(cells):
        x, y = GAP + k % COLUMNS * step[0], GAP + k // COLUMNS * step[1]
        pen.text((x, y + head // 2), title, fill=INK, font=draw.font(font_size), anchor="lm")
        page.paste(Image.fromarray(pixels), (x, y + head))
    return np.asarray(page)
