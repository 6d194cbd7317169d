"""Faces of other people with a clip's expression, for sets of voices that come without films.

Voice and face of such a clip are different persons: figures say how well two independent sources of evidence are
joined, not how good a model is on films.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from emotion.datasets import Samples
from emotion.datasets.clips import Entry
from emotion.errors import UserError

CALM = {"calm": "neutral"}  # no set of pictures has calm faces
AT_MOST = 500  # faces per expression, where a pool is limited

Pool = list[tuple[Samples, int]]  # faces, each as a set and its number there


def pools(
    parts: Sequence[Samples], labels: Sequence[str], stand_ins: Mapping[str, str], limited: bool
) -> dict[str, Pool]:
    """Label -> the faces that show it; labels with a common stand-in share one pool.

    Args:
        parts: labelled face crops.
        labels: the clips' expressions.
        stand_ins: expression of a clip -> expression of the faces it gets, where the pictures lack it.
        limited: take at most `AT_MOST` of every expression, the same ones every time.

    Raises:
        UserError: no picture shows one of the expressions.
    """
    by_label: dict[str, Pool] = {}
    for part in parts:
        for i, k in enumerate(part.classes()):
            by_label.setdefault(part.labels["expression"][k] if k >= 0 else "", []).append((part, i))
    wanted = {label: stand_ins.get(label, label) for label in labels}
    lacking = [label for label, name in wanted.items() if name not in by_label]
    if lacking:
        raise UserError(f"no borrowed face shows {', '.join(lacking)}; name a stand-in (borrow: {{calm: neutral}})")
    chosen = {name: by_label[name] for name in wanted.values()}
    if limited:
        draw = random.Random(0)
        chosen = {name: draw.sample(pool, min(len(pool), AT_MOST)) for name, pool in chosen.items()}
    return {label: chosen[name] for label, name in wanted.items()}


def lend(entries: Sequence[Entry], faces: Samples, labels: Sequence[str], frames: int) -> list[Entry]:
    """The clips with random still faces of their expression, a clip the same ones every time.

    Args:
        entries: clips of one split.
        faces: labelled face crops of one size.
        labels: the clips' vocabulary.
        frames: faces per clip.
    """
    by_label = pools([faces], labels, CALM, limited=True)

    def visual(index: int, label: str) -> np.ndarray:
        found = random.Random(index).choices(by_label[label], k=frames)
        return np.stack([_rgb(part.picture(i)) for part, i in found])

    return [replace(e, visual=lambda i=i, label=e.label: visual(i, label)) for i, e in enumerate(entries)]


def _rgb(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
