"""`python -m tests.benchmark_detection_ap`: our detection AP against pycocotools, same pictures, same numbers.

BENet's original runs pycocotools once per detection threshold (ten times); ours matches all thresholds at once.
"""

from __future__ import annotations

import contextlib
import io
import time

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.metrics.detection_ap import detection_ap_core as detection

PICTURES, PERSONS = 5000, 4


def scenes(seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Detections and references: four people per picture, found with some error, and one wrong box."""
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(PICTURES):
        corner = rng.uniform(0, 500, (PERSONS, 2))
        boxes = np.hstack([corner, corner + rng.uniform(10, 200, (PERSONS, 2))])
        other = rng.uniform(0, 500, (1, 2))
        near = np.vstack([boxes + rng.normal(0, 8, boxes.shape), np.hstack([other, other + 50])])
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        truth.append({"boxes": boxes})
        found.append({"boxes": near, "scores": rng.random(PERSONS + 1)})
    return found, truth


def coco_rows(pictures: list[dict]) -> list[dict]:
    """The boxes as COCO annotations, with scores where there are any."""
    rows = []
    for i, picture in enumerate(pictures):
        for j, (x0, y0, x1, y1) in enumerate(picture["boxes"].tolist()):
            width, height = x1 - x0, y1 - y0
            row = {"image_id": i, "category_id": 1, "bbox": [x0, y0, width, height], "area": width * height}
            row |= {"id": len(rows) + 1, "iscrowd": 0}
            rows.append(row | ({"score": float(picture["scores"][j])} if "scores" in picture else {}))
    return rows


def main() -> None:
    """Time both and compare all twelve figures."""
    found, truth = scenes()
    start = time.perf_counter()
    ours = detection.detection_ap(found, truth)
    own = time.perf_counter() - start
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        images = [{"id": i} for i in range(PICTURES)]
        coco.dataset = {"images": images, "categories": [{"id": 1}], "annotations": coco_rows(truth)}
        coco.createIndex()
        results = coco.loadRes(coco_rows(found))
        start = time.perf_counter()
        for threshold in detection.THRESHOLDS:
            judge = COCOeval(coco, results, "bbox")
            judge.params.iouThrs = np.array([threshold])
            judge.evaluate()
            judge.accumulate()
        theirs = time.perf_counter() - start
        whole = COCOeval(coco, results, "bbox")
        start = time.perf_counter()
        whole.evaluate()
        whole.accumulate()
        once = time.perf_counter() - start
        whole.summarize()
    difference = np.abs(np.array(list(ours.values())) - whole.stats).max()
    print(f"{PICTURES} pictures x {PERSONS} people; largest difference of the twelve figures: {difference:.1e}")
    print(
        f"ours {own:.2f} s; pycocotools once per threshold {theirs:.2f} s ({theirs / own:.1f} x), at once {once:.2f} s"
    )


if __name__ == "__main__":
    main()
