"""MobileFaceNet (Chen, Liu, Gao, Han, CCBR 2018, arXiv 1804.07573): the face network below EMENet.

`Backbone` is the trunk alone, at any working size that 16 divides; `MobileFaceNet` puts an expression
classifier, the 68-point face-alignment head, or both on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emotion import labels as vocab
from emotion import uncertainty
from emotion.hub.pretrained import Pretrained
from emotion.models.base import FaceInput, finite
from emotion.outputs import Task

FACE = FaceInput(size=(112, 112), square=True)
FEATURES = 512
STRIDE = 16  # of the whole trunk


@dataclass(frozen=True)
class Stage:
    """Depthwise-separable bottlenecks: `repeat` residual ones, or a single one without shortcut where `repeat` is 0."""

    out: int
    hidden: int
    stride: int = 1
    repeat: int = 0


STAGES = {
    "conv_23": Stage(64, 128, stride=2),
    "conv_3": Stage(64, 128, repeat=4),
    "conv_34": Stage(128, 256, stride=2),
    "conv_4": Stage(128, 256, repeat=6),
    "conv_45": Stage(128, 512, stride=2),
    "conv_5": Stage(128, 256, repeat=2),
}


@dataclass(frozen=True)
class MobileFaceNetConfig:
    """Everything that defines a MobileFaceNet with heads.

    Attributes:
        input: crop and normalisation; the size must be divisible by 16.
        labels: expressions in the order of the logits, or () without a classifier.
        landmarks: points that the alignment head predicts (68 in the published network), 0 without.
        dropout: on the features before the classifier, in training only.
    """

    input: FaceInput = FACE
    labels: tuple[str, ...] = vocab.FERPLUS
    landmarks: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_size(self.input.size)
        if not self.labels and not self.landmarks:
            raise ValueError("a MobileFaceNet needs expression labels, landmarks, or both")


def check_size(size: tuple[int, int]) -> None:
    """Raises ValueError for a working size that the trunk cannot halve four times."""
    if any(s < STRIDE or s % STRIDE for s in size):
        raise ValueError(f"MobileFaceNet needs a working size divisible by {STRIDE}, not {tuple(size)}")


def face_alignment() -> MobileFaceNetConfig:
    """The published 68-point alignment network, which EMENet starts from."""
    return MobileFaceNetConfig(labels=(), landmarks=68)


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm, and PReLU with one slope per channel where `active`."""

    def __init__(
        self,
        depth: int,
        out: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(depth, out, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.prelu = nn.PReLU(out) if active else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Expand (1x1), filter every channel (3x3 depthwise), project (1x1); optionally added to the input."""

    def __init__(self, depth: int, stage: Stage) -> None:
        super().__init__()
        self.conv = ConvBlock(depth, stage.hidden)
        self.conv_dw = ConvBlock(stage.hidden, stage.hidden, 3, stage.stride, 1, groups=stage.hidden)
        self.project = ConvBlock(stage.hidden, stage.out, active=False)
        self.residual = stage.repeat > 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


class Backbone(nn.Module):
    """The trunk: images [N, C, H, W] -> features [N, 512], unbounded (the last layer is a batch norm)."""

    def __init__(self, size: tuple[int, int] = (112, 112), depth: int = 3) -> None:
        super().__init__()
        check_size(size)
        self.conv1 = ConvBlock(depth, 64, 3, 2, 1)
        self.conv2_dw = ConvBlock(64, 64, 3, 1, 1, groups=64)
        width = 64
        for name, stage in STAGES.items():
            blocks = [Bottleneck(width if i == 0 else stage.out, stage) for i in range(stage.repeat or 1)]
            self.add_module(name, nn.Sequential(*blocks))
            width = stage.out
        self.conv_6_sep = ConvBlock(width, FEATURES)
        kernel = (size[0] // STRIDE, size[1] // STRIDE)
        self.conv_6_dw = ConvBlock(FEATURES, FEATURES, kernel, groups=FEATURES, active=False)

    def maps(self, x: Tensor) -> Tensor:
        """Activations before the global depthwise convolution, [N, 512, H/16, W/16]."""
        x = self.conv2_dw(self.conv1(x))
        for name in STAGES:
            x = getattr(self, name)(x)
        return self.conv_6_sep(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_6_dw(self.maps(x)).flatten(1)


class MobileFaceNet(Pretrained, nn.Module):
    """The network with its heads. Input [N, C, H, W] as `config.input` makes it."""

    Config = MobileFaceNetConfig

    def __init__(self, config: MobileFaceNetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.input.size, config.input.depth)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(FEATURES, len(config.labels)) if config.labels else None
        self.alignment = None
        if config.landmarks:
            outputs = 2 * config.landmarks
            self.alignment = nn.Sequential(nn.Linear(FEATURES, outputs, bias=False), nn.BatchNorm1d(outputs))
        for module in (self.classifier, self.alignment and self.alignment[0]):
            if module is not None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The vocabulary of every task this checkpoint has."""
        expression = {"expression": self.config.labels} if self.config.labels else {}
        return expression | ({"landmarks": landmark_names(self.config.landmarks)} if self.config.landmarks else {})

    @property
    def cam_layers(self) -> list[nn.Module]:
        """What `emotion.explain` looks at: the last feature maps."""
        return [self.backbone.conv_6_sep]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits "expression" [N, K] and "landmarks" [N, 2 * points], whichever heads there are."""
        features = self.backbone(x)
        out = {}
        if self.classifier is not None:
            out["expression"] = self.classifier(self.dropout(features))
        if self.alignment is not None:
            out["landmarks"] = self.alignment(features)
        return out

    def decode(self, logits: dict[str, Tensor]) -> dict[str, Task]:
        """Probabilities with their entropy, and landmarks as fractions of the crop's sides."""
        tasks, logits = {}, finite(logits)
        if "expression" in logits:
            values = logits["expression"].detach().double().softmax(-1).cpu().numpy()
            unsure = uncertainty.categorical(values[None])["total"]  # one network cannot tell the parts apart
            tasks["expression"] = Task("categorical", self.config.labels, values, uncertainty={"total": unsure})
        if "landmarks" in logits:
            values = logits["landmarks"].detach().float().cpu().numpy()
            tasks["landmarks"] = Task("continuous", landmark_names(self.config.landmarks), values)
        return tasks

    def example(self) -> Tensor:
        """A valid input [1, C, H, W], for self-checks and counting."""
        return torch.zeros(1, self.config.input.depth, *self.config.input.size)


def landmark_names(points: int) -> tuple[str, ...]:
    """x0, y0, x1, y1, ...: the columns of a landmark head with that many points."""
    return tuple(f"{axis}{i}" for i in range(points) for axis in "xy")
