"""FG-2020: multitask emotion recognition with incomplete labels (Deng, Chen, Shi, FG 2020, arXiv 2002.03557).

One face network, three heads: seven expressions, eight action units, valence and arousal as a distribution over bins
each. A bidirectional GRU per head reads windows of frames (Multitask-CNN-RNN). A teacher is trained where every image
has the labels of one task; five students learn from it; the students are averaged. A checkpoint holds one network or
such an ensemble, so all logits carry the members in front: [M, N, ...].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion import labels as vocab
from emotion import merging, uncertainty
from emotion.hub.pretrained import Pretrained
from emotion.models.base import FaceInput, finite
from emotion.models.face_resnet import MEANS, FaceResNet50, TimmBackbone
from emotion.outputs import Task

TASKS = ("expression", "action_units", "valence_arousal")  # the order inside the network
STUDENTS = tuple(f"student_{i}" for i in range(5))

# Decision thresholds of the five students' mean probabilities, tuned by the authors on Aff-Wild2's validation set;
# the key is the number of frames per window (0: single images).
THRESHOLDS = {
    0: (0.1448537, 0.03918985, 0.13766725, 0.02652811, 0.40589422, 0.15572545, 0.04808964, 0.10848708),
    32: (0.4253935, 0.02641966, 0.1119782, 0.02978198, 0.17256933, 0.06369855, 0.07433069, 0.13828614),
    16: (0.30485213, 0.09509478, 0.59577084, 0.4417419, 0.4396544, 0.0452404, 0.05204154, 0.0633798),
    8: (0.4365209, 0.10177602, 0.2649502, 0.22586018, 0.3772219, 0.07532539, 0.07667687, 0.04306327),
}

MOST_FRAMES = 1024  # of a window

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class FG2020Config:
    """Everything that defines a Multitask-CNN, a Multitask-CNN-RNN, or an ensemble of them.

    Attributes:
        input: crop and normalisation.
        backbone: "ferplus" or "sfew" (the two ResNet-50 face networks), or the name of any timm network
            ("resnext50_32x4d" is the authors' ImageNet option).
        members: name of every network in the checkpoint, ("teacher",) or the students.
        frames: frames per window of the CNN-RNN; 0 for single images.
        shared_cnn: whether all members read the features of one CNN (students of a CNN-RNN trained with frozen CNN).
        tasks: heads, in the network's order.
        expressions, action_units: the vocabularies.
        embedding: width of a head's embedding; the GRU has half of it per direction.
        bins: classes per axis of valence and arousal.
        thresholds: per action unit; present when the score lies above.
        merge: how members become one answer, see `emotion.merging`.
        dropout: inside the last block of "ferplus" and "sfew", in training only.
    """

    input: FaceInput
    backbone: str = "ferplus"
    members: tuple[str, ...] = ("teacher",)
    frames: int = 0
    shared_cnn: bool = False
    tasks: tuple[str, ...] = TASKS
    expressions: tuple[str, ...] = vocab.ABAW
    action_units: tuple[str, ...] = vocab.ABAW1_ACTION_UNITS
    embedding: int = 128
    bins: int = 20
    thresholds: tuple[float, ...] = (0.5,) * 8
    merge: str = "predictor"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.merge not in merging.RULES:
            raise ValueError(f"merge must be one of {', '.join(merging.RULES)}, not {self.merge!r}")
        if not self.tasks or tuple(t for t in TASKS if t in self.tasks) != self.tasks:
            raise ValueError(f"tasks must be some of {', '.join(TASKS)}, in this order, not {self.tasks}")
        if len(self.thresholds) != len(self.action_units):
            raise ValueError(f"{len(self.action_units)} action units need as many thresholds")
        if not self.members or not 0 <= self.frames <= MOST_FRAMES or (self.shared_cnn and not self.frames):
            raise ValueError(f"an ensemble needs members, 0 to {MOST_FRAMES} frames, and a shared CNN only with frames")

    @property
    def outputs(self) -> dict[str, int]:
        """Number of logits per task."""
        sizes = (len(self.expressions), len(self.action_units), 2 * self.bins)
        return {t: n for t, n in zip(TASKS, sizes) if t in self.tasks}


def fg2020(
    backbone: str = "ferplus", members: tuple[str, ...] = ("teacher",), frames: int = 0, size: int = 112
) -> FG2020Config:
    """The published settings.

    Args:
        backbone: "ferplus", "sfew" or a timm network (then with ImageNet's normalisation).
        members: ("teacher",), one student, or `STUDENTS`.
        frames: 0 for the CNN; 32, 16 or 8 for the CNN-RNN.
        size: 112 (all released weights) or 224.
    """
    scaling = {"scale": 1.0, "mean": MEANS[backbone]} if backbone in MEANS else dict(zip(("mean", "std"), IMAGENET))
    ensemble = len(members) > 1
    return FG2020Config(
        input=FaceInput(size=(size, size), zoom=1.2, template="five_point", **scaling),
        backbone=backbone,
        members=members,
        frames=frames,
        thresholds=tuned(frames) if ensemble else (0.5,) * 8,
        dropout=0.5 if backbone == "ferplus" else 0.0,
    )


def tuned(frames: int) -> tuple[float, ...]:
    """The authors' thresholds for students of this window length; those of 32 frames where there are none."""
    return THRESHOLDS.get(frames, THRESHOLDS[32])


class Head(nn.Module):
    """Batch norm, linear, ReLU, batch norm: a task's embedding; without GRU also the logits from it."""

    def __init__(self, width: int, embedding: int, outputs: int | None) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm1d(width)
        self.fc0 = nn.Linear(width, embedding)
        self.bn1 = nn.BatchNorm1d(embedding)
        self.fc1 = None if outputs is None else nn.Linear(embedding, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """Embedding [N, E] of pooled features [N, width]."""
        return self.bn1(F.relu(self.fc0(self.bn0(pooled))))


class TemporalHead(nn.Module):
    """Bidirectional GRU over a window of embeddings, and the logits of every frame."""

    def __init__(self, embedding: int, outputs: int) -> None:
        super().__init__()
        self.gru = nn.GRU(embedding, embedding // 2, batch_first=True, bidirectional=True)
        self.fc1 = nn.Linear(embedding // 2 * 2, outputs)

    def hidden(self, embeddings: Tensor) -> Tensor:
        """Rectified states of both directions, [B, T, E] -> [B, T, E]."""
        return F.relu(self.gru(embeddings)[0])

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits [B, T, outputs]."""
        return self.fc1(self.hidden(embeddings))


class CNN(nn.Module):
    """Backbone and one head per task."""

    def __init__(self, config: FG2020Config) -> None:
        super().__init__()
        face = config.backbone in MEANS
        self.backbone = (
            FaceResNet50(config.backbone, config.dropout) if face else TimmBackbone(config.backbone)
        )  # fmt: skip
        outputs = {t: None if config.frames else n for t, n in config.outputs.items()}
        self.heads = nn.ModuleDict({t: Head(self.backbone.width, config.embedding, n) for t, n in outputs.items()})

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of all tasks, [N, tasks, E]."""
        pooled = self.backbone(x)
        return torch.stack([head(pooled) for head in self.heads.values()], dim=1)


class FG2020(Pretrained, nn.Module):
    """One network or an ensemble: images [N, 3, S, S], or windows of frames [B, T, 3, S, S]."""

    Config = FG2020Config

    def __init__(self, config: FG2020Config) -> None:
        super().__init__()
        self.config = config
        members = len(config.members)
        self.cnns = nn.ModuleList(CNN(config) for _ in range(1 if config.shared_cnn else members))
        self.temporal = nn.ModuleList(
            nn.ModuleDict({t: TemporalHead(config.embedding, n) for t, n in config.outputs.items()})
            for _ in range(members if config.frames else 0)
        )

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The vocabulary of every task this checkpoint has."""
        all_labels = (self.config.expressions, self.config.action_units, vocab.VALENCE_AROUSAL)
        return {t: names for t, names in zip(TASKS, all_labels) if t in self.config.tasks}

    @property
    def window(self) -> int:
        """Frames that a video's reader gives to `step` together; 0: frames are read one by one."""
        return self.config.frames

    @property
    def cam_layers(self) -> list[nn.Module]:
        """What `emotion.explain` looks at: the last feature maps of every CNN."""
        return [cnn.backbone.stages[-1] for cnn in self.cnns] if self.config.backbone in MEANS else []

    def forward(self, x: Tensor, member: int | None = None) -> dict[str, Tensor]:
        """Logits of all members, or of one, for images (first shapes) or windows (second shapes).

        A CNN-RNN sees single images as windows in which nothing moves.

        Returns:
            "expression": [M, N, 7] or [M, B, T, 7]; "action_units": the same with 8;
            "valence_arousal": [M, N, 2, bins] or [M, B, T, 2, bins].
        """
        if x.ndim == 5:
            return self.read(self.embed(x.flatten(0, 1), member).unflatten(1, x.shape[:2]), member)
        embeddings = self.embed(x, member)
        if not self.config.frames:
            return self.read(embeddings, member)
        still = embeddings[:, :, None].expand(-1, -1, self.config.frames, -1, -1)
        return {task: z[:, :, 0] for task, z in self.read(still, member).items()}

    def embed(self, x: Tensor, member: int | None = None) -> Tensor:
        """Embeddings of single faces [N, 3, S, S] by every CNN, or a member's: [CNNs, N, tasks, E]."""
        return torch.stack([cnn(x) for cnn in self._chosen(self.cnns, member)])

    def read(self, embeddings: Tensor, member: int | None = None) -> dict[str, Tensor]:
        """Logits from what `embed` gives, or from windows of it [CNNs, B, T, tasks, E]."""
        cnns, temporal = self._chosen(self.cnns, member), self._chosen(self.temporal, member)
        logits = {}
        for i, task in enumerate(self.config.tasks):
            inputs = embeddings[..., i, :]
            if temporal:
                inputs, heads = inputs.expand(len(temporal), -1, -1, -1), [m[task] for m in temporal]
            else:
                heads = [cnn.heads[task].fc1 for cnn in cnns]
            logits[task] = torch.stack([head(e) for head, e in zip(heads, inputs)])
        if "valence_arousal" in logits:
            logits["valence_arousal"] = logits["valence_arousal"].unflatten(-1, (2, self.config.bins))
        return logits

    def _chosen(self, modules: nn.ModuleList, member: int | None) -> list[nn.Module]:
        alone = member is None or not len(modules) or (modules is self.cnns and self.config.shared_cnn)
        return list(modules) if alone else [modules[member]]

    def sequence(self, embeddings: Tensor, member: int | None = None) -> dict[str, Tensor]:
        """Logits [M, n, ...] of a clip of any length from its embeddings [CNNs, n, tasks, E].

        The CNN-RNN reads windows (see `windows`); a frame that lies in two keeps its first prediction.
        """
        if not self.config.frames:
            return self.read(embeddings, member)
        chosen = windows(embeddings.shape[1], self.config.frames)
        first = torch.as_tensor(first_predictions(chosen), device=embeddings.device)
        logits = self.read(embeddings[:, torch.as_tensor(chosen, device=embeddings.device)], member)
        return {task: z.flatten(1, 2)[:, first] for task, z in logits.items()}

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """The next frames of a stream.

        Args:
            x: n new face images [n, 3, S, S] of one person, in order.
            state: what the last call returned, None at the start: embeddings of the frames still in reach,
                [CNNs, at most frames - 1, tasks, E].

        Returns:
            Logits [M, n, ...] of the new frames, read in a window that ends with them, and the new state. Steps of
            `window` frames, the last one shorter, give what `sequence` gives for the whole clip.
        """
        seen = self.embed(x)
        if state is not None:
            fitting = min(state.shape[1], max(self.config.frames - len(x), 0))
            seen = torch.cat([state[:, state.shape[1] - fitting :], seen], dim=1)
        logits = {task: z[:, seen.shape[1] - len(x) :] for task, z in self.sequence(seen).items()}
        return logits, seen[:, max(0, seen.shape[1] - max(self.config.frames - 1, 0)) :]

    def decode(self, logits: dict[str, Tensor], merge: str | None = None) -> dict[str, Task]:
        """Probabilities, decisions and values of the merged members, with uncertainty; windows become rows.

        Expression and action units carry total, aleatoric and epistemic uncertainty, valence and arousal the
        standard deviation of the mixture of the members' distributions and its two parts. Parts are given for
        several members only: one network cannot tell them apart.

        Args:
            logits: as `forward` gives them.
            merge: name of a rule of `emotion.merging`; default `config.merge`.
        """
        rule = merge or self.config.merge
        arrays = member_rows(finite(logits))
        merged = merging.merge(arrays, rule)
        units, thresholds = self.config.action_units, np.array(self._thresholds(rule), np.float32)
        tasks = {}
        for task, z in arrays.items():
            parts = ("total", "aleatoric", "epistemic") if len(z) > 1 else ("total",)
            if task == "expression":
                p = merging.softmax(z)
                unsure = uncertainty.categorical(p)
                out = Task("categorical", self.config.expressions, merged[task], members=p)
            elif task == "action_units":
                p = merging.sigmoid(z)
                unsure = uncertainty.binary(p)
                above = np.nextafter(thresholds, np.float32(np.inf))  # a Task's ">=" then means the authors' ">"
                out = Task("multilabel", units, merged[task], thresholds=above, members=p)
            else:
                means, variances = merging.bin_moments(merging.softmax(z))
                unsure = uncertainty.mixture(means, variances)
                out = Task("continuous", vocab.VALENCE_AROUSAL, merged[task], bounds=(-1.0, 1.0), members=means)
            tasks[task] = replace(out, uncertainty={k: unsure[k] for k in parts})
        return tasks

    def _thresholds(self, rule: str) -> tuple[float, ...]:
        """Of the action units: the checkpoint's own, or 0.5 where the rule says so.

        The original's interface ("api") has the authors' for any number of students, also for one without its own.
        """
        config, half = self.config, (0.5,) * len(self.config.action_units)
        if rule in merging.UNTUNED:
            return half
        students = set(config.members) <= set(STUDENTS) and config.action_units == vocab.ABAW1_ACTION_UNITS
        return tuned(config.frames) if rule == "api" and students and config.thresholds == half else config.thresholds

    def example(self) -> Tensor:
        """A valid input: one image, or one window of two frames, for self-checks and counting."""
        image = torch.zeros(1, 3, *self.config.input.size)
        return image.expand(1, 2, *image.shape[1:]) if self.config.frames else image


def windows(n: int, length: int, overlap: bool = False) -> np.ndarray:
    """Windows that cover a clip: frame numbers [W, length], in order, every frame at least once.

    The last window is moved back to end with the clip. A clip shorter than a window is padded with its last frame.

    Args:
        n: frames of the clip, at least 1.
        length: frames per window.
        overlap: start a window every length // 2 frames (training) instead of every `length` (inference).
    """
    hop = max(1, length // 2) if overlap else length
    starts = np.unique(np.minimum(np.arange(0, max(n - length, 0) + hop, hop), max(n - length, 0)))
    return np.minimum(starts[:, None] + np.arange(length), n - 1)


def first_predictions(windows: np.ndarray) -> np.ndarray:
    """Where among the rows of flattened windows [W * length] every frame appears first, [n]."""
    return np.unique(windows, return_index=True)[1]


def member_rows(logits: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Logits as float64 arrays with windows and frames flattened to rows: [M, rows, ...]."""
    tails = {"expression": 1, "action_units": 1, "valence_arousal": 2}
    flat = {t: z.reshape(z.shape[0], -1, *z.shape[z.ndim - tails[t] :]) for t, z in logits.items()}
    return {t: z.detach().double().cpu().numpy() for t, z in flat.items()}
