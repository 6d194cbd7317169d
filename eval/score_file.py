"""BENet's score file: every figure of its original's evaluation in the original's text form."""

from __future__ import annotations

import numpy as np

from emotion.datasets.scenes import Scenes
from emotion.errors import UserError
from eval import emotic
from eval.scenes import Found


def text(found: list[Found], data: Scenes, published: bool = False) -> str:
    """The file's content, in percent.

    Args:
        found: one per scene; heads that were not asked have no table.
        data: the scenes.
        published: match people as the original does, faults included.

    Raises:
        UserError: somebody's emotions are missing.
    """
    labels, vad = (np.concatenate(parts) for parts in zip(*map(data.targets, data.scenes)))
    if not all("people" in f for f in found) or not np.isfinite(labels).all():
        raise UserError(f"BENet's score file is about everybody's emotions, which are not all known in {data.dataset}")
    detected = all("boxes" in f for f in found)
    with_vad = all("vad" in f and ("detected vad" in f or not detected) for f in found)
    boxes = [s.boxes for s in data.scenes]
    truth = emotic.Truth(
        picture=np.repeat(np.arange(len(data)), [len(b) for b in boxes]),
        boxes=np.concatenate(boxes),
        labels=labels,
        vad=vad if with_vad else None,
        pictures=len(data),
    )
    beside = ["vad"] if with_vad else []
    scores = {"bu": np.concatenate([np.hstack([f[k] for k in ("people", *beside)]) for f in found])}
    scores |= {head: np.concatenate([f[head] for f in found]) for head in emotic.VECTORS if head in found[0]}
    nobody = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "emotions": np.zeros((0, scores["bu"].shape[1]))}
    detections = [nobody] * len(data)
    if detected:
        columns = ("emotions", *(f"detected {k}" for k in beside))
        detections = [nobody | f | {"emotions": np.hstack([f[k] for k in columns])} for f in found]
    figures = emotic.evaluate(truth, emotic.Outputs(detections, scores), "published" if published else "corrected")
    return emotic.scores_text(figures, data.vocabulary)
