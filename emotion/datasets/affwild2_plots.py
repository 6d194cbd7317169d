"""How the labels of Aff-Wild2 (ABAW 2) are distributed, as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emotion.datasets.affwild2 import PARTS
from emotion.errors import UserError


def save(counts: np.ndarray, task: str, path: str | Path) -> None:
    """Write a picture of the counts that `affwild2_tables.distribution` gives.

    Shares of all positive labels for action units, bars for expressions, a map for valence and arousal.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    labels = PARTS[task].labels
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    if task == "action_units":
        axes.pie(counts, labels=labels, autopct="%.0f %%")
    elif task == "expression":
        axes.bar(labels, counts)
        axes.tick_params(axis="x", rotation=30)
        axes.set_ylabel("frames")
    else:
        drawn = axes.imshow(counts.T, origin="lower", extent=(-1, 1, -1, 1), cmap="viridis")
        figure.colorbar(drawn, label="frames")
        axes.set(xlabel=labels[0], ylabel=labels[1])
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
