"""Drawings beside and below a film: what every branch of an ensemble says, and curves over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emotion import draw
from emotion.errors import UserError
from emotion.outputs import Result, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER, INK, FAINT = "#FFFFFF", "#1A1A1A", "#D0D0D0"
PLEASANT, UNPLEASANT, ACTIVE = "#009E73", "#D55E00", "#0072B2"  # told apart by colour-blind eyes, like the palette
ROWS, LARGEST = 10, 34.0  # lines that fit (nine branches and the ensemble; more are smaller), pixels of a line at most


def branches(result: Result, height: int) -> np.ndarray:
    """What the members of an ensemble say of the biggest face of one frame, the ensemble first.

    Every line has the class, and where the model has them arousal and valence in [-1, 1] as bars around zero.

    Args:
        result: of one frame.
        height: of the panel; its width follows from it.

    Returns:
        uint8 [height, W, 3]; without a face, a panel that says so.
    """
    members = next((len(t.members) for t in result.tasks.values() if t.members is not None), 0)
    line = min(height / (max(members + 1, ROWS) + 1), LARGEST)
    font = ImageFont.load_default(max(8, round(0.55 * line)))
    width = 2 * round(7.5 * min(height / (ROWS + 1), LARGEST))  # even, and the same for every frame
    image = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(image)
    if not len(result):
        pen.text((line / 3, line / 2), "no face", fill=INK, font=font, anchor="lm")
        return np.asarray(image)
    face, ids = int(result.faces.areas.argmax()), result.faces.track_ids
    pen.text((line / 3, line / 2), f"face {face + 1 if ids is None else ids[face]}", fill=INK, font=font, anchor="lm")
    if "valence_arousal" in result.tasks:
        for (x0, x1), name in zip(_columns(line / 3, width - line / 3, line), ("arousal", "valence")):
            pen.text(((x0 + x1) / 2, line / 2), name, fill=INK, font=font, anchor="mm")
    for i in range(members + 1):
        box = (line / 3, line * (i + 1), width - line / 3, line * (i + 2))
        _member(pen, font, box, result, face, i - 1)
    return np.asarray(image)


def _columns(x0: float, x1: float, unit: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the bars of arousal and valence begin and end on a line from x0 to x1."""
    first, gap = x0 + 6.2 * unit, 0.4 * unit
    width = (x1 - first - gap) / 2
    return (first, first + width), (x1 - width, x1)


def _member(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    box: tuple[float, float, float, float],
    result: Result,
    face: int,
    member: int,
) -> None:
    """One line: member's number (the ensemble is -1), class, and bars of arousal and valence."""
    x0, y0, x1, y1 = box
    middle, unit = (y0 + y1) / 2, y1 - y0
    pen.text((x0, middle), "all" if member < 0 else str(member + 1), fill=INK, font=font, anchor="lm")
    expression, affect = result.tasks.get("expression"), result.tasks.get("valence_arousal")
    if expression is not None:
        label = expression.labels[_choice(expression, face, member)]
        pen.rectangle((x0 + 1.5 * unit, y0 + unit / 4, x0 + 2 * unit, y1 - unit / 4), fill=draw.colour(label))
        pen.text((x0 + 2.3 * unit, middle), label, fill=INK, font=font, anchor="lm")
    if affect is not None:
        values = affect.values[face] if member < 0 or affect.members is None else affect.members[member, face]
        valence, arousal = (float(values[affect.labels.index(name)]) for name in ("valence", "arousal"))
        left, right = _columns(x0, x1, unit)
        _bar(pen, font, (left[0], y0, left[1], y1), arousal, ACTIVE)
        _bar(pen, font, (right[0], y0, right[1], y1), valence, PLEASANT if valence >= 0 else UNPLEASANT)


def _choice(task: Task, face: int, member: int) -> int:
    return int(task.choice[face] if member < 0 or task.members is None else task.members[member, face].argmax())


def _bar(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    box: tuple[float, float, float, float],
    value: float,
    colour: str,
) -> None:
    """A value in [-1, 1] from the middle of its box, and in figures below it."""
    x0, y0, x1, y1 = box
    unit, zero = y1 - y0, (x0 + x1) / 2
    end = zero + float(np.clip(value, -1, 1)) * (x1 - x0) / 2
    pen.rectangle((x0, y0 + 0.68 * unit, x1, y0 + 0.88 * unit), fill=FAINT)
    pen.rectangle((min(zero, end), y0 + 0.68 * unit, max(zero, end), y0 + 0.88 * unit), fill=colour)
    text = f"{value:+.2f}".replace("-", "−")
    pen.text(
        ((x0 + x1) / 2, y0 + 0.62 * unit), text, fill=INK, font=font.font_variant(size=font.size * 0.8), anchor="mb"
    )


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
    try:
        FigureCanvasAgg(figure).print_png(str(path))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


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
