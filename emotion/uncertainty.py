"""Uncertainty of an ensemble of distributions, split into what more data could and could not remove.

total (predictive entropy) = aleatoric (expected entropy) + epistemic (mutual information),
Depeweg et al. 2018; Malinin & Gales 2018. All values are divided by the largest possible
entropy, so that they lie in [0, 1] whatever the number of classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emotion.errors import UserError


def entropy(p: np.ndarray) -> np.ndarray:
    """Shannon entropy over the last axis in nats; 0 log 0 = 0."""
    p = np.asarray(p, dtype=np.float64)
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)


def categorical(members: np.ndarray) -> dict[str, np.ndarray]:
    """Uncertainty of M members' class distributions.

    Args:
        members: probabilities [M, N, K], each row summing to 1.

    Returns:
        "total", "aleatoric" and "epistemic", each [N] in [0, 1]; total = aleatoric + epistemic.
    """
    scale = np.log(members.shape[-1])
    total = entropy(members.mean(axis=0)) / scale
    aleatoric = entropy(members).mean(axis=0) / scale
    return _split(total, aleatoric)


def binary(members: np.ndarray) -> dict[str, np.ndarray]:
    """The same for independent yes/no probabilities [M, N, K]; values are [N, K]."""
    pairs = np.stack([members, 1 - members], axis=-1)
    return _split(entropy(pairs.mean(axis=0)) / np.log(2), entropy(pairs).mean(axis=0) / np.log(2))


def spread(members: np.ndarray) -> np.ndarray:
    """Disagreement on continuous values: standard deviation over members, [M, N, K] -> [N, K], in the values' unit."""
    return np.asarray(members, dtype=np.float64).std(axis=0).astype(np.float32)


def mixture(means: np.ndarray, variances: np.ndarray) -> dict[str, np.ndarray]:
    """Uncertainty of a value for which every member gives a distribution (law of total variance).

    Args:
        means, variances: of the members' distributions, [M, N, K].

    Returns:
        Standard deviations [N, K] in the values' unit: "aleatoric" (mean variance), "epistemic" (variance of the
        means) and "total" of the equally weighted mixture; their squares add up.
    """
    aleatoric, epistemic = variances.mean(axis=0), means.var(axis=0)
    parts = {"total": aleatoric + epistemic, "aleatoric": aleatoric, "epistemic": epistemic}
    return {name: np.sqrt(v).astype(np.float32) for name, v in parts.items()}


def monte_carlo(model: Any, passes: int) -> None:
    """Switch Monte Carlo dropout on in a loaded model, see `emotion.models.emenet.EMENet.with_mc_dropout`.

    Raises:
        UserError: the model has none.
    """
    if not hasattr(model, "with_mc_dropout"):
        raise UserError(f"{model.card.name} has no Monte Carlo dropout; EMENet's models have")
    model.with_mc_dropout(passes)


def _split(total: np.ndarray, aleatoric: np.ndarray) -> dict[str, np.ndarray]:
    total = np.clip(total, 0.0, 1.0)
    aleatoric = np.clip(aleatoric, 0.0, total)  # Jensen's inequality, up to rounding
    return {
        "total": total.astype(np.float32),
        "aleatoric": aleatoric.astype(np.float32),
        "epistemic": (total - aleatoric).astype(np.float32),
    }
