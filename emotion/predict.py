"""From pictures to results: detect, crop, run the network, decode. Knows no method, only the models' contract."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emotion import faces as cropping
from emotion import hub, media, registry
from emotion.detectors import MTCNN, Detector
from emotion.errors import UserError
from emotion.models.base import FaceInput
from emotion.outputs import Faces, Result, Task

BATCH = 32  # faces per forward pass: more brings nothing on a CPU and costs memory


class FacePredictor:
    """Finds the faces of pictures and reads them with one model.

    Args:
        model: a loaded model, a registry name or a checkpoint folder.
        detector: finds faces; default MTCNN.
        which: "all" faces, the "largest" or the one "closest-to-centre".
        device: where network and detector run.

    Raises:
        UserError: the checkpoint cannot be loaded, or does not read single faces.
    """

    def __init__(
        self,
        model: nn.Module | str | Path = registry.DEFAULT,
        detector: Detector | None = None,
        which: str = "all",
        device: str | torch.device = "cpu",
    ) -> None:
        self.name = str(model) if not isinstance(model, nn.Module) else _name(model)
        self.model = hub.load(model, device) if not isinstance(model, nn.Module) else model.to(device).eval()
        if not isinstance(getattr(self.model.config, "input", None), FaceInput):
            raise UserError(f"{self.name} does not read single faces; choose one that does: python -m emotion models")
        self.name = _name(self.model) or self.name
        self.detector = detector or MTCNN(device=device)
        self.which, self.device = which, device

    def image(self, picture: Any, source: str = "", faces: Faces | None = None) -> Result:
        """One picture (anything `media.read_image` takes); see `images`."""
        return self.images([picture], [source] if source else None, None if faces is None else [faces])[0]

    def images(
        self, pictures: Sequence[Any], sources: Sequence[str] | None = None, faces: Sequence[Faces] | None = None
    ) -> list[Result]:
        """Read every face of several pictures; detection and network run in batches across them.

        Args:
            pictures: arrays, paths or files, see `media.read_image`.
            sources: a name for each, to appear in the result; default the file names.
            faces: boxes to use instead of detecting, one `Faces` per picture.

        Returns:
            One `Result` per picture, faces sorted by size; a picture without faces gives a result of length 0.
        """
        sources = sources or [Path(p).name if isinstance(p, (str, Path)) else "" for p in pictures]
        arrays = [media.read_image(p) for p in pictures]
        found = list(faces) if faces is not None else self.detect(arrays)
        crops = [self.crops(a, f) for a, f in zip(arrays, found)]
        tasks = self.read(np.concatenate(crops)) if crops else {}
        ends = np.cumsum([len(c) for c in crops])
        return [
            Result(
                model=self.name,
                size=(array.shape[1], array.shape[0]),
                timestamps=np.zeros(1),
                frame=np.zeros(len(one), dtype=np.int64),
                faces=one,
                tasks={name: task[end - len(one) : end] for name, task in tasks.items()},
                source=source,
            )
            for array, one, end, source in zip(arrays, found, ends, sources)
        ]

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Faces]:
        """The chosen faces of every picture (uint8 [H, W, 3])."""
        sizes = [(p.shape[1], p.shape[0]) for p in pictures]
        return [cropping.select(f, self.which, size) for f, size in zip(self.detector(pictures), sizes)]

    def crops(self, picture: np.ndarray, faces: Faces) -> np.ndarray:
        """What the model sees of every face: uint8 [N, h, w, 3] RGB."""
        return cropping.crop(picture, faces, self.model.config.input)

    def read(self, crops: np.ndarray) -> dict[str, Task]:
        """Decoded predictions for face crops, uint8 [N, h, w, 3]."""
        if not len(crops):
            return self._nothing
        with torch.inference_mode():
            x = self.model.config.input.tensor(crops)
            parts = [self.model.decode(self.model(x[i : i + BATCH].to(self.device))) for i in range(0, len(x), BATCH)]
        return {name: Task.concatenate([p[name] for p in parts]) for name in parts[0]}

    @cached_property
    def _nothing(self) -> dict[str, Task]:
        """The model's tasks with zero rows."""
        with torch.inference_mode():
            tasks = self.model.decode(self.model(self.model.example().to(self.device)))
        return {name: task[:0] for name, task in tasks.items()}


def _name(model: nn.Module) -> str:
    card = getattr(model, "card", None)
    return card.name if card else ""


def analyze(
    source: Any,
    model: nn.Module | str | Path = registry.DEFAULT,
    which: str = "all",
    device: str | torch.device = "cpu",
) -> Result:
    """Read every face of a picture.

    Args:
        source: path, bytes, open file, PIL image or array, see `media.read_image`.
        model: registry name, checkpoint folder or loaded model.
        which: "all" faces, the "largest" or the one "closest-to-centre".
        device: "cpu", "cuda", ...

    Raises:
        UserError: the picture or the checkpoint cannot be read.
    """
    return FacePredictor(model, which=which, device=device).image(source)
