"""Networks small enough for tests."""

from __future__ import annotations

from dataclasses import replace

import torch

from emotion.models.fg2020 import FG2020, fg2020


def tiny_fg2020(members: tuple[str, ...] = ("teacher",), frames: int = 0, **changes: object) -> FG2020:
    """An FG-2020 network of the same build for faces of 32 pixels, the same at every call, in training mode."""
    torch.manual_seed(0)
    config = replace(fg2020("test_resnet", members, frames, size=32), embedding=8, bins=5)
    return FG2020(replace(config, **changes))
