"""Clips of voice and face: a fusion model under every condition of its two modalities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emotion.datasets import Samples
from emotion.errors import UserError
from eval import bootstrap, predictions, scoring
from eval.metrics.audiovisual.audiovisual_core import top_k
from eval.metrics.calibration import calibration_core as calibration
from eval.metrics.expression import expression_core as expression
from eval.parts import finish, in_parts, slices
from eval.predictions import Predictions
from eval.results import TaskResult

WHOLE = "both"  # the condition whose figures have no suffix
BATCH = 8


def are_clips(samples: Samples) -> bool:
    """Whether the samples are clips, not pictures."""
    from emotion.datasets.clips import Clip

    return isinstance(samples.picture(0), Clip)


def predict(
    model: Any, samples: Samples, out: Path, device: str = "cpu", seed: int = 0, quiet: bool = False
) -> tuple[Predictions, float | None]:
    """Probabilities of every clip under every condition, also written to `out` (.npz); see `runner.predict`.

    Args:
        model: a loaded fusion model.
        samples: clips.
        out: the file; finished parts lie beside it until the run is complete.
        device: where the model is.
        seed: of the noise in noisy conditions; every batch has noise of its own, the same in every run.
        quiet: no progress bar.

    Returns:
        The predictions and the clips per second of what was computed now (None if nothing was).

    Raises:
        UserError: the model does not read clips.
    """
    from emotion.models.base import ClipInput

    if not isinstance(getattr(model.config, "input", None), ClipInput):
        raise UserError(
            "this model does not read clips; `python -m emotion models --method avfusion` lists those that do"
        )
    meter = _meter(model.config.input.visual, device)
    about = predictions.origin(model, samples) | {"seed": seed}
    parts, speed = in_parts(
        slices(len(samples), BATCH),
        out.with_suffix(".parts"),
        compute=lambda rows: _read_rows(model, samples, rows, about, device, meter),
        write=predictions.write,
        read=lambda path, rows: predictions.kept_part(path, about, samples.ids[rows.start : rows.stop]),
        title=f"{about['model']} on {samples.dataset}",
        quiet=quiet,
    )
    found = predictions.concatenate(parts)
    predictions.write(found, out)
    finish(out.with_suffix(".parts"))
    return found, speed


def _meter(visual: Any, device: str) -> Any:
    """The face model whose predictions stand for pictures, for fusion models that were trained so; else None."""
    from emotion.measures import FaceMeter

    return FaceMeter(visual.measured_by, device) if getattr(visual, "measured_by", "") else None


def _read_rows(
    model: Any, samples: Samples, rows: range, about: dict[str, Any], device: str, meter: Any
) -> Predictions:
    """One batch under every condition that leaves it something to hear or see."""
    import torch

    from emotion.models.avfusion import CONDITIONS, under

    clips = model.inputs(*_batch([samples.picture(i) for i in rows], model.config.input, meter))
    values = {}
    for condition, distortions in CONDITIONS.items():
        if any(x is None and kind not in ("", "absent") for x, kind in zip(clips, distortions)):
            continue  # noise on what is not there
        left = under(clips, condition, torch.Generator().manual_seed(about["seed"] + rows.start))
        if any(x is not None for x in left):
            with torch.inference_mode():
                logits = model(type(left)(*(None if x is None else x.to(device) for x in left)))
            values[condition] = model.decode(logits)["expression"].values
    ids = samples.ids[rows.start : rows.stop]
    choice = {condition: p.argmax(axis=1) for condition, p in values.items()}
    return Predictions(ids, dict.fromkeys(values, tuple(model.config.labels)), values, choice, about=about)


def _batch(clips: list[Any], config: Any, meter: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Sound features [B, C, columns] and crops or measurements [B, T, ...]; None where a modality is lacking."""
    from emotion.datasets.clips import middle
    from emotion.faces.cropped import fitted
    from emotion.models.avfusion_audio import clip_samples, mfcc

    def features(clip: Any) -> np.ndarray:
        start = middle(clip.sound.seconds, config, clip.sound.start)
        return mfcc(clip_samples(clip.sound, config, start), config.audio)

    def seen(clip: Any) -> np.ndarray:
        if clip.visual.ndim == 2:
            return clip.visual
        crops = fitted(list(clip.visual), config.visual if meter is None else meter.input)
        if len(crops) != config.frames:
            raise UserError(f"clips come with {len(crops)} pictures, the model reads {config.frames}")
        return crops if meter is None else meter(crops)

    sound = None if clips[0].sound is None else np.stack([features(clip) for clip in clips])
    return sound, None if clips[0].visual is None else np.stack([seen(clip) for clip in clips])


def score(found: Predictions, samples: Samples) -> dict[str, TaskResult]:
    """Figures per condition; those of one modality alone or disturbed carry its name ("accuracy audio").

    Predictions of another tool, which know no conditions, count as made with both modalities.

    Raises:
        UserError: there are no predictions of expressions.
    """
    ready = _scorable(_by_condition(found), samples)
    return {"audiovisual": scoring.result(ready, samples.groups, bootstrap.REPLICATES)}


def paired(a: Predictions, b: Predictions, samples: Samples) -> dict[str, dict[str, dict[str, float]]]:
    """Differences of two models under the conditions that both were tested in; as `scoring.paired`."""
    a, b = _by_condition(a), _by_condition(b)
    common = [condition for condition in a.values if condition in b.values]
    left, right = (_scorable(replace(x, values={c: x.values[c] for c in common}), samples) for x in (a, b))
    return {"audiovisual": scoring.test(left, right, samples.groups)}


def _by_condition(found: Predictions) -> Predictions:
    if "expression" in found.values:
        parts = {name: {WHOLE: getattr(found, name)["expression"]} for name in ("labels", "values", "choice")}
        return replace(found, **parts)
    if WHOLE not in found.values:
        raise UserError(f"there are no predictions of expressions, only of {', '.join(found.values) or 'nothing'}")
    return found


def _scorable(found: Predictions, samples: Samples) -> scoring.Scorable:
    labels, classes = samples.labels["expression"], samples.classes("expression")
    known, k = classes >= 0, len(labels)
    columns, whole, notes = [], np.zeros((0, k)), ()
    for condition, values in found.values.items():
        p, choice, notes = scoring.in_vocabulary(values, found.choice[condition], found.labels[condition], labels)
        whole = p if condition == WHOLE else whole
        counts = np.eye(k * k)[classes[known] * k + choice[known]]
        columns += [counts, top_k(p[known], classes[known], 5)[:, None]]
    if "audio" in found.values and "video" not in found.values:
        notes = (*notes, "the data has no pictures: figures without a suffix are of sound alone")
    if "video" in found.values and "audio" not in found.values:
        notes = (*notes, "the data has no sound: figures without a suffix are of pictures alone")
    rest = {"metrics": {}, "calibration": calibration.of_classes(whole[known], classes[known])}
    return scoring.Scorable(labels, known, np.hstack(columns), _figures(tuple(found.values), k), rest, notes=notes)


def _figures(conditions: tuple[str, ...], k: int) -> bootstrap.Figures:
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
