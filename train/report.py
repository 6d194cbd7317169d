"""What a finished checkpoint says about itself: measured figures and the model card."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from torch import nn

from emotion import hub
from emotion.datasets import Samples
from emotion.hub import publishing
from emotion.hub.provenance import provenance
from emotion.models.base import multiply_adds
from emotion.outputs import Task
from train.data import FaceData
from train.recipe import Recipe


def expression_report(task: Task, truth: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
    """Accuracy, recall and confusion of a categorical task.

    Args:
        task: predictions for N samples.
        truth: classes [N].
        seen: bool [N], whether the picture also occurs among the training pictures.

    Returns:
        "accuracy", "accuracy_unseen" (without pictures that occur in training), "mean_recall", "recall" per label,
        "confusion" [K][K] with true classes as rows, "n", "n_seen".
    """
    k = len(task.labels)
    confusion = np.bincount(truth * k + task.choice, minlength=k * k).reshape(k, k)
    hits = task.choice == truth
    totals = confusion.sum(axis=1)
    recall = {n: float(confusion[i, i] / totals[i]) for i, n in enumerate(task.labels) if totals[i]}
    return {
        "n": len(truth),
        "n_seen": int(seen.sum()),
        "accuracy": float(hits.mean()),
        "accuracy_unseen": float(hits[~seen].mean()) if (~seen).any() else float("nan"),
        "mean_recall": float(np.mean(list(recall.values()))),
        "recall": recall,
        "confusion": confusion.tolist(),
    }


def pictures_seen(valid: FaceData, train: list[Samples]) -> np.ndarray:
    """For every validation face whether a pixel-identical one is among the training pictures, bool [N]."""
    known = {_digest(part.picture(i)) for part in train for i in range(len(part))}
    return np.array([_digest(part.picture(i)) in known for part in valid.parts for i in range(len(part))])


def _digest(picture: np.ndarray) -> bytes:
    return hashlib.sha1(picture.tobytes(), usedforsecurity=False).digest()


def confusion_table(report: dict[str, Any]) -> list[str]:
    """Per-class recall and confusion matrix as Markdown lines."""
    labels = list(report["recall"])
    lines = ["| true \\ predicted | " + " | ".join(labels) + " | recall |", "|---" * (len(labels) + 2) + "|"]
    for label, row in zip(labels, report["confusion"]):
        lines.append(f"| {label} | " + " | ".join(map(str, row)) + f" | {report['recall'][label]:.3f} |")
    return lines


WEB_PICTURES = (
    "Training pictures were collected on the web; people of some ages, origins and looks are rare in them, and so are "
    "the classes with few rows above."
)


def card_text(
    card: hub.Card,
    recipe: Recipe,
    model: nn.Module,
    command: str,
    figures: list[str],
    limits: str = WEB_PICTURES,
    unit: str = "face",
) -> str:
    """README.md of a checkpoint trained here, with the front matter the Hub reads.

    `limits` says what the training data lack, `unit` what one forward pass works on.
    """
    parameters = sum(p.numel() for p in model.parameters())
    versions = ", ".join(f"{k} {v}" for k, v in provenance().items())
    lines = [
        f"# {card.name}",
        "",
        f"{recipe.about}.",
        "",
        f"- Predicts: {', '.join(model.labels)}",
        f"- Trained on: {', '.join(card.trained_on)}",
        f"- Size: {parameters:,} parameters, {multiply_adds(model) / 1e6:.0f} M multiply-adds per {unit}",
        f"- Licence: {card.licence} (commercial use: {'yes' if card.commercial else 'no'})",
        f"- Reproduce: `{command}` (seed {recipe.settings.seed}; {versions})",
        "",
        "## Measured",
        *figures,
        "",
        "## Not for",
        "",
        f"{publishing.LIMITS}\n{limits}",
    ]
    return publishing.headed(publishing.front_matter(card, recipe.method), "\n".join(lines))
