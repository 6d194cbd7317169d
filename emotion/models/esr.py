"""ESR: ensembles with shared representations (Siqueira, Magg, Wermter, AAAI 2020, arXiv 2001.06338).

One convolutional base feeds N equal branches; each branch classifies the face (and may regress valence and
arousal from its own class scores); the ensemble's class is the plurality of the branches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion import labels as vocab
from emotion import uncertainty
from emotion.hub.pretrained import Pretrained
from emotion.models.base import FaceInput, finite
from emotion.outputs import Task


@dataclass(frozen=True)
class Block:
    """Convolution (with bias), batch norm, ReLU, and 2x2 max-pooling where `pool` is set."""

    out: int
    kernel: int = 3
    padding: int = 0
    pool: bool = False


@dataclass(frozen=True)
class ESRConfig:
    """Everything that defines an ESR.

    Attributes:
        input: crop and normalisation.
        base, branch: blocks of the shared trunk and of each branch.
        branches: number of branches.
        labels: expressions in the order of the logits.
        affect: whether every branch has a valence/arousal head on its class scores.
        batchnorm: "running" (deterministic) or "batch": branches normalise with the statistics of the current
            batch, as the original did by accident; results then depend on what else is in the batch.
        decision: "plurality" of the branches' classes (the original; lowest index wins a tie) or "mean" of their
            probabilities.
        dropout: on the pooled features of every branch, in training only.
        temperature: class scores are divided by it before the softmax (Guo et al. 2017, arXiv 1706.04599); fitted on
            validation, so that probabilities are as often right as they say.
    """

    input: FaceInput
    base: tuple[Block, ...]
    branch: tuple[Block, ...]
    branches: int
    labels: tuple[str, ...] = vocab.AFFECTNET
    affect: bool = False
    batchnorm: str = "running"
    decision: str = "plurality"
    dropout: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.batchnorm not in ("running", "batch"):
            raise ValueError(f"batchnorm must be 'running' or 'batch', not {self.batchnorm!r}")
        if self.decision not in ("plurality", "mean"):
            raise ValueError(f"decision must be 'plurality' or 'mean', not {self.decision!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if self.branches < 1 or not (self.base and self.branch and self.labels):
            raise ValueError("an ESR needs at least one branch, a block in base and branch, and labels")
        if min(b.out for b in (*self.base, *self.branch)) < 1 or min(b.kernel for b in (*self.base, *self.branch)) < 1:
            raise ValueError("blocks need positive widths and kernels")
        if min(self._sides()) < 1:
            raise ValueError(f"faces of {self.input.size} pixels vanish in these blocks")

    def _sides(self) -> list[int]:
        """Height and width of the last feature maps."""
        sides = list(self.input.size)
        for block in (*self.base, *self.branch):
            if not 0 <= block.padding <= block.kernel:
                raise ValueError(f"padding must lie in 0 to the kernel's {block.kernel}, not {block.padding}")
            sides = [(s + 2 * block.padding - block.kernel + 1) // (2 if block.pool else 1) for s in sides]
        return sides


def esr9(affect: bool = True, branches: int = 9) -> ESRConfig:
    """ESR-9 of the paper: 3x96x96 BGR, eight expressions in AffectNet's order."""
    return ESRConfig(
        input=FaceInput(size=(96, 96), channels="bgr", antialias=False),
        base=(Block(64, kernel=5), Block(128, pool=True), Block(128), Block(128, pool=True)),
        branch=(Block(128), Block(256, pool=True), Block(256), Block(512, padding=1)),
        branches=branches,
        affect=affect,
    )


def esr4(level: int = 3, branches: int = 4) -> ESRConfig:
    """ESR-4 of the paper: 1x96x96, expressions in CK+'s order; the first `level` of five blocks are shared."""
    blocks = (Block(32, kernel=5), Block(64, pool=True), Block(64, pool=True), Block(64, pool=True), Block(64))
    if not 1 <= level < len(blocks):
        raise ValueError(f"branching level must be 1 to 4, not {level}")
    return ESRConfig(
        input=FaceInput(size=(96, 96), channels="gray", antialias=False),
        base=blocks[:level],
        branch=blocks[level:],
        branches=branches,
        labels=vocab.CKPLUS,
    )


class ConvBlock(nn.Module):
    """One `Block`."""

    def __init__(self, depth: int, block: Block) -> None:
        super().__init__()
        self.conv = nn.Conv2d(depth, block.out, block.kernel, padding=block.padding)
        self.bn = nn.BatchNorm2d(block.out)
        self.pool = block.pool

    def forward(self, x: Tensor, batch_statistics: bool = False) -> Tensor:
        x = self.conv(x)
        if batch_statistics and not self.training:
            x = F.batch_norm(x, None, None, self.bn.weight, self.bn.bias, training=True, eps=self.bn.eps)
        else:
            x = self.bn(x)
        x = F.relu(x)
        return F.max_pool2d(x, 2) if self.pool else x


