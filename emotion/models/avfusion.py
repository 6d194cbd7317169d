"""Audiovisual emotion recognition with self-attention fusion that tolerates a missing modality.

Chumachenko, Iosifidis, Gabbouj, ICPR 2022, arXiv 2201.11095. Sound (MFCC) and face crops of the same 3.6 s pass two
stages of temporal convolutions each; attention across the modalities joins them in one of three ways:
- "lt", late transformer: after the second stage, a transformer block per modality rewrites it from the other;
- "it", intermediate transformer: the same between the stages, added to what is there;
- "ia", intermediate attention: between the stages, each time step is weighted by the attention the other pays it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from emotion import labels as vocab
from emotion import uncertainty
from emotion.hub.pretrained import Pretrained
from emotion.models.base import ClipInput, FaceInput, VectorInput, finite
from emotion.models.efficientface import Backbone, check_size
from emotion.outputs import Task

FUSIONS = ("lt", "it", "ia")
WIDTH = 128  # channels of both modalities when they are classified
AUDIO_STAGES = ((64, 128), (256, WIDTH))  # output channels of the temporal blocks
SOUND_LOSS = 12  # columns that the four temporal blocks take off
VISUAL_STAGES = ((64, 64), (WIDTH, WIDTH))


@dataclass(frozen=True)
class AVFusionConfig:
    """Everything that defines a fusion model.

    Attributes:
        input: sound features, pictures (or measurements) and their timing.
        fusion: one of `FUSIONS`.
        heads: attention heads; no shape depends on it.
        labels: expressions in the order of the logits.
        missing: what stands for an absent modality, "zeros" or standard normal "noise": as in training.
        dropout: of whole channels in both stages and of the pooled features, in training only (the paper has none).
    """

    input: ClipInput
    fusion: str = "ia"
    heads: int = 1
    labels: tuple[str, ...] = vocab.RAVDESS
    missing: str = "zeros"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, not {self.fusion!r}")
        if self.heads < 1 or VISUAL_STAGES[0][1] % self.heads:
            raise ValueError(f"heads must divide {VISUAL_STAGES[0][1]}, not {self.heads}")
        if self.missing not in ("zeros", "noise"):
            raise ValueError(f"missing must be zeros or noise, not {self.missing!r}")
        if self.input.audio_shape[1] <= SOUND_LOSS:
            raise ValueError(f"sound needs more than {SOUND_LOSS} columns; take a shorter hop or a longer stretch")
        if isinstance(self.input.visual, FaceInput):
            check_size(self.input.visual.size)


class Clips(NamedTuple):
    """A batch of clips; a modality that nobody has is None.

    Attributes:
        audio: sound features [B, coefficients, columns].
        visual: pictures [B, T, C, H, W], or measurements [B, T, V]; with `seen` those of the clips that have any.
        seen: bool [B], which clips have pictures; None for all.
    """

    audio: Tensor | None
    visual: Tensor | None
    seen: Tensor | None = None


class CrossAttention(nn.Module):
    """Scaled dot-product attention from one sequence to another, without biases before the projection."""

    def __init__(self, keys: int, queries: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(queries, width, bias=False)
        self.kv = nn.Linear(keys, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, keys: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """What the queries [B, Tq, *] find in the keys [B, Tk, *], [B, Tq, width], and the weights [B, H, Tq, Tk]."""
        q = self._split(self.q(queries))
        k, v = (self._split(x) for x in self.kv(keys).chunk(2, dim=-1))
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2)), weights

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, width / H]


class CrossBlock(nn.Module):
    """Attention, then a residual MLP; the queries themselves are not added back after the attention."""

    def __init__(self, keys: int, queries: int, width: int, heads: int) -> None:
        super().__init__()
        self.norm_keys, self.norm_queries, self.norm = (nn.LayerNorm(n) for n in (keys, queries, width))
        self.attention = CrossAttention(keys, queries, width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, keys: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """As `CrossAttention`."""
        x, weights = self.attention(self.norm_keys(keys), self.norm_queries(queries))
        return x + self.mlp(self.norm(x)), weights


class RunningMax(nn.Module):
    """The larger of every two neighbours: [B, C, T] -> [B, C, T - 1]; several times faster than pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x[..., :-1], x[..., 1:])


