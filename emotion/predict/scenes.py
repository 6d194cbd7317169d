"""Whole scenes: every person's box and emotions in one pass, and the maps they were read from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from emotion import hub, media
from emotion.errors import UserError
from emotion.models import benet_decode as decode
from emotion.outputs import Faces, Result, Task

BATCH = 4  # pictures of equal size per forward pass: more brings nothing on a CPU and costs memory
Box = np.ndarray


@dataclass(frozen=True)
class SceneMaps:
    """What a scene model sees where, aligned with the picture.

    Attributes:
        size: width and height of the picture; the maps cover it exactly, usually at fewer pixels.
        heatmap: float32 [h, w] in [0, 1], centres of people; None for a model without detector.
        labels: names of the maps.
        maps: float32 [K, h, w] in [0, 1], one per emotion (or continuous value).
    """

    size: tuple[int, int]
    heatmap: np.ndarray | None
    labels: tuple[str, ...]
    maps: np.ndarray


class ScenePredictor:
    """Finds the people of pictures and reads their emotions with one model.

    Args:
        model: a loaded scene model, a registry name or a checkpoint folder.
        flip: average with the mirrored picture, as published results do; twice the time.
        size: working size, the shorter side in pixels (a multiple of 32); default the model's own. Smaller is faster
            and loses small people.
        options: detection threshold, largest number of people and mode; default the model's own threshold.
        device: where the network runs.
        threshold: one for all emotions, see `thresholded`.

    Raises:
        UserError: the checkpoint cannot be loaded or does not read scenes, or the size or threshold does not fit.
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        flip: bool = False,
        size: int | None = None,
        options: decode.Decoding | None = None,
        device: str | torch.device = "cpu",
        threshold: float | None = None,
    ) -> None:
        self.name = "" if isinstance(model, nn.Module) else str(model)
        self.model = model.to(device).eval() if isinstance(model, nn.Module) else hub.load(model, device)
        spec = getattr(self.model.config, "input", None)
        if not isinstance(spec, decode.SceneInput):
            raise UserError(f"{self.name or type(model).__name__} does not read scenes; see: python -m emotion models")
        self.name = getattr(getattr(self.model, "card", None), "name", "") or self.name
        try:
            self.input = replace(spec, size=size or spec.size)
        except ValueError as error:
            raise UserError(str(error)) from error
        self.options = options or replace(decode.DEFAULT, threshold=self.model.config.person_threshold)
        self.flip, self.device, self.threshold = flip, device, checked(threshold)

    def image(self, picture: Any, source: str = "", boxes: Box | None = None) -> Result:
        """One picture (anything `media.read_image` takes); see `images`."""
        return self.images([picture], [source] if source else None, None if boxes is None else [boxes])[0]

    def images(
        self, pictures: Sequence[Any], sources: Sequence[str] | None = None, boxes: Sequence[Box] | None = None
    ) -> list[Result]:
        """Every person of several pictures; pictures of equal size share a forward pass.

        Args:
            pictures: arrays, paths or files, see `media.read_image`.
            sources: a name for each, to appear in the result; default the file names.
            boxes: people's boxes [P, 4] per picture to read instead of detecting.

        Returns:
            One `Result` per picture, people sorted by detection score; `faces` holds their boxes.

        Raises:
            UserError: a picture cannot be read, or no boxes were given to a model without detector.
        """
        names = sources or [Path(p).name if isinstance(p, (str, Path)) else "" for p in pictures]
        results: list[Result | None] = [None] * len(pictures)
        for places, frames, merged in self._run(pictures):
            if boxes is None:
                found = decode.people(merged, frames, self.model.config, self.options)
            else:
                found = [self._known(merged, frame, boxes[i], k) for k, (i, frame) in enumerate(zip(places, frames))]
            for i, frame, (faces, tasks) in zip(places, frames, found):
                results[i] = self._result(frame, faces, tasks, names[i])
        return results

    def _known(self, merged: decode.Merged, frame: decode.Frame, boxes: Box, k: int) -> tuple[Faces, dict[str, Task]]:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        values = decode.read_out(merged, frame, boxes, picture=k)
        return Faces(boxes, np.ones(len(boxes))), decode.tasks(values, self.model.config)

    def _result(self, frame: decode.Frame, faces: Faces, tasks: dict[str, Task], source: str) -> Result:
        result = Result(
            model=self.name,
            size=frame.source,
            timestamps=np.zeros(1),
            frame=np.zeros(len(faces), np.int64),
            faces=faces,
            tasks=tasks,
            source=source,
        )
        return thresholded(result, self.threshold)

    def video(self, *args: Any, **kwargs: Any) -> Result:
        """Scene models read pictures.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.name or 'a scene model'} reads pictures, not videos: save frames of it first")

    @property
    def nothing(self) -> dict[str, Task]:
        """The model's tasks with zero rows."""
        return decode.tasks(np.zeros((0, self.model.config.outputs), np.float32), self.model.config)

    def maps(self, picture: Any, emotions: Sequence[str] | None = None, longest: int = 1024) -> SceneMaps:
        """The detection heatmap and emotion maps of one picture.

        Args:
            picture: anything `media.read_image` takes.
            emotions: which maps; default all.
            longest: the maps' longer side in pixels is at most this (and never more than the picture's).

        Raises:
            UserError: the model has no such emotion.
        """
        chosen = self._chosen(emotions)
        ((_, (frame,), merged),) = self._run([picture])
        return self._maps(frame, merged, chosen, longest)

    def image_and_maps(self, picture: Any, source: str = "", longest: int = 1024) -> tuple[Result, SceneMaps]:
        """What `image` and `maps` (of all emotions) give, from one pass."""
        ((_, (frame,), merged),) = self._run([picture])
        ((faces, tasks),) = decode.people(merged, [frame], self.model.config, self.options)
        return self._result(frame, faces, tasks, source), self._maps(frame, merged, self._chosen(None), longest)

    def _chosen(self, emotions: Sequence[str] | None) -> tuple[str, ...]:
        known = tuple(name for names in self.model.labels.values() for name in names)
        for name in emotions or ():
            if name not in known:
                raise UserError(f"{self.name or 'the model'} has no map {name!r}; it has: {', '.join(known)}")
        return known if emotions is None else tuple(emotions)

    def _maps(self, frame: decode.Frame, merged: decode.Merged, chosen: tuple[str, ...], longest: int) -> SceneMaps:
        width, height = frame.source
        shrink = min(1.0, longest / max(width, height))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        known = self._chosen(None)
        index = torch.tensor([known.index(name) for name in chosen], dtype=torch.long, device=merged["bu"].device)
        maps = _aligned(merged["bu"][:, index], frame, size)
        heatmap = _aligned(merged["heatmap"], frame, size)[0] if "heatmap" in merged else None
        return SceneMaps((width, height), heatmap, chosen, maps)

    def _run(self, pictures: Sequence[Any]) -> Iterator[tuple[list[int], list[decode.Frame], decode.Merged]]:
        """Per batch: positions in `pictures`, their frames, merged outputs."""
        arrays = [media.read_image(p) for p in pictures]
        frames = [self.input.frame(a.shape[1], a.shape[0]) for a in arrays]
        of_size: dict[tuple[int, int], list[int]] = {}
        for i, frame in enumerate(frames):
            of_size.setdefault(frame.size, []).append(i)
        affect_from = len(self.model.config.labels) if self.options.published else None
        batches = [group[k : k + BATCH] for group in of_size.values() for k in range(0, len(group), BATCH)]
        for batch in batches:
            x = self.input.tensor([frames[i].warp(arrays[i]) for i in batch]).to(self.device)
            with torch.inference_mode():
                merged = decode.merge(self.model(x), self.model(x.flip(-1)) if self.flip else None, affect_from)
            yield batch, [frames[i] for i in batch], merged