class Branch(nn.Module):
    """One member of the ensemble: blocks, global average pooling, class scores, optional affect head."""

    def __init__(self, depth: int, config: ESRConfig) -> None:
        super().__init__()
        outs = [depth, *(b.out for b in config.branch)]
        self.blocks = nn.ModuleList(ConvBlock(d, b) for d, b in zip(outs, config.branch))
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(outs[-1], len(config.labels))
        self.affect = nn.Linear(len(config.labels), 2) if config.affect else None

    def features(self, shared: Tensor, batch_statistics: bool = False) -> Tensor:
        """Activations of the last block, [N, C, h, w]: what Grad-CAM looks at."""
        for block in self.blocks:
            shared = block(shared, batch_statistics)
        return shared

    def head(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Class logits [N, K] and raw valence/arousal [N, 2] (None without an affect head)."""
        logits = self.fc(self.dropout(features.mean(dim=(2, 3))))
        return logits, None if self.affect is None else self.affect(F.relu(logits))


class ESR(Pretrained, nn.Module):
    """The network. Input [N, C, H, W] as `config.input` makes it."""

    Config = ESRConfig

    def __init__(self, config: ESRConfig) -> None:
        super().__init__()
        self.config = config
        depths = [config.input.depth, *(b.out for b in config.base)]
        self.base = nn.Sequential(*(ConvBlock(d, b) for d, b in zip(depths, config.base)))
        self.branches = nn.ModuleList(Branch(depths[-1], config) for _ in range(config.branches))

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The vocabulary of every task this checkpoint has."""
        affect = {"valence_arousal": vocab.VALENCE_AROUSAL} if self.config.affect else {}
        return {"expression": self.config.labels, **affect}

    def forward(self, x: Tensor, active: int | None = None, features: bool = False) -> dict[str, Tensor]:
        """Raw outputs of the first `active` branches (default: all).

        Returns:
            "expression": logits [B, N, K]; "valence_arousal": raw valence and arousal [B, N, 2] where the model
            has affect heads; "features": last activations [B, N, C, h, w] when asked for.
        """
        shared = self.base(x)
        batch_statistics = self.config.batchnorm == "batch"
        maps = [b.features(shared, batch_statistics) for b in self.branches[:active]]
        heads = [b.head(f) for b, f in zip(self.branches, maps)]
        out = {"expression": torch.stack([logits for logits, _ in heads])}
        if self.config.affect:
            out["valence_arousal"] = torch.stack([affect for _, affect in heads])
        if features:
            out["features"] = torch.stack(maps)
        return out

    def decode(self, logits: dict[str, Tensor]) -> dict[str, Task]:
        """Probabilities, votes, valence/arousal and uncertainty.

        `expression.values` is the mean of the branches' probabilities, `expression.votes` the share of branches per
        class, `expression.choice` follows `config.decision`. Valence and arousal are the mean over branches, limited
        to [-1, 1], which single branches may exceed; their uncertainty is the standard deviation over branches.
        """
        logits = finite(logits)
        members = (logits["expression"].detach().float() / self.config.temperature).softmax(-1).cpu().numpy()
        votes = vote_share(logits["expression"])
        values = members.mean(axis=0)
        tasks = {
            "expression": Task(
                kind="categorical",
                labels=self.config.labels,
                values=values,
                choice=(votes if self.config.decision == "plurality" else values).argmax(axis=1),
                votes=votes,
                members=members,
                uncertainty=uncertainty.categorical(members),
            )
        }
        if "valence_arousal" in logits:
            affect = logits["valence_arousal"].detach().float().cpu().numpy()
            tasks["valence_arousal"] = Task(
                kind="continuous",
                labels=vocab.VALENCE_AROUSAL,
                values=affect.mean(axis=0).clip(-1, 1),
                bounds=(-1.0, 1.0),
                members=affect,
                uncertainty={"epistemic": uncertainty.spread(affect)},
            )
        return tasks

    def example(self) -> Tensor:
        """A valid input [1, C, H, W], for self-checks and counting."""
        return torch.zeros(1, self.config.input.depth, *self.config.input.size, device=self.base[0].conv.weight.device)

    def with_batchnorm(self, batchnorm: str) -> ESR:
        """The same weights with the other reading of batch norm (see `ESRConfig`)."""
        self.config = replace(self.config, batchnorm=batchnorm)
        return self

    def saliency(self, features: Tensor, classes: Tensor) -> Tensor:
        """Grad-CAM of every branch, without a backward pass.

        Only global average pooling and a linear layer follow the last block, so the gradient of a class score with
        respect to a feature map is that class's weight (Selvaraju et al. 2017, section 3.1).

        Args:
            features: [B, N, C, h, w] from `forward(features=True)`.
            classes: int64 [B, N], the class to explain in each branch.

        Returns:
            [B, N, h, w] in [0, 1], min-max normalised per map; a map without any evidence is all zero.
        """
        weights = torch.stack([b.fc.weight for b in self.branches[: len(features)]])  # [B, K, C]
        chosen = weights.gather(1, classes.unsqueeze(-1).expand(-1, -1, weights.shape[-1]))  # [B, N, C]
        return normalise_maps(F.relu(torch.einsum("bnc,bnchw->bnhw", chosen, features)))


def normalise_maps(maps: Tensor) -> Tensor:
    """Every map [..., h, w] stretched to [0, 1]; constant maps become zero."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp_min(1e-12), torch.zeros_like(maps))


def vote_share(logits: Tensor) -> np.ndarray:
    """Share of branches whose strongest class it is: logits [B, N, K] -> float32 [N, K]."""
    return F.one_hot(logits.argmax(-1), logits.shape[-1]).float().mean(0).cpu().numpy()
