"""BENet: every person's emotions in a scene, bottom-up (ACIVS 2023).

One network reads the whole picture and gives, for all people at once, a heatmap of their centres, the sizes of their
boxes and one map per emotion; a person's emotions are the maps' values at his or her centre. Two further heads, used
in training, classify a crop of one person and the picture with everybody blacked out.

The backbone is an HRNet with attention in every residual block. `emotion.models.benet_decode` turns maps into people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from timm.models.hrnet import HighResolutionModule
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from emotion import labels as vocab
from emotion.hub.pretrained import Pretrained
from emotion.models import benet_decode as decode
from emotion.outputs import Faces, Task

HEADS = ("det", "bu", "pc", "bg", "fusion")  # the paper's names: detection, bottom-up, person-centric, background
SCALES = (0, 1)  # maps at a quarter and at half of the input's resolution

# What each published configuration trains ("ed": with HECO as extra data).
CONFIGURATIONS = {
    "bu": ("bu",),
    "bu_det": ("det", "bu"),
    "bu_det_pc": ("det", "bu", "pc"),
    "bu_det_pc_bg": ("det", "bu", "pc", "bg"),
    "bu_det_pc_bg_ed": ("det", "bu", "pc", "bg"),
}


@dataclass(frozen=True)
class BENetConfig:
    """Everything that defines a BENet.

    Attributes:
        input: resizing and normalisation of the picture.
        width: channels of the branch with the highest resolution; each further branch doubles them.
        stem: channels of the two first convolutions, at half and a quarter of the input's resolution.
        modules: HRNet modules in stages 2, 3 and 4.
        blocks: residual blocks per branch of a module, and before and after the upsampling of a map head.
        bottlenecks: residual blocks of stage 1.
        heads: the heads that exist, out of `HEADS`; only trained ones are worth having.
        labels: emotions, in the order of the maps.
        affect: continuous values (out of `labels.VAD`), maps of their own after the emotions.
        extra: emotions of a second training set, read from the first ones' logits by one linear layer per head.
        thresholds: from which probability on an emotion counts as present; one per emotion, or one for all.
        person_threshold: heatmap value above which a peak is a person.
        overlap: a box that overlaps a stronger one by more than this share of both (IoU) is the same person again; 1:
            none is, as in the original, which lets peaks alone tell people apart.
    """

    input: decode.SceneInput = field(default_factory=decode.SceneInput)
    width: int = 32
    stem: int = 64
    modules: tuple[int, int, int] = (2, 2, 2)
    blocks: int = 3
    bottlenecks: int = 4
    heads: tuple[str, ...] = HEADS
    labels: tuple[str, ...] = vocab.EMOTIC
    affect: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = (0.5,)
    person_threshold: float = decode.DEFAULT.threshold
    overlap: float = 1.0

    def __post_init__(self) -> None:
        if "bu" not in self.heads or not set(self.heads) <= set(HEADS):
            raise ValueError(f"heads must hold 'bu' and otherwise only {', '.join(HEADS)}, not {self.heads}")
        if "fusion" in self.heads and not {"pc", "bg"} <= set(self.heads):
            raise ValueError("the fusion head needs the heads pc and bg")
        if len(self.thresholds) not in (1, len(self.labels)):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.labels)} emotions")
        if not 0 < self.overlap <= 1:
            raise ValueError(f"overlap must be above 0 and at most 1, not {self.overlap:g}")

    @property
    def outputs(self) -> int:
        """Number of emotion maps, continuous ones included."""
        return len(self.labels) + len(self.affect)


def benet(configuration: str = "bu_det_pc_bg") -> BENetConfig:
    """A published configuration (key of `CONFIGURATIONS`): EMOTIC's 26 emotions, 512 pixels."""
    if configuration not in CONFIGURATIONS:
        raise ValueError(f"unknown configuration {configuration!r}; known: {', '.join(CONFIGURATIONS)}")
    extra = vocab.HECO if configuration.endswith("_ed") else ()
    return BENetConfig(heads=CONFIGURATIONS[configuration], extra=extra)


def benet_small(labels: tuple[str, ...] = vocab.EMOTIC, affect: tuple[str, ...] = ()) -> BENetConfig:
    """The same design for a processor: 24 channels, single blocks, detection and emotions only, 320 pixels."""
    return BENetConfig(
        input=decode.SceneInput(size=320),
        width=24,
        stem=32,
        modules=(1, 3, 2),
        blocks=1,
        bottlenecks=2,
        heads=("det", "bu"),
        labels=labels,
        affect=affect,
        overlap=0.5,
    )


