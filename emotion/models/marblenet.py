"""MarbleNet 3x2x64 (Jia, Majumdar, Ginsburg, ICASSP 2021, arXiv 2010.13886): voice activity, and EMENet's ear.

A waveform becomes mel-frequency cepstral coefficients, a masked 1-d convolutional encoder reads them. Numbers as in
NVIDIA NeMo 1.0.2, whose weights fit; neither NeMo nor torchaudio is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion import uncertainty
from emotion.hub.pretrained import Pretrained
from emotion.models.base import finite
from emotion.outputs import Task

RATE = 16000  # samples per second
SAMPLES = 10080  # 0.63 s, the window both the voice teacher and EMENet hear
FEATURES = 128
VOICE = ("background", "speech")

N_FFT, WINDOW, HOP, BANDS = 512, 400, 160, 64  # 25 ms windows every 10 ms


@dataclass(frozen=True)
class Block:
    """Convolutions of these kernels, depthwise then pointwise if `separable`; the input is added if `residual`."""

    out: int
    kernels: tuple[int, ...]
    dilation: int = 1
    residual: bool = False
    separable: bool = True


BLOCKS = (
    Block(128, (11,)),
    Block(64, (13, 13), residual=True),
    Block(64, (15, 15), residual=True),
    Block(64, (17, 17), residual=True),
    Block(128, (29,), dilation=2),
    Block(FEATURES, (1,), separable=False),
)


@dataclass(frozen=True)
class MarbleNetConfig:
    """Everything that defines the voice-activity network.

    Attributes:
        labels: classes in the order of the logits.
        rate: samples per second of the mono waveform in [-1, 1].
        samples: length of the window that it was trained on.
    """

    labels: tuple[str, ...] = VOICE
    rate: int = RATE
    samples: int = SAMPLES

    def __post_init__(self) -> None:
        if self.rate != RATE or not N_FFT <= self.samples <= 3600 * RATE:
            raise ValueError(f"MarbleNet hears {RATE} samples per second, at least {N_FFT}, not {self.samples}")


def mel_filters() -> Tensor:
    """Triangles [257, 64] over 0 to 8000 Hz, equally spaced on the HTK mel scale, peak 1."""

    def mel(hertz: Tensor) -> Tensor:
        return 2595 * torch.log10(1 + hertz / 700)

    top = torch.tensor(RATE / 2, dtype=torch.float64)
    points = 700 * (10 ** (torch.linspace(0, float(mel(top)), BANDS + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, float(top), N_FFT // 2 + 1, dtype=torch.float64)[:, None]
    rising = (frequencies - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - frequencies) / (points[2:] - points[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).float()


def dct_matrix() -> Tensor:
    """Orthonormal DCT-II [bands, coefficients]."""
    n = torch.arange(BANDS, dtype=torch.float64)
    matrix = torch.cos(math.pi / BANDS * (n[:, None] + 0.5) * n) * math.sqrt(2 / BANDS)
    matrix[:, 0] *= math.sqrt(0.5)
    return matrix.float()


class MFCC(nn.Module):
    """Waveforms [N, L] -> cepstral coefficients [N, 64, 1 + L // 160] of log power in 64 mel bands."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)
        self.register_buffer("dct", dct_matrix(), persistent=False)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Natural logarithm of the mel powers, [N, 64, frames]."""
        spectrum = torch.stft(
            waveform, N_FFT, HOP, WINDOW, self.window, center=True, pad_mode="reflect", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.log(self.filters.T @ power + 1e-6)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.dct.T @ self.log_mel(waveform)


def valid_frames(samples: Tensor) -> Tensor:
    """How many frames of a waveform of that many samples count (one less than are computed), int64."""
    return torch.ceil(samples / HOP).long()


def cut_out(maps: Tensor) -> Tensor:
    """Training augmentation of [N, 64, frames]: per clip five rectangles, two bands and two stretches become zero.

    Rectangles of height 0 to 15 and width 0 to 25 (DeVries & Taylor 2017), two bands of 0 to 15 rows and two stretches
    of 0 to 25 frames (SpecAugment, Park et al. 2019). Draws from torch's global generator.
    """
    n, rows, frames = maps.shape
    height, width = min(15, rows), min(25, frames)

    def span(size: int, longest: int, count: int) -> Tensor:
        """Random stretches as masks [N, count, size]."""
        start = torch.randint(size - longest + 1, (n, count, 1), device=maps.device)
        length = torch.randint(longest + 1, (n, count, 1), device=maps.device)
        position = torch.arange(size, device=maps.device)
        return (position >= start) & (position < start + length)

    rectangles = (span(rows, height, 5)[..., :, None] & span(frames, width, 5)[..., None, :]).any(1)
    stripes = span(rows, height, 2).any(1)[:, :, None] | span(frames, width, 2).any(1)[:, None, :]
    return maps.masked_fill(rectangles | stripes, 0.0)


class Layer(nn.Module):
    """Masked convolution over time and batch norm: steps that do not count are zeroed before every convolution."""

    def __init__(self, depth: int, out: int, kernel: int, dilation: int = 1, separable: bool = True) -> None:
        super().__init__()
        self.depthwise = None
        if separable:
            padding = dilation * (kernel - 1) // 2
            self.depthwise = nn.Conv1d(
                depth, depth, kernel, padding=padding, dilation=dilation, groups=depth, bias=False
            )  # fmt: skip
        self.pointwise = nn.Conv1d(depth, out, 1, bias=False)
        self.bn = nn.BatchNorm1d(out, eps=1e-3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.depthwise is not None:
            x = self.depthwise(x * mask)
        return self.bn(self.pointwise(x * mask))


class EncoderBlock(nn.Module):
    """One `Block`: ReLU between its layers and at the end, after the shortcut."""

    def __init__(self, depth: int, block: Block) -> None:
        super().__init__()
        depths = [depth, *[block.out] * len(block.kernels)]
        self.layers = nn.ModuleList(
            Layer(d, block.out, k, block.dilation, block.separable) for d, k in zip(depths, block.kernels)
        )
        self.shortcut = Layer(depth, block.out, 1, separable=False) if block.residual else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = x
        for i, layer in enumerate(self.layers):
            y = layer(F.relu(y) if i else y, mask)
        return F.relu(y if self.shortcut is None else y + self.shortcut(x, mask))


class AudioBackbone(nn.Module):
    """Cepstrum and encoder: waveforms [N, L] -> features [N, 128]."""

    def __init__(self) -> None:
        super().__init__()
        self.mfcc = MFCC()
        depths = [BANDS, *(b.out for b in BLOCKS)]
        self.blocks = nn.ModuleList(EncoderBlock(d, b) for d, b in zip(depths, BLOCKS))

    def encode(self, maps: Tensor, frames: Tensor) -> Tensor:
        """Encoder output [N, 128, frames] of coefficients [N, 64, frames], of which `frames` int64 [N] count."""
        mask = (torch.arange(maps.shape[-1], device=maps.device) < frames[:, None])[:, None].to(maps.dtype)
        for block in self.blocks:
            maps = block(maps, mask)
        return maps

    def forward(self, waveform: Tensor, samples: Tensor | None = None) -> Tensor:
        """Mean of the encoder output over all frames, also those past the end (so the weights were trained).

        Args:
            waveform: float [N, L], mono, 16 kHz, in [-1, 1].
            samples: [N], how many samples of each count (default: all).
        """
        if samples is None:
            samples = torch.full(waveform.shape[:1], waveform.shape[-1], device=waveform.device)
        maps = self.mfcc(waveform)
        if self.training:
            maps = cut_out(maps)
        return self.encode(maps, valid_frames(samples)).mean(-1)


class MarbleNet(Pretrained, nn.Module):
    """Voice activity of short waveforms."""

    Config = MarbleNetConfig

    def __init__(self, config: MarbleNetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = AudioBackbone()
        self.classifier = nn.Linear(FEATURES, len(config.labels))

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The vocabulary."""
        return {"voice": self.config.labels}

    def forward(self, waveform: Tensor, samples: Tensor | None = None) -> dict[str, Tensor]:
        """Logits "voice" [N, 2]; arguments as in `AudioBackbone`."""
        return {"voice": self.classifier(self.backbone(waveform, samples))}

    def decode(self, logits: dict[str, Tensor]) -> dict[str, Task]:
        """Probability of background and speech."""
        values = finite(logits)["voice"].detach().double().softmax(-1).cpu().numpy()
        unsure = uncertainty.categorical(values[None])["total"]
        return {"voice": Task("categorical", self.config.labels, values, uncertainty={"total": unsure})}

    def example(self) -> Tensor:
        """A valid input [1, L]."""
        return torch.zeros(1, self.config.samples)
