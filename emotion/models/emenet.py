"""EMENet: multitask emotion recognition with uncertainty (Deng, Wu, Shi, ICCV 2021 workshops, arXiv 2108.04228).

A MobileFaceNet (and, in the VA variant, a MarbleNet on 0.63 s of sound around each frame) feeds one small recurrent
head per task. A checkpoint holds one network or a deep ensemble of them, so all logits carry the members in front:
[M, N, ...]. Members run one after another over the whole batch: stacked into one network by torch.vmap they give the
same and take 1.7 times as long for one face and twice as long for eight (`python -m tests.benchmark_members`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from emotion import labels as vocab
from emotion import uncertainty
from emotion.errors import UserError
from emotion.hub.pretrained import Pretrained
from emotion.merging import bin_moments
from emotion.models import marblenet, mobilefacenet
from emotion.models.base import FaceInput, finite
from emotion.models.emenet_heads import HEADS, RecurrentHead, TransformerHead, dropping
from emotion.models.mobilefacenet import landmark_names
from emotion.outputs import Task

WINDOW = 64  # frames per window, and lanes of the published reading of the recurrence
TIME_AXES = ("frames", "lanes", "clips")


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by before they become probabilities; action units share one value or have one each."""

    expression: float = 1.0
    action_units: tuple[float, ...] = (1.0,)
    valence: float = 1.0
    arousal: float = 1.0


@dataclass(frozen=True)
class EMENetConfig:
    """Everything that defines an EMENet.

    Attributes:
        input: crop and normalisation; the size must be divisible by 16.
        expressions, action_units: vocabularies, or () for a network without that task.
        bins: classes per axis of valence and arousal, spread evenly over [-1, 1] with both ends; 0 without the task.
        landmarks: points of the auxiliary landmark head, 0 without.
        sound: whether it also hears (the VA variant).
        voice: whether it has the auxiliary voice-activity head.
        members: networks in the ensemble.
        temporal: head type: "gru", "lstm", "rnn_tanh", "rnn_relu" or "transformer" (causal).
        hidden, layers, attention: width and depth of the heads, attention heads of the transformer.
        dropout: before the decoder of every head, in training only.
        time_axis: "frames": the heads follow a clip from frame to frame. "lanes": every frame of a window is a lane of
            its own with one step per window, so frame t continues frame t - 64; what the published weights expect.
            "clips": the recurrence runs from clip to clip of a batch, as the original trained; predictions then depend
            on the batch.
        audio_clock: "true" or "faithful": sound cut as in `emotion.media.windowing.sound_windows`.
        temperature: calibration, applied by `decode`.
    """

    input: FaceInput = mobilefacenet.FACE
    expressions: tuple[str, ...] = vocab.ABAW
    action_units: tuple[str, ...] = vocab.ABAW2_ACTION_UNITS
    bins: int = 20
    landmarks: int = 0
    sound: bool = False
    voice: bool = False
    members: int = 1
    temporal: str = "gru"
    hidden: int = 128
    layers: int = 1
    attention: int = 2
    dropout: float = 0.5
    time_axis: str = "frames"
    audio_clock: str = "true"
    temperature: Temperature = Temperature()

    def __post_init__(self) -> None:
        if self.temporal not in HEADS:
            raise ValueError(f"temporal must be one of {', '.join(HEADS)}, not {self.temporal!r}")
        if self.time_axis not in TIME_AXES:
            raise ValueError(f"time_axis must be one of {', '.join(TIME_AXES)}, not {self.time_axis!r}")
        if self.audio_clock not in ("true", "faithful"):
            raise ValueError(f"audio_clock must be 'true' or 'faithful', not {self.audio_clock!r}")
        heat = self.temperature
        if min(heat.expression, *heat.action_units, heat.valence, heat.arousal) <= 0:
            raise ValueError("temperatures must be above 0")
        if len(heat.action_units) not in (1, len(self.action_units)):
            raise ValueError(f"temperature.action_units needs one value or {len(self.action_units)}")
        if self.voice and not self.sound:
            raise ValueError("a voice-activity head needs sound")
        if self.members < 1 or not self.outputs:
            raise ValueError("an EMENet needs at least one member and one task")
        mobilefacenet.check_size(self.input.size)

    @property
    def outputs(self) -> dict[str, int]:
        """Number of logits per task, in the order of the heads."""
        sizes = {
            "expression": len(self.expressions),
            "action_units": len(self.action_units),
            "valence_arousal": 2 * self.bins,
            "landmarks": 2 * self.landmarks,
            "voice": len(marblenet.VOICE) * self.voice,
        }
        return {task: n for task, n in sizes.items() if n}

    @property
    def features(self) -> int:
        """Width of what the heads read."""
        return mobilefacenet.FEATURES + marblenet.FEATURES * self.sound


