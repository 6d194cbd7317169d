"""BENet's training samples: which head sees what of a scene, and batches of targets.

One sample is one annotated person with the rest of his or her picture. A head is drawn for it: "det" and "bu" see the
picture ("bu" with some people blacked out), "pc" a crop of the person, "bg" the picture with everybody blacked out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from emotion.datasets.scenes import Scene, Scenes
from emotion.labels import VAD
from emotion.models.benet import BENetConfig
from train import benet_augment as augment
from train import benet_losses as losses

CROWDED = 0.4  # share of the picture covered by people, or of a person covered by others, that rules out a head
VISIBLE = 0.6  # share of a person that must stay visible when others are blacked out


@dataclass
class Sample:
    """One picture with P people, the first of them the sample's own.

    Attributes:
        picture: uint8 [h, w, 3].
        boxes: float [P, 4].
        labels: float32 [P, K] in the vocabulary of its data set.
        affect: float32 [P, 3], valence, arousal, dominance in [0, 1], NaN where missing.
        known: bool [P], whose emotions are labelled.
        second: labels are of the model's second vocabulary.
        ignore: float [Q, 4], regions about which the boxes say nothing.
    """

    picture: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    affect: np.ndarray
    known: np.ndarray
    second: bool = False
    ignore: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))

    def people(self, keep: np.ndarray) -> Sample:
        """The same picture with some of its people, by index array or mask."""
        rows = {name: getattr(self, name)[keep] for name in ("boxes", "labels", "affect", "known")}
        return Sample(self.picture, second=self.second, ignore=self.ignore, **rows)


# -- which head --------------------------------------------------------------------------------------------------------


def crowding(boxes: np.ndarray, size: tuple[int, int]) -> tuple[float, float]:
    """Share of the picture (width, height) that boxes cover, and of the first box that others cover, summed."""
    own = augment.areas(boxes[:1])[0]
    covered = augment.intersections(boxes[0], boxes[1:]).sum() / own if own else 0.0
    return float(augment.areas(boxes).sum() / (size[0] * size[1])), float(covered)


def head_weights(weights: dict[str, float], boxes: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    """Probability of every head for one sample: where people cover much, `bg` or `pc` make no sense.

    A head that is ruled out leaves its probability to the others in equal parts.
    """
    weights = dict(weights)
    for head, share in zip(("bg", "pc"), crowding(boxes, size)):
        if head in weights and share > CROWDED and len(weights) > 1:
            lost = weights.pop(head) / len(weights)
            weights = {k: v + lost for k, v in weights.items()}
    return weights


def kept_people(boxes: np.ndarray, order: Sequence[int], coins: Sequence[float]) -> list[int]:
    """Who stays visible when people are blacked out at random, in the order of the draw.

    Args:
        boxes: [P, 4].
        order: random permutation of the people; the first stays.
        coins: a uniform number for each of the others in that order; above 0.5 he or she goes, unless that would
            hide somebody who stays: when one box's centre lies in the x- or y-range of the other, or less than
            `VISIBLE` of a box would remain.
    """
    kept, visible = [order[0]], {order[0]: 1.0}
    for person, coin in zip(order[1:], coins):
        if coin > 0.5 and _may_go(boxes, person, kept, visible):
            continue
        kept.append(person)
        visible[person] = 1.0
    return kept


def _may_go(boxes: np.ndarray, person: int, kept: list[int], visible: dict[int, float]) -> bool:
    new = boxes[person]
    for k in kept:
        if _aligned(boxes[k], new) or _aligned(new, boxes[k]):
            return False
        visible[k] -= augment.intersections(new, boxes[k : k + 1])[0] / max(augment.areas(boxes[k : k + 1])[0], 1e-9)
        if visible[k] < VISIBLE:
            return False
    return True


def _aligned(box: np.ndarray, other: np.ndarray) -> bool:
    """Whether the centre of `box` lies in the x-range or in the y-range of `other`."""
    centre = (box[:2] + box[2:]) / 2
    return bool(((other[:2] <= centre) & (centre <= other[2:])).any())


def blacked_out(picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A copy with the boxes set to 0."""
    picture = picture.copy()
    for x0, y0, x1, y1 in boxes.astype(int).clip(0):
        picture[y0:y1, x0:x1] = 0
    return picture


def for_head(sample: Sample, head: str, rng: np.random.Generator) -> Sample:
    """What a head sees of a sample."""
    if head == "bu" and len(sample.boxes) > 1:
        order = rng.permutation(len(sample.boxes)).tolist()
        kept = kept_people(sample.boxes, order, rng.random(len(order) - 1).tolist())
        gone = sorted(set(order) - set(kept))
        picture = blacked_out(sample.picture, sample.boxes[gone])
        sample = sample.people(np.array(kept))
        sample.picture = picture
    elif head == "pc":
        x0, y0, x1, y1 = sample.boxes[0].astype(int)
        sample = sample.people(np.array([0]))
        sample.picture = sample.picture[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    elif head == "bg":
        picture = blacked_out(sample.picture, sample.boxes)
        labels, affect, known = sample.labels.max(0), sample.affect, sample.known.any()
        rows = np.isfinite(affect).all(axis=1)
        mean = affect[rows].mean(0) if rows.any() else affect[0]
        whole = np.array([[0, 0, picture.shape[1], picture.shape[0]]], float)
        sample = Sample(picture, whole, labels[None], mean[None], np.array([known]), sample.second)
    return sample


# -- batches -----------------------------------------------------------------------------------------------------------


class Source(Protocol):
    """Where samples come from."""

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator) -> Sample: ...


