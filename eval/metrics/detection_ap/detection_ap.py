"""The `evaluate` module of detection average precision; the arithmetic is in detection_ap_core.py."""

from __future__ import annotations

import datasets
import evaluate

from .detection_ap_core import detection_ap

_CITATION = "Lin et al.: Microsoft COCO: Common Objects in Context. ECCV 2014."
_DESCRIPTION = "COCO's twelve figures for boxes of one class; also as BENet's evaluation defines them."
_INPUTS = """
Args:
    predictions: per picture {"boxes": [[x0, y0, x1, y1], ...], "scores": [...]}.
    references: per picture {"boxes": [[x0, y0, x1, y1], ...]}.
    mode: "coco" (default, as pycocotools), "corrected" or "published" (BENet's).
Returns:
    AP, AP .5, AP .75, AP (S), AP (M), AP (L), AR-1, AR-10, AR-100, AR (S), AR (M), AR (L), in [0, 1];
    -1 where no reference counts.
"""


class DetectionAP(evaluate.Metric):
    """Configuration "default" only."""

    def _info(self) -> evaluate.MetricInfo:
        boxes = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        scores = datasets.Sequence(datasets.Value("float64"))
        features = datasets.Features(
            {"predictions": {"boxes": boxes, "scores": scores}, "references": {"boxes": boxes}}
        )
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(self, predictions, references, mode="coco"):
        return detection_ap(predictions, references, mode)
