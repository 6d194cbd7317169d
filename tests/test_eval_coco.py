"""Scenes from files: COCO annotations, COCO results of other tools, and our own predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emotion import datasets
from emotion.errors import UserError
from emotion.labels import EMOTIC
from eval import results, scene_predictions, scenes
from eval.__main__ import main
from eval.metrics.detection_ap.detection_ap_core import detection_ap


@pytest.fixture
def persons(tmp_path: Path) -> Path:
    return datasets.reader("coco_person").fake(tmp_path / "persons")


def detections(persons: Path) -> list[dict]:
    """COCO results: every person, moved by a few pixels, and one box where nobody is."""
    data = datasets.reader("coco_person").load(persons, "test")
    out = [{"image_id": data.scenes[0].about["id"], "category_id": 1, "bbox": [1, 1, 20, 20], "score": 0.2}]
    for scene in data.scenes:
        for x0, y0, x1, y1 in scene.boxes:
            out.append({"image": scene.file, "bbox": [x0 + 2, y0 + 1, x1 - x0, y1 - y0], "score": 0.9})
    return out


def score(persons: Path, entries: list, out: Path) -> int:
    path = out / "found.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    given = ["--dataset", "coco_person", "--data", str(persons), "--out", str(out / "results")]
    return main(["score", "--predictions", str(path), "--name", "theirs", *given])


def test_coco_results_are_scored(persons: Path, tmp_path: Path) -> None:
    entries = detections(persons)
    assert score(persons, entries, tmp_path) == 0
    found = results.read(tmp_path / "results" / "theirs--coco_person--test.json").tasks["detection"]
    data = datasets.reader("coco_person").load(persons, "test")
    rows = [{"boxes": np.zeros((0, 4)), "scores": np.zeros(0)} for _ in data.scenes]
    for i, scene in enumerate(data.scenes):
        boxes = (scene.boxes + np.array([2, 1, 2, 1])).tolist()
        boxes += [[1, 1, 21, 21]] if i == 0 else []
        rows[i] = {"boxes": np.array(boxes), "scores": np.array([0.9] * len(scene) + [0.2] * (i == 0))}
    expected = detection_ap(rows, [{"boxes": s.boxes} for s in data.scenes])
    assert found.metrics["AP"].value == pytest.approx(expected["AP"])
    assert found.metrics["AP"].low <= found.metrics["AP"].value <= found.metrics["AP"].high
    assert found.n == sum(len(s) for s in data.scenes)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image_id": 99, "bbox": [0, 0, 1, 1], "score": 1}, "entry 0: no picture 99 in this split"),
        ({"image": "test_0.png", "bbox": [0, 0, 0, 5], "score": 1}, "has no area"),
        ({"image": "test_0.png", "bbox": [500, 0, 5, 5], "score": 1}, "lies outside test_0.png (128 x 96)"),
        ({"image": "test_0.png", "bbox": [0, 0, 5], "score": 1}, "bbox is [0, 0, 5], expected 4 numbers"),
        ({"image": "test_0.png", "bbox": [0, 0, 5, 5], "score": float("nan")}, "score is [nan]"),
        ({"image": "test_0.png", "bbox": [0, 0, 5, 5]}, "score is [None]"),
        ({"image": "test_0.png", "person": 3}, "person 3 with emotions expected"),
        ({"image": "test_0.png", "bbox": [0, 0, 5, 5], "score": 1, "emotions": []}, "the data set has none"),
        ({"image": "test_0.png", "bbox": [0, 0, 5, 5], "score": 1, "category_id": "person"}, "category_id is 'person'"),
        (
            {"image": "test_0.png", "bbox": [0, 0, 5, 5], "score": 1, "category_id": 3},
            "none of 1 entries is of category 1",
        ),
        ({"image": "test_0.png", "bbox": [0, 0, 5, 2**70], "score": 10**400}, "score is [1000"),
        ({"image": "test_0.png", "bbox": [2**70, 0, 5, 5], "score": 1}, "lies outside test_0.png"),
        ("text", "entry 0: not an object"),
        ({"image_id": True, "bbox": [0, 0, 5, 5], "score": 1}, "no picture True"),
        ({"image": "test_0.png", "bbox": [0, 0, 5, 5], "score": True}, "score is [True]"),
    ],
)
def test_wrong_entries_are_named(entry, message: str, persons: Path, tmp_path: Path, capsys) -> None:
    assert score(persons, [entry], tmp_path) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "results").exists()


def test_cocos_own_ids_and_categories_count(persons: Path, tmp_path: Path) -> None:
    """Ids in any order, and things that are no persons."""
    path, rng = persons / "annotations.json", np.random.default_rng(0)
    table = json.loads(path.read_text(encoding="utf-8"))
    ids = {image["id"]: int(new) for image, new in zip(table["images"], rng.permutation(len(table["images"])))}
    table["images"] = [image | {"id": ids[image["id"]]} for image in table["images"]]
    table["annotations"] = [a | {"image_id": ids[a["image_id"]]} for a in table["annotations"]]
    path.write_text(json.dumps(table), encoding="utf-8")
    test = {image["id"] for image in table["images"] if image["split"] == "test"}
    keys = ("image_id", "category_id", "bbox")
    found = [{k: a[k] for k in keys} | {"score": 0.5} for a in table["annotations"] if a["image_id"] in test]
    cars = [{"image_id": i, "category_id": 3, "bbox": [60, 60, 30, 20], "score": 0.9} for i in test]
    assert score(persons, [*cars, *found], tmp_path) == 0
    metrics = results.read(tmp_path / "results" / "theirs--coco_person--test.json").tasks["detection"].metrics
    assert metrics["AP"].value == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["images"][1].update(id=t["images"][0]["id"]), "18 images with 17 ids"),
        (lambda t: t["images"][3].pop("file_name"), "images, entry 3 lacks file_name"),
        (lambda t: t["images"][3].update(id=[1]), "images, entry 3: id \\[1\\] is no id"),
        (lambda t: t["annotations"].append("box"), "annotations, entry 9 lacks image_id, category_id, bbox"),
        (lambda t: t["annotations"][-1].update(bbox=[1, 2, 3]), "a size or box is not of numbers"),
        (lambda t: t["images"][-1].update(width="wide"), "a size or box is not of numbers"),
    ],
)
def test_damaged_annotations_are_named(change, message: str, persons: Path) -> None:
    path = persons / "annotations.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    change(table)
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        datasets.reader("coco_person").load(persons, "test")


def test_own_scene_files_are_checked(tmp_path: Path) -> None:
    data = datasets.reader("emotic").load(datasets.reader("emotic").fake(tmp_path / "emotic"), "test")
    about, path, k = {"fingerprint": data.fingerprint}, tmp_path / "p.npz", len(EMOTIC)

    def found(**change) -> list[dict]:
        widths = {"emotions": k, "people": k, "vad": 3}
        half = [{key: np.full((len(s), width), 0.5) for key, width in widths.items()} for s in data.scenes]
        one = [{"boxes": s.boxes, "scores": np.ones(len(s))} | rest for s, rest in zip(data.scenes, half)]
        return [picture | {key: f(picture[key]) for key, f in change.items()} for picture in one]

    scene_predictions.write(found(), about, path)
    assert len(scene_predictions.read(path, data)) == len(data)
    for change, message in (
        ({"scores": lambda x: x * np.nan}, "scores of shape"),
        ({"boxes": lambda x: x[:, :3]}, "boxes of shape"),
        ({"people": lambda x: x * 5}, "people are not from 0 to 1"),
        ({"people": lambda x: x[:-1]}, "people of shape"),
        ({"emotions": lambda x: x[:, 1:]}, "emotions of shape"),
        ({"vad": lambda x: np.vstack([x, x])}, "vad of shape"),
    ):
        scene_predictions.write(found(**change), about, path)
        with pytest.raises(UserError, match=message):
            scene_predictions.read(path, data)


def test_emotions_at_annotated_boxes(tmp_path: Path) -> None:
    data = datasets.reader("emotic").load(datasets.reader("emotic").fake(tmp_path / "emotic"), "test")
    perfect = [{"image": s.file, "person": k, "emotions": row.tolist()}
               for s in data.scenes for k, row in enumerate(data.targets(s)[0])]  # fmt: skip
    path = tmp_path / "found.json"
    path.write_text(json.dumps(perfect), encoding="utf-8")
    found = scenes.score(scene_predictions.read(path, data), data, draws=5)
    assert set(found) == {"emotions"}
    assert found["emotions"].metrics["mAP"].value == pytest.approx(
        np.mean([v > 0 for v in found["emotions"].per_label["AP"].values()])
    )
    few = [e | {"vad": [0.5, 0.5, 0.5]} if k else e for k, e in enumerate(perfect)]
    path.write_text(json.dumps(few), encoding="utf-8")
    with pytest.raises(UserError, match=r"1 of .* people have no vad"):
        scene_predictions.read(path, data)
    boxes = [{"image_id": 0, "bbox": [1, 1, 9, 9], "score": 1} | more for more in ({}, {"emotions": [0.1] * 26})]
    path.write_text(json.dumps(boxes), encoding="utf-8")
    with pytest.raises(UserError, match="1 of 2 detections have no emotions"):
        scene_predictions.read(path, data)
    path.write_text(json.dumps(perfect[1:]), encoding="utf-8")
    with pytest.raises(UserError, match="emotions are given for"):
        scene_predictions.read(path, data)
