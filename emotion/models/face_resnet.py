"""Backbones: the ResNet-50 face networks in the manner of Caffe, fine-tuned on FER+ or SFEW, and any timm network.

The two face networks come from the MatConvNet model zoo (Albanie and Vedaldi 2016; Cao et al., FG 2018).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# 8-bit RGB levels subtracted by each pretrained face network; nothing is divided.
MEANS = {
    "ferplus": (131.0912, 103.8827, 91.4953),
    "sfew": (131.88330078125, 105.51170349121094, 92.56940460205078),
}


class Bottleneck(nn.Module):
    """1x1 reduce (it carries the stride, unlike torchvision's), 3x3, 1x1 expand; the first of a stage projects."""

    def __init__(self, depth: int, width: int, stride: int, project: bool, eps: float, dropout: float) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(depth, width, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out, eps)
        self.project = (
            nn.Sequential(nn.Conv2d(depth, out, 1, stride, bias=False), nn.BatchNorm2d(out, eps)) if project else None
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.dropout(self.conv2(y))))
        y = self.bn3(self.dropout(self.conv3(y)))
        return F.relu(y + (x if self.project is None else self.project(x)))


class FaceResNet50(nn.Module):
    """ResNet-50 as trained on VGGFace2 with Caffe; "ferplus" and "sfew" differ in bias, pooling and epsilon."""

    width = 2048

    def __init__(self, variant: str, dropout: float) -> None:
        super().__init__()
        sfew = variant == "sfew"
        eps = 1e-4 if sfew else 1e-5
        self.conv = nn.Conv2d(3, 64, 7, 2, padding=3, bias=sfew)
        self.bn = nn.BatchNorm2d(64, eps)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if sfew else nn.MaxPool2d(3, 2, ceil_mode=True)
        self.stages = nn.ModuleList()
        depth = 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            width, layers = 64 << stage, []
            for i in range(blocks):
                last = stage == 3 and i == blocks - 1
                stride = 2 if stage and not i else 1
                layers.append(Bottleneck(depth, width, stride, not i, eps, dropout if last else 0.0))
                depth = 4 * width
            self.stages.append(nn.Sequential(*layers))

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps after the pooling and each of the four stages, at 1/4, 1/4, 1/8, 1/16 and 1/32 of the size."""
        out = [self.pool(F.relu(self.bn(self.conv(x))))]
        for stage in self.stages:
            out.append(stage(out[-1]))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features [N, 2048]."""
        return self.maps(x)[-1].mean((2, 3))


class TimmBackbone(nn.Module):
    """Any timm network as a feature extractor."""

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm  # slow to import, and most checkpoints do without

        if not timm.is_model(name):
            raise ValueError(f"backbone {name!r} is neither ferplus, sfew nor a timm network")
        self.net = timm.create_model(name, pretrained=False, num_classes=0)
        # what `forward_head` gives has the width of the head's hidden layer where there is one
        self.width = getattr(self.net, "head_hidden_size", None) or self.net.num_features

    def maps(self, x: Tensor) -> list[Tensor]:
        """The last feature map."""
        return [self.net.forward_features(x)]

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features [N, width]."""
        return self.net.forward_head(self.maps(x)[-1], pre_logits=True)