class Annotated:
    """Every person of annotated scenes once, that person first.

    Args:
        data: the scenes; people whose box has no area are left out.
        second: whether the labels are of the model's second vocabulary.
        detection: also give what teaches only where people are: pictures without people, and without any emotion.
        calm: people may show no emotion at all; otherwise a picture without any emotion teaches none.
    """

    def __init__(self, data: Scenes, second: bool = False, detection: bool = True, calm: bool = False) -> None:
        self.data, self.second, self.calm = data, second, calm
        people = [_real(scene) for scene in data.scenes]
        taught = [i for i, real in enumerate(people) if detection or self._known(data.scenes[i], real).any()]
        self.index = [(i, k) for i in taught for k in people[i]]
        if detection:
            self.index += [(i, -1) for i, real in enumerate(people) if not real]

    def __len__(self) -> int:
        return len(self.index)

    def _known(self, scene: Scene, people: Sequence[int]) -> np.ndarray:
        """Whose emotions teach something, bool [P] in the order of `people`."""
        labels = self.data.targets(scene)[0][people]
        useful = self.calm or bool((labels == 1).any())
        return np.isfinite(labels).all(axis=1) & useful

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """The picture of one person."""
        i, k = self.index[index]
        scene = self.data.scenes[i]
        others = [j for j in _real(scene) if j != k]
        order = np.array(others if k < 0 else [k, *others], int)
        labels, affect = self.data.targets(scene)
        return Sample(
            picture=self.data.picture(i),
            boxes=scene.boxes[order],
            labels=np.nan_to_num(labels[order]),
            affect=affect[order],
            known=self._known(scene, order),
            second=self.second,
            ignore=np.concatenate([scene.boxes[scene.crowd], *_unsure(scene)]),
        )


def _unsure(scene: Scene) -> list[np.ndarray]:
    """Where people may be whom nobody annotated: all around those of an incomplete annotation, [4, 4] if anything."""
    if not scene.complete_from or not len(scene):
        return []
    (x0, y0), (x1, y1) = scene.boxes[:, :2].min(0), scene.boxes[:, 2:].max(0)
    w, h = scene.size
    return [np.array([[0, 0, w, y0], [0, y1, w, h], [0, y0, x0, y1], [x1, y0, w, y1]], float)]


def _real(scene: Scene) -> list[int]:
    """People with a box of some area that is no crowd."""
    return np.flatnonzero((augment.areas(scene.boxes) > 0) & ~scene.crowd).tolist()


