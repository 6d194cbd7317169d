"""Run a face model over a labelled data set: batches, progress, and no work done twice after an interruption."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from emotion import registry
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.faces import fit_picture
from emotion.models.base import FaceInput, multiply_adds
from emotion.outputs import Task
from eval import predictions as files
from eval.predictions import PRESENT, Predictions
from eval.results import ModelInfo

BATCH = 32
CHUNK = 32  # batches per part that is kept on disk until the run is complete


def check(model: nn.Module) -> None:
    """The model reads single faces.

    Raises:
        UserError: it reads scenes or clips.
    """
    if not isinstance(getattr(model.config, "input", None), FaceInput):
        raise UserError(f"{model.card.name} does not read single faces; `python -m emotion models` lists those that do")


def describe(model: nn.Module) -> ModelInfo:
    """Who answers, with size and licence; `model.card` must be there."""
    card, entry = model.card, registry.entries().get(model.card.name)
    return ModelInfo(
        name=card.name,
        sha256=card.sha256,
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=multiply_adds(model),
        licence=card.licence,
        weights="own" if entry is None else "bundled" if entry.bundled else "to import",
    )


def predict(
    model: nn.Module, samples: Samples, out: Path, batch: int = BATCH, device: str = "cpu", quiet: bool = False
) -> tuple[Predictions, float | None]:
    """Predictions for every picture, each read on its own; written to `out` (.npz).

    Finished parts lie beside `out` until the run is complete; the same call goes on after the last one.

    Args:
        model: in evaluation mode, with `card`.
        samples: pictures are face crops.
        batch: faces per forward pass.
        quiet: no progress bar.

    Returns:
        The predictions and the pictures per second of what was computed now (None if nothing was).

    Raises:
        UserError: a picture cannot be read, or files cannot be written.
    """
    about = {
        "model": model.card.name,
        "sha256": model.card.sha256,
        "dataset": samples.dataset,
        "split": samples.split,
        "fingerprint": samples.fingerprint,
    }
    folder, step, parts, computed, seconds = out.with_suffix(".parts"), CHUNK * batch, [], 0, 0.0
    with _progress(quiet) as bar:
        task = bar.add_task(f"{about['model']} on {samples.dataset}", total=len(samples))
        for first in range(0, len(samples), step):
            rows = range(first, min(first + step, len(samples)))
            path = folder / f"{first:09d}.npz"
            part = _finished(path, about, [samples.ids[i] for i in rows])
            if part is None:
                start = time.perf_counter()
                part = _read_rows(model, samples, rows, batch, device, about)
                seconds, computed = seconds + time.perf_counter() - start, computed + len(rows)
                files.write(part, path)
            parts.append(part)
            bar.advance(task, len(rows))
    whole = _concatenate(parts)
    files.write(whole, out)
    shutil.rmtree(folder, ignore_errors=True)
    return whole, computed / seconds if seconds else None


def _progress(quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=quiet)


def _finished(path: Path, about: dict[str, Any], ids: list[str]) -> Predictions | None:
    """A part of an earlier run of the same model on the same data, if it is complete."""
    with contextlib.suppress(UserError):
        if path.is_file() and (part := files.read(path)).about == about and list(part.ids) == ids:
            return part
    return None


@torch.inference_mode()
def _read_rows(
    model: nn.Module, samples: Samples, rows: range, batch: int, device: str, about: dict[str, Any]
) -> Predictions:
    spec, decoded = model.config.input, []
    for first in range(0, len(rows), batch):
        crops = np.stack([fit_picture(samples.picture(i), spec) for i in rows[first : first + batch]])
        x = torch.from_numpy(crops).permute(0, 3, 1, 2).to(device, torch.float32)
        decoded.append(model.decode(model(spec.normalise(x))))
    tasks = {name: Task.concatenate([d[name] for d in decoded]) for name in decoded[0]}
    return from_tasks(tuple(samples.ids[i] for i in rows), tasks, about)


def from_tasks(ids: tuple[str, ...], tasks: dict[str, Task], about: dict[str, Any]) -> Predictions:
    """Decoded tasks as predictions."""
    choice = {name: t.choice for name, t in tasks.items() if t.kind == "categorical"}
    for name, t in tasks.items():
        if t.kind == "multilabel":
            choice[name] = (t.values >= (PRESENT if t.thresholds is None else t.thresholds)).astype(np.uint8)
    unsure = {name: t.uncertainty["total"] for name, t in tasks.items() if "total" in t.uncertainty}
    return Predictions(
        ids=ids,
        labels={name: tuple(t.labels) for name, t in tasks.items()},
        values={name: t.values for name, t in tasks.items()},
        choice=choice,
        uncertainty={name: u for name, u in unsure.items() if np.ndim(u) == 1},
        about=about,
    )


def _concatenate(parts: list[Predictions]) -> Predictions:
    def join(name: str) -> dict[str, np.ndarray]:
        columns = [getattr(p, name) for p in parts]
        return {task: np.concatenate([c[task] for c in columns]) for task in columns[0]}

    return Predictions(
        ids=tuple(i for p in parts for i in p.ids),
        labels=parts[0].labels,
        values=join("values"),
        choice=join("choice"),
        uncertainty=join("uncertainty"),
        about=parts[0].about,
    )
