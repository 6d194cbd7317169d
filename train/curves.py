"""Loss and validation figures of a run over its epochs, one column per stage."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from matplotlib.figure import Figure

LEFT_OUT = ("stage", "epoch", "seconds")


def plot(history: list[dict[str, Any]]) -> Figure:
    """The rows that `loop.fit` returns, as a picture: stages side by side, one line of axes per figure.

    Figures that a stage does not have are left blank there.
    """
    stages = [(name, list(rows)) for name, rows in groupby(history, key=lambda row: row["stage"])]
    figures = [k for k in dict.fromkeys(k for row in history for k in row) if k not in LEFT_OUT]
    size = 1 + 2.2 * max(len(stages), 1), 0.6 + 1.6 * max(len(figures), 1)
    picture = Figure(figsize=size, layout="constrained")
    grid = picture.subplots(len(figures), len(stages), sharex="col", sharey="row", squeeze=False) if figures else []
    for line, figure in zip(grid, figures):
        for axes, (_, rows) in zip(line, stages):
            known = [(row["epoch"] + 1, row[figure]) for row in rows if figure in row]
            if known:
                axes.plot(*zip(*known), marker="." if len(known) < 60 else "", color="#0072B2", linewidth=1)
            axes.grid(alpha=0.3)
        line[0].set_ylabel(figure.replace("_", " "))
    for axes, (name, _) in zip(grid[0] if figures else (), stages):
        axes.set_title(name, fontsize=9)
    for axes in grid[-1] if figures else ():
        axes.set_xlabel("epoch")
    return picture
