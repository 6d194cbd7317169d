"""How far probabilities can be believed: calibration error, negative log-likelihood, and temperature scaling."""

from __future__ import annotations

import numpy as np

TINY = 1e-8  # added to probabilities before the logarithm


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int = 10) -> dict[str, np.ndarray]:
    """Mean confidence and share of correct answers in equal bins over [0, 1]; the last bin includes 1.

    Args:
        confidences: probabilities, of any shape.
        correct: 0 or 1, of the same shape: whether the answer was right (one of several classes), or whether the
            label was there (independent labels). Anything else (-1, NaN) is unlabelled and left out.
        bins: number of bins.

    Returns:
        "accuracy", "confidence" (both 0 in an empty bin) and "share" (of all values), each [bins].

    Raises:
        ValueError: different shapes, or a labelled confidence that is not a number.
    """
    p, y = np.asarray(confidences, np.float64).ravel(), np.asarray(correct, np.float64).ravel()
    if len(p) != len(y):
        raise ValueError(f"{len(p)} confidences for {len(y)} labels")
    known = (y == 0) | (y == 1)
    p, y = p[known], y[known]
    if np.isnan(p).any():
        raise ValueError("a probability is not a number")
    p = np.clip(p, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
    where = np.minimum((p * bins).astype(np.int64), bins - 1)
    counts = np.bincount(where, minlength=bins)
    filled = np.maximum(counts, 1)
    return {
        "accuracy": np.bincount(where, y, minlength=bins) / filled,
        "confidence": np.bincount(where, p, minlength=bins) / filled,
        "share": counts / max(len(p), 1),
    }


def calibration(confidences: np.ndarray, correct: np.ndarray, bins: int = 10) -> dict[str, float]:
    """Expected, average and maximum calibration error (Naeini et al. 2015; Neumann et al. 2018).

    Args:
        confidences, correct, bins: as for `reliability`.

    Returns:
        "ece": gaps of the bins weighted by their share; "ace": mean gap of the bins that are not empty; "mce": largest
        gap; "bias": mean confidence minus share of correct answers (positive: too sure). NaN without any label.
    """
    table = reliability(confidences, correct, bins)
    share = table["share"]
    gap = np.abs(table["accuracy"] - table["confidence"])
    filled = share > 0
    if not filled.any():
        return dict.fromkeys(("ece", "ace", "mce", "bias"), float("nan"))
    return {
        "ece": float(gap @ share),
        "ace": float(gap[filled].mean()),
        "mce": float(gap[filled].max()),
        "bias": float((table["confidence"] - table["accuracy"]) @ share),
    }


def top_class(probabilities: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of the strongest class and whether it is right, for `calibration`.

    Args:
        probabilities: [N, K]; references: class indices [N], negative where unlabelled.
    """
    references = np.asarray(references)
    right = (np.asarray(probabilities).argmax(-1) == references).astype(np.float64)
    return np.max(probabilities, axis=-1), np.where(references < 0, np.nan, right)


def nll_classes(probabilities: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of class indices [N] under [N, K], in nats, [N]; NaN where the index is negative."""
    references = np.asarray(references, np.int64)
    p = np.take_along_axis(np.asarray(probabilities, np.float64), np.maximum(references, 0)[:, None], axis=-1)[:, 0]
    return np.where(references < 0, np.nan, -np.log(p + TINY))


def nll_labels(probabilities: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of labels 0 or 1 [N, U] under [N, U], in nats; NaN where a label is anything else."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(references)
    return np.where(y == 1, -np.log(p + TINY), np.where(y == 0, -np.log(1 - p + TINY), np.nan))


def nll_bins(probabilities: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of values in [-1, 1] under distributions over bins.

    As the EMENet paper's code has it: with edges linspace(-1, 1, bins), bin i holds the values above edge i - 1 up to
    edge i, so that only -1 itself falls into bin 0.

    Args:
        probabilities: [N, 2, bins]; references: [N, 2], NaN where unlabelled.

    Returns:
        [N, 2] in nats.
    """
    values = np.asarray(references, np.float64)
    bins = np.shape(probabilities)[-1]
    where = np.digitize(np.nan_to_num(np.clip(values, -1, 1)), np.linspace(-1, 1, bins), right=True)
    p = np.take_along_axis(np.asarray(probabilities, np.float64), where[..., None], axis=-1)[..., 0]
    return np.where(np.isfinite(values), -np.log(p + TINY), np.nan)


def fit_temperature(logits: np.ndarray, references: np.ndarray) -> float:
    """The temperature that logits must be divided by to become as likely as possible (Guo et al. 2017).

    The negative log-likelihood is convex in 1 / T; it is minimised by Newton's method there.

    Args:
        logits: [N, K] of classes with references [N] (class indices, negative: unlabelled), or [N] of one independent
            label with references [N] (0 or 1; anything else: unlabelled).

    Returns:
        T between 0.01 and 100; 1 without any label.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(references)
    if z.ndim == 1:
        known = (y == 0) | (y == 1)
        z, y = np.stack([np.zeros(known.sum()), z[known]], axis=-1), y[known]
    else:
        known = y >= 0
        z, y = z[known], y[known]
    if not len(z):
        return 1.0
    z = z - z.max(axis=-1, keepdims=True)
    right = np.take_along_axis(z, y.astype(np.int64)[:, None], axis=-1).mean()
    low, high, inverse = 0.01, 100.0, 1.0
    for _ in range(100):
        p = np.exp(z * inverse)
        p /= p.sum(axis=-1, keepdims=True)
        mean = (p * z).sum(-1)
        slope = mean.mean() - right
        curvature = ((p * z * z).sum(-1) - mean**2).mean()
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / max(curvature, 1e-12)
        following = step if low < step < high else np.sqrt(low * high)
        if abs(following - inverse) < 1e-10:
            break
        inverse = following
    return float(1 / inverse)


def brier_classes(probabilities: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Squared distance between distributions [N, K] and class indices [N], summed over classes, [N] in [0, 2].

    Brier 1950; NaN where the index is negative.
    """
    p, references = np.asarray(probabilities, np.float64), np.asarray(references, np.int64)
    truth = np.eye(p.shape[-1])[np.maximum(references, 0)]
    return np.where(references < 0, np.nan, ((p - truth) ** 2).sum(axis=-1))


def brier_labels(probabilities: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Squared difference of probabilities and labels 0 or 1 [N, U]; NaN where a label is anything else."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(references, np.float64)
    return np.where((y == 0) | (y == 1), (p - y) ** 2, np.nan)


def of_classes(probabilities: np.ndarray, references: np.ndarray, bins: int = 10) -> dict[str, float]:
    """All figures for one of K classes: "ece", "ace", "mce", "bias", "brier", "nll"; NaN without any label.

    Args:
        probabilities: [N, K]; references: class indices [N], negative where unlabelled; bins: as for `reliability`.
    """
    out = calibration(*top_class(probabilities, references), bins)
    return out | _means(brier_classes(probabilities, references), nll_classes(probabilities, references))


def of_labels(probabilities: np.ndarray, references: np.ndarray, bins: int = 10) -> dict[str, float]:
    """The same for independent labels [N, U], all of them pooled; anything but 0 and 1 is unlabelled."""
    out = calibration(probabilities, references, bins)
    return out | _means(brier_labels(probabilities, references), nll_labels(probabilities, references))


def _means(brier: np.ndarray, nll: np.ndarray) -> dict[str, float]:
    known = np.isfinite(brier)
    if not known.any():
        return {"brier": float("nan"), "nll": float("nan")}
    return {"brier": float(brier[known].mean()), "nll": float(nll[known].mean())}
