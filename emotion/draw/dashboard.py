"""One picture per frame of a film: the frame, action units, expression, valence and arousal (the FG-2020 demo).

1920 x 1080 pixels: the frame top left (960 x 740), action units and expressions beside it (480 x 740 each), valence
and arousal below (1920 x 340) on pages of 16 seconds.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emotion import draw
from emotion.faces import alignment
from emotion.labels import ACTION_UNIT_NAMES
from emotion.media.video import Video, VideoWriter, decode, probe
from emotion.outputs import Result, Task

if TYPE_CHECKING:
    from emotion.predict import Progress

SIZE = (1920, 1080)
PAGE = 16.0  # seconds of valence and arousal that are visible at once
VALENCE, AROUSAL = "#0072B2", "#D55E00"
PRESENT, ABSENT, SQUARE = "#009E73", "#B8B8B8", "#00FF00"


def hold(detected: np.ndarray) -> np.ndarray:
    """Which prediction each frame shows: its own, else the last one; before the first, the first. [F] -> int64 [F].

    Args:
        detected: whether each frame has a prediction; predictions are counted in this order.
    """
    return np.maximum(np.cumsum(np.asarray(detected, bool)) - 1, 0)


def fit_panel(picture: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture [H, W, 3] scaled to a panel (width, height) less a pixel on every side, centred on white.

    Returns:
        The panel, and the picture's left upper corner in it (x, y).
    """
    height, width = picture.shape[:2]
    inner_width, inner_height = size[0] - 2, size[1] - 2
    if inner_width * height <= inner_height * width:
        scaled = (inner_width, max(1, inner_width * height // width))
    else:
        scaled = (max(1, inner_height * width // height), inner_height)
    left, top = (size[0] - scaled[0]) // 2, (size[1] - scaled[1]) // 2
    panel = np.full((size[1], size[0], 3), 255, np.uint8)
    panel[top : top + scaled[1], left : left + scaled[0]] = np.asarray(Image.fromarray(picture).resize(scaled))
    return panel, (left, top)


class Dashboard:
    """Draws the frames of one result; of several faces in a frame the largest is shown.

    Args:
        result: of a film, by a model with any of expression, action units, and valence and arousal.
    """

    def __init__(self, result: Result) -> None:
        self.result = result
        areas = result.faces.areas
        frames, self.rows = np.unique(result.frame, return_index=True)
        for i, frame in enumerate(frames):
            mine = np.flatnonzero(result.frame == frame)
            self.rows[i] = mine[areas[mine].argmax()]
        self.shown = hold(np.isin(np.arange(len(result.timestamps)), frames))

    def __call__(self, frame: int, picture: np.ndarray) -> np.ndarray:
        """The dashboard uint8 [1080, 1920, 3] of one frame, whose picture is uint8 [H, W, 3]."""
        out = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)
        row = int(self.rows[self.shown[frame]]) if len(self.rows) else None
        marked = picture if row is None else self._marked(picture, row)
        out[:740, :960] = fit_panel(marked, (960, 740))[0]
        tasks = self.result.tasks
        if row is not None and "action_units" in tasks:
            out[:740, 960:1440] = _bars("Action units", *_unit_bars(tasks["action_units"], row))
        if row is not None and "expression" in tasks:
            out[:740, 1440:] = _bars("Expression", *_expression_bars(tasks["expression"], row))
        if row is not None and "valence_arousal" in tasks:
            out[740:] = self._trace(frame)
        return out

    def _marked(self, picture: np.ndarray, row: int) -> np.ndarray:
        """The picture with the square around the face."""
        image = Image.fromarray(picture)
        landmarks = self.result.faces.landmarks
        box = self.result.faces.boxes[row] if landmarks is None else alignment.face_square(landmarks[row])
        ImageDraw.Draw(image).rectangle([int(v) for v in box], outline=SQUARE, width=4)
        return np.asarray(image)

    def _trace(self, frame: int, size: tuple[int, int] = (1920, 340)) -> np.ndarray:
        """Valence and arousal from the start of the page to this frame."""
        times = self.result.timestamps - self.result.timestamps[0]
        start = times[frame] // PAGE * PAGE
        image = Image.new("RGB", size, "white")
        canvas, font = ImageDraw.Draw(image), _font(22)
        left, right, top, bottom = 90, size[0] - 30, 50, size[1] - 50
        for value in (-1, 0, 1):
            y = bottom - (value + 1) / 2 * (bottom - top)
            canvas.line([(left, y), (right, y)], fill="#D0D0D0", width=2)
            canvas.text((left - 30, y), f"{value}", fill="black", font=font, anchor="rm")
        for second in range(0, int(PAGE) + 1, 2):
            x = left + second / PAGE * (right - left)
            canvas.text((x, bottom + 10), f"{start + second:g} s", fill="black", font=font, anchor="mt")
        values = self.result.tasks["valence_arousal"].values[self.rows[self.shown]]
        page = np.flatnonzero((times >= start) & (np.arange(len(times)) <= frame))
        x = left + (times[page] - start) / PAGE * (right - left)
        for axis, (name, colour) in enumerate((("valence", VALENCE), ("arousal", AROUSAL))):
            y = bottom - (values[page, axis] + 1) / 2 * (bottom - top)
            points = list(zip(x.tolist(), y.tolist()))
            canvas.line(points if len(points) > 1 else points * 2, fill=colour, width=4, joint="curve")
            text = f"{name} {values[frame, axis]:+.2f}"
            canvas.text((left + 260 * axis, 8), text, fill=colour, font=font)
        return np.asarray(image)


def _unit_bars(task: Task, row: int) -> tuple[list[str], np.ndarray, list[str]]:
    names = [f"{unit} {ACTION_UNIT_NAMES.get(unit, '')}".strip() for unit in task.labels]
    present = np.zeros(len(names), bool) if task.thresholds is None else task.values[row] >= task.thresholds
    return names, task.values[row], [PRESENT if p else ABSENT for p in present]


def _expression_bars(task: Task, row: int) -> tuple[list[str], np.ndarray, list[str]]:
    return list(task.labels), task.values[row], [draw.colour(name) for name in task.labels]


def _bars(
    title: str, names: list[str], values: np.ndarray, colours: list[str], size: tuple[int, int] = (480, 740)
) -> np.ndarray:
    """Horizontal bars for values in [0, 1]."""
    image = Image.new("RGB", size, "white")
    canvas = ImageDraw.Draw(image)
    canvas.text((20, 18), title, fill="black", font=_font(30))
    pitch = (size[1] - 80) / len(names)
    for i, (name, value, colour) in enumerate(zip(names, values, colours)):
        y, height = 75 + i * pitch, min(26, pitch * 0.4)
        canvas.text((20, y), f"{name}", fill="black", font=_font(22))
        canvas.text((size[0] - 20, y), f"{value:.2f}", fill="black", font=_font(22), anchor="ra")
        track = (20, y + 30, size[0] - 20, y + 30 + height)
        canvas.rectangle(track, fill="#EDEDED")
        canvas.rectangle((*track[:2], 20 + float(value) * (size[0] - 40), track[3]), fill=colour)
    return np.asarray(image)


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def write_film(
    result: Result, source: Video, path: str | Path, until: float = np.inf, progress: Progress | None = None
) -> None:
    """An MP4 film of dashboards with the source's sound; a frame that was not analysed shows the last that was.

    Args:
        result: of the film.
        source: the film, see `emotion.media.video.decode`.
        path: of the new film.
        until: it ends after this second.
        progress: as in `FacePredictor.video`; the film ends where it returns False.

    Raises:
        UserError: the source cannot be read or the film cannot be written.
    """
    board, info = Dashboard(result), probe(source)
    with VideoWriter(path, info.rate, sound=source if info.sound else None) as film:
        for seconds, picture in decode(source):
            if seconds > until:
                break
            frame = int(np.searchsorted(result.timestamps, seconds + 1e-6, side="right")) - 1
            film.write(board(max(frame, 0), picture), seconds)
            if progress is not None and progress(seconds, min(info.seconds, until)) is False:
                break
