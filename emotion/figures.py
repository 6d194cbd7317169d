"""Figures of single faces: what a model says and how sure it is, as bars; facial landmarks in the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from emotion import draw
from emotion.errors import UserError
from emotion.outputs import Result, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart by colour-blind eyes.
PARTS = {"aleatoric": "#56B4E9", "epistemic": "#D55E00", "total": "#56B4E9", "deviation": "#56B4E9"}
TITLES = {"action_units": "Action units", "expression": "Expression", "valence_arousal": "Valence and arousal"}
DOTS = "#F0E442"


def bars(result: Result, face: int, portrait: np.ndarray, dpi: int = 120) -> np.ndarray:
    """One face: its portrait, what the model predicts as bars, and beside each task how uncertain that is.

    All classes of an expression share one uncertainty; what it is, `uncertainty` says.

    Args:
        result: of a picture.
        face: which of its faces.
        portrait: uint8 [H, W, 3] of that face.
        dpi: pixels per inch; the figure is 11 inches wide.

    Returns:
        uint8 [h, w, 3].

    Raises:
        UserError: the model predicts nothing that has bars.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [name for name in TITLES if name in result.tasks]
    if not shown:
        raise UserError(f"{result.model} predicts none of {', '.join(TITLES)}; there are no bars to draw")
    rows = [len(result.tasks[name].labels) + 2 for name in shown]
    figure = Figure(figsize=(11, max(3.2, 0.24 * sum(rows) + 0.5)), dpi=dpi, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(shown), 3, width_ratios=(1.1, 1.6, 1.2), height_ratios=rows)
    picture = figure.add_subplot(grid[:, 0])
    picture.imshow(portrait)
    picture.set_axis_off()
    picture.set_title(result.model, fontsize=9)
    for row, name in enumerate(shown):
        task = result.tasks[name][face : face + 1]
        _predictions(figure.add_subplot(grid[row, 1]), name, task)
        _uncertainty(figure.add_subplot(grid[row, 2]), task, first=row == 0)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def uncertainty(task: Task, face: int) -> dict[str, np.ndarray]:
    """How uncertain a model is of one face, in parts that add up.

    Returns:
        "aleatoric" (uncertain in the face) and "epistemic" (the members disagree) where a model tells them apart, else
        "total": entropies as parts of the largest possible one, [1] for a categorical task, else [K]. Of continuous
        values without such entropies "deviation", the standard deviation in their unit. Nothing where nothing is told.
    """
    if task.kind == "continuous" and "deviation" not in task.uncertainty:
        parts = {} if task.deviation is None else {"deviation": task.deviation}
    else:
        kinds = ("aleatoric", "epistemic") if "epistemic" in task.uncertainty else ("total",)
        parts = {kind: task.uncertainty[kind] for kind in kinds if kind in task.uncertainty}
    return {kind: np.atleast_1d(values[face]) for kind, values in parts.items()}


def _predictions(axes: Axes, name: str, task: Task) -> None:
    values, places = task.values[0], np.arange(len(task.labels))
    colours = ["#0072B2"] * len(places)
    if task.kind == "categorical":
        colours = [draw.colour(label) for label in task.labels]
    elif task.kind == "multilabel":
        above = values >= np.broadcast_to(0.5 if task.thresholds is None else task.thresholds, values.shape)
        colours = ["#009E73" if present else "#B8B8B8" for present in above]
    axes.barh(places, values, color=colours)
    for place, value in zip(places, values):
        axes.annotate(
            f"{value:.2f}", (max(value, 0), place), (3, 0), textcoords="offset points", va="center", fontsize=7
        )
    axes.set_yticks(places, task.labels, fontsize=8)
    low, high = task.bounds or (0.0, 1.0)
    _finish(axes, TITLES[name], low, high + 0.12 * (high - low))


def _uncertainty(axes: Axes, task: Task, first: bool) -> None:
    rows = uncertainty(task, 0)
    if not rows:
        axes.set_axis_off()
        return
    count = len(next(iter(rows.values())))
    start = np.zeros(count)
    for part, values in rows.items():
        axes.barh(np.arange(count), values, left=start, color=PARTS[part], label=part)
        start = start + values
    for place, value in enumerate(start):
        axes.annotate(f"{value:.2f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks(np.arange(count), task.labels if count == len(task.labels) else [""] * count, fontsize=8)
    if count == 1:
        axes.set_ylim(-3, 3)
    _finish(axes, "Standard deviation" if "deviation" in rows else "Uncertainty", 0.0, 1.12)
    if first and len(rows) > 1:
        axes.legend(fontsize=7, loc="lower right", frameon=False)


def _finish(axes: Axes, title: str, low: float, high: float) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlim(low, high)
    axes.axvline(0, color="#1A1A1A", linewidth=0.8)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def landmarks(result: Result) -> np.ndarray:
    """Facial landmarks as fractions of what the model saw of every face, [N, K, 2] (x, y).

    Raises:
        UserError: the model predicts none.
    """
    if "landmarks" not in result.tasks:
        raise UserError(f"{result.model} predicts no landmarks; see: python -m emotion models --task landmarks")
    return result.tasks["landmarks"].values.reshape(len(result), -1, 2)


def dotted(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The picture with a dot at every point, [..., 2] (x, y) in pixels; uint8 [H, W, 3]."""
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    radius = max(1.5, max(picture.shape[:2]) / 300)
    for x, y in np.asarray(points, np.float64).reshape(-1, 2):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=DOTS, outline="#1A1A1A")
    return np.asarray(image)
