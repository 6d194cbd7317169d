"""The contract every model fulfils, and the description of what it eats.

A model is an `nn.Module` with a frozen `config` dataclass and
- `config.input`: `FaceInput` (below) or the method's own description of scenes and clips,
- `forward(...) -> dict[str, Tensor]`: raw logits named by task,
- `decode(logits) -> dict[str, Task]`: probabilities and values in documented ranges, with uncertainty,
- `labels`: the vocabulary per task,
- `example()`: a valid input, for self-checks and counting multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from emotion.outputs import Task


@dataclass(frozen=True)
class FaceInput:
    """How a face is cut out of a picture and turned into numbers.

    Attributes:
        size: height and width of the crop in pixels.
        channels: "rgb", "bgr" or "gray".
        scale: factor on 8-bit levels, usually 1/255.
        mean, std: subtracted and divided after scaling, one per channel.
        margin: part of the box's size added on every side before cutting.
        square: cut a square around the box's centre (side = longer side) instead of the box itself.
        shift: the centre's move down, as a part of the box's height (detectors differ in how much forehead they see).
        antialias: smooth when shrinking (the older originals did not).
        template: name of a landmark template in `emotion.faces.TEMPLATES` to align to instead of the box, or None.
    """

    size: tuple[int, int]
    channels: str = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    margin: float = 0.0
    square: bool = False
    shift: float = 0.0
    antialias: bool = True
    template: str | None = None

    def __post_init__(self) -> None:
        if self.channels not in ("rgb", "bgr", "gray"):
            raise ValueError(f"channels must be rgb, bgr or gray, not {self.channels!r}")

    @property
    def depth(self) -> int:
        """Number of channels the network sees."""
        return 1 if self.channels == "gray" else 3

    def tensor(self, crops: np.ndarray | Tensor) -> Tensor:
        """Network input from 8-bit RGB crops.

        Args:
            crops: uint8 [N, H, W, 3], RGB, already of `size`.

        Returns:
            float32 [N, C, H, W] in channels-last memory.
        """
        x = torch.as_tensor(crops).permute(0, 3, 1, 2).to(torch.float32)
        if self.channels == "gray":
            x = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)  # ITU-R BT.601
        elif self.channels == "bgr":
            x = x.flip(1)
        return self.normalise(x)

    def normalise(self, x: Tensor) -> Tensor:
        """Scale and standardise levels [N, C, H, W] in 0...255 whose channels are already in order."""
        mean = torch.tensor(self.mean, device=x.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=x.device).view(1, -1, 1, 1)
        return ((x * self.scale - mean) / std).contiguous(memory_format=torch.channels_last)


@runtime_checkable
class FaceModel(Protocol):
    """A model that reads single face crops."""

    config: Any
    labels: dict[str, tuple[str, ...]]

    def __call__(self, x: Tensor) -> dict[str, Tensor]: ...

    def decode(self, logits: dict[str, Tensor]) -> dict[str, Task]: ...

    def example(self) -> Tensor: ...
