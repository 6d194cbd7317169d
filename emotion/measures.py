"""Faces measured by another model: what it says of every frame is the visual channel of a model of voice and face."""

from __future__ import annotations

import numpy as np
import torch

from emotion import hub
from emotion.errors import UserError
from emotion.models.base import FaceInput

BATCH = 32  # faces per forward pass


class FaceMeter:
    """Reads face crops with a model of single faces and puts all its numbers in a row.

    Args:
        name: registry name or checkpoint folder. Nothing is downloaded: it often stands in a config of somebody else's.
        device: where it runs.

    Raises:
        UserError: the checkpoint cannot be loaded, or does not read single faces.
    """

    def __init__(self, name: str, device: str | torch.device = "cpu") -> None:
        self.model, self.device = hub.load(name, device, local_files_only=True), device
        if not isinstance(getattr(self.model.config, "input", None), FaceInput):
            raise UserError(f"{name} cannot measure faces: it does not read single faces")

    @property
    def input(self) -> FaceInput:
        """The crops it wants."""
        return self.model.config.input

    @property
    def names(self) -> tuple[str, ...]:
        """What each number is."""
        return tuple(name for names in self.model.labels.values() for name in names)

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """float32 [N, V] of crops uint8 [N, h, w, 3], RGB: probabilities and values as the model decodes them."""
        rows = []
        for first in range(0, len(crops), BATCH):
            tasks = self.model.decode(self.model(self.input.tensor(crops[first : first + BATCH]).to(self.device)))
            rows.append(np.concatenate([tasks[name].values for name in self.model.labels], axis=1))
        return np.concatenate(rows) if rows else np.zeros((0, len(self.names)), np.float32)