class SceneData(Dataset):
    """Varied samples of several sources with the targets of one drawn head each.

    Args:
        sources: where samples come from.
        config: of the network; gives input size, vocabularies and heads.
        weights: head -> probability; "det+bu" means both on the same picture, with everybody visible.
        how: variation.
        published: the original's geometry, faults included.
        side: of the square crops in pixels; default the model's input size.
        aim: what is asked for around the centres.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: BENetConfig,
        weights: dict[str, float],
        how: augment.Variation | None = None,
        published: bool = False,
        side: int | None = None,
        aim: losses.Aim = losses.PUBLISHED,
    ) -> None:
        self.aim = aim
        self.sources, self.config, self.weights, self.published = list(sources), config, weights, published
        self.how, self.side = how or augment.Variation(), side or config.input.size
        self.ends = np.cumsum([len(s) for s in self.sources])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,))))  # follows the worker's seed
        part = int(np.searchsorted(self.ends, index, side="right"))
        sample = self.sources[part].sample(index - (int(self.ends[part - 1]) if part else 0), rng)
        size = (sample.picture.shape[1], sample.picture.shape[0])
        if sample.known.any():
            weights = head_weights(self.weights, sample.boxes, size)
        else:  # nothing to teach but detection, if the model has it
            other = "det" if "det" in self.config.heads else "bu"
            weights = {h: w for h, w in self.weights.items() if "det" in h} or {other: 1.0}
        head = str(rng.choice(list(weights), p=np.array(list(weights.values())) / sum(weights.values())))
        return self.row(for_head(sample, head, rng), head, augment.draw(rng, self.how.flip), rng)

    def row(self, sample: Sample, head: str, d: augment.Draw, rng: np.random.Generator) -> dict[str, Any]:
        """Network input and targets of a sample under one draw."""
        side, ignore = self.side, sample.ignore
        size, longer = (sample.picture.shape[1], sample.picture.shape[0]), head == "pc"
        m = augment.matrix(d, size, side, longer, self.how)
        if head not in ("pc", "bg") and not self.published:
            inside = augment.inside(sample.boxes, m, side)
            ignore = np.concatenate([ignore, sample.boxes[~inside]])  # what is left of them is nobody's absence
            sample = sample.people(inside)
        picture = augment.warp(sample.picture, m, side, d.flip)
        out: dict[str, Any] = {
            "image": augment.photometric(picture, rng, self.how, self.config.input),
            "head": head,
            "second": sample.second,
            "labels": sample.labels,
            "affect": sample.affect[:, [VAD.index(a) for a in self.config.affect]],
            "known": sample.known,
        }
        for scale, stride in ((0, 4), (1, 2)):
            cells, shrink = side // stride, np.diag([1 / stride, 1 / stride, 1])
            if self.published:
                at = augment.matrix(d, size, cells, longer, self.how)
                boxes = augment.move_boxes(sample.boxes, at, cells, d.flip, published=True)
            else:
                boxes = augment.move_boxes(sample.boxes, shrink @ m, cells, d.flip)
            out[f"boxes{scale}"] = boxes
            if "det" in head:
                out[f"ignore{scale}"] = augment.move_boxes(ignore, shrink @ m, cells, d.flip)
        return out

    def loader(self, batch: int, workers: int = 0) -> DataLoader:
        """Shuffled batches; a last one too small for batch norm is dropped."""
        collate = Collate(self.config, self.side, self.aim)
        return DataLoader(
            self, batch, shuffle=True, num_workers=workers, collate_fn=collate, drop_last=len(self) > batch
        )


class Collate:
    """Rows of `SceneData` as a batch: people padded to the largest number, each of them `aim.cells` times; maps drawn.

    The batch holds "images" [N, 3, S, S], "routes" (head -> image numbers), "present" and "known" bool [N, P],
    "second" bool [N], "labels" [N, P, K] and "labels_extra" [N, P, K2], "affect" [N, P, A], and per scale "cells"
    int64 [N, P, 2], "sizes" [N, P, 2], "heatmap" [N, r, r] and "ignore" bool [N, r, r].
    """

    def __init__(self, config: BENetConfig, side: int | None = None, aim: losses.Aim = losses.PUBLISHED) -> None:
        self.config, self.side, self.aim = config, side or config.input.size, aim

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        times = self.aim.cells
        n, p = len(rows), times * max(1, *(len(r["boxes0"]) for r in rows))
        k, second, a = len(self.config.labels), len(self.config.extra), len(self.config.affect)
        routes: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            for head in row["head"].split("+"):
                routes.setdefault(head, []).append(i)
        out = {
            "images": torch.stack([r["image"] for r in rows]).contiguous(memory_format=torch.channels_last),
            "routes": routes,
            "second": torch.tensor([r["second"] for r in rows]),
            "present": torch.zeros(n, p, dtype=torch.bool),
            "known": torch.zeros(n, p, dtype=torch.bool),
            "labels": torch.zeros(n, p, k),
            "labels_extra": torch.zeros(n, p, second),
            "affect": torch.full((n, p, a), float("nan")),
        }
        for i, row in enumerate(rows):
            here = times * len(row["boxes0"])
            known, labels, affect = (np.repeat(row[name], times, axis=0) for name in ("known", "labels", "affect"))
            out["present"][i, :here] = True
            out["known"][i, :here] = torch.from_numpy(known)
            if labels.shape[1]:  # data with boxes alone have no vocabulary, and nobody known
                out["labels_extra" if row["second"] else "labels"][i, :here] = torch.from_numpy(labels)
            out["affect"][i, :here] = torch.from_numpy(affect.astype(np.float32))
        for scale in (0, 1):
            out |= self._maps(rows, scale, p)
        return out

    def _maps(self, rows: list[dict[str, Any]], scale: int, p: int) -> dict[str, torch.Tensor]:
        n, r, aim = len(rows), self.side // (4, 2)[scale], self.aim
        seed = int(torch.randint(2**62, (1,))) if aim.cells > 1 else 0  # follows the worker's
        rng = np.random.default_rng(seed)
        cells, sizes = torch.zeros(n, p, 2, dtype=torch.long), torch.zeros(n, p, 2)
        heat, ignore = torch.zeros(n, r, r), torch.zeros(n, r, r, dtype=torch.bool)
        for i, row in enumerate(rows):
            boxes = row[f"boxes{scale}"]
            here = aim.cells * len(boxes)
            cells[i, :here] = torch.from_numpy(losses.around(boxes, r, aim, rng))
            width, height = np.repeat(boxes[:, 2:] - boxes[:, :2], aim.cells, axis=0).astype(np.float32).T
            sizes[i, :here] = torch.from_numpy(np.stack([height, width], axis=1))
            if "det" in row["head"]:
                drawn = losses.bumps(boxes, r, aim.spread) if aim.spread else losses.heatmap(losses.centres(boxes), r)
                heat[i] = torch.from_numpy(drawn)
            for x0, y0, x1, y1 in row.get(f"ignore{scale}", np.zeros((0, 4))).astype(int):
                ignore[i, y0 : y1 + 1, x0 : x1 + 1] = heat[i, y0 : y1 + 1, x0 : x1 + 1] < 1
        return {f"cells{scale}": cells, f"sizes{scale}": sizes, f"heatmap{scale}": heat, f"ignore{scale}": ignore}
