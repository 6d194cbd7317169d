"""Run a face model over a labelled data set: batches, progress, and no work done twice after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emotion import media, registry
from emotion.cropped import tensor
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.models.base import FaceInput, multiply_adds
from emotion.outputs import Task
from eval import predictions as files
from eval.parts import finish, in_parts
from eval.predictions import PRESENT, UNCERTAINTIES, Predictions
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

    Every picture is cut to size as the predictor does with a face's box. Finished parts lie beside `out` until the
    run is complete; the same call goes on after the last one.

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
    about = files.origin(model, samples)
    folder, ids = out.with_suffix(".parts"), samples.ids
    parts, speed = in_parts(
        len(samples),
        CHUNK * batch,
        folder,
        compute=lambda rows: _read_rows(model, samples, rows, batch, device, about),
        write=files.write,
        read=lambda path, rows: files.kept_part(path, about, ids[rows.start : rows.stop]),
        title=f"{about['model']} on {samples.dataset}",
        quiet=quiet,
    )
    whole = files.concatenate(parts)
    files.write(whole, out)
    finish(folder)
    return whole, speed


@torch.inference_mode()
def _read_rows(
    model: nn.Module, samples: Samples, rows: range, batch: int, device: str, about: dict[str, Any]
) -> Predictions:
    spec, decoded = model.config.input, []
    for first in range(0, len(rows), batch):
        x = tensor([media.read_image(samples.picture(i)) for i in rows[first : first + batch]], spec)
        decoded.append(model.decode(model(x.to(device))))
    tasks = {name: Task.concatenate([d[name] for d in decoded]) for name in decoded[0]}
    return from_tasks(tuple(samples.ids[i] for i in rows), tasks, about)


def from_tasks(ids: tuple[str, ...], tasks: dict[str, Task], about: dict[str, Any]) -> Predictions:
    """Decoded tasks as predictions."""
    choice = {name: t.choice for name, t in tasks.items() if t.kind == "categorical"}
    for name, t in tasks.items():
        if t.kind == "multilabel":
            choice[name] = (t.values >= (PRESENT if t.thresholds is None else t.thresholds)).astype(np.uint8)
    kinds = {name: next((k for k in UNCERTAINTIES if k in t.uncertainty), "") for name, t in tasks.items()}
    return Predictions(
        ids=ids,
        labels={name: tuple(t.labels) for name, t in tasks.items()},
        values={name: t.values for name, t in tasks.items()},
        choice=choice,
        uncertainty={name: tasks[name].uncertainty[kind] for name, kind in kinds.items() if kind},
        about=about,
    )
