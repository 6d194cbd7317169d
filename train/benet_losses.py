"""BENet's targets and losses (specification: the ACIVS 2023 code's configuration).

Targets of one picture are lists over people; batches pad them to the largest number of people. `known` says whose
emotions are known, so that pictures with boxes alone and weakly labelled ones train in the same batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

EPS = 1e-6  # inside every logarithm
SIZE_WEIGHT = 0.1
SIGMA = 2  # of the heatmap's bumps, in cells, at both scales


@dataclass(frozen=True)
class Aim:
    """What is asked for around a person's centre; the defaults are the published targets.

    Attributes:
        spread: sigma of the heatmap's bumps in shares of the box's sides (Liu et al., TTFNet, AAAI 2020: 0.09), so that
            the centre of a large person need not be met to the cell; 0: `SIGMA` cells for everybody.
        cells: places per person at which size and emotions are learnt: the centre, the others drawn from the bump, so
            that a peak beside the centre reads the same.
        relative: errors of sizes in shares of the true ones instead of a tenth of their pixels.
    """

    spread: float = 0.0
    cells: int = 1
    relative: bool = False


PUBLISHED = Aim()


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


def sigmas(boxes: np.ndarray, spread: float) -> np.ndarray:
    """Deviations (x, y) of the bumps of boxes [P, 4] in cells, [P, 2]; at least 1."""
    return np.maximum(spread * (boxes[:, 2:] - boxes[:, :2]), 1.0)


def bumps(boxes: np.ndarray, resolution: int, spread: float) -> np.ndarray:
    """As `heatmap`, float32 [r, r], with bumps as wide and high as the boxes [P, 4] ask for."""
    out = np.zeros((resolution, resolution), np.float32)
    axis = np.arange(resolution)[:, None]
    at = centres(boxes)
    across, down = (np.exp(-((axis - at[:, k]) ** 2) / (2 * sigmas(boxes, spread)[:, k] ** 2)) for k in (0, 1))
    for person in range(len(boxes)):
        np.maximum(out, down[:, person, None] * across[None, :, person], out=out, casting="same_kind")
    return out


def around(boxes: np.ndarray, resolution: int, aim: Aim, rng: np.random.Generator) -> np.ndarray:
    """The cells (x, y) at which people [P, 4] are learnt, int64 [P * aim.cells, 2], every person's together."""
    at = np.repeat(centres(boxes), aim.cells, axis=0)
    moves = np.rint(rng.normal(size=at.shape) * np.repeat(sigmas(boxes, aim.spread), aim.cells, axis=0))
    moves[:: aim.cells] = 0
    return (at + moves).clip(0, resolution - 1).astype(np.int64)


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


def size_l1(predicted: Tensor, sizes: Tensor, present: Tensor, relative: bool = False) -> Tensor:
    """Absolute errors of height and width summed over people, per person, [N]; people [N, P, 2], `present` [N, P].

    Relative ones are in shares of the true sizes.
    """
    error = (predicted.float() - sizes).abs() / (sizes.clamp(min=1) if relative else 1)
    error = error.sum(-1) * present
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
    model: nn.Module,
    outputs: dict[str, Tensor],
    batch: dict[str, Tensor],
    published: bool = False,
    relative: bool = False,
) -> dict[str, Tensor]:
    """Every part of the loss of one batch, each the mean over its pictures times its factor.

    Args:
        model: the BENet, for its layers to the second vocabulary.
        outputs: of `BENet.forward` with the batch's routes.
        batch: as `benet_data.collate` makes it.
        published: person and background heads of pictures of the second data set skip their layer and train the
            first logits with labels of the other vocabulary, as the original does.
        relative: see `Aim`.

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
                error = size_l1(predicted, batch[f"sizes{scale}"][rows], present, relative)[some].mean()
                out[f"size{scale}"] = error if relative else SIZE_WEIGHT * error
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
