"""Drawings beside a film and of a film: what every branch of an ensemble says, and curves over time."""

from __future__ import annotations

import io
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emotion import draw
from emotion.outputs import Result, Task, write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER, INK, FAINT = "#FFFFFF", "#1A1A1A", "#D0D0D0"
PLEASANT, UNPLEASANT, ACTIVE = "#009E73", "#D55E00", "#0072B2"  # told apart by colour-blind eyes, like the palette
AXES = ("arousal", "valence")
LINES, CURVE = 11, 4  # of a panel: a heading and ten rows (nine branches and the ensemble), and the height of the curve
LARGEST = 34.0  # pixels of a line at most
SPAN = 10.0  # seconds that the curve looks back

Box = tuple[float, float, float, float]


class Details:
    """Panels that tell all about the biggest face of every frame: what each member of the ensemble says (the ensemble
    first), as class and as bars of arousal and valence in [-1, 1], and both over the last ten seconds as curves.

    One object belongs to one film or stream, whose frames it is shown in order.
    """

    def __init__(self) -> None:
        self._past: deque[tuple[float, np.ndarray | None]] = deque()  # seconds; arousal and valence, None without face

    def __call__(self, result: Result, height: int) -> np.ndarray:
        """The panel of the next frame.

        Args:
            result: of this one frame; of a picture, that has no time, there is no curve.
            height: of the panel in pixels; its width follows from it.

        Returns:
            uint8 [height, W, 3].
        """
        line = min(height / (LINES + CURVE), LARGEST)
        image = Image.new("RGB", (2 * round(7.5 * line), height), PAPER)  # even, and the same for every frame
        pen = _Pen(image)
        face = int(result.faces.areas.argmax()) if len(result) else None
        if face is None:
            pen.text((line / 3, line / 2), "no face", line)
        else:
            _rows(pen, result, face, line)
        if result.faces.track_ids is not None and "valence_arousal" in result.tasks:
            self._remember(float(result.timestamps[0]), None if face is None else _affect(result, face))
            self._curve(pen, (line / 3, height - (CURVE - 0.3) * line, image.width - line / 3, height - line / 3))
        return np.asarray(image)

    def _remember(self, seconds: float, affect: np.ndarray | None) -> None:
        self._past.append((seconds, affect))
        while self._past[0][0] < seconds - SPAN:
            self._past.popleft()

    def _curve(self, pen: _Pen, box: Box) -> None:
        """Arousal and valence until now, which is at the right end."""
        x0, y0, x1, y1 = box
        now = self._past[-1][0]
        for level in (-1, 0, 1):
            y = (y0 + y1) / 2 - level * (y1 - y0) / 2
            pen.draw.line((x0, y, x1, y), fill=FAINT)
        width = max(1, round((y1 - y0) / 50))
        for k, colour in enumerate((ACTIVE, PLEASANT)):
            points: list[tuple[float, float]] = []
            for seconds, affect in [*self._past, (now, None)]:
                if affect is not None:
                    x = x1 - (now - seconds) / SPAN * (x1 - x0)
                    points.append((x, (y0 + y1) / 2 - float(np.clip(affect[k], -1, 1)) * (y1 - y0) / 2))
                elif points:
                    pen.draw.line(points, fill=colour, width=width)
                    points = []


class _Pen:
    """Draws on a picture, with text that fits a line's height."""

    def __init__(self, image: Image.Image) -> None:
        self.draw = ImageDraw.Draw(image)
        self._font = ImageFont.load_default(16)

    def text(self, place: tuple[float, float], text: str, line: float, anchor: str = "lm", size: float = 0.55) -> None:
        font = self._font.font_variant(size=max(8, round(size * line)))
        self.draw.text(place, text, fill=INK, font=font, anchor=anchor)


def _affect(result: Result, face: int, member: int | None = None) -> np.ndarray:
    """Arousal and valence of a face, as a member or (None) all say."""
    task = result.tasks["valence_arousal"]
    values = task.values[face] if member is None or task.members is None else task.members[member, face]
    return values[[task.labels.index(name) for name in AXES]].clip(*task.bounds)


def _rows(pen: _Pen, result: Result, face: int, line: float) -> None:
    """A heading, and one row for the ensemble and for each of its members; more than nine share the room."""
    members = max((len(t.members) for t in result.tasks.values() if t.members is not None), default=0)
    members, ids = 0 if members == 1 else members, result.faces.track_ids
    pen.text((line / 3, line / 2), f"face {face + 1 if ids is None else ids[face]}", line)
    left, right = line / 3, 14.67 * line
    if "valence_arousal" in result.tasks:
        for (x0, x1), name, colour in zip(_columns(left, right, line), AXES, (ACTIVE, PLEASANT)):
            pen.text(((x0 + x1) / 2, line / 2), name, line, anchor="mm")
            pen.draw.line((x0, 0.95 * line, x1, 0.95 * line), fill=colour, width=max(1, round(line / 14)))
    step = line * min(1, (LINES - 1) / (members + 1))
    for i in range(members + 1):
        y = line + i * step
        _row(pen, (left, y, right, y + step), result, face, None if i == 0 else i - 1, line)


