"""Figures with calibration, and temperature scaling of ensembles on validation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from emotion.models.emenet import Temperature, probabilities
from emotion.models.marblenet import VOICE
from emotion.outputs import Task
from eval.metrics.calibration import calibration_core as core
from eval.metrics.risk_coverage.risk_coverage_core import auroc
from train import fg2020

Truth = dict[str, np.ndarray]


def figures(tasks: dict[str, Task], truth: Truth) -> dict[str, float]:
    """Accuracy figures as `train.fg2020.figures`, one total per task, and NLL and ECE of expression and action units.

    Against the answers of the auxiliary heads' teachers: mean absolute error of the landmarks, as a part of the face's
    side, and the area under the ROC curve with which speech is found (absent where the teacher hears one kind only).

    Args:
        tasks: decoded predictions of N faces.
        truth: targets [N, K], NaN where unlabelled; "landmarks" and "voice" are the teachers', see `Helpers.truth`.
    """
    out = fg2020.figures(tasks, truth)
    if "valence_arousal" in truth:
        out["valence_arousal_total"] = out["ccc_valence"] + out["ccc_arousal"]
        known = np.isfinite(truth["valence_arousal"]).all(axis=1)
        error = tasks["valence_arousal"].values[known] - truth["valence_arousal"][known]
        out |= {f"rmse_{n}": float(v) for n, v in zip(("valence", "arousal"), np.sqrt((error**2).mean(axis=0)))}
    if "expression" in truth:
        p, y = tasks["expression"].values, classes(truth["expression"])
        out["expression_nll"] = float(np.nanmean(core.nll_classes(p, y)))
        out["expression_ece"] = core.calibration(*core.top_class(p, y))["ece"]
    if "action_units" in truth:
        p, y = tasks["action_units"].values, truth["action_units"]
        out["action_units_nll"] = float(np.nanmean(core.nll_labels(p, y)))
        out["action_units_ece"] = core.calibration(p, y)["ece"]
    if "landmarks" in truth:
        out["landmarks_l1"] = float(np.abs(tasks["landmarks"].values - truth["landmarks"]).mean())
    if "voice" in truth:
        speech = VOICE.index("speech")
        found = auroc(tasks["voice"].values[:, speech], truth["voice"].argmax(axis=1) == speech)
        out |= {} if np.isnan(found) else {"voice_auroc": found}
    return out


def classes(targets: np.ndarray) -> np.ndarray:
    """Strongest class of distributions [N, K], -1 where unlabelled."""
    known = np.isfinite(targets).all(axis=1)
    return np.where(known, np.nan_to_num(targets).argmax(axis=1), -1)


def fit(logits: dict[str, Tensor], truth: Truth) -> Temperature:
    """The temperatures at which the members' mean probabilities are most likely, one per task part and action unit.

    Args:
        logits: [M, N, ...] per task; truth: targets [N, K], NaN where unlabelled.
    """
    found: dict[str, float | tuple[float, ...]] = {}
    if "expression" in truth:
        y = classes(truth["expression"])
        found["expression"] = search(lambda t: core.nll_classes(_p(logits, "expression", expression=t), y))
    if "action_units" in truth:
        y = truth["action_units"]
        found["action_units"] = tuple(
            search(lambda t, k=k: core.nll_labels(_p(logits, "action_units", action_units=(t,)), y)[:, k])
            for k in range(y.shape[1])
        )
    if "valence_arousal" in truth:
        y = truth["valence_arousal"]
        for k, axis in enumerate(("valence", "arousal")):
            at = nearest(y[:, k], logits["valence_arousal"].shape[-1])
            found[axis] = search(
                lambda t, a=axis, k=k, at=at: core.nll_classes(_p(logits, "valence_arousal", **{a: t})[:, k], at)
            )
    return Temperature(**found)


def nearest(values: np.ndarray, bins: int) -> np.ndarray:
    """The bins nearest to values [N] on the grid from -1 to 1 that expectations are taken over; -1 where NaN."""
    at = np.rint((np.nan_to_num(values).clip(-1, 1) + 1) / 2 * (bins - 1)).astype(np.int64)
    return np.where(np.isfinite(values), at, -1)


def _p(logits: dict[str, Tensor], task: str, **temperature: float | tuple[float, ...]) -> np.ndarray:
    """The members' mean probabilities of one task."""
    return probabilities({task: logits[task]}, Temperature(**temperature))[task].mean(axis=0)


def search(losses: Callable[[float], np.ndarray], low: float = 0.05, high: float = 20.0, steps: int = 40) -> float:
    """The temperature with the smallest mean loss, by golden sections of its logarithm.

    Losses may hold NaN where a face is unlabelled; if all are, the answer is 1.
    """
    if not np.isfinite(losses(1.0)).any():
        return 1.0

    def mean(log_t: float) -> float:
        return float(np.nanmean(losses(float(np.exp(log_t)))))

    ratio = (np.sqrt(5) - 1) / 2
    a, b = np.log(low), np.log(high)
    c, d = b - ratio * (b - a), a + ratio * (b - a)
    at_c, at_d = mean(c), mean(d)
    for _ in range(steps):
        if at_c < at_d:
            b, d, at_d = d, c, at_c
            c = b - ratio * (b - a)
            at_c = mean(c)
        else:
            a, c, at_c = c, d, at_d
            d = a + ratio * (b - a)
            at_d = mean(d)
    return float(np.exp((a + b) / 2))


def halves(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A random half of n rows for fitting and the rest for judging, sorted."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])
