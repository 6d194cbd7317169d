"""Run a face model over a labelled data set: batches, progress, and no work done twice after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emotion import registry
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.faces.cropped import tensor
from emotion.models.base import FaceInput, multiply_adds
from emotion.outputs import Task
from eval import predictions as files
from eval.parts import finish, in_parts, slices
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
    own = entry is None or entry.sha256 not in ("", card.sha256)
    return ModelInfo(
        name=card.name,
        sha256=card.sha256,
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=multiply_adds(model),
        licence=card.licence,
        weights="own" if own else "bundled" if entry.bundled else "to import",
    )


def predict(
    model: nn.Module, samples: Samples, out: Path, batch: int = BATCH, device: str = "cpu", quiet: bool = False
) -> tuple[Predictions, float | None]:
    """Predictions for every picture, also written to `out` (.npz).

    Pictures are read on their own, but films from beginning to end by models of sequences. Every picture is cut to
    size as the predictor does with a face's box. Finished parts lie beside `out` until the run is complete; the same
    call goes on after the last one.

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
    follows = samples.films and getattr(model, "window", 0) > 0
    parts, speed = in_parts(
        _films(samples) if follows else slices(len(samples), CHUNK * batch),
        folder,
        compute=lambda rows: (_follow if follows else _read_rows)(model, samples, rows, batch, device, about),
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
    decoded = []
    for first in range(0, len(rows), batch):
        decoded.append(model.decode(model(_inputs(model, samples, rows[first : first + batch], device))))
    return _part(samples, rows, decoded, about)


@torch.inference_mode()
def _follow(model: nn.Module, samples: Samples, rows: range, _: int, device: str, about: dict[str, Any]) -> Predictions:
    """One film from its first frame to its last, as a model of sequences reads the track of a person."""
    decoded, state = [], None
    for first in range(0, len(rows), model.window):
        logits, state = model.step(_inputs(model, samples, rows[first : first + model.window], device), state)
        decoded.append(model.decode(logits))
    return _part(samples, rows, decoded, about)


def _films(samples: Samples) -> list[range]:
    """The rows of every film."""
    starts = np.flatnonzero(samples.groups[1:] != samples.groups[:-1]) + 1
    return [range(a, b) for a, b in zip([0, *starts.tolist()], [*starts.tolist(), len(samples)])]


def _inputs(model: nn.Module, samples: Samples, rows: range, device: str) -> torch.Tensor:
    pictures = map(samples.picture, rows)
    rgb = [p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=2) for p in pictures]
    return tensor(rgb, model.config.input).to(device)


def _part(samples: Samples, rows: range, decoded: list[dict[str, Task]], about: dict[str, Any]) -> Predictions:
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