class Attention(nn.Module):
    """Channel gate, then spatial gate, both from maximum and mean (CBAM with a 1x1 kernel, Woo et al. 2018)."""

    def __init__(self, channels: int, **factory: object) -> None:
        super().__init__()
        hidden = channels // 2
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden, **factory), nn.ReLU(), nn.Linear(hidden, channels, **factory)
        )
        self.conv2d = nn.Conv2d(2, 1, 1, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        gate = (self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))).sigmoid()
        x = x * gate[:, :, None, None]
        strongest_and_mean = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * self.conv2d(strongest_and_mean).sigmoid()


class AttentiveBlock(BasicBlock):
    """ResNet's basic block with `Attention` after its last batch norm."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, attn_layer=Attention, **kwargs)


class HeadBlock(Bottleneck):
    """A bottleneck that does not narrow: as many channels inside as outside."""

    expansion = 1


def conv_bn_relu(depth: int, out: int, stride: int = 1, bias: bool = False) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(depth, out, 3, stride, 1, bias=bias), nn.BatchNorm2d(out), nn.ReLU())


class Backbone(nn.Module):
    """HRNet with up to four resolutions; [N, 3, H, W] -> [N, width * 2^b, H/4/2^b, W/4/2^b] for b = 0...3."""

    def __init__(self, config: BENetConfig) -> None:
        super().__init__()
        stem, wide = config.stem, 4 * config.stem
        widths = [config.width * 2**b for b in range(4)]
        self.conv1 = nn.Conv2d(3, stem, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        widen = nn.Sequential(nn.Conv2d(stem, wide, 1, bias=False), nn.BatchNorm2d(wide))
        self.layer1 = nn.Sequential(
            Bottleneck(stem, stem, downsample=widen, attn_layer=Attention),
            *(Bottleneck(wide, stem, attn_layer=Attention) for _ in range(config.bottlenecks - 1)),
        )
        self.transition1 = nn.ModuleList([conv_bn_relu(wide, widths[0]), conv_bn_relu(wide, widths[1], stride=2)])
        self.transition2 = conv_bn_relu(widths[1], widths[2], stride=2)
        self.transition3 = conv_bn_relu(widths[2], widths[3], stride=2)
        self.stage2, self.stage3, self.stage4 = (
            nn.ModuleList(self._module(widths[:branches], config.blocks) for _ in range(count))
            for branches, count in zip((2, 3, 4), config.modules)
        )

    @staticmethod
    def _module(widths: list[int], blocks: int) -> HighResolutionModule:
        n = len(widths)
        return HighResolutionModule(n, AttentiveBlock, (blocks,) * n, list(widths), tuple(widths), "SUM")

    def forward(self, x: Tensor) -> list[Tensor]:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer1(torch.relu(self.bn2(self.conv2(x))))
        y = [transition(x) for transition in self.transition1]
        for module in self.stage2:
            y = module(y)
        y.append(self.transition2(y[-1]))
        for module in self.stage3:
            y = module(y)
        y.append(self.transition3(y[-1]))
        for module in self.stage4:
            y = module(y)
        return y


class MapHead(nn.Module):
    """`outputs` maps at both scales from the branch with the highest resolution."""

    def __init__(self, width: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.low = nn.Sequential(*self._layers(width, outputs, blocks))
        self.up = nn.Sequential(
            nn.ConvTranspose2d(width + outputs, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.high = nn.Sequential(*self._layers(width, outputs, blocks))

    @staticmethod
    def _layers(width: int, outputs: int, blocks: int) -> list[nn.Module]:
        middle = (width + outputs) // 2
        tail = [
            nn.Conv2d(width, middle, 3, padding=1),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, outputs, 1),
        ]
        return [*(AttentiveBlock(width, width) for _ in range(blocks)), nn.Sequential(*tail)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low(x)
        return low, self.high(self.up(torch.cat([x, low], dim=1)))


class VectorHead(nn.Module):
    """One vector of `outputs` logits per picture from all four branches."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        widths = [width * 2**b for b in range(4)]
        self.increase = nn.ModuleList(HeadBlock(w, w, attn_layer=Attention) for w in widths)
        self.reduce = nn.ModuleList(conv_bn_relu(a, b, stride=2, bias=True) for a, b in pairwise(widths))
        self.final = nn.Sequential(nn.Conv2d(widths[3], widths[2], 1), nn.BatchNorm2d(widths[2]), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(widths[2], widths[1]), nn.ReLU(), nn.Linear(widths[1], outputs))

    def forward(self, branches: list[Tensor]) -> Tensor:
        z = self.increase[0](branches[0])
        for increase, reduce, y in zip(self.increase[1:], self.reduce, branches[1:]):
            z = increase(y) + reduce(z)
        return self.classifier(self.final(z).mean((2, 3)))


