"""EfficientFace: a light network for expressions in the wild (Zhao, Liu, Zhou, AAAI 2021).

A ShuffleNetV2 whose second stage is joined by a local extractor (each quarter of the picture has its own filters)
and a channel-spatial gate. Stands alone as a classifier, and is the eye of the audiovisual fusion.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.shufflenetv2 import InvertedResidual

from emotion import labels as vocab
from emotion import uncertainty
from emotion.hub.pretrained import Pretrained
from emotion.models.base import FaceInput, finite
from emotion.outputs import Task

WIDTHS = (29, 116, 232, 464, 1024)  # after the stem, the three stages and the top
REPEATS = (4, 8, 4)
AFFECTNET_INPUT = FaceInput(
    size=(224, 224),
    mean=(0.55391484, 0.43522123, 0.3821877),
    std=(0.24837189, 0.21625527, 0.20221159),
)


@dataclass(frozen=True)
class EfficientFaceConfig:
    """Everything that defines an EfficientFace classifier.

    Attributes:
        input: crop and normalisation; height and width must be multiples of 32.
        labels: expressions in the order of the logits.
    """

    input: FaceInput = AFFECTNET_INPUT
    labels: tuple[str, ...] = vocab.AFFECTNET[:7]

    def __post_init__(self) -> None:
        check_size(self.input.size)


def check_size(size: tuple[int, int]) -> None:
    """Raises ValueError for sides that the trunk cannot halve five times."""
    if any(side % 32 for side in size):
        raise ValueError(f"EfficientFace needs sides that are multiples of 32, not {tuple(size)}")


class LocalExtractor(nn.Module):
    """Two depthwise convolutions per quarter of the map, each its own: [N, C, H, W] -> [N, out, H/2, W/2]."""

    def __init__(self, depth: int, out: int) -> None:
        super().__init__()
        self.quarters = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(depth, out, 3, stride=2, padding=1, groups=depth, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(),
                nn.Conv2d(out, out, 3, padding=1, groups=out, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(),
            )
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        columns = [half.chunk(2, dim=2) for half in x.chunk(2, dim=3)]
        quarters = iter(self.quarters)  # top left, bottom left, top right, bottom right
        return torch.cat([torch.cat([next(quarters)(part) for part in column], dim=2) for column in columns], dim=3)


class Modulator(nn.Module):
    """Gate per channel and place: x * sigmoid(channel gate * spatial gate)."""

    def __init__(self, depth: int, reduction: int = 16, dilation: int = 4) -> None:
        super().__init__()
        inner = depth // reduction
        self.channel = nn.Sequential(
            nn.Linear(depth, inner), nn.BatchNorm1d(inner), nn.ReLU(), nn.Linear(inner, depth)
        )  # fmt: skip
        spatial: list[nn.Module] = [nn.Conv2d(depth, inner, 1), nn.BatchNorm2d(inner), nn.ReLU()]
        for _ in range(2):
            dilated = nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation)
            spatial += [dilated, nn.BatchNorm2d(inner), nn.ReLU()]
        self.spatial = nn.Sequential(*spatial, nn.Conv2d(inner, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel(x.mean(dim=(2, 3)))[:, :, None, None]
        return x * torch.sigmoid(channel * self.spatial(x))


def stage(depth: int, out: int, repeats: int) -> nn.Sequential:
    """ShuffleNetV2 units; the first halves height and width."""
    units = [InvertedResidual(depth, out, stride=2)]
    return nn.Sequential(*units, *(InvertedResidual(out, out, stride=1) for _ in range(repeats - 1)))


class Backbone(nn.Module):
    """Pictures [N, depth, H, W] -> features [N, 1024]."""

    width = WIDTHS[-1]

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        stem, *stages, top = WIDTHS
        self.stem = nn.Sequential(
            nn.Conv2d(depth, stem, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        depths = zip([stem, *stages], stages, REPEATS)
        self.stage2, self.stage3, self.stage4 = (stage(*numbers) for numbers in depths)
        self.local = LocalExtractor(stem, stages[0])
        self.modulator = Modulator(stages[0])
        self.top = nn.Sequential(nn.Conv2d(stages[-1], top, 1, bias=False), nn.BatchNorm2d(top), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = self.modulator(self.stage2(x)) + self.local(x)
        return self.top(self.stage4(self.stage3(x))).mean(dim=(2, 3))


class EfficientFace(Pretrained, nn.Module):
    """The classifier. Input [N, C, H, W] as `config.input` makes it."""

    Config = EfficientFaceConfig

    def __init__(self, config: EfficientFaceConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.input.depth)
        self.fc = nn.Linear(self.backbone.width, len(config.labels))

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The vocabulary of its one task."""
        return {"expression": self.config.labels}

    @property
    def cam_layers(self) -> list[nn.Module]:
        """What `emotion.explain` looks at: the last feature maps."""
        return [self.backbone.top]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits "expression" [N, K]."""
        return {"expression": self.fc(self.backbone(x))}

    def decode(self, logits: dict[str, Tensor]) -> dict[str, Task]:
        """Softmax probabilities, with their normalised entropy as total uncertainty."""
        values = finite(logits)["expression"].detach().float().softmax(-1).cpu().numpy()
        doubt = {"total": uncertainty.categorical(values[None])["total"]}
        return {"expression": Task("categorical", self.config.labels, values, uncertainty=doubt)}

    def example(self) -> Tensor:
        """A valid input [1, C, H, W], for self-checks and counting."""
        return torch.zeros(1, self.config.input.depth, *self.config.input.size)
