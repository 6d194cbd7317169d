"""The `evaluate` module of detection average precision; the arithmetic is in detection_ap_core.py."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from .detection_ap_core import detection_ap, match
from .emotic_map_core import with_detections

_CITATION = "Lin et al.: Microsoft COCO: Common Objects in Context. ECCV 2014."
_DESCRIPTION = "COCO's twelve figures for boxes of one class, also as BENet defines them; emotions of detected people."
_INPUTS = """
Args:
    predictions: per picture {"boxes": [[x0, y0, x1, y1], ...], "scores": [...]}, NaN is refused. Configuration
        "emotions" also "emotions": a list of category scores per box, and "at_centres": one per reference, read at its
        centre.
    references: per picture {"boxes": [[x0, y0, x1, y1], ...]}; configuration "emotions" also "labels": a list of 0 and
        1 per box.
    mode: "coco" (default, as pycocotools), "corrected" (default of "emotions") or "published" (BENet's).
Returns:
    AP, AP .5, AP .75, AP (S), AP (M), AP (L), AR-1, AR-10, AR-100, AR (S), AR (M), AR (L), in [0, 1];
    -1 where no reference counts. Configuration "emotions" also gives average precision per detection threshold (IoU
    .50, .55 ... .95) and category, in [0, 1], 0 for a category that nobody has: "all_dets" (people who were not found
    stay, with scores 0), "only_det" (they are left out), "mixed" (they keep the scores of their centres), and the
    means of these, "mAP all_dets" ...; empty without any reference.
"""


class DetectionAP(evaluate.Metric):
    """Configurations: "default" (boxes) and "emotions" (also what is said of them)."""

    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        given = {"boxes": rows, "scores": datasets.Sequence(datasets.Value("float64"))}
        wanted = {"boxes": rows}
        if self.config_name == "emotions":
            given |= {"emotions": rows, "at_centres": rows}
            wanted |= {"labels": rows}
        features = datasets.Features({"predictions": given, "references": wanted})
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(self, predictions, references, mode=None):
        if self.config_name != "emotions":
            return detection_ap(predictions, references, mode or "coco")
        mode = mode or "corrected"
        out = detection_ap(predictions, references, mode)
        detection_of = match(predictions, references, mode).detection_of
        parts = [[row for p in predictions for row in p[key]] for key in ("at_centres", "emotions")]
        labels = np.array([row for r in references for row in r["labels"]], np.float64)
        if not len(labels):
            return out
        centres, detected = (np.array(part, np.float64).reshape(-1, labels.shape[1]) for part in parts)
        for name, each in with_detections(labels, centres, detected, detection_of).items():
            out |= {name: each.tolist(), f"mAP {name}": float(each.mean())}
        return out
