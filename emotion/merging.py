"""How the members of a multitask ensemble become one answer: the five rules of the FG-2020 system, by name.

| rule | action units | expression | valence, arousal |
|---|---|---|---|
| predictor | mean probability, tuned thresholds | mean probability | mean of the members' values |
| api | probability of the mean logit, tuned thresholds | of the mean logits | value of the mean logits |
| first | share of members above 0.5, more than half | share of votes | mean of the members' values |
| second | mean probability, tuned thresholds | mean probability | most frequent bin of each axis |
| single | the first member alone, 0.5 | the first member | the first member |

Ties of votes and bins go to the lowest index. Valence and arousal are expected values over bins from -1 to 1.
"""

from __future__ import annotations

import numpy as np

RULES = ("predictor", "api", "first", "second", "single")
UNTUNED = ("first", "single")  # rules that decide on action units at 0.5


def merge(logits: dict[str, np.ndarray], rule: str = "predictor") -> dict[str, np.ndarray]:
    """Scores of the ensemble.

    Args:
        logits: "expression" [M, N, K], "action_units" [M, N, U], "valence_arousal" [M, N, 2, bins]; any of them.
        rule: one of `RULES`.

    Returns:
        The same tasks: probabilities or shares [N, K] and [N, U], values in [-1, 1] [N, 2].

    Raises:
        ValueError: unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"unknown merging rule {rule!r}; there are: {', '.join(RULES)}")
    if rule == "api":
        logits = {t: z.mean(axis=0, keepdims=True) for t, z in logits.items()}
    elif rule == "single":
        logits = {t: z[:1] for t, z in logits.items()}
    voting = rule == "first"
    out = {}
    if (z := logits.get("expression")) is not None:
        out["expression"] = vote_share(z.argmax(-1), z.shape[-1]) if voting else softmax(z).mean(axis=0)
    if (z := logits.get("action_units")) is not None:
        p = sigmoid(z)
        out["action_units"] = (p > 0.5).mean(axis=0) if voting else p.mean(axis=0)
    if (z := logits.get("valence_arousal")) is not None:
        bins = bin_values(z.shape[-1])
        if rule == "second":
            out["valence_arousal"] = bins[vote_share(z.argmax(-1), z.shape[-1]).argmax(-1)]
        else:
            out["valence_arousal"] = (softmax(z) @ bins).mean(axis=0)
    return out


def search_thresholds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Per action unit the lowest score at which precision and recall come nearest to each other.

    Args:
        scores: [N, U], e.g. merged probabilities; positive means score >= threshold.
        labels: 0 or 1, [N, U]; any other value is unlabelled and left out.

    Returns:
        Thresholds [U]; 0.5 for a unit without a positive label.
    """
    return np.array([_balanced(s[known], y[known] == 1) for s, y, known in _columns(scores, labels)])


def _columns(scores: np.ndarray, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [(s, y, (y == 0) | (y == 1)) for s, y in zip(np.asarray(scores).T, np.asarray(labels).T)]


def _balanced(scores: np.ndarray, positive: np.ndarray) -> float:
    if not positive.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(positive[order])
    last = np.append(scores[1:] != scores[:-1], True)  # equal scores become positive together
    precision = hits / np.arange(1, len(hits) + 1)
    gap = np.abs(precision - hits / hits[-1])[last][::-1]
    return float(scores[last][::-1][gap.argmin()])


def vote_share(choices: np.ndarray, classes: int) -> np.ndarray:
    """Share of members that chose each class: int [M, ...] -> [..., classes]."""
    return (choices[..., None] == np.arange(classes)).mean(axis=0)


def bin_values(bins: int) -> np.ndarray:
    """Values that the bins of valence and arousal stand for when decoded: -1 to 1, both included."""
    return np.linspace(-1, 1, bins)


def bin_moments(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance [...] of distributions over bins [..., bins]."""
    values = bin_values(p.shape[-1])
    means = p @ values
    return means, np.maximum(p @ values**2 - means**2, 0.0)


def softmax(z: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Probabilities of independent logits; saturates without overflow."""
    return np.exp(-np.logaddexp(0.0, -z))
