"""From predictions and labels of faces to figures: metrics with intervals, per-label values, calibration.

Everything is scored in the data set's vocabulary. Classes that only the model knows are dropped and its probabilities
rescaled; classes that it lacks are never predicted; action units that it lacks are left out. `notes` tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import index_map
from eval import bootstrap
from eval.metrics.action_units import action_units_core as units
from eval.metrics.calibration import calibration_core as calibration
from eval.metrics.ccc import ccc_core
from eval.metrics.expression import expression_core as expression
from eval.metrics.risk_coverage.risk_coverage_core import risk_coverage
from eval.predictions import Predictions
from eval.results import COVERAGES, Figure, TaskResult


@dataclass(frozen=True)
class Scorable:
    """Predictions and labels of one task, brought together.

    Attributes:
        labels: the vocabulary scored.
        known: bool [N], samples that are labelled.
        terms: [M, T], additive terms of the M labelled samples.
        figures: sums of terms -> figures; scalar ones are metrics, those with a last axis are per label.
        rest: figures of the whole that have no interval: metrics and calibration.
        risk: of the surest answers, see `TaskResult`.
        notes: what had to be adapted.
    """

    labels: tuple[str, ...]
    known: np.ndarray
    terms: np.ndarray
    figures: bootstrap.Figures
    rest: dict[str, dict[str, float]]
    risk: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def score(given: Predictions, samples: Samples, replicates: int = bootstrap.REPLICATES) -> dict[str, TaskResult]:
    """Figures of every task that is both predicted and labelled; rows must correspond.

    Raises:
        UserError: the predictions and the data set have no task in common.
    """
    tasks = [t for t in SCORERS if t in given.values and t in samples.targets]
    if not tasks:
        raise UserError(
            f"nothing to score: {samples.dataset} has labels of {', '.join(samples.targets)}, "
            f"predictions are of {', '.join(given.values) or 'nothing'}"
        )
    return {task: result(scorable(task, given, samples), samples.groups, replicates) for task in tasks}


def scorable(task: str, given: Predictions, samples: Samples) -> Scorable:
    """One task's predictions and labels, ready for bootstrapping and paired tests."""
    return SCORERS[task](given, samples)


def result(ready: Scorable, groups: np.ndarray | None, replicates: int) -> TaskResult:
    """All figures of one task, with intervals where they follow from additive terms."""
    n = int(ready.known.sum())
    if not n:
        return TaskResult(ready.labels, 0, {}, notes=(*ready.notes, "no sample is labelled"))
    groups = None if groups is None else np.asarray(groups)[ready.known]
    whole = ready.figures(ready.terms.sum(axis=0))
    limits = bootstrap.intervals(ready.terms, ready.figures, groups, replicates)
    metrics = {k: _figure(float(v), *limits[k]) for k, v in whole.items() if np.ndim(v) == 0 and np.isfinite(v)}
    metrics |= {k: Figure(v) for k, v in ready.rest["metrics"].items() if np.isfinite(v)}
    return TaskResult(
        labels=ready.labels,
        n=n,
        metrics=metrics,
        per_label={
            k: {label: float(x) for label, x in zip(ready.labels, v) if np.isfinite(x)}
            for k, v in whole.items()
            if np.ndim(v) == 1
        },
        calibration={k: float(v) for k, v in ready.rest["calibration"].items() if np.isfinite(v)},
        confusion=tuple(tuple(int(x) for x in row) for row in whole.get("confusion", ())),
        risk=ready.risk,
        notes=ready.notes,
    )


def _figure(value: float, low: float, high: float) -> Figure:
    return Figure(value, low, high) if np.isfinite([low, high]).all() else Figure(value)


# -- tasks ------------------------------------------------------------------------------------------------------------