def temporal_stage(depth: int, outs: tuple[int, ...], sound: bool, dropout: float) -> nn.Sequential:
    """Per output width: convolution over time [B, C, T], batch norm, ReLU, for sound a running maximum, and dropout of
    whole channels.

    Sound loses three time steps per block; pictures keep theirs.
    """
    layers: list[nn.Module] = []
    for inner, out in zip((depth, *outs), outs):
        layers += [nn.Conv1d(inner, out, 3, padding=0 if sound else 1), nn.BatchNorm1d(out), nn.ReLU()]
        layers += [RunningMax() if sound else nn.Identity(), nn.Dropout1d(dropout)]
    return nn.Sequential(*layers)


class Branch(nn.Module):
    """One modality: two temporal stages, and class scores from this modality alone.

    The fusion neither uses nor trains `head`; originals carry it, and it serves networks of one modality.
    """

    def __init__(self, depth: int, stages: tuple[tuple[int, ...], ...], config: AVFusionConfig, sound: bool) -> None:
        super().__init__()
        first, second = stages
        self.stage1 = temporal_stage(depth, first, sound, config.dropout)
        self.stage2 = temporal_stage(first[-1], second, sound, config.dropout)
        self.head = nn.Linear(WIDTH, len(config.labels))


class AVFusion(Pretrained, nn.Module):
    """The network. Input: `Clips` as `config.input` makes them."""

    Config = AVFusionConfig

    def __init__(self, config: AVFusionConfig) -> None:
        super().__init__()
        self.config = config
        vectors = isinstance(config.input.visual, VectorInput)
        self.backbone = None if vectors else Backbone(config.input.visual.depth)
        width = len(config.input.visual.names) if vectors else Backbone.width
        self.audio = Branch(config.input.audio.coefficients, AUDIO_STAGES, config, sound=True)
        self.visual = Branch(width, VISUAL_STAGES, config, sound=False)
        block = CrossAttention if config.fusion == "ia" else CrossBlock
        at = int(config.fusion == "lt")  # after which stage the modalities meet
        a, v = AUDIO_STAGES[at][-1], VISUAL_STAGES[at][-1]
        self.read_visual = block(keys=v, queries=a, width=a, heads=config.heads)  # audio asks, pictures answer
        self.read_audio = block(keys=a, queries=v, width=v, heads=config.heads)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(2 * WIDTH, len(config.labels))

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The vocabulary of its one task."""
        return {"expression": self.config.labels}

    @property
    def cam_layers(self) -> list[nn.Module]:
        """What `emotion.explain` looks at: the last feature maps of every picture."""
        return [] if self.backbone is None else [self.backbone.top]

    def forward(self, clips: Clips, attention: bool = False) -> dict[str, Tensor]:
        """Logits "expression" [B, K].

        With `attention` also "attention_audio" [B, Tv, Ta], what each frame reads from the sound, and
        "attention_visual" [B, Ta, Tv], what each sound step reads from the frames: means over heads, rows sum to 1.
        """
        audio, visual = self.features(clips)
        audio, visual = self.audio.stage1(audio), self.visual.stage1(visual)
        if self.config.fusion == "lt":
            audio, visual, weights = self._exchange(self.audio.stage2(audio), self.visual.stage2(visual))
        else:
            audio, visual, weights = self._exchange(audio, visual)
            audio, visual = self.audio.stage2(audio), self.visual.stage2(visual)
        pooled = torch.cat([audio.mean(-1), visual.mean(-1)], dim=1)
        out = {"expression": self.fc(self.dropout(pooled))}
        return out | dict(zip(("attention_audio", "attention_visual"), weights)) if attention else out

    def _exchange(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Both sequences [B, C, T] after the fusion, and the head-averaged weights (on audio, on visual)."""
        a, v = audio.transpose(1, 2), visual.transpose(1, 2)
        from_visual, on_visual = self.read_visual(keys=v, queries=a)
        from_audio, on_audio = self.read_audio(keys=a, queries=v)
        on_audio, on_visual = on_audio.mean(1), on_visual.mean(1)
        if self.config.fusion == "ia":  # the sum over queries is not normalised, as in the original
            audio, visual = audio * on_audio.sum(1, keepdim=True), visual * on_visual.sum(1, keepdim=True)
        else:
            new_audio, new_visual = from_visual.transpose(1, 2), from_audio.transpose(1, 2)
            late = self.config.fusion == "lt"
            audio, visual = (new_audio, new_visual) if late else (audio + new_audio, visual + new_visual)
        return audio, visual, (on_audio, on_visual)

    def features(self, clips: Clips) -> tuple[Tensor, Tensor]:
        """Sound [B, coefficients, columns] and visual features [B, C, T], absent modalities filled in.

        Raises:
            ValueError: both modalities are absent.
        """
        given = clips.audio if clips.visual is None else clips.visual
        if given is None:
            raise ValueError("a clip needs sound, pictures, or both")
        audio = self._absent(self.config.input.audio_shape, given) if clips.audio is None else clips.audio
        if clips.seen is not None:
            return audio, self._scattered(clips.visual, clips.seen)
        if clips.visual is not None:
            return audio, self._visual_features(clips.visual)
        frames, *shape = self.config.input.visual_shape
        if self.config.missing == "noise":
            return audio, self._visual_features(self._absent((frames, *shape), given))
        empty = self._visual_features(given.new_zeros(1, 1, *shape))  # all empty pictures look alike
        return audio, empty.expand(len(given), -1, frames)

    def _scattered(self, visual: Tensor, seen: Tensor) -> Tensor:
        """Visual features of all clips; those without pictures share the features of one that is all zero."""
        found = self._visual_features(torch.cat([visual, torch.zeros_like(visual[:1])]))
        place = torch.where(seen, seen.cumsum(0) - 1, len(visual))
        return found[place]

    def _visual_features(self, visual: Tensor) -> Tensor:
        if self.backbone is not None:
            visual = self.backbone(visual.flatten(0, 1)).unflatten(0, visual.shape[:2])
        return visual.transpose(1, 2)

    def _absent(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        if self.config.missing == "zeros":
            return like.new_zeros(len(like), *shape)
        noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))  # the same for every clip
        return noise.to(like).expand(len(like), *noise.shape[1:])

    def inputs(self, features: np.ndarray | None, visual: np.ndarray | None) -> Clips:
        """A batch from what was measured.

        Args:
            features: raw sound features [B, coefficients, columns], of `avfusion_audio.mfcc`.
            visual: face crops uint8 [B, T, H, W, 3], RGB, or measurements [B, T, V].
        """
        audio = None if features is None else self.config.input.audio.tensor(features)
        if visual is None or self.backbone is None:
            return Clips(audio, None if visual is None else self.config.input.visual.tensor(visual))
        crops = self.config.input.visual.tensor(visual.reshape(-1, *visual.shape[2:]))
        return Clips(audio, crops.unflatten(0, visual.shape[:2]))

    def decode(self, logits: dict[str, Tensor]) -> dict[str, Task]:
        """Softmax probabilities, with their normalised entropy as total uncertainty."""
        values = finite(logits)["expression"].detach().float().softmax(-1).cpu().numpy()
        doubt = {"total": uncertainty.categorical(values[None])["total"]}
        return {"expression": Task("categorical", self.config.labels, values, uncertainty=doubt)}

    def example(self) -> Clips:
        """A valid input of one clip, for self-checks and counting."""
        return Clips(*(torch.zeros(1, *s) for s in (self.config.input.audio_shape, self.config.input.visual_shape)))


