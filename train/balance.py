"""`python -m train balance DATASET DIR`: how unevenly a data set is labelled, and what balanced sampling changes."""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from emotion import datasets
from emotion.cli.console import show, table
from emotion.cli.films import make_folder
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.outputs import write_file
from train import sampling

BINS = 20
PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Distribution:
    """Labels of one task as they are and as balanced sampling draws them.

    Attributes:
        task: "expression", "action_units" or "valence_arousal".
        labels: K classes or units; for valence and arousal empty.
        counts: labelled samples per class, positives per unit [K], or samples per cell [BINS, BINS] (valence, arousal).
        after: expected counts in an epoch of as many balanced draws, same shape.
        n: labelled samples.
        ranges: smallest and largest valence and arousal, for the cells.
    """

    task: str
    labels: tuple[str, ...]
    counts: np.ndarray
    after: np.ndarray
    n: int
    ranges: tuple[tuple[float, float], ...] = ()


def distribution(samples: Samples, task: str, seed: int = 0) -> Distribution:
    """Before and after, by the rule of `train.sampling` for this task.

    Raises:
        UserError: no sample has a label of the task.
    """
    targets = samples.targets[task]
    known = np.isfinite(targets).any(axis=1) if task == "action_units" else np.isfinite(targets).all(axis=1)
    y = targets[known]
    if not len(y):
        raise UserError(f"{samples.dataset} has no {task} labels in this split")
    if task == "valence_arousal":
        cells, weights = sampling.grid_cells(y, BINS), sampling.grid_weights(y, BINS)
        before, after = (np.bincount(cells, w, BINS * BINS).reshape(BINS, BINS) for w in (None, weights))
        ranges = tuple((float(a.min()), float(a.max())) for a in y.T)
        return Distribution(task, (), before, after / weights.sum() * len(y), len(y), ranges)
    if task == "action_units":
        columns, weights = y == 1, sampling.multilabel_weights(y, seed)
    else:
        columns, weights = y, sampling.class_weights(y.argmax(axis=1))
    after = weights @ columns / weights.sum() * len(y)
    return Distribution(task, samples.labels[task], columns.sum(axis=0), after, len(y))


def rows(found: Distribution) -> list[tuple[str, ...]]:
    """Lines of a table: label, count, share and imbalance ratio before, count, share and ratio after."""
    if found.task == "valence_arousal":
        out = []
        for name, value in (("occupied cells", np.count_nonzero), ("samples in the fullest cell", np.max)):
            out.append((name, f"{value(found.counts):.0f}", "", "", f"{value(found.after):.0f}", "", ""))
        return out
    before, after = (sampling.imbalance(c) for c in (found.counts, found.after))
    out = [
        (label, f"{c:.0f}", f"{c / found.n:.3f}", f"{r:.2f}", f"{a:.0f}", f"{a / found.n:.3f}", f"{s:.2f}")
        for label, c, r, a, s in zip(found.labels, found.counts, before[0], found.after, after[0])
    ]
    return [*out, ("mean ratio", "", "", f"{before[1]:.2f}", "", "", f"{after[1]:.2f}")]


def plot(found: list[Distribution]) -> Any:
    """A matplotlib figure: bars before and after for every task, maps of the cells for valence and arousal."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4 * len(found)), layout="constrained")
    grid = figure.add_gridspec(len(found), 2)
    for line, one in enumerate(found):
        if one.task == "valence_arousal":
            (v0, v1), (a0, a1) = one.ranges
            for side, (title, cells) in enumerate((("before", one.counts), ("after", one.after))):
                axes = figure.add_subplot(grid[line, side])
                shown = np.ma.masked_equal(cells.T, 0)  # empty cells stay white
                norm = LogNorm(1, one.counts.max() + 1)
                image = axes.imshow(
                    shown, norm=norm, origin="lower", extent=(v0, v1, a0, a1), aspect="auto", cmap="cividis_r"
                )
                axes.set(title=f"samples per cell, {title}", xlabel="valence", ylabel="arousal")
                figure.colorbar(image, ax=axes)
            continue
        axes = figure.add_subplot(grid[line, :])
        places = np.arange(len(one.labels))
        axes.bar(places - 0.2, one.counts, 0.4, label="before", color="#8C8C8C")
        axes.bar(places + 0.2, one.after, 0.4, label="after", color="#0072B2")
        axes.set_xticks(places, one.labels)
        axes.set(ylabel="samples per epoch", title=one.task.replace("_", " "))
        axes.legend()
    return figure


def main(argv: list[str]) -> int:
    """Print the tables, and write the plot where asked for."""
    parser = argparse.ArgumentParser(prog="python -m train balance", description=__doc__.split(": ", 1)[1])
    parser.add_argument("dataset", help=f"one of {', '.join(datasets.READERS)}")
    parser.add_argument("data", type=Path, help="its folder")
    parser.add_argument("--split", default="train")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="option of the reader, such as task=expression"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random clones of action units")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"write a picture ({', '.join(PICTURES)})")
    args = parser.parse_args(argv)
    options = dict(_option(text) for text in args.set)
    if args.plot:  # before the data are read
        if args.plot.suffix.lower() not in PICTURES:
            raise UserError(f"--plot writes {', '.join(PICTURES)}; give {args.plot} one of these endings")
        make_folder(args.plot.parent)
    try:
        samples = datasets.reader(args.dataset).load(args.data, args.split, **options)
    except TypeError as error:
        raise UserError(f"the reader of {args.dataset} does not take these options: {error}") from error
    known = [t for t in ("expression", "action_units", "valence_arousal") if t in samples.targets]
    found = [distribution(samples, task, args.seed) for task in known]
    for one in found:
        out = table(one.task.replace("_", " "), "before", "share", "ratio", "after", "share", "ratio")
        for line in rows(one):
            out.add_row(*line)
        show(f"{samples.dataset}, {args.split}: {one.n} labelled samples", out)
    if args.plot:
        drawn = io.BytesIO()
        plot(found).savefig(drawn, format=args.plot.suffix[1:].lower(), dpi=120)
        write_file(args.plot, drawn.getvalue())
    return 0


def _option(text: str) -> tuple[str, Any]:
    """Name and value of one `--set`.

    Raises:
        UserError: it is not NAME=VALUE, or the value is no YAML.
    """
    name, sign, value = text.partition("=")
    try:
        if name and sign:
            return name, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise UserError(f"--set takes NAME=VALUE, with a plain value such as task=expression, not {text!r}")
