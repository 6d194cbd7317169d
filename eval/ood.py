"""Does a face model doubt what is no face? Its uncertainties on faces against those on other pictures.

All pictures are taken as face crops, each a sequence of its own; nothing is detected.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emotion.cli.console import show, table
from emotion.errors import UserError
from emotion.outputs import Task
from eval.metrics.risk_coverage.risk_coverage_core import auroc
from eval.predictions import UNCERTAINTIES
from eval.results import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BATCH, BINS, REPLICATES = 32, 20, 300
COLOURS = {"faces": "#0072B2", "others": "#D55E00"}  # told apart by colour-blind eyes
Tasks = dict[str, Task]


@dataclass(frozen=True)
class Detection:
    """How well one uncertainty tells other pictures from faces.

    Attributes:
        auroc: probability that another picture is more uncertain than a face; 0.5 is chance.
        low, high: its 95 % interval over resampled pictures.
        faces, others: mean uncertainty of either.
    """

    auroc: float
    low: float
    high: float
    faces: float
    others: float


def run(args: argparse.Namespace) -> int:
    """`ood`: print how well uncertainty tells pictures apart; write the figures and a drawing."""
    from emotion import hub, uncertainty
    from emotion.faces.cropped import crop_files
    from emotion.hub.provenance import commit
    from eval import runner

    model = hub.load(args.model, args.device)
    runner.check(model)
    if args.mc_dropout:
        uncertainty.monte_carlo(model, args.mc_dropout)
    files = {"faces": crop_files(args.faces), "others": crop_files(args.others)}
    said = {kind: read(model, paths, args.device) for kind, paths in files.items()}
    found = compare(said["faces"], said["others"])
    if not found:
        raise UserError(f"{model.card.name} says nothing about its uncertainty")
    rows = table("uncertainty", "AUROC", "95 % interval", "faces, mean", "others, mean")
    for name, d in found.items():
        rows.add_row(name, f"{d.auroc:.4f}", f"{d.low:.4f} to {d.high:.4f}", f"{d.faces:.4f}", f"{d.others:.4f}")
    counts = {kind: len(paths) for kind, paths in files.items()}
    show(f"{model.card.name}: {counts['faces']} faces, {counts['others']} other pictures; 0.5 is chance", rows)
    about = {"model": model.card.name, "sha256": model.card.sha256, "commit": commit(), "mc_dropout": args.mc_dropout}
    text = json.dumps(about | counts | {"uncertainty": {name: asdict(d) for name, d in found.items()}}, indent=1)
    drawing = io.BytesIO()
    plot(said["faces"], said["others"]).savefig(drawing, format="svg")
    for suffix, content in (("json", text.encode()), ("svg", drawing.getvalue())):
        path = args.out / f"{model.card.name}--ood.{suffix}"
        replace_file(path, content)
        show(str(path))
    return 0


def read(model: Any, files: list[Path], device: str = "cpu") -> Tasks:
    """What a model says about N pictures.

    Raises:
        UserError: one of them cannot be read.
    """
    import torch

    from emotion import media
    from emotion.faces.cropped import tensor

    parts = []
    with torch.inference_mode():
        for first in range(0, len(files), BATCH):
            pictures = [media.read_image(path) for path in files[first : first + BATCH]]
            parts.append(model.decode(model(tensor(pictures, model.config.input).to(device))))
    return {name: Task.concatenate([p[name] for p in parts]) for name in parts[0]}


def doubts(tasks: Tasks) -> dict[str, np.ndarray]:
    """Every uncertainty of N pictures, "<task>, <kind>" -> [N]; the mean over action units or both values."""
    found = {f"{name.replace('_', ' ')}, {k}": u for name, task in tasks.items() for k, u in task.uncertainty.items()}
    return {name: u.reshape(len(u), -1).mean(axis=1, dtype=np.float64) for name, u in found.items()}


def compare(faces: Tasks, others: Tasks, seed: int = 0) -> dict[str, Detection]:
    """Every uncertainty as a detector of pictures that are no faces."""
    rng, known, strange = np.random.default_rng(seed), doubts(faces), doubts(others)
    out = {}
    for name, u in known.items():
        v = strange[name]
        positive = np.repeat([False, True], [len(u), len(v)])
        drawn = (np.r_[rng.choice(u, len(u)), rng.choice(v, len(v))] for _ in range(REPLICATES))
        low, high = np.quantile([auroc(scores, positive) for scores in drawn], [0.025, 0.975])
        whole = auroc(np.r_[u, v], positive)
        out[name] = Detection(whole, float(low), float(high), float(u.mean()), float(v.mean()))
    return out


def plot(faces: Tasks, others: Tasks) -> Figure:
    """One line per task: how its uncertainties are distributed, and the judged one against what is predicted."""
    from matplotlib.figure import Figure

    both = {"faces": faces, "others": others}
    shown = [name for name, task in faces.items() if task.uncertainty]
    columns = 1 + max(len(faces[name].uncertainty) for name in shown)
    figure = Figure(figsize=(3.2 * columns, 2.8 * len(shown)), layout="constrained")
    grid = figure.subplots(len(shown), columns, squeeze=False)
    for line, name in zip(grid, shown):
        kinds = list(faces[name].uncertainty)
        for axes, kind in zip(line, kinds):
            values = {
                who: doubts({name: tasks[name]})[f"{name.replace('_', ' ')}, {kind}"] for who, tasks in both.items()
            }
            _histogram(axes, values)
            axes.set(title=f"{name.replace('_', ' ')}, {kind}", ylabel="share of pictures")
        for axes in line[len(kinds) : -1]:
            axes.set_axis_off()
        judged = next((kind for kind in UNCERTAINTIES if kind in kinds), kinds[0])
        _against(line[-1], {who: tasks[name] for who, tasks in both.items()}, judged)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _histogram(axes: Axes, values: dict[str, np.ndarray]) -> None:
    low, high = min(v.min() for v in values.values()), max(v.max() for v in values.values())
    edges = np.linspace(low, max(high, low + 1e-3), BINS + 1)
    for who, v in values.items():
        share = np.full(len(v), 1 / len(v))
        axes.hist(v, edges, weights=share, label=who, color=COLOURS[who], alpha=0.55)


def _against(axes: Axes, tasks: dict[str, Task], kind: str) -> None:
    """Valence and arousal as points, darker where less sure; else mean uncertainty over the probability predicted."""
    first = next(iter(tasks.values()))
    if first.kind == "continuous":
        unsure = [task.uncertainty[kind].reshape(len(task.values), -1).mean(axis=1) for task in tasks.values()]
        limits = {"vmin": min(u.min() for u in unsure), "vmax": max(u.max() for u in unsure)}
        for task, u, marker in zip(tasks.values(), unsure, "ox"):
            axes.scatter(*task.values.T[:2], c=u, cmap="cividis_r", marker=marker, s=14, **limits)
        axes.set(title="faces o, others x; dark: unsure", xlabel=first.labels[0], ylabel=first.labels[1])
        return
    centres = (np.arange(BINS) + 0.5) / BINS
    for who, task in tasks.items():
        p = task.values.max(axis=1) if task.kind == "categorical" else task.values.ravel()
        cell = np.minimum((p * BINS).astype(int), BINS - 1)
        total, n = np.bincount(cell, task.uncertainty[kind].ravel(), BINS), np.bincount(cell, minlength=BINS)
        axes.bar(centres[n > 0], total[n > 0] / n[n > 0], 1 / BINS, color=COLOURS[who], alpha=0.55)
    axes.set(
        xlabel="probability predicted",
        ylabel=f"mean {kind} uncertainty",
        title=f"{kind} against prediction",
        xlim=(0, 1),
    )
