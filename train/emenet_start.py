"""What EMENets in training start from, and who teaches them beside the labels: other networks and soft labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from emotion import hub
from emotion.errors import UserError
from emotion.models.emenet import EMENet
from emotion.models.marblenet import MarbleNet
from emotion.models.mobilefacenet import MobileFaceNet
from train import soft_labels
from train.emenet_data import Clips

TRUNKS = {MobileFaceNet: "backbone", MarbleNet: "audio", EMENet: "backbone"}  # of a member, that each kind starts


@dataclass(frozen=True)
class Helpers:
    """Networks that only help training: landmark and voice teachers (frozen), None without those heads."""

    landmarks: MobileFaceNet | None = None
    voice: MarbleNet | None = None

    @torch.no_grad()
    def targets(self, x: Tensor, sound: Tensor | None) -> dict[str, Tensor]:
        """What the auxiliary heads should say of pictures [N, C, H, W] and sound [N, L]."""
        out = {}
        if self.landmarks is not None:
            out["landmarks"] = self.landmarks.to(x.device)(x)["landmarks"]
        if self.voice is not None:
            out["voice"] = self.voice.to(x.device)(sound)["voice"]
        return out

    def truth(self, data: Clips, device: torch.device) -> dict[str, np.ndarray]:
        """`targets` of every picture of `data` as it is, [N, K] each; nothing without helpers."""
        if self.landmarks is None and self.voice is None:
            return {}
        parts = []
        for first in range(0, len(data.ids), soft_labels.BATCH):
            x, sound = data.inputs(range(first, min(first + soft_labels.BATCH, len(data.ids))))
            parts.append(self.targets(x.to(device), None if sound is None else sound.to(device)))
        return {task: torch.cat([p[task] for p in parts]).cpu().numpy() for task in parts[0]}


def start(model: EMENet, given: list[nn.Module]) -> Helpers:
    """Begin every member's trunks from pretrained ones; returns these as helpers for the auxiliary heads.

    Raises:
        UserError: a checkpoint of another kind or size, or no teacher for an auxiliary head.
    """
    found: dict[type, nn.Module] = {}
    for other in given:
        if type(other) not in TRUNKS:
            raise UserError(
                f"an EMENet starts from a MobileFaceNet, a MarbleNet or an EMENet, not {type(other).__name__}"
            )
        found[type(other)] = other.eval().requires_grad_(False)
        trunk = (other.members[0] if isinstance(other, EMENet) else other).backbone
        for member in model.members:
            if (ours := getattr(member, TRUNKS[type(other)])) is not None:
                hub.fit(ours, trunk.state_dict(), where=type(other).__name__)
    helpers = Helpers(
        landmarks=found.get(MobileFaceNet) if model.config.landmarks else None,
        voice=found.get(MarbleNet) if model.config.voice else None,
    )
    if model.config.landmarks and (helpers.landmarks is None or helpers.landmarks.alignment is None):
        raise UserError("the landmark head needs its teacher: add --init with a mobilefacenet.landmarks checkpoint")
    if model.config.voice and helpers.voice is None:
        raise UserError("the voice head needs its teacher: add --init with a marblenet.vad checkpoint")
    return helpers


def taught(teacher: str | EMENet, data: Clips) -> dict[str, Tensor]:
    """Soft labels of `data`, see `soft_labels.Answers.soft`.

    Args:
        teacher: an EMENet, its registry name or folder, or a file that `python -m train.soft_labels` wrote.
        data: in the student's input and vocabulary.

    Raises:
        UserError: not to be found, of another kind, or it does not know all pictures or labels.
    """
    if isinstance(teacher, str) and teacher.endswith(".npz"):
        return soft_labels.load(teacher).soft(data)
    model = hub.load(teacher) if isinstance(teacher, str) else teacher
    if not isinstance(model, EMENet):
        raise UserError(f"EMENet's students learn from an EMENet, not from {type(model).__name__}")
    return soft_labels.ask(model, data.seen_as(model.config.input)).soft(data)