def thresholded(result: Result, threshold: float | None) -> Result:
    """The same people with one threshold for all emotions instead of the checkpoint's; None leaves these.

    Raises:
        UserError: it does not lie in [0, 1].
    """
    if checked(threshold) is None:
        return result
    task = result.tasks["emotions"]
    limits = np.full(len(task.labels), threshold, np.float32)
    return replace(result, tasks=result.tasks | {"emotions": replace(task, thresholds=limits)})


def checked(threshold: float | None) -> float | None:
    """A threshold of emotions that can be one.

    Raises:
        UserError: it does not lie in [0, 1].
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"the threshold of emotions is a probability from 0 to 1, not {threshold:g}")
    return threshold


def _aligned(maps: torch.Tensor, frame: decode.Frame, size: tuple[int, int]) -> np.ndarray:
    """Maps [1, K, h, w] of the network's input as [K, H, W] over the picture alone, width and height `size`."""
    axes = []
    for n, length, whole, shift in zip(size, frame.source, frame.size, frame.shift):
        on_picture = (torch.arange(n, dtype=torch.float64) + 0.5) * (length / n) - 0.5
        on_input = frame.scale * on_picture + shift
        axes.append((2 * on_input + 1) / whole - 1)  # in [-1, 1] from edge to edge
    y, x = torch.meshgrid(axes[1], axes[0], indexing="ij")
    grid = torch.stack([x, y], dim=-1)[None].to(maps)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)[0].cpu().numpy()