def in_vocabulary(
    p: np.ndarray, choice: np.ndarray, source: tuple[str, ...], target: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Probabilities [N, K] and chosen classes [N] in another vocabulary, and notes about what had to be adapted."""
    if source == target:
        return p, choice, ()
    where = index_map(target, source)
    fewer = [name for name, k in zip(target, where) if k < 0]
    surplus = [name for name in source if name not in target]
    p = np.stack([p[:, k] if k >= 0 else np.zeros(len(p)) for k in where], axis=1).astype(np.float64)
    sums = p.sum(axis=1, keepdims=True)
    p = np.divide(p, sums, out=np.full_like(p, 1 / p.shape[1]), where=sums > 0)
    mapped = np.array(index_map(source, target))[choice]
    notes = [f"never predicted by this model: {', '.join(fewer)}"] if fewer else []
    notes += [f"left out of this model's answers: {', '.join(surplus)}"] if surplus else []
    return p, np.where(mapped >= 0, mapped, p.argmax(axis=1)), tuple(notes)


def _expression(given: Predictions, samples: Samples) -> Scorable:
    target = samples.labels["expression"]
    p, choice, notes = in_vocabulary(
        given.values["expression"], given.choice["expression"], given.labels["expression"], target
    )
    classes = samples.classes("expression")
    known, k = classes >= 0, len(target)
    terms = np.eye(k * k)[classes[known] * k + choice[known]]
    rest: dict[str, dict[str, float]] = {"metrics": {}, "calibration": {}}
    if "expression" not in given.hard:
        rest["calibration"] = calibration.of_classes(p[known], classes[known])
    risk = ()
    if (unsure := given.uncertainty.get("expression")) is not None:
        risk = _selective(unsure[known], choice[known] != classes[known], rest["calibration"])
    return Scorable(target, known, terms, _expression_figures(k), rest, risk, notes)


def _expression_figures(k: int) -> bootstrap.Figures:
    def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
        matrix = sums.reshape(*sums.shape[:-1], k, k)
        found = expression.scores(matrix)
        there = matrix.sum(axis=-1)
        hits = np.diagonal(matrix, axis1=-2, axis2=-1)
        found["f1_all_classes"] = expression.scores(matrix, fixed=True)["f1"]
        found["recall"] = np.divide(hits, there, out=np.full_like(hits, np.nan, dtype=np.float64), where=there > 0)
        found["f1_per_label"] = found.pop("f1_per_class")
        return found | {"confusion": matrix}

    return figures


def _selective(uncertainty: np.ndarray, errors: np.ndarray, out: dict[str, float]) -> tuple[float, ...]:
    """Risk of the surest answers, at `COVERAGES`; areas go to `out`."""
    found = risk_coverage(uncertainty, errors)
    out |= {"aurc": found["aurc"], "excess_aurc": found["excess_aurc"], "auroc_of_errors": found["auroc"]}
    risk = found["risk"]
    if not len(risk):
        return ()
    return tuple(round(float(risk[math.ceil(c * len(risk)) - 1]), 6) for c in COVERAGES)


def _action_units(given: Predictions, samples: Samples) -> Scorable:
    source, target = given.labels["action_units"], samples.labels["action_units"]
    both = tuple(name for name in target if name in source)
    if not both:
        raise UserError(f"the model predicts {', '.join(source)}, {samples.dataset} has labels of {', '.join(target)}")
    p = given.values["action_units"][:, index_map(both, source)]
    said = given.choice["action_units"][:, index_map(both, source)]
    wanted = samples.targets["action_units"][:, index_map(both, target)]
    known = np.isfinite(wanted).any(axis=1)
    p, said, wanted = p[known], said[known], wanted[known]
    cells = np.stack([(said == x) & (wanted == y) for x, y in ((1, 1), (1, 0), (0, 1), (0, 0))], axis=-1)
    missing = [name for name in target if name not in both]
    notes = (f"not scored, the model lacks them: {', '.join(missing)}",) if missing else ()
    rest: dict[str, dict[str, float]] = {"metrics": {}, "calibration": {}}
    if not np.isin(p, (0, 1)).all():
        rest["calibration"] = calibration.of_labels(p, wanted)
    risk = ()
    if (unsure := given.uncertainty.get("action_units")) is not None:
        wrong = np.where(np.isfinite(wanted), said != wanted, np.nan)
        risk = _selective(unsure[known][:, index_map(both, source)], wrong, rest["calibration"])
    return Scorable(both, known, cells.reshape(len(p), -1).astype(np.float64), _unit_figures, rest, risk, notes)


def _unit_figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    found = units.scores(sums.reshape(*sums.shape[:-1], -1, 4))
    names = {"f1_per_unit": "f1_per_label", "accuracy_per_unit": "accuracy_per_label"}
    return {names.get(k, k): v for k, v in found.items()}


def _valence_arousal(given: Predictions, samples: Samples) -> Scorable:
    axes = samples.labels["valence_arousal"]
    values = given.values["valence_arousal"][:, index_map(axes, given.labels["valence_arousal"])]
    wanted = samples.targets["valence_arousal"]
    known = np.isfinite(wanted).all(axis=1)
    values, wanted = values[known], wanted[known]
    terms = np.hstack([ccc_core.terms(values[:, k], wanted[:, k]) for k in range(len(axes))])
    rest: dict[str, dict[str, float]] = {"metrics": {}, "calibration": {}}
    if samples.groups is not None and known.any():
        groups = np.asarray(samples.groups)[known]
        each = [ccc_core.ccc_of_groups(values[:, k], wanted[:, k], groups) for k in range(len(axes))]
        rest["metrics"] = {"ccc_per_video": float(np.mean(each))}
    risk = ()
    if (unsure := given.uncertainty.get("valence_arousal")) is not None:
        unsure = unsure[:, index_map(axes, given.labels["valence_arousal"])]
        risk = _selective(unsure[known], np.abs(values - wanted), rest["calibration"])
    return Scorable(axes, known, terms, _affect_figures(axes), rest, risk)


def _affect_figures(axes: tuple[str, ...]) -> bootstrap.Figures:
    def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
        sums = sums.reshape(*sums.shape[:-1], len(axes), 6)
        ccc = ccc_core.ccc_from_sums(sums)
        n, _, _, xx, yy, xy = np.moveaxis(sums, -1, 0)
        rmse = np.sqrt(np.maximum(xx + yy - 2 * xy, 0) / np.maximum(n, 1))
        out = {"ccc": ccc.mean(axis=-1), "rmse": rmse.mean(axis=-1)}
        for k, axis in enumerate(axes):
            out |= {f"ccc_{axis}": ccc[..., k], f"rmse_{axis}": rmse[..., k]}
        return out

    return figures


SCORERS: dict[str, Callable[[Predictions, Samples], Scorable]] = {
    "expression": _expression,
    "valence_arousal": _valence_arousal,
    "action_units": _action_units,
}


def paired(a: Predictions, b: Predictions, samples: Samples) -> dict[str, dict[str, dict[str, float]]]:
    """Differences of two models on the same samples: task -> figure -> as `bootstrap.paired` gives them.

    Raises:
        UserError: they have no labelled task in common, or are scored on different labels.
    """
    tasks = [t for t in SCORERS if t in a.values and t in b.values and t in samples.targets]
    if not tasks:
        raise UserError(f"the two models have no labelled task of {samples.dataset} in common")
    return {task: test(scorable(task, a, samples), scorable(task, b, samples), samples.groups) for task in tasks}


def test(left: Scorable, right: Scorable, groups: np.ndarray | None) -> dict[str, dict[str, float]]:
    """Paired test of one task.

    Raises:
        UserError: different labels were scored.
    """
    if left.labels != right.labels:
        raise UserError("the two models are scored on different labels; compare the tables instead")
    groups = None if groups is None else np.asarray(groups)[left.known]
    return bootstrap.paired(left.terms, right.terms, left.figures, groups)


def differences(task: str, a: Predictions, b: Predictions, samples: Samples) -> np.ndarray:
    """By how much two models' answers to every sample differ, float [N]: summed over labels, of everything said."""
    known = samples.labels.get(task, next(iter(samples.labels.values())))
    out = np.zeros(len(samples))
    for key in (k for k in a.values if k in b.values and (k == task or task not in a.values)):
        names = tuple(n for n in known if n in a.labels[key] and n in b.labels[key])
        x, y = (p.values[key][:, index_map(names, p.labels[key])] for p in (a, b))
        out += np.abs(x - y).sum(axis=1)
    return out
