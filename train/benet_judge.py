"""How good a BENet is on validation scenes, and the thresholds that are searched there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from emotion.datasets.scenes import Scene, Scenes
from emotion.labels import VAD
from emotion.models import benet_decode as decode
from emotion.models.benet import BENet
from eval import emotic
from eval.metrics.ccc.ccc_core import ccc
from eval.metrics.detection_ap import detection_ap_core as detection
from eval.metrics.emotic_map import emotic_map_core as metrics

SYNTHETIC = ("composed", "portraits")  # validation sets of composed scenes


def judge(model: BENet, data: Scenes) -> dict[str, float]:
    """Figures in [0, 1] on unvaried scenes.

    Returns:
        "AP" of people's boxes (COCO's, crowds ignored) for a model with detector; with labels also "mAP" of emotions
        and "ccc_<axis>", read at the annotated centres.
    """
    scenes, outputs = _read(model, data)
    out: dict[str, float] = {}
    if "det" in model.config.heads and any(len(s) for s in scenes):
        pairs = [complete(s, d) for s, d in zip(scenes, outputs.detections)]
        out["AP"] = detection.detection_ap(*map(list, zip(*pairs)))["AP"]
    if not data.vocabulary:
        return out
    labels, affect = _targets(data, scenes)
    known, scores = np.isfinite(labels).all(axis=1), outputs.scores["bu"]
    n = labels.shape[1]
    if known.any():
        out["mAP"] = float(metrics.average_precision(labels[known], scores[known][:, :n]).mean())
    for column, axis in enumerate(model.config.affect):
        truth = affect[:, VAD.index(axis)]
        if np.isfinite(truth).any():
            out[f"ccc_{axis}"] = ccc(scores[:, n + column], truth)
    return out


def _read(model: BENet, data: Scenes) -> tuple[list[Scene], emotic.Outputs]:
    """The scenes that can be judged, and what the model says about them."""
    where = [i for i, s in enumerate(data.scenes) if len(s) or "det" in model.config.heads]
    scenes = [data.scenes[i] for i in where]
    boxes = [s.boxes for s in scenes]
    return scenes, emotic.collect(model, map(data.picture, where), boxes, flip=False, heads=("det", "bu"))


def _targets(data: Scenes, scenes: list[Scene]) -> tuple[np.ndarray, np.ndarray]:
    labels, affect = zip(*(data.targets(s) for s in scenes))
    return np.concatenate(labels), np.concatenate(affect)


def complete(scene: Scene, found: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Detections and annotations of a scene without what its annotation does not promise: people that are too short."""
    boxes = np.asarray(found["boxes"]).reshape(-1, 4)
    tall = boxes[:, 3] - boxes[:, 1] >= scene.complete_from
    short = scene.boxes[:, 3] - scene.boxes[:, 1] < scene.complete_from
    truth = {"boxes": scene.boxes, "crowd": scene.crowd, "ignore": short}
    return {"boxes": boxes[tall], "scores": np.asarray(found["scores"])[tall]}, truth


def thresholds(labels: np.ndarray, scores: np.ndarray) -> tuple[float, ...]:
    """Per emotion the probability from which on calling it present gives the highest F1; 0.5 without any positive.

    Args:
        labels: 0 or 1, [N, K].
        scores: [N, K].
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    hits = np.take_along_axis(labels, order, axis=0).cumsum(axis=0)
    ranked = np.take_along_axis(scores, order, axis=0)
    f1 = 2 * hits / (np.arange(1, len(labels) + 1)[:, None] + labels.sum(axis=0))
    best = f1.argmax(axis=0)
    chosen = ranked[best, np.arange(labels.shape[1])]
    return tuple(float(t) if n else 0.5 for t, n in zip(chosen, labels.sum(axis=0)))


def person_threshold(found: list[dict[str, np.ndarray]], truth: list[dict[str, np.ndarray]]) -> float | None:
    """The detection score from which on calling a box a person gives the highest F1 at IoU 0.5; None without people.

    Args:
        found, truth: per picture, as `detection_ap` takes them.
    """
    matches = detection.match(found, truth)
    counted = matches.counted[:, 0, 0]
    scores, true = matches.scores[counted], matches.true[:, 0, 0][counted]
    if not true.any():
        return None
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * true[order].cumsum() / (np.arange(1, len(order) + 1) + matches.annotations[:, 0].sum())
    return float(scores[order][f1.argmax()])


def calibrate(model: BENet, data: list[Scenes]) -> None:
    """Set the model's thresholds: of emotions from labelled validation scenes, of people from real ones with boxes.

    Without such scenes they stay.
    """
    rows, pairs = [], []
    for part in data:
        if "det" in model.config.heads and part.dataset not in SYNTHETIC:
            scenes, outputs = _read(model, part)
            pairs += [complete(s, d) for s, d in zip(scenes, outputs.detections)]
        if part.vocabulary == model.config.labels:
            scenes, outputs = _read(model, part)
            labels = _targets(part, scenes)[0]
            known = np.isfinite(labels).all(axis=1)
            rows.append((labels[known], outputs.scores["bu"][known][:, : labels.shape[1]]))
    if pairs and (threshold := person_threshold(*map(list, zip(*pairs)))) is not None:
        # a hair below, because a peak must be above it; never below what was searched
        model.config = replace(model.config, person_threshold=max(threshold - 1e-6, decode.DEFAULT.threshold))
    if any(len(labels) for labels, _ in rows):
        labels, scores = (np.concatenate(column) for column in zip(*rows))
        model.config = replace(model.config, thresholds=thresholds(labels, scores))
