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
from PIL import Image
from torch import Tensor, nn

from emotion.errors import UserError, listed
from emotion.outputs import Task

LARGEST_SIDE = 4096  # pixels of a crop
LONGEST_CLIP = 60.0  # seconds


def finite(logits: dict[str, Tensor]) -> dict[str, Tensor]:
    """`logits` themselves; every model's `decode` begins with it, so that no answer is made up.

    Raises:
        UserError: some are no numbers, as damaged weights make them.
    """
    broken = [name for name, z in logits.items() if not torch.isfinite(z).all()]
    if broken:
        raise UserError(f"the model's {listed(broken)} are not finite numbers; its checkpoint is damaged, get it again")
    return logits


def check_scaling(mean: tuple[float, ...], std: tuple[float, ...], count: int) -> None:
    """Raises ValueError unless there is one mean and deviation, or one for each of `count` values."""
    if not {len(mean), len(std)} <= {1, count} or 0 in std:
        raise ValueError(f"mean and std need 1 or {count} values, and std none that is 0")


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
        zoom: the crop is enlarged by this factor and only its middle of `size` is seen (1 = off).
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
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if self.channels not in ("rgb", "bgr", "gray"):
            raise ValueError(f"channels must be rgb, bgr or gray, not {self.channels!r}")
        if not all(1 <= side <= LARGEST_SIDE for side in self.size):
            raise ValueError(f"crops have sides of 1 to {LARGEST_SIDE} pixels, not {self.size}")
        if not 1 <= self.zoom <= 10:
            raise ValueError(f"zoom must lie in 1 to 10, not {self.zoom}")
        check_scaling(self.mean, self.std, self.depth)

    @property
    def depth(self) -> int:
        """Number of channels the network sees."""
        return 1 if self.channels == "gray" else 3

    def tensor(self, crops: np.ndarray | Tensor) -> Tensor:
        """Network input from 8-bit RGB crops.

        Args:
            crops: uint8 [N, H, W, 3], RGB, already of `size`; with `zoom` of any size, and
                then a list may mix sizes.

        Returns:
            float32 [N, C, H, W] in channels-last memory.
        """
        if self.zoom != 1:
            crops = np.stack([middle(enlarge(c, self.size, self.zoom), self.size) for c in crops])
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


@dataclass(frozen=True)
class VectorInput:
    """Numbers measured per frame (such as action unit intensities) in place of a picture.

    Attributes:
        names: what each number is.
        mean, std: subtracted and divided, one per number.
        measured_by: the model of single faces whose predictions these numbers are, or "" for those of another tool.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    measured_by: str = ""

    def __post_init__(self) -> None:
        check_scaling(self.mean, self.std, len(self.names))

    def tensor(self, values: np.ndarray | Tensor) -> Tensor:
        """Network input float32 [..., V] from measurements [..., V]."""
        values = torch.as_tensor(values, dtype=torch.float32)
        return (values - torch.tensor(self.mean)) / torch.tensor(self.std)


@dataclass(frozen=True)
class AudioInput:
    """How sound becomes mel-frequency cepstral coefficients.

    Attributes:
        rate: samples per second that the sound is brought to.
        coefficients, bands, window, hop: of the cepstrum, the mel filters and the Fourier frames (in samples).
        resampler: "soxr" (very high quality) or "kaiser" (the filter of librosa before 0.10, for older weights).
        quantise: whether samples go through 16 bits, as with features made from stored WAV files.
        mean, std: subtracted and divided, one per coefficient.
    """

    rate: int = 22050
    coefficients: int = 10
    bands: int = 128
    window: int = 2048
    hop: int = 512
    resampler: str = "soxr"
    quantise: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if self.resampler not in ("soxr", "kaiser"):
            raise ValueError(f"resampler must be soxr or kaiser, not {self.resampler!r}")
        if not (1000 <= self.rate <= 384_000 and 2 <= self.window <= 65_536 and self.hop >= 1):
            raise ValueError(f"no sound features with rate {self.rate}, window {self.window} and hop {self.hop}")
        if not 1 <= self.coefficients <= self.bands <= 1024:
            raise ValueError(f"{self.coefficients} coefficients of {self.bands} bands; at most as many, and 1024")
        check_scaling(self.mean, self.std, self.coefficients)

    def tensor(self, features: np.ndarray | Tensor) -> Tensor:
        """Network input float32 [..., coefficients, columns] from raw coefficients of that shape."""
        features = torch.as_tensor(features, dtype=torch.float32)
        return (features - torch.tensor(self.mean)[:, None]) / torch.tensor(self.std)[:, None]


@dataclass(frozen=True)
class ClipInput:
    """A stretch of sound and pictures.

    Attributes:
        visual: the face crops, or the numbers measured per frame.
        audio: the sound's features.
        seconds: length of the stretch.
        frames: pictures (or measurements) spread evenly over it.
        timing: "time": frames by their time stamps, sound from the same stretch; "index": frames counted from the
            first one as if 30 came every second, sound from the middle of the file (what older weights saw).
    """

    visual: FaceInput | VectorInput
    audio: AudioInput = AudioInput()
    seconds: float = 3.6
    frames: int = 15
    timing: str = "time"

    def __post_init__(self) -> None:
        if self.timing not in ("time", "index"):
            raise ValueError(f"timing must be time or index, not {self.timing!r}")
        if not (0 < self.seconds <= LONGEST_CLIP and 1 <= self.frames <= 30 * LONGEST_CLIP):
            raise ValueError(
                f"no clip has {self.frames} frames in {self.seconds} s; at most {LONGEST_CLIP:.0f} s, 30 each"
            )

    @property
    def samples(self) -> int:
        """Sound samples in the stretch, at `audio.rate`."""
        return int(self.audio.rate * self.seconds)

    @property
    def audio_shape(self) -> tuple[int, int]:
        """Coefficients and columns of the sound's features."""
        return self.audio.coefficients, 1 + self.samples // self.audio.hop

    @property
    def visual_shape(self) -> tuple[int, ...]:
        """[T, C, H, W] of the pictures, or [T, V] of the measurements."""
        if isinstance(self.visual, VectorInput):
            return self.frames, len(self.visual.names)
        return self.frames, self.visual.depth, *self.visual.size


def enlarge(image: np.ndarray, size: tuple[int, int], zoom: float) -> np.ndarray:
    """uint8 [H, W, 3] resized (bilinear, antialiased) so that it covers `zoom` times `size`, proportions kept."""
    height, width = image.shape[:2]
    goal = int(min(size) * zoom)
    short = min(height, width)
    shape = (goal * width // short, goal * height // short)
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR))


def middle(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle `size` (height, width) of an image [H, W, 3]; half pixels are rounded to even."""
    top, left = (round((have - want) / 2) for have, want in zip(image.shape, size))
    return image[top : top + size[0], left : left + size[1]]


@runtime_checkable
class FaceModel(Protocol):
    """A model that reads single face crops."""

    config: Any
    labels: dict[str, tuple[str, ...]]

    def __call__(self, x: Tensor) -> dict[str, Tensor]: ...

    def decode(self, logits: dict[str, Tensor]) -> dict[str, Task]: ...

    def example(self) -> Tensor: ...


def multiply_adds(model: nn.Module) -> int:
    """Multiply-adds of one forward pass on `model.example()`."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(model.example())
    return counter.get_total_flops() // 2
