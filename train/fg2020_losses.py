"""Losses of the FG-2020 system: supervised where labelled, distillation everywhere (Deng, Chen, Shi 2020, section 3).

Logits and targets are dicts by task with any leading dimensions, which count as rows:
"expression" [..., K] and distributions [..., K]; "action_units" [..., U] and 0/1 [..., U];
"valence_arousal" [..., 2, bins] and values in [-1, 1] [..., 2]. NaN marks a missing label.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from emotion.errors import UserError

PARTS = ("expression", "action_units", "valence", "arousal")
TAILS = {"expression": 1, "action_units": 1, "valence_arousal": 2}


@dataclass(frozen=True)
class Weights:
    """Numbers and choices of the losses; the defaults are the paper's.

    Attributes:
        expression, action_units, valence, arousal: factors of the teacher's four losses.
        ccc: factor of 1 - CCC beside the cross-entropy over bins.
        temperature: of distilled expressions, valence and arousal (no factor T squared).
        teacher: share of distillation where a sample has a label of its own; the label gets the rest.
        expression_loss, action_unit_loss: "entropy" or "focal".
    """

    expression: float = 1.0
    action_units: float = 8.0
    valence: float = 1.0
    arousal: float = 1.0
    ccc: float = 1.0
    temperature: float = 1.5
    teacher: float = 0.4
    expression_loss: str = "entropy"
    action_unit_loss: str = "entropy"

    def __post_init__(self) -> None:
        for name in ("expression_loss", "action_unit_loss"):
            if getattr(self, name) not in ("entropy", "focal"):
                raise UserError(f"{name} must be entropy or focal, not {getattr(self, name)!r}")


def rows(logits: dict[str, Tensor]) -> dict[str, Tensor]:
    """Logits in float32 with all leading dimensions flattened to one."""
    return {t: z.float().reshape(-1, *z.shape[z.ndim - TAILS[t] :]) for t, z in logits.items()}


def supervised(logits: dict[str, Tensor], targets: dict[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """Mean losses over the labelled rows, without the teacher's factors; a part without any label is absent."""
    out = {}
    z = rows(logits)
    y = {t: targets[t].reshape(-1, targets[t].shape[-1]) for t in z if t in targets}
    if "expression" in y and (known := y["expression"].isfinite().all(-1)).any():
        loss = focal_softmax if weights.expression_loss == "focal" else soft_cross_entropy
        out["expression"] = loss(z["expression"][known], y["expression"][known])
    if "action_units" in y and y["action_units"].isfinite().any():
        loss = focal_sigmoid if weights.action_unit_loss == "focal" else binary_cross_entropy
        out["action_units"] = loss(z["action_units"], y["action_units"])
    if "valence_arousal" in y:
        for axis, part in enumerate(("valence", "arousal")):
            values = y["valence_arousal"][:, axis]
            if (known := values.isfinite()).any():
                out[part] = affect_loss(z["valence_arousal"][known, axis], values[known], weights.ccc)
    return out


def teacher_loss(logits: dict[str, Tensor], targets: dict[str, Tensor], weights: Weights) -> Tensor:
    """Weighted sum of the supervised losses of one batch; batches of several tasks are added up.

    Raises:
        UserError: nothing in the batch is labelled.
    """
    parts = supervised(logits, targets, weights)
    if not parts:
        raise UserError("a training batch has no label of any task; check the data sets of the recipe")
    return sum(getattr(weights, part) * loss for part, loss in parts.items())


def student_losses(
    logits: dict[str, Tensor], teacher: dict[str, Tensor], targets: dict[str, Tensor], weights: Weights
) -> dict[str, Tensor]:
    """Losses of one batch per part; their sum, averaged over the batches of a step, is the student's loss.

    A row without a label for a part is distilled with weight 1, a row with one with `weights.teacher`; the label's
    own loss has the remaining weight, times the share of labelled rows.
    """
    z, soft = rows(logits), rows(teacher)
    labelled = _labelled(z, targets)
    own = supervised(logits, targets, weights)
    out = {}
    for part, loss in distillation(z, soft, weights.temperature).items():
        known = labelled[part].to(loss.dtype)
        out[part] = (loss * (1 - known * (1 - weights.teacher))).mean()
        if part in own:
            out[part] = out[part] + (1 - weights.teacher) * known.mean() * own[part]
    return out