class BENet(Pretrained, nn.Module):
    """The network. Input [N, 3, H, W] as `config.input` makes it; H and W are multiples of 32."""

    Config = BENetConfig

    def __init__(self, config: BENetConfig) -> None:
        super().__init__()
        self.config = config
        n = config.outputs
        self.backbone = Backbone(config)
        self.bu = MapHead(config.width, n, config.blocks)
        if "det" in config.heads:
            self.heatmap = MapHead(config.width, 1, config.blocks)
            self.size = MapHead(config.width, 2, config.blocks)  # height, then width
        if "pc" in config.heads:
            self.pc = VectorHead(config.width, n)
        if "bg" in config.heads:
            self.bg = VectorHead(config.width, n)
        if "fusion" in config.heads:
            self.fusion = nn.Sequential(nn.Linear(3 * n, 3 * n // 2), nn.ReLU(), nn.Linear(3 * n // 2, n))
        if config.extra:
            self.extra = nn.ModuleDict(self._extra_layers())

    def _extra_layers(self) -> dict[str, nn.Module]:
        n, k = len(self.config.labels), len(self.config.extra)
        vectors = {head: nn.Linear(n, k) for head in ("pc", "bg", "fusion") if head in self.config.heads}
        return {"bu0": nn.Conv2d(n, k, 1), "bu1": nn.Conv2d(n, k, 1), **vectors}

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The vocabulary of every task this checkpoint has."""
        return {"emotions": self.config.labels, **({"vad": self.config.affect} if self.config.affect else {})}

    def forward(self, x: Tensor, routes: dict[str, Sequence[int]] | None = None) -> dict[str, Tensor]:
        """Raw outputs.

        Args:
            x: [N, 3, H, W].
            routes: head (det, bu, pc, bg) -> the images it sees; by default all images go through det and bu.

        Returns:
            "heatmap0", "heatmap1" [., 1, h, w] centre logits at a quarter and half of the input's resolution,
            "size0", "size1" [., 2, h, w] height and width in pixels of their own map, "bu0", "bu1" [., K, h, w]
            emotion logits, "pc" and "bg" [., K] logits; rows in the order of each head's images. Heads without
            images are absent.
        """
        if routes is None:
            routes = {head: range(len(x)) for head in ("det", "bu") if head in self.config.heads}
        branches = self.backbone(x)
        out: dict[str, Tensor] = {}
        for head, images in routes.items():
            if not len(images):
                continue
            seen = branches if len(images) == len(x) else [y[list(images)] for y in branches]
            if head in ("pc", "bg"):
                out[head] = getattr(self, head)(seen)
                continue
            for name in ("heatmap", "size") if head == "det" else ("bu",):
                out[f"{name}0"], out[f"{name}1"] = getattr(self, name)(seen[0])
        return out

    def fuse(self, bu: Tensor, pc: Tensor, bg: Tensor) -> Tensor:
        """Logits of the fusion head from raw logits [N, K] of the people's centres (mean over people and scales),
        of the person's crop and of the background."""
        return self.fusion(torch.cat([bu, pc, bg], dim=1))

    def decode(
        self,
        logits: dict[str, Tensor],
        frames: Sequence[decode.Frame],
        mirrored: dict[str, Tensor] | None = None,
        options: decode.Decoding = decode.DEFAULT,
    ) -> list[tuple[Faces, dict[str, Task]]]:
        """The people of every picture, with their emotions; see `benet_decode.people`.

        Args:
            logits: from `forward`, pictures of equal size.
            frames: how each picture was brought to the network's size.
            mirrored: outputs for the mirrored pictures, averaged with the others.
            options: thresholds, number of people and mode.
        """
        return decode.people(decode.merge(logits, mirrored), frames, self.config, options)

    def example(self) -> Tensor:
        """A valid input [1, 3, H, W], for self-checks and counting."""
        return torch.zeros(1, 3, self.config.input.size, self.config.input.size)