def _row(pen: _Pen, box: Box, result: Result, face: int, member: int | None, line: float) -> None:
    """A member's number, its class, and bars of arousal and valence."""
    x0, y0, x1, y1 = box
    middle, unit = (y0 + y1) / 2, y1 - y0
    pen.text((x0, middle), "all" if member is None else str(member + 1), unit)
    expression = result.tasks.get("expression")
    if expression is not None:
        label = expression.labels[_choice(expression, face, member)]
        swatch = (x0 + 1.4 * line, middle - unit / 4, x0 + 1.4 * line + unit / 2, middle + unit / 4)
        pen.draw.rectangle(swatch, fill=draw.colour(label))
        pen.text((x0 + 2.2 * line, middle), label, unit)
    if "valence_arousal" in result.tasks:
        arousal, valence = _affect(result, face, member).tolist()
        colours = (ACTIVE, PLEASANT if valence >= 0 else UNPLEASANT)
        for (left, right), value, colour in zip(_columns(x0, x1, line), (arousal, valence), colours):
            _bar(pen, (left, y0, right, y1), value, colour)


def _columns(x0: float, x1: float, line: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the bars of arousal and valence begin and end on a row from x0 to x1."""
    first, gap = x0 + 6.2 * line, 0.4 * line
    width = (x1 - first - gap) / 2
    return (first, first + width), (x1 - width, x1)


def _choice(task: Task, face: int, member: int | None) -> int:
    return int(task.choice[face] if member is None or task.members is None else task.members[member, face].argmax())


def _bar(pen: _Pen, box: Box, value: float, colour: str) -> None:
    """A value in [-1, 1] from the middle of its box, and in figures above it."""
    x0, y0, x1, y1 = box
    unit, zero = y1 - y0, (x0 + x1) / 2
    end = zero + float(np.clip(value, -1, 1)) * (x1 - x0) / 2
    top, bottom = y0 + 0.68 * unit, y0 + 0.88 * unit
    pen.draw.rectangle((x0, top, x1, bottom), fill=FAINT)
    pen.draw.rectangle((min(zero, end), top, max(zero, end), bottom), fill=colour)
    pen.text((zero, y0 + 0.62 * unit), f"{value:+.2f}", unit, anchor="mb", size=0.45)


def curves(result: Result, path: str | Path) -> None:
    """Plot a video over time, one row per track: expressions as coloured stretches, valence and arousal as lines.

    The six tracks seen longest are plotted. Gaps, where a track has no face, stay empty.

    Args:
        result: of a video, with track ids.
        path: of the picture, PNG.

    Raises:
        UserError: the place cannot be written to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ids = np.zeros(len(result), np.int64) if result.faces.track_ids is None else result.faces.track_ids
    tracks, counts = np.unique(ids, return_counts=True)
    tracks = np.sort(tracks[np.argsort(-counts, kind="stable")[:6]])
    figure = Figure(figsize=(10, 0.8 + 1.7 * max(1, len(tracks))), dpi=120, layout="constrained")
    rows = figure.subplots(max(1, len(tracks)), 1, sharex=True, squeeze=False)[:, 0]
    for axes, track in zip(rows, tracks):
        _track(axes, result[ids == track], result.timestamps)
        axes.set_ylabel(f"track {track}")
    ends = result.timestamps
    rows[-1].set(xlabel="seconds", xlim=(ends[0], max(ends[-1], ends[0] + 0.1)))
    named = {text: handle for axes in rows for handle, text in zip(*axes.get_legend_handles_labels())}
    if named:
        figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=6, frameon=False)
    else:
        rows[0].set_title("no face")
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    write_file(path, png.getvalue())


def _track(axes: Axes, one: Result, timestamps: np.ndarray) -> None:
    """The stretches and lines of one track."""
    axes.set(ylim=(-1, 1), yticks=(-1, 0, 1))
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    times, line = timestamps[one.frame], np.full(len(timestamps), np.nan)
    expression, affect = one.tasks.get("expression"), one.tasks.get("valence_arousal")
    if expression is not None:
        ends = np.append(timestamps[1:], timestamps[-1])[one.frame]
        for k in np.unique(expression.choice):
            mine, label = expression.choice == k, expression.labels[k]
            bars = list(zip(times[mine], ends[mine] - times[mine]))
            axes.broken_barh(bars, (-1, 2), facecolor=draw.colour(label), alpha=0.35, linewidth=0, label=label)
    if affect is not None:
        for name, colour in (("valence", PLEASANT), ("arousal", ACTIVE)):
            line[one.frame] = affect.values[:, affect.labels.index(name)]
            axes.plot(timestamps, line, color=colour, linewidth=1.6, label=name)
