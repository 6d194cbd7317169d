"""Folders of face crops, one person's frames in order: no detection, every picture is a face."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from emotion import exports, hub, media
from emotion import faces as cropping
from emotion.errors import UserError
from emotion.models.base import FaceInput
from emotion.models.fg2020 import FG2020, windows
from emotion.outputs import Faces, Result, Task
from emotion.predict.sequences import unheard

BATCH = 32
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def crop_files(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The pictures of a folder in the order of `ordered`.

    Raises:
        UserError: no such folder or no pictures in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    files = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file()]
    if not files:
        raise UserError(f"no pictures ({', '.join(suffixes)}) in {folder}")
    return ordered(files)


def ordered(files: Sequence[Path]) -> list[Path]:
    """Files by the number at the end of their names where all have one, else by name; folders do not count."""
    ends = {p: re.search(r"\d+$", p.stem) for p in files}
    numbered = all(ends.values())
    return sorted(files, key=lambda p: (int(ends[p][0]) if numbered else 0, p.name, p))


def analyze_crops(
    source: str | Path | Sequence[Path],
    model: nn.Module | str | Path,
    device: str | torch.device = "cpu",
    fps: float = 30.0,
) -> Result:
    """Read face crops with a face model; a model of sequences reads them as one film, gaps in time ignored.

    Args:
        source: a folder (see `crop_files`), or the files in order.
        model: a loaded model, a registry name or a checkpoint folder.
        device: where the network runs.
        fps: frames per second; gives the timestamps.

    Returns:
        One frame per picture, with one face that covers all of it; `size` is the largest width and height.

    Raises:
        UserError: no pictures, unreadable ones, a rate that is none, or a checkpoint that cannot be loaded or does not
            read faces.
    """
    if not 0 < fps < math.inf:
        raise UserError(f"frames per second must be above 0, not {fps:g}")
    files = crop_files(source) if isinstance(source, (str, Path)) else list(source)
    network = model if isinstance(model, nn.Module) else hub.load(model, device)
    card = getattr(network, "card", None)
    name = card.name if card else str(model) if isinstance(model, (str, Path)) else ""
    if not isinstance(getattr(getattr(network, "config", None), "input", None), FaceInput):
        raise UserError(f"{name or type(network).__name__} does not read faces; see: python -m emotion models")
    network.to(device).eval()
    sizes: list[tuple[int, int]] = []
    with torch.inference_mode():
        tasks = _read(network, _batches(files, network, sizes), device)
    return Result(
        model=name,
        size=(max(w for w, _ in sizes), max(h for _, h in sizes)),
        timestamps=np.arange(len(files)) / fps,
        frame=np.arange(len(files)),
        faces=Faces(np.array([(0, 0, w, h) for w, h in sizes], np.float32), np.ones(len(files))),
        tasks=tasks,
        source=files[0].parent.name,
        notes=unheard(network, "face pictures have no sound"),
    )


def fg2020_table(files: Sequence[Path], model: FG2020, device: str | torch.device = "cpu") -> str:
    """The table that the FG-2020 system's programming interface gives for a folder of face crops.

    Members are merged by their logits; a frame in two windows gets mean values and its most frequent decisions. Unlike
    there, rows do not depend on how windows are batched, and short films keep all their frames.

    Args:
        files: numbered face crops (see `exports.frame_number`), in order.
        model: loaded, one or more members.
        device: where the network runs.
    """
    numbers = np.array([exports.frame_number(path) for path in files])
    model.to(device).eval()
    with torch.inference_mode():
        embeddings = torch.cat([model.embed(x.to(device)) for x in _batches(list(files), model, [])], dim=1)
        if model.config.frames:
            chosen = windows(len(files), model.config.frames)
            tasks = model.decode(model.read(embeddings[:, torch.as_tensor(chosen, device=device)]), "api")
            kept = np.arange(chosen.size) if len(files) >= model.config.frames else np.arange(len(files))
            numbers, tasks = numbers[chosen.ravel()[kept]], {name: task[kept] for name, task in tasks.items()}
        else:
            tasks = model.decode(model.read(embeddings), "api")
    return exports.fg2020_csv(numbers, tasks)


def _read(model: nn.Module, batches: Iterator[Tensor], device: str | torch.device) -> dict[str, Task]:
    if hasattr(model, "sequence"):
        embeddings = torch.cat([model.embed(x.to(device)) for x in batches], dim=1)
        return model.decode(model.sequence(embeddings))
    parts = [model.decode(model(x.to(device))) for x in batches]
    return {name: Task.concatenate([p[name] for p in parts]) for name in parts[0]}


def _batches(files: list[Path], model: nn.Module, sizes: list[tuple[int, int]]) -> Iterator[Tensor]:
    """Network inputs, a batch of files at a time; the pictures' sizes (width, height) go to `sizes`."""
    for start in range(0, len(files), BATCH):
        pictures = [media.read_image(path) for path in files[start : start + BATCH]]
        sizes += [(p.shape[1], p.shape[0]) for p in pictures]
        yield tensor(pictures, model.config.input)


def tensor(pictures: Sequence[np.ndarray], spec: FaceInput) -> Tensor:
    """Network input float32 [N, C, H, W] from face crops uint8 [h, w, 3] of any size.

    They are resized as `faces.crop` resizes what lies in a face's box; nothing is added or cut off.
    """
    return spec.tensor(list(pictures) if spec.zoom != 1 else fitted(pictures, spec))  # zoom takes any size


def fitted(pictures: Sequence[np.ndarray], spec: FaceInput) -> np.ndarray:
    """Face crops of any size as uint8 [N, height, width, 3] of the size that `spec` says; see `tensor`."""
    whole = replace(spec, template=None, margin=0.0, square=False, shift=0.0)
    sizes = [(p.shape[1], p.shape[0]) for p in pictures]
    found = [cropping.given([[0, 0, *size]], size) for size in sizes]
    return np.stack([cropping.crop(p, f, whole)[0] for p, f in zip(pictures, found)])