def _labelled(z: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Which rows (of action units: which entries) have a label, bool [rows] or [rows, U]."""
    missing = {t: torch.full(v.shape[:2], torch.nan, device=v.device) for t, v in z.items()}
    y = {t: targets[t].reshape(-1, targets[t].shape[-1]) if t in targets else missing[t] for t in z}
    out = {}
    if "expression" in y:
        out["expression"] = y["expression"].isfinite().all(-1)
    if "action_units" in y:
        out["action_units"] = y["action_units"].isfinite()
    if "valence_arousal" in y:
        out["valence"], out["arousal"] = y["valence_arousal"].isfinite().unbind(-1)
    return out


def distillation(z: dict[str, Tensor], teacher: dict[str, Tensor], temperature: float) -> dict[str, Tensor]:
    """Distance to the teacher per row (of action units: per entry), for every part.

    Expression, valence, arousal: Kullback-Leibler divergence at the temperature; action units: binary cross-entropy
    against the teacher's probabilities.
    """
    out = {}
    if "expression" in z:
        out["expression"] = _divergence(z["expression"], teacher["expression"], temperature)
    if "action_units" in z:
        out["action_units"] = F.binary_cross_entropy_with_logits(
            z["action_units"], teacher["action_units"].sigmoid(), reduction="none"
        )
    if "valence_arousal" in z:
        both = _divergence(z["valence_arousal"], teacher["valence_arousal"], temperature)
        out["valence"], out["arousal"] = both.unbind(-1)
    return out


def _divergence(z: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    p, q = (teacher / temperature).log_softmax(-1), (z / temperature).log_softmax(-1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def affect_loss(z: Tensor, values: Tensor, ccc: float) -> Tensor:
    """Cross-entropy over the bins plus `ccc` times 1 - CCC of the expected value: z [N, bins], values [N]."""
    expected = z.softmax(-1) @ torch.linspace(-1, 1, z.shape[-1], device=z.device)
    return ccc * (1 - concordance(expected, values)) + F.cross_entropy(z, affect_classes(values, z.shape[-1]))


def affect_classes(values: Tensor, bins: int = 20) -> Tensor:
    """Class of each value: `bins` equal intervals of [-1, 1], closed on the left; values outside are clipped."""
    edges = torch.linspace(-1, 1, bins + 1, dtype=torch.float64, device=values.device)
    return (torch.bucketize(values.double().clamp(-1, 1), edges, right=True) - 1).clamp(0, bins - 1)


def concordance(x: Tensor, y: Tensor) -> Tensor:
    """CCC of two vectors with unbiased moments, as the original trains on; 0 where it has no value."""
    if len(x) < 2:
        return x.sum() * 0
    dx, dy = x - x.mean(), y - y.mean()
    scale = 1 / (len(x) - 1)
    below = (dx @ dx + dy @ dy) * scale + (x.mean() - y.mean()) ** 2
    return torch.where(below > 0, 2 * (dx @ dy) * scale / below.clamp_min(torch.finfo(x.dtype).tiny), 0.0)


def soft_cross_entropy(z: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy against distributions, mean over rows."""
    return -(target * z.log_softmax(-1)).sum(-1).mean()


def binary_cross_entropy(z: Tensor, target: Tensor) -> Tensor:
    """Mean over all labelled entries."""
    known = target.isfinite()
    return F.binary_cross_entropy_with_logits(z[known], target[known])


def focal_softmax(z: Tensor, target: Tensor) -> Tensor:
    """Two-sided focal loss (gamma 2) on class probabilities, summed over classes, mean over rows."""
    p = z.softmax(-1)
    return _focal(target, p, z.log_softmax(-1), torch.log1p(-p.clamp(max=1 - 1e-7))).sum(-1).mean()


def focal_sigmoid(z: Tensor, target: Tensor) -> Tensor:
    """Two-sided focal loss (gamma 2) on independent probabilities, summed over labelled entries, mean over rows."""
    loss = _focal(target.nan_to_num(), z.sigmoid(), F.logsigmoid(z), F.logsigmoid(-z))
    return loss.masked_fill(target.isnan(), 0).sum(-1).mean()


def _focal(target: Tensor, p: Tensor, log_p: Tensor, log_not_p: Tensor) -> Tensor:
    return -(target * (1 - p) ** 2 * log_p + (1 - target) * p**2 * log_not_p)
