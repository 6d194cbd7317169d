"""Clips of voice and face: a fusion model under every condition of its two modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from emotion.datasets import Samples
from emotion.errors import UserError
from eval import bootstrap, predictions, scoring
from eval.metrics.audiovisual.audiovisual_core import top_k
from eval.metrics.calibration import calibration_core as calibration
from eval.metrics.expression import expression_core as expression
from eval.predictions import Predictions
from eval.results import TaskResult

WHOLE = "both"  # the condition whose figures have no suffix
BATCH = 8


def are_clips(samples: Samples) -> bool:
    """Whether the samples are clips, not pictures."""
    from emotion.datasets.clips import Clip

    return isinstance(samples.picture(0), Clip)


def predict(model: Any, samples: Samples, out: Path, seed: int = 0, quiet: bool = False) -> Predictions:
    """Probabilities of every clip under every condition, also written to `out` (.npz).

    Args:
        model: a loaded fusion model.
        samples: clips.
        seed: of the noise in noisy conditions.
        quiet: no progress bar.

    Raises:
        UserError: the model does not read clips.
    """
    import torch
    from rich.console import Console
    from rich.progress import track

    from emotion.models.avfusion import CONDITIONS, under
    from emotion.models.base import ClipInput

    if not isinstance(getattr(model.config, "input", None), ClipInput):
        raise UserError(
            "this model does not read clips; `python -m emotion models --method avfusion` lists those that do"
        )
    parts: dict[str, list[np.ndarray]] = {condition: [] for condition in CONDITIONS}
    generators = {condition: torch.Generator().manual_seed(seed) for condition in CONDITIONS}
    steps = range(0, len(samples), BATCH)
    for first in track(steps, samples.dataset, console=Console(stderr=True), disable=quiet):
        rows = range(first, min(first + BATCH, len(samples)))
        clips = model.inputs(*_batch([samples.picture(i) for i in rows], model.config.input))
        for condition, generator in generators.items():
            with torch.inference_mode():
                tasks = model.decode(model(under(clips, condition, generator)))
            parts[condition].append(tasks["expression"].values)
    values = {condition: np.concatenate(rows) for condition, rows in parts.items()}
    about = {"model": model.card.name, "sha256": model.card.sha256, "fingerprint": samples.fingerprint, "seed": seed}
    labels = dict.fromkeys(values, tuple(model.config.labels))
    choice = {condition: p.argmax(axis=1) for condition, p in values.items()}
    found = Predictions(samples.ids, labels, values, choice, about=about)
    predictions.write(found, out)
    return found


def _batch(clips: list[Any], config: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Sound features [B, C, columns] and crops or measurements [B, T, ...]; None where a modality is lacking."""
    from emotion.datasets.clips import middle
    from emotion.models.avfusion_audio import clip_samples, mfcc

    def features(clip: Any) -> np.ndarray:
        start = clip.sound.start + middle(clip.sound.seconds, config)
        return mfcc(clip_samples(clip.sound, config, start), config.audio)

    sound = None if clips[0].sound is None else np.stack([features(clip) for clip in clips])
    return sound, None if clips[0].visual is None else np.stack([clip.visual for clip in clips])


def score(found: Predictions, samples: Samples) -> dict[str, TaskResult]:
    """Figures per condition; those of one modality alone or disturbed carry its name ("accuracy audio").

    Raises:
        UserError: other expressions than the data set's.
    """
    labels, classes = samples.labels["expression"], samples.classes("expression")
    if any(names != labels for names in found.labels.values()):
        raise UserError(f"the model's expressions differ from {samples.dataset}'s: {', '.join(labels)}")
    known, k = classes >= 0, len(labels)
    columns = []
    for condition, p in found.values.items():
        counts = np.eye(k * k)[classes[known] * k + found.choice[condition][known]]
        columns += [counts, top_k(p[known], classes[known], 5)[:, None]]
    rest = {"metrics": {}, "calibration": calibration.of_classes(found.values[WHOLE][known], classes[known])}
    figures = _figures(list(found.values), k)
    ready = scoring.Scorable(labels, known, np.hstack(columns), figures, rest)
    return {"audiovisual": scoring.result(ready, samples.groups, bootstrap.REPLICATES)}


def _figures(conditions: list[str], k: int) -> bootstrap.Figures:
    def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        for condition, part in zip(conditions, np.split(sums, len(conditions), axis=-1)):
            matrix, hits = part[..., :-1].reshape(*part.shape[:-1], k, k), part[..., -1]
            rows = expression.scores(matrix)
            suffix = "" if condition == WHOLE else f" {condition}"
            out |= {f"{name}{suffix}": rows[name] for name in ("accuracy", "f1")}
            out |= {
                f"mean_recall{suffix}": rows["balanced_accuracy"],
                f"top5{suffix}": hits / matrix.sum(axis=(-2, -1)),
            }
            if condition == WHOLE:
                out |= {"f1_per_label": rows["f1_per_class"], "confusion": matrix}
        return out

    return figures
