"""Detection AP against pycocotools, emotion AP against scikit-learn, and their edge cases."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import average_precision_score

from eval.metrics.detection_ap import detection_ap_core as detection
from eval.metrics.emotic_map import emotic_map_core as emotions

NONE = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0)}


def random_pictures(count: int, crowds: bool, seed: int) -> tuple[list[dict], list[dict]]:
    """Annotations, and detections of which some are displaced copies; scores have ties."""
    rng = np.random.default_rng(seed)
    predictions, references = [], []
    for _ in range(count):
        corner = rng.uniform(0, 400, (int(rng.integers(0, 8)), 2))
        truth = np.concatenate([corner, corner + rng.uniform(5, 200, corner.shape)], axis=1)
        copies = truth[rng.integers(0, len(truth), int(rng.integers(0, 3 * len(truth) + 1)))] if len(truth) else truth
        moved = copies + rng.normal(0, 8, copies.shape)
        corner = rng.uniform(0, 400, (3, 2))
        found = np.concatenate([moved, np.concatenate([corner, corner + rng.uniform(5, 200, corner.shape)], axis=1)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        crowd = rng.random(len(truth)) < 0.2 if crowds else np.zeros(len(truth), bool)
        references.append({"boxes": truth, "crowd": crowd})
        predictions.append({"boxes": found, "scores": rng.random(len(found)).round(1)})
    return predictions, references


def by_pycocotools(predictions: list[dict], references: list[dict]) -> list[float]:
    annotations, results = [], []
    for i, (found, truth) in enumerate(zip(predictions, references), start=1):
        for (x0, y0, x1, y1), crowd in zip(truth["boxes"], truth["crowd"]):
            row = {"id": len(annotations) + 1, "image_id": i, "category_id": 1, "iscrowd": int(crowd)}
            annotations.append({**row, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)})
        for (x0, y0, x1, y1), score in zip(found["boxes"], found["scores"]):
            results.append({"image_id": i, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score})
    coco = COCO()
    images = [{"id": i + 1} for i in range(len(predictions))]
    coco.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": [{"id": 1}]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize(("crowds", "seed"), [(False, 0), (True, 1), (True, 2)])
def test_detection_ap_equals_pycocotools(crowds: bool, seed: int) -> None:
    predictions, references = random_pictures(60, crowds, seed)
    found = detection.detection_ap(predictions, references)
    np.testing.assert_allclose(list(found.values()), by_pycocotools(predictions, references), atol=1e-12)


def test_only_the_hundred_strongest_detections_of_a_picture_count() -> None:
    rng = np.random.default_rng(3)
    many = np.tile([[0, 0, 10, 10]], (250, 1)) + rng.uniform(0, 300, (250, 1))
    predictions = [{"boxes": many, "scores": rng.random(250)}]
    references = [{"boxes": many[:40], "crowd": np.zeros(40, bool)}]
    found = detection.detection_ap(predictions, references)
    np.testing.assert_allclose(list(found.values()), by_pycocotools(predictions, references), atol=1e-12)


def test_perfect_detections_and_none() -> None:
    box = {"boxes": np.array([[10, 10, 60, 90]])}
    hit = {**box, "scores": np.array([0.9])}
    assert detection.detection_ap([hit], [box])["AP"] == pytest.approx(1)
    assert detection.detection_ap([NONE], [box])["AP"] == 0
    assert set(detection.detection_ap([hit], [{"boxes": np.zeros((0, 4))}]).values()) == {-1}
    assert set(detection.detection_ap([], []).values()) == {-1}


def test_ignored_annotations_are_neither_needed_nor_wrong() -> None:
    boxes = np.array([[0, 0, 50, 50], [100, 100, 180, 190.0]])
    truth = {"boxes": boxes, "ignore": np.array([False, True])}
    both = {"boxes": boxes, "scores": np.array([0.5, 0.9])}
    one = {"boxes": boxes[:1], "scores": np.array([0.5])}
    assert detection.detection_ap([both], [truth])["AP"] == pytest.approx(1)
    assert detection.detection_ap([one], [truth])["AP"] == pytest.approx(1)


def test_surplus_detections_outside_the_range_count_only_in_bottom_up_evaluation() -> None:
    small, large = [0, 0, 20, 20], [200, 200, 400, 400]
    truth = [{"boxes": np.array([small])}]
    found = [{"boxes": np.array([small, large]), "scores": np.array([0.5, 0.9])}]
    assert detection.detection_ap(found, truth, "coco")["AP (S)"] == pytest.approx(1)
    assert detection.detection_ap(found, truth, "corrected")["AP (S)"] == pytest.approx(0.5)


def test_detection_ap_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="predictions for 1 pictures"):
        detection.detection_ap([NONE], [])
    with pytest.raises(ValueError, match="mode must be"):
        detection.detection_ap([], [], "strict")


def test_average_precision_equals_scikit_learn_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 26)) < 0.2).astype(float)
    for scores in (rng.random((300, 26)), rng.random((300, 26)).round(1), np.zeros((300, 26))):
        expected = [average_precision_score(labels[:, k], scores[:, k]) for k in range(26)]
        np.testing.assert_allclose(emotions.average_precision(labels, scores), expected, atol=1e-12)


def test_average_precision_edge_cases() -> None:
    labels, scores = np.array([[1, 0], [0, 0.0]]), np.array([[0.2, 0.9], [0.8, 0.1]])
    np.testing.assert_allclose(emotions.average_precision(labels, scores), [0.5, 0])
    assert emotions.average_precision(np.zeros((0, 3)), np.zeros((0, 3))).tolist() == [0, 0, 0]
    figures = emotions.emotic_map(labels, scores)
    assert figures["mAP"] == 0.25 and figures["mAP interpolated"] >= figures["mAP"]
    with pytest.raises(ValueError, match="shape"):
        emotions.average_precision(labels, scores[:1])


def test_interpolated_precision_is_never_lower() -> None:
    rng = np.random.default_rng(1)
    labels, scores = (rng.random((200, 8)) < 0.3).astype(float), rng.random((200, 8))
    plain = emotions.average_precision(labels, scores)
    assert (emotions.average_precision(labels, scores, interpolated=True) >= plain - 1e-12).all()


def test_people_not_found_count_as_zero_are_left_out_or_keep_their_centre_scores() -> None:
    labels = np.array([[1.0], [0], [1]])
    scores, detected = np.array([[0.9], [0.5], [0.8]]), np.array([[0.1], [0.7]])
    matches = np.array([[0], [1], [-1]])
    rows = emotions.with_detections(labels, scores, detected, matches)
    expected = {
        "all_dets": average_precision_score([1, 0, 1], [0.1, 0.7, 0]),
        "only_det": average_precision_score([1, 0], [0.1, 0.7]),
        "mixed": average_precision_score([1, 0, 1], [0.1, 0.7, 0.8]),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(rows[name], [[value]])


def test_mean_absolute_error_leaves_missing_values_out() -> None:
    values = np.array([[0.2, 0.4], [np.nan, 0.5]])
    assert emotions.mean_absolute_error(values, np.full((2, 2), 0.3)).tolist() == pytest.approx([0.1, 0.1])
    assert emotions.mean_absolute_error(values[1:], np.zeros((1, 2))).tolist() == [0, 0]
