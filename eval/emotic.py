"""EMOTIC's evaluation of scene models: emotions at annotated centres, emotions of detected people, detection.

Every figure is given in mode "corrected" (default) or "published": what BENet's original computes, faults included,
to compare with its published numbers only. Keys and units are the original's: emotion figures in percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emotion import labels as vocab
from emotion.models import benet_decode as decode
from emotion.models.benet import BENet
from eval.metrics.detection_ap import detection_ap_core as detection
from eval.metrics.emotic_map import emotic_map_core as emotions

HEADS = ("bu", "pc", "context", "fusion")
VECTORS = {"pc": "pc", "context": "bg", "fusion": "fusion"}  # heads that read crops or the background -> the model's
MIXTURES = ("pc-bu", "pc-context", "bu-context", "pc-bu-context")


@dataclass(frozen=True)
class Truth:
    """N annotated people of I pictures.

    Attributes:
        picture: [N], index of everybody's picture, not falling.
        boxes: [N, 4], x0 y0 x1 y1.
        labels: [N, 26], 0 or 1.
        vad: [N, 3] in [0, 1], NaN where missing; None where not evaluated.
        pictures: I.
    """

    picture: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    vad: np.ndarray | None
    pictures: int

    def of_picture(self, values: np.ndarray) -> np.ndarray:
        """The largest value over the people of every picture that has any, in order."""
        starts = np.flatnonzero(np.diff(self.picture, prepend=-1))
        return np.maximum.reduceat(values, starts) if len(starts) else values[:0]


@dataclass(frozen=True)
class Outputs:
    """What a model says about these pictures.

    Attributes:
        detections: per picture "boxes" [D, 4], "scores" [D] and "emotions" [D, K].
        scores: head -> [N, K]; "context" has one row per picture with people instead, which "context_rep" [N, K]
            replaces in means over heads where it is given.
    """

    detections: Sequence[dict[str, np.ndarray]]
    scores: dict[str, np.ndarray]


def evaluate(truth: Truth, outputs: Outputs, mode: str = "corrected") -> dict[str, dict[str, Any]]:
    """All figures.

    Returns:
        "detection": COCO's twelve figures in [0, 1]. "emotion": per key an array; `*_cat` are average precisions per
        category in percent, `*_cont` mean absolute errors; with IoU thresholds in rows where detections matter.
        "bu_cat_wo_det" is the usual EMOTIC figure (annotated centres), "bu_cat_all_dets" the one that depends on
        detections.
    """
    n, k = len(truth.labels), truth.labels.shape[1]
    found = [{"boxes": d["boxes"], "scores": d["scores"]} for d in outputs.detections]
    of_picture = [{"boxes": truth.boxes[truth.picture == i]} for i in range(truth.pictures)]
    matches = detection.match(found, of_picture, mode)
    columns = outputs.scores["bu"].shape[1]
    detected = np.concatenate(
        [np.zeros((0, columns)), *(d["emotions"].reshape(-1, columns) for d in outputs.detections)]
    )
    tables: dict[str, Any] = {}
    parts = {"cat": (truth.labels, slice(0, k), _percent)}
    if truth.vad is not None:
        parts["cont"] = (truth.vad, slice(k, k + truth.vad.shape[1]), emotions.mean_absolute_error)
    for part, (wanted, where, measure) in parts.items():
        given = {h: s[:, where] for h, s in outputs.scores.items()}
        with_boxes = emotions.with_detections(wanted, given["bu"], detected[:, where], matches.detection_of, measure)
        tables |= {f"bu_{part}_{rows}": values for rows, values in with_boxes.items()}
        tables[f"bu_{part}_wo_det"] = measure(wanted, given["bu"])
        for head, rows in combined(given, truth.picture).items():
            tables[f"{head}_{part}"] = measure(truth.of_picture(wanted) if head == "context" else wanted, rows)
    tables["det_recall"] = 100 * (matches.detection_of >= 0).sum(axis=0) / max(n, 1)
    return {"detection": detection.figures(matches), "emotion": tables}


def _percent(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return 100 * emotions.average_precision(labels, scores)


def combined(scores: dict[str, np.ndarray], picture: np.ndarray) -> dict[str, np.ndarray]:
    """The vector heads, and means of the heads' probabilities, as far as the heads are there.

    Args:
        scores: as of `Outputs`.
        picture: as of `Truth`.

    Returns:
        Name -> [N, K]; "context" has one row per picture with people.
    """
    out = {head: scores[head] for head in VECTORS if head in scores}
    if "context" in scores:
        row = np.unique(picture, return_inverse=True)[1]
        scores = {**scores, "context": scores.get("context_rep", scores["context"][row])}
    for mixture in MIXTURES:
        heads = mixture.split("-")
        if all(h in scores for h in heads):
            out[mixture] = np.mean([scores[h] for h in heads], axis=0)
    return out


@torch.inference_mode()
def collect(
    model: BENet,
    pictures: Iterable[np.ndarray],
    boxes: Sequence[np.ndarray],
    options: decode.Decoding = decode.DEFAULT,
    flip: bool = True,
    heads: Sequence[str] | None = None,
) -> Outputs:
    """Run a model over annotated pictures: the whole, every person's crop, and the picture with people blacked out.

    Args:
        model: in evaluation mode, with any heads.
        pictures: uint8 [h, w, 3], read one after the other.
        boxes: people's boxes per picture, [P, 4].
        options: how people are detected.
        flip: average with the mirrored picture.
        heads: which of the model's heads to ask; default all.
    """
    asked = [h for h in model.config.heads if heads is None or h in heads]
    detections, scores = [], {}
    for picture, people in zip(pictures, boxes):
        people = np.asarray(people).reshape(-1, 4)
        merged, frame = _run(model, asked, picture, people, options, flip)
        if "heatmap" in merged:
            ((faces, tasks),) = decode.people(merged, [frame], model.config, options)
            values = np.concatenate([t.values for t in tasks.values()], axis=1)
            detections.append({"boxes": faces.boxes, "scores": faces.scores, "emotions": values})
        else:
            none = np.zeros((0, model.config.outputs))
            detections.append({"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "emotions": none})
        rows = {"bu": decode.read_out(merged, frame, people)}
        rows |= {head: merged[ours].cpu().numpy() for head, ours in VECTORS.items() if ours in merged}
        for head, values in rows.items():
            scores.setdefault(head, []).append(values)
    return Outputs(detections, {head: np.concatenate(values) for head, values in scores.items()})


def _run(
    model: BENet, heads: list[str], picture: np.ndarray, people: np.ndarray, options: decode.Decoding, flip: bool
) -> tuple[decode.Merged, decode.Frame]:
    """Merged outputs of one picture: row 0 of the maps, one row per person of "pc" and "fusion", one of "bg"."""
    spec = model.config.input
    frame = spec.frame(picture.shape[1], picture.shape[0])
    inputs, routes = [frame.warp(picture)], {h: [0] for h in ("det", "bu") if h in heads}
    if len(people) and "pc" in heads:
        routes["pc"] = [*range(1, len(people) + 1)]
        inputs += [_crop(spec, picture, box, frame, options.published) for box in people.astype(int)]
    if len(people) and "bg" in heads:
        routes["bg"] = [len(inputs)]
        inputs.append(frame.warp(_blacked_out(picture, people.astype(int))))
    x = spec.tensor(inputs).to(next(model.parameters()).device)
    sides = [model(side, routes) for side in (x, x.flip(-1))[: 1 + flip]]
    if len(people) and "fusion" in heads:
        centres = [decode.centres(frame, people, stride) for stride in (4, 2)]
        width = spec.size if options.published else frame.size[0]  # the original takes every frame for a square
        for out, mirror_width in zip(sides, (0, width // 4)):
            out["fusion"] = _fused(model, out, centres, mirror_width)
    return decode.merge(*sides, affect_from=len(model.config.labels) if options.published else None), frame


def _fused(model: BENet, out: dict[str, Tensor], centres: list[np.ndarray], mirror_width: int) -> Tensor:
    """Logits [P, K] of the fusion head; `centres` are the people's cells on both scales' raw maps.

    A mirrored picture gives the width (at scale 0) about which to mirror the cells, otherwise it is 0.
    """
    means = []
    for scale, cells in enumerate(centres):
        x, y = cells.T
        x = mirror_width * 2**scale - x - 1 if mirror_width else x
        means.append(out[f"bu{scale}"][0][:, y, x].mean(dim=1))
    people = len(centres[0])
    return model.fuse(torch.stack(means).mean(0).expand(people, -1), out["pc"], out["bg"].expand(people, -1))


def _crop(spec: decode.SceneInput, picture: np.ndarray, box: np.ndarray, frame: decode.Frame, published: bool):
    x0, y0 = box[:2].clip(0, np.array(picture.shape[1::-1]) - 1)
    crop = picture[y0 : max(box[3], y0 + 1), x0 : max(box[2], x0 + 1)]
    return spec.crop_frame(crop.shape[1], crop.shape[0], frame, published).warp(crop)


def _blacked_out(picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    picture = picture.copy()
    for x0, y0, x1, y1 in boxes.clip(0):
        picture[y0:y1, x0:x1] = 0
    return picture


def scores_text(result: dict[str, dict[str, Any]], labels: Sequence[str] = vocab.EMOTIC) -> str:
    """All figures as the original's text file writes them."""
    tables = result["emotion"]
    lines = ["<DETECTION>", *(f"| {k:6} | {100 * v if v >= 0 else v:05.2f} |" for k, v in result["detection"].items())]
    lines += ["", ""]
    groups = [("bu", ("_all_dets", "_only_det")), ("bu", ("_wo_det", "_mixed"))]
    groups += [(head, ("",)) for head in ("pc", "context", "fusion", *MIXTURES)]
    for head, rows in groups:
        for part, names in (("cat", labels), ("cont", vocab.VAD)):
            keys = [k for row in rows if (k := f"{head}_{part}{row}") in tables]
            for key in keys:
                lines += _table(key, tables[key], names, tables["det_recall"] if key == "bu_cat_all_dets" else None)
            lines += [] if keys else ["", ""]
    return "\n".join(lines)


def _table(key: str, values: np.ndarray, names: Sequence[str], recall: np.ndarray | None) -> list[str]:
    mean = "mAP" if "_cat" in key else "Mean"
    grid = values.T if values.ndim == 2 else values[:, None]

    def row(name: str, cells: np.ndarray) -> str:
        return f"| {name:15} | " + " | ".join(f"{v:05.2f}" for v in cells) + " |"

    lines = [f"<{key.upper()}>"]
    if values.ndim == 2:
        lines += ["| Thresholds      | " + " | ".join(f"{t:5.2f}" for t in detection.THRESHOLDS) + " |", ""]
    lines += [*(row(n, cells) for n, cells in zip(names, grid)), "", row(mean, grid.mean(axis=0))]
    if values.ndim == 2:
        lines.append(row(f"Global {mean}", [values.mean()]))
    if recall is not None:
        lines += [row("Det Recall", recall), row("Mean Det Rec", [recall.mean()])]
    return [*lines, "", ""]