# What a test can do to one modality x, given standard normal n of its shape.
DISTORTIONS = {
    "zeros": lambda x, n: torch.zeros_like(x),
    "noise": lambda x, n: n,
    "addnoise": lambda x, n: x + x.mean() + x.std() * n,
}
# What a test does to audio and to pictures; "absent" leaves it to the model (`AVFusionConfig.missing`).
CONDITIONS = {
    "both": ("", ""),
    "audio": ("", "absent"),
    "video": ("absent", ""),
    "noisy audio": ("addnoise", ""),
    "noisy video": ("", "addnoise"),
}


def distort(x: Tensor, distortion: str, noise: Tensor) -> Tensor:
    """A modality replaced or disturbed, for tests with incomplete data.

    Args:
        x: the modality of a batch.
        distortion: key of `DISTORTIONS`: "zeros", "noise" or "addnoise" (mean and standard deviation of the batch).
        noise: standard normal values of x's shape.

    Raises:
        ValueError: unknown distortion.
    """
    if distortion not in DISTORTIONS:
        raise ValueError(f"distortion must be one of {', '.join(DISTORTIONS)}, not {distortion!r}")
    return DISTORTIONS[distortion](x, noise)


def under(clips: Clips, condition: str, generator: torch.Generator) -> Clips:
    """A batch under one of `CONDITIONS`; noise is drawn from `generator` (on the CPU).

    Raises:
        ValueError: unknown condition.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"condition must be one of {', '.join(CONDITIONS)}, not {condition!r}")
    out: list[Tensor | None] = []
    for x, distortion in zip(clips[:2], CONDITIONS[condition]):
        if distortion == "absent" or x is None:
            out.append(None)
        else:
            out.append(distort(x, distortion, torch.randn(x.shape, generator=generator).to(x)) if distortion else x)
    return Clips(*out)
