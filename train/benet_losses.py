"""BENet's targets and losses (specification: the ACIVS 2023 code's configuration).

Targets of one picture are lists over people; batches pad them to the largest number of people. `known` says whose
emotions are known, so that pictures with boxes alone and weakly labelled ones train in the same batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

EPS = 1e-6  # inside every logarithm
SIZE_WEIGHT = 0.1
SIGMA = 2  # of the heatmap's bumps, in cells, at both scales


def centres(boxes: np.ndarray) -> np.ndarray:
    """The cells (x, y) of boxes [P, 4] in map coordinates, int64 [P, 2]."""
    return ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.int64)


def heatmap(cells: np.ndarray, resolution: int, sigma: float = SIGMA) -> np.ndarray:
    """Bumps around the centres, float32 [r, r]: the maximum of Gaussians cut to a square of half-side 3 sigma + 1.

    A negative `sigma` means a 64th of the resolution.
    """
    sigma = resolution / 64 if sigma < 0 else sigma
    reach = int(3 * sigma + 1)
    out = np.zeros((resolution, resolution), np.float32)
    for x, y in cells:
        rows, columns = (np.arange(max(c - reach, 0), min(c + reach + 1, resolution)) for c in (y, x))
        bump = np.exp(-((rows[:, None] - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
        patch = out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) and len(columns) else bump
        np.maximum(patch, bump, out=patch)
    return out


def heatmap_focal(logits: Tensor, target: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Focal loss of centre maps (Law & Deng, CornerNet, ECCV 2018, equation 1) per picture.

    Args:
        logits, target: [N, r, r].
        ignore: bool [N, r, r], cells about which nothing is known.

    Returns:
        [N], divided by the number of centres where there are any.
    """
    p = logits.float().sigmoid()
    centre = target == 1
    found = (p + EPS).log() * (1 - p) ** 2
    absent = (1 - p + EPS).log() * p**2 * (1 - target) ** 4
    terms = torch.where(centre, found, absent)
    if ignore is not None:
        terms = terms.masked_fill(ignore, 0)
    return -terms.sum((1, 2)) / centre.sum((1, 2)).clamp(min=1)


def at_cells(maps: Tensor, cells: Tensor) -> Tensor:
    """Values [N, P, C] of maps [N, C, r, r] at cells (x, y), int64 [N, P, 2]."""
    n, c, _, width = maps.shape
    place = (cells[..., 1] * width + cells[..., 0]).unsqueeze(1).expand(-1, c, -1)
    return maps.reshape(n, c, -1).gather(2, place).transpose(1, 2)


def size_l1(predicted: Tensor, sizes: Tensor, present: Tensor) -> Tensor:
    """Absolute errors of height and width summed over people, per person, [N]; people [N, P, 2], `present` [N, P]."""
    error = (predicted.float() - sizes).abs().sum(-1) * present
    return error.sum(1) / present.sum(1).clamp(min=1)


def emotion_focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss of independent emotions, summed over them: [..., K] -> [...]."""
    p = logits.float().sigmoid()
    terms = torch.where(labels == 1, (p + EPS).log() * (1 - p) ** 2, (1 - p + EPS).log() * p**2)
    return -terms.sum(-1)


def people_mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean over the known people of each picture, [N, P] -> [M] for the M pictures that have any."""
    some = known.any(1)
    total = torch.where(known, values, 0).sum(1)
    return total[some] / known.sum(1)[some]


def affect_error(logits: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of sigmoid(logits) against values in [0, 1], mean over the axes, and whether all values are known.

    Missing values are NaN; they must not reach the difference, where they would spoil the gradient.
    """
    error = (logits.float().sigmoid() - values.nan_to_num()).square().mean(-1)
    return error, values.isfinite().all(-1)


def parts(
    model: nn.Module, outputs: dict[str, Tensor], batch: dict[str, Tensor], published: bool = False
) -> dict[str, Tensor]:
    """Every part of the loss of one batch, each the mean over its pictures times its factor.

    Args:
        model: the BENet, for its layers to the second vocabulary.
        outputs: of `BENet.forward` with the batch's routes.
        batch: as `benet_data.collate` makes it.
        published: person and background heads of pictures of the second data set skip their layer and train the
            first logits with labels of the other vocabulary, as the original does.

    Returns:
        "heatmap0", "size0", "bu0", "bu0_extra", "bu0_affect", "pc", ...: only parts that have pictures.
    """
    out: dict[str, Tensor] = {}
    routes = {head: torch.as_tensor(rows) for head, rows in batch["routes"].items()}
    for scale in (0, 1):
        cells = batch[f"cells{scale}"]
        if "heatmap0" in outputs:
            rows = routes["det"]
            maps = outputs[f"heatmap{scale}"][:, 0]
            ignore = batch[f"ignore{scale}"][rows] if f"ignore{scale}" in batch else None
            out[f"heatmap{scale}"] = heatmap_focal(maps, batch[f"heatmap{scale}"][rows], ignore).mean()
            present = batch["present"][rows]
            some = present.any(1)
            predicted = at_cells(outputs[f"size{scale}"], cells[rows])
            if some.any():
                error = size_l1(predicted, batch[f"sizes{scale}"][rows], present)[some].mean()
                out[f"size{scale}"] = SIZE_WEIGHT * error
        if "bu0" in outputs:
            maps = outputs[f"bu{scale}"]
            out |= _emotions(model, f"bu{scale}", maps, batch, routes["bu"], cells, published=False)
    for head in ("pc", "bg"):
        if head in outputs:
            out |= _emotions(model, head, outputs[head], batch, routes[head], None, published)
    return out


def _emotions(
    model: nn.Module,
    name: str,
    logits: Tensor,
    batch: dict[str, Tensor],
    rows: Tensor,
    cells: Tensor | None,
    published: bool,
) -> dict[str, Tensor]:
    """Parts of one emotion head: the model's own vocabulary, the second one, and the continuous values."""
    n = len(model.config.labels)
    out: dict[str, Tensor] = {}
    second = batch["second"][rows]
    own, other = logits[~second], logits[second]
    for suffix, values, chosen in (("", own, rows[~second]), ("_extra", other, rows[second])):
        if not len(chosen):
            continue
        labels = batch["labels_extra" if suffix else "labels"][chosen]
        if suffix:
            values = values[:, : labels.shape[-1]] if published else model.extra[name](values[:, :n])
        at_people = at_cells(values, cells[chosen]) if cells is not None else values.unsqueeze(1)
        known = batch["known"][chosen]
        if cells is None:  # one vector per picture: its first entry
            labels, known = labels[:, :1], known[:, :1]
        losses = people_mean(emotion_focal(at_people[..., : labels.shape[-1]], labels), known)
        if len(losses):
            out[f"{name}{suffix}"] = losses.mean()
        if model.config.affect and not suffix:
            present = batch["present"][chosen] if cells is not None else torch.ones_like(known)
            error, complete = affect_error(at_people[..., n:], batch["affect"][chosen][:, : at_people.shape[1]])
            affect = people_mean(error, present & complete)
            if len(affect):
                out[f"{name}_affect"] = affect.mean()
    return out