def make_head(config: EMENetConfig, outputs: int) -> nn.Module:
    """The head of one task."""
    shape = (config.features, config.hidden, outputs, config.layers, config.dropout)
    if config.temporal == "transformer":
        return TransformerHead(*shape, config.attention)
    return RecurrentHead(*shape, config.temporal, small=config.sound)


class Member(nn.Module):
    """One network: face trunk, sound trunk where it hears, one head per task."""

    def __init__(self, config: EMENetConfig) -> None:
        super().__init__()
        self.backbone = mobilefacenet.Backbone(config.input.size, config.input.depth)
        self.audio = marblenet.AudioBackbone() if config.sound else None
        self.heads = nn.ModuleDict({task: make_head(config, n) for task, n in config.outputs.items()})

    def forward(self, x: Tensor, sound: Tensor | None, samples: Tensor | None) -> Tensor:
        """Features [N, F] of single frames."""
        if self.audio is None:
            return self.backbone(x)
        return torch.cat([self.backbone(x), self.audio(sound, samples)], dim=1)


class EMENet(Pretrained, nn.Module):
    """One network or an ensemble. Faces [N, C, H, W], or clips of them [B, T, C, H, W]."""

    Config = EMENetConfig
    window = WINDOW  # frames that a video's reader gives to `step` together

    def __init__(self, config: EMENetConfig) -> None:
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(Member(config) for _ in range(config.members))
        self.passes, self.seed = 0, 0  # see `with_mc_dropout`

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The vocabulary of every task this checkpoint has."""
        vocabularies = {
            "expression": self.config.expressions,
            "action_units": self.config.action_units,
            "valence_arousal": vocab.VALENCE_AROUSAL,
            "landmarks": landmark_names(self.config.landmarks),
            "voice": marblenet.VOICE,
        }
        return {task: vocabularies[task] for task in self.config.outputs}

    @property
    def cam_layers(self) -> list[nn.Module]:
        """What `emotion.explain` looks at: every member's last feature maps."""
        return [member.backbone.conv_6_sep for member in self.members]

    def forward(
        self, x: Tensor, sound: Tensor | None = None, samples: Tensor | None = None, member: int | None = None
    ) -> dict[str, Tensor]:
        """Logits of all members for single faces, each on its own, or for the frames of clips.

        Args:
            x: [N, C, H, W] or [B, T, C, H, W].
            sound: the window around every frame, [N, 10080] or [B, T, 10080]; None is silence. Only models that hear.
            samples: how many samples of every window count, [N] or [B, T]; None: all.
            member: only this one (M = 1).

        Returns:
            "expression" [M, N, 7], "action_units" [M, N, 12], "valence_arousal" [M, N, 2, bins], "landmarks"
            [M, N, 136], "voice" [M, N, 2], as far as the checkpoint has them; for clips [M, B, T, ...].
        """
        if x.ndim == 5:
            lead = x.shape[:2]
            flat = [None if t is None else t.flatten(0, 1) for t in (x, sound, samples)]
            return self.read(self.embed(*flat, member).unflatten(1, lead), member=member)[0]
        features = self.embed(x, sound, samples, member)
        single = features.unsqueeze(1 if self.config.time_axis == "clips" else 2)  # one step each, never a sequence
        return {task: z.flatten(1, 2) for task, z in self.read(single, member=member)[0].items()}

    def _chosen(self, member: int | None) -> list[Member]:
        return [*self.members] if member is None else [self.members[member]]

    def embed(
        self, x: Tensor, sound: Tensor | None = None, samples: Tensor | None = None, member: int | None = None
    ) -> Tensor:
        """Every member's features of single frames [N, C, H, W]: [M, N, F]. Frames need this only once."""
        if self.config.sound and sound is None:
            sound = x.new_zeros(len(x), marblenet.SAMPLES)
        return torch.stack([network(x, sound, samples) for network in self._chosen(member)])

    def read(
        self, features: Tensor, state: Tensor | None = None, member: int | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The heads alone, along `config.time_axis`; with `with_mc_dropout` every member many times (see there).

        Args:
            features: [M, B, T, F], B clips of T frames.
            state: what the previous call with the clips' preceding frames returned; None: zeros.
            member: whose features they are, where only one's (M = 1).

        Returns:
            Logits as `forward` for clips, and the state [M, tasks, parts, L, hidden] of L lanes (B for "frames",
            B * T for "lanes", T for "clips").
        """
        logits, after = self._read(features, state, member)
        if self.passes and not self.training:
            with dropping(nn.ModuleList(m.heads for m in self.members), self.seed):
                draws = [self._read(features, state, member)[0] for _ in range(self.passes)]
            logits = {task: torch.cat([draw[task] for draw in draws]) for task in logits}
        return logits, after

    def _read(self, features: Tensor, state: Tensor | None, member: int | None) -> tuple[dict[str, Tensor], Tensor]:
        axis, clips = self.config.time_axis, features.shape[1:3]
        steps = {"frames": features.transpose(1, 2), "lanes": features.flatten(1, 2).unsqueeze(1), "clips": features}
        logits: dict[str, list[Tensor]] = {task: [] for task in self.config.outputs}
        after = []
        networks = self._chosen(member)
        for m, network in enumerate(networks):
            for i, (task, head) in enumerate(network.heads.items()):
                z, h = head(steps[axis][m], None if state is None else state[m, i])
                logits[task].append(z)
                after.append(h)
        undo = {"frames": lambda z: z.transpose(1, 2), "lanes": lambda z: z.squeeze(1).unflatten(1, clips)}
        out = {task: undo.get(axis, lambda z: z)(torch.stack(z)) for task, z in logits.items()}
        if "valence_arousal" in out:
            out["valence_arousal"] = out["valence_arousal"].unflatten(-1, (2, self.config.bins))
        return out, torch.stack(after).unflatten(0, (len(networks), -1))

    def sequence(self, features: Tensor, member: int | None = None) -> dict[str, Tensor]:
        """Logits [M, n, ...] of a whole clip from its features [M, n, F], in windows of 64 with the state handed on.

        With "lanes", the last, incomplete window is laid so that it ends with the clip, and its frames continue the
        lanes they then lie on (as the original, which predicted the overlap twice and kept the first).
        """
        state, parts = None, []
        for chunk in features.split(WINDOW, dim=1):
            if state is not None and self.config.time_axis != "frames":
                state = state[..., WINDOW - chunk.shape[1] :, :]
            logits, state = self.read(chunk.unsqueeze(1), state, member)
            parts.append({task: z.squeeze(1) for task, z in logits.items()})
        return {task: torch.cat([p[task] for p in parts], dim=1) for task in parts[0]}

    def step(
        self, x: Tensor, state: Tensor | None = None, sound: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The next 1 to 64 frames of a stream of one person.

        Args:
            x: [n, C, H, W], in order; sound: their windows, as in `forward`.
            state: what the last call returned, None at the start.

        Returns:
            Logits [M, n, ...] and the new state. With "lanes" the state holds the last 64 frames, oldest first, and
            frame t always continues frame t - 64.
        """
        features = self.embed(x, sound).unsqueeze(1)
        if self.config.time_axis == "frames":
            logits, state = self.read(features, state)
        else:
            if not 0 < len(x) <= WINDOW:
                raise ValueError(f"a step takes 1 to {WINDOW} frames, not {len(x)}")
            before = None if state is None else state[..., : len(x), :]
            logits, after = self.read(features, before)
            kept = after.new_zeros(*after.shape[:-2], WINDOW, after.shape[-1]) if state is None else state
            state = torch.cat([kept[..., len(x) :, :], after], dim=-2)
        return {task: z.squeeze(1) for task, z in logits.items()}, state

    def with_mc_dropout(self, passes: int = 10, seed: int = 0) -> EMENet:
        """Monte Carlo dropout (Gal & Ghahramani 2016): from now on the heads read every face `passes` times.

        Dropout before their decoders is on, so that the passes differ; everything that reads logits takes them for an
        ensemble of passes * M members, and one network alone gets an epistemic uncertainty. States of streams are those
        without dropout. The masks depend on the seed alone and are the same for all faces.

        Args:
            passes: draws; 0 switches it off.
            seed: of the masks.

        Raises:
            UserError: a number of passes that is none, or heads without dropout.
        """
        if passes < 0 or passes == 1:
            raise UserError(f"Monte Carlo dropout takes 2 or more passes (0: off), not {passes}")
        if passes and not self.config.dropout:
            raise UserError("this model was made without dropout; Monte Carlo dropout would repeat the same answer")
        self.passes, self.seed = passes, seed
        return self

    def decode(self, logits: dict[str, Tensor]) -> dict[str, Task]:
        """Mean probabilities of the members, decisions, values and uncertainty; frames of clips become rows.

        "total", "aleatoric" and "epistemic" are entropies as parts of the largest possible one, in [0, 1], for valence
        and arousal those of their distributions over bins; "deviation" there is the standard deviation of the mixed
        distribution, in the values' unit. One network alone gives no epistemic part.
        """
        p = probabilities(finite(logits), self.config.temperature)
        members = len(next(iter(p.values())))
        parts = ("total", "aleatoric", "epistemic") if members > 1 else ("total", "aleatoric")
        tasks = {}
        for task, values in p.items():
            names = self.labels[task]
            if task == "landmarks":
                tasks[task] = Task("continuous", names, values.mean(0), members=values)
            elif task == "action_units":
                unsure = uncertainty.binary(values)
                above = np.full(len(names), np.nextafter(np.float32(0.5), np.float32(1)))  # present above 0.5, not at
                tasks[task] = Task("multilabel", names, values.mean(0), thresholds=above, members=values)
            elif task == "valence_arousal":
                unsure = uncertainty.categorical(values)
                expected = bin_moments(values)[0]
                tasks[task] = Task("continuous", names, expected.mean(0), bounds=(-1.0, 1.0), members=expected)
                tasks[task].uncertainty["deviation"] = np.sqrt(bin_moments(values.mean(0))[1]).astype(np.float32)
            else:
                unsure = uncertainty.categorical(values)
                tasks[task] = Task("categorical", names, values.mean(0), members=values)
            if task != "landmarks":
                tasks[task].uncertainty.update({k: unsure[k] for k in parts})
        return tasks

    def example(self) -> Tensor:
        """A valid input [1, C, H, W], for self-checks and counting."""
        return torch.zeros(1, self.config.input.depth, *self.config.input.size)

    def with_time_axis(self, time_axis: str) -> EMENet:
        """The same weights with another reading of time (see `EMENetConfig`)."""
        self.config = replace(self.config, time_axis=time_axis)
        return self


def emenet_v(**changes: object) -> EMENetConfig:
    """The published network for faces alone, as its weights expect it."""
    return EMENetConfig(time_axis="lanes", **changes)


def emenet_va(**changes: object) -> EMENetConfig:
    """The published network for faces with sound, as its weights expect it."""
    return EMENetConfig(time_axis="lanes", sound=True, audio_clock="faithful", **changes)


def ensemble(models: list[EMENet]) -> EMENet:
    """One model whose members are all members of `models`.

    Raises:
        ValueError: the networks differ in more than their number of members.
    """
    first = replace(models[0].config, members=1)
    if any(replace(m.config, members=1) != first for m in models[1:]):
        raise ValueError("the members of an ensemble need equal configurations")
    members = [member for model in models for member in model.members]
    out = EMENet(replace(first, members=len(members)))
    out.members = nn.ModuleList(members)
    return out.train(models[0].training)


def probabilities(logits: dict[str, Tensor], temperature: Temperature = Temperature()) -> dict[str, np.ndarray]:
    """Members' probabilities in float64, rows flat: [M, N, K], valence/arousal [M, N, 2, bins]; landmarks as they are.

    Softmax for expression, voice and each of valence and arousal, the logistic function for action units.
    """
    out = {}
    for task, z in logits.items():
        tail = z.shape[-2:] if task == "valence_arousal" else z.shape[-1:]
        z = z.detach().double().reshape(len(z), -1, *tail)
        if task == "action_units":
            z = torch.sigmoid(z / z.new_tensor(temperature.action_units))
        elif task == "valence_arousal":
            z = (z / z.new_tensor([temperature.valence, temperature.arousal])[:, None]).softmax(-1)
        elif task != "landmarks":
            z = (z / (temperature.expression if task == "expression" else 1.0)).softmax(-1)
        out[task] = z.cpu().numpy()
    return out
