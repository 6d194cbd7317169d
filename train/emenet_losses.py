"""EMENet's losses and how they are weighed against each other (Deng, Wu, Shi, ICCV 2021 workshops, section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from emotion.errors import UserError

# Weights of positive action-unit labels and of expression classes on Aff-Wild2 (vocabularies of `labels`).
AU_WEIGHTS = (23 / 3, 47 / 3, 21 / 4, 37 / 13, 3 / 2, 13 / 7, 3.0, 97 / 3, 97 / 3, 97 / 3, 37 / 63, 23 / 2)
EXPRESSION_WEIGHTS = (2.5, 25.0, 40.0, 33.0, 4.0, 5.88, 12.5)
TINY = 1e-8


def ccc_loss(values: Tensor, targets: Tensor) -> Tensor:
    """1 - concordance over all N values of each column, [N, K] -> [K]; standard deviations with N - 1."""
    x, y = values - values.mean(0), targets - targets.mean(0)
    correlation = (x * y).sum(0) / (x.square().sum(0).sqrt() * y.square().sum(0).sqrt() + TINY)
    sx, sy = values.std(0), targets.std(0)
    distance = (values.mean(0) - targets.mean(0)).square()
    return 1 - 2 * correlation * sx * sy / (sx.square() + sy.square() + distance + TINY)


def expected(logits: Tensor) -> Tensor:
    """Valence and arousal [..., 2] of logits [..., 2, bins]."""
    return logits.softmax(-1) @ torch.linspace(-1, 1, logits.shape[-1], dtype=logits.dtype, device=logits.device)


def bin_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of valence plus that of arousal, over equal cells of [-1, 1] that are closed on the left.

    Args:
        logits: [N, 2, bins]; targets: values [N, 2].
    """
    bins = logits.shape[-1]
    cells = ((targets.clamp(-1, 1) + 1) / 2 * bins).long().clamp_max(bins - 1)
    return F.cross_entropy(logits[:, 0], cells[:, 0]) + F.cross_entropy(logits[:, 1], cells[:, 1])


AFFECT = {"ccc": lambda logits, targets: ccc_loss(expected(logits), targets).sum(), "cce": bin_loss}


def affect_losses(names: str) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """Losses on valence and arousal: "ccc", "cce" (cross-entropy over bins) or both, "ccc+cce".

    Raises:
        UserError: another name.
    """
    chosen = [name.strip() for name in names.split("+")]
    if unknown := [name for name in chosen if name not in AFFECT]:
        raise UserError(f"affect: unknown loss {unknown[0]!r}; write {', '.join(AFFECT)} or {'+'.join(AFFECT)}")
    return [AFFECT[name] for name in chosen]


def hard_loss(
    task: str, logits: Tensor, targets: Tensor, weights: tuple[float, ...] | None = None, affect: str = "ccc"
) -> Tensor:
    """A task's loss against ground truth, over N faces.

    Args:
        task: "expression" (logits [N, K], targets class indices [N] or distributions [N, K]), "action_units" ([N, U],
            0 or 1), "valence_arousal" ([N, 2, bins], values [N, 2]), "landmarks" ([N, 136], the alignment network's)
            or "voice" ([N, 2], the voice teacher's logits).
        weights: per class (expression) or of present labels (action units).
        affect: see `affect_losses`.
    """
    if task == "landmarks":
        return F.l1_loss(logits, targets)
    if task == "voice":
        return divergence(logits, targets.softmax(-1))
    if task == "valence_arousal":
        return sum(loss(logits, targets) for loss in affect_losses(affect))
    weight = None if weights is None else logits.new_tensor(weights)
    if task == "expression":
        return (
            F.cross_entropy(logits, targets, weight) if targets.ndim == 1 else spread_entropy(logits, targets, weight)
        )
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), pos_weight=weight)


def spread_entropy(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted cross-entropy against distributions [N, K], divided by the weight used as for single classes."""
    weighted = targets if weight is None else targets * weight
    return -(weighted * logits.log_softmax(-1)).sum() / weighted.sum()


def soft_loss(
    task: str, logits: Tensor, teacher: Tensor, temperature: float = 1.0, certainty: Tensor | None = None
) -> Tensor:
    """A task's distillation loss against the teacher ensemble's mean probabilities.

    Args:
        task: as for `hard_loss`.
        logits: the student's.
        teacher: probabilities [N, K], [N, U], [N, 2, bins]; landmarks [N, 136]; voice probabilities [N, 2].
        temperature: softens both sides (valence and arousal: only the teacher); landmarks and voice have none.
        certainty: weights per expression [N] or action unit [N, U].
    """
    if task == "landmarks":
        return F.l1_loss(logits, teacher)
    if task == "voice":
        return divergence(logits, teacher)
    if task == "valence_arousal":
        return ccc_loss(expected(logits), expected((teacher + TINY).log() / temperature)).sum()
    if task == "expression":
        return divergence(logits / temperature, ((teacher + TINY).log() / temperature).softmax(-1), certainty)
    p = teacher.clamp(TINY, 1 - TINY)
    wanted = torch.sigmoid((p.log() - (1 - p).log()) / temperature)
    return F.binary_cross_entropy_with_logits(logits / temperature, wanted, weight=certainty)


def divergence(logits: Tensor, wanted: Tensor, weights: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of softmax(logits) from `wanted` [N, K], mean over N."""
    rows = F.kl_div(logits.log_softmax(-1), wanted, reduction="none").sum(-1)
    return (rows if weights is None else rows * weights).mean()


@dataclass
class Balance:
    """Weights of the tasks, raised where validation has stood still.

    Attributes:
        tasks: names, in order.
        factors: unnormalised weight per task.
        best: best validation figure so far (larger is better); waiting: epochs since.
    """

    tasks: tuple[str, ...]
    factors: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.factors = dict.fromkeys(self.tasks, 1.0) | self.factors

    @property
    def weights(self) -> dict[str, float]:
        """Weights that sum to 1."""
        total = sum(self.factors.values())
        return {task: factor / total for task, factor in self.factors.items()}

    def wait(self, epochs: dict[str, int]) -> None:
        """Set the factors from the number of epochs without a better figure: log2 of it from 2 epochs on.

        A task that has just improved keeps its factor until it has waited twice again, as in the original.
        """
        self.factors |= {task: math.log2(n) for task, n in epochs.items() if n > 1}

    def update(self, figures: dict[str, float]) -> None:
        """Take an epoch's validation figures of some tasks, larger being better."""
        for task, value in figures.items():
            better = value > self.best.get(task, -math.inf)
            self.waiting[task] = 0 if better else self.waiting.get(task, 0) + 1
            self.best[task] = max(value, self.best.get(task, -math.inf))
        self.wait(self.waiting)


def combine(losses: dict[str, Tensor], auxiliary: dict[str, list[Tensor]], weights: dict[str, float]) -> Tensor:
    """Weighted sum of the tasks' losses and of the mean of each auxiliary loss over the batches it was taken on."""
    parts = losses | {task: torch.stack(values).mean() for task, values in auxiliary.items() if values}
    return sum(weights[task] * value for task, value in parts.items())
