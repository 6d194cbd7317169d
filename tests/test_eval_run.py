"""`python -m eval run` and `bench` with small untrained models; scenes and clips scored from arrays and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion import datasets, hub
from emotion.errors import UserError
from emotion.labels import RAVDESS
from emotion.models import esr
from emotion.models.base import FaceInput
from eval import clips, predictions, results, runner, scenes, speed
from eval.__main__ import main
from eval.metrics.detection_ap.detection_ap_core import detection_ap
from eval.predictions import Predictions


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained ESR: what it says is arbitrary and always the same."""
    torch.manual_seed(0)
    blocks = (esr.Block(8, kernel=5, pool=True), esr.Block(8, pool=True))
    config = esr.ESRConfig(FaceInput((48, 48)), base=blocks, branch=(esr.Block(8),), branches=3, affect=True)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    hub.save(esr.ESR(config), "esr", folder, hub.Card("esr.tiny", "MIT", True), "# Tiny\n")
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return datasets.reader("ferplus").fake(tmp_path_factory.mktemp("data") / "ferplus", per_class=3)


def run(checkpoint: Path, faces: Path, out: Path, *more: str) -> int:
    given = ["--dataset", "ferplus", "--data", str(faces), "--out", str(out), "--quiet", "--batch", "4"]
    return main(["run", "--model", str(checkpoint), *given, *more])


def test_run_then_score_the_same_file(checkpoint: Path, faces: Path, tmp_path: Path) -> None:
    assert run(checkpoint, faces, tmp_path) == 0
    result = results.read(tmp_path / "esr.tiny--ferplus--test.json")
    assert result.model.sha256 == hub.load(checkpoint).card.sha256 and result.model.parameters > 1000
    assert result.model.weights == "own" and result.run.samples_per_second > 0
    assert result.run.command == "python -m eval run --model esr.tiny --dataset ferplus --data DIR --split test"
    file = tmp_path / "predictions" / result.run.predictions
    given = ["--dataset", "ferplus", "--data", str(faces), "--out", str(tmp_path / "again")]
    assert main(["score", "--predictions", str(file), "--name", "esr.tiny", *given]) == 0
    again = results.read(tmp_path / "again" / "esr.tiny--ferplus--test.json")
    assert again.tasks == result.tasks and set(result.tasks) == {"expression"}
    assert {"aurc", "auroc_of_errors"} <= set(result.tasks["expression"].calibration)


def test_predictions_do_not_depend_on_the_batch_and_an_interrupted_run_goes_on(
    checkpoint: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, model = datasets.reader("ferplus").load(faces, "test"), hub.load(checkpoint)
    whole, _ = runner.predict(model, samples, tmp_path / "whole.npz", batch=32, quiet=True)
    monkeypatch.setattr(runner, "CHUNK", 2)
    seen: list[int] = []
    limit = 10

    def picture(i: int) -> np.ndarray:
        if len(seen) == limit:
            raise KeyboardInterrupt
        seen.append(i)
        return samples.picture(i)

    stopping = samples.subset(slice(None))
    object.__setattr__(stopping, "picture", picture)
    with pytest.raises(KeyboardInterrupt):
        runner.predict(model, stopping, tmp_path / "parts.npz", batch=4, quiet=True)
    assert not (tmp_path / "parts.npz").exists() and seen == list(range(10))
    seen.clear()
    limit = len(samples)
    found, _ = runner.predict(model, stopping.subset(slice(None)), tmp_path / "parts.npz", batch=4, quiet=True)
    assert seen[0] == 8 and not (tmp_path / "parts.parts").exists()
    for name, values in whole.values.items():
        np.testing.assert_allclose(found.values[name], values, atol=1e-6)
    assert predictions.read(tmp_path / "parts.npz").ids == samples.ids


def test_run_refuses_what_does_not_fit(checkpoint: Path, faces: Path, tmp_path: Path, capsys) -> None:
    assert run(tmp_path / "nowhere", faces, tmp_path / "out") == 2
    assert "no checkpoint folder" in capsys.readouterr().err
    persons = datasets.reader("coco_person").fake(tmp_path / "persons")
    given = ["--dataset", "coco_person", "--data", str(persons), "--out", str(tmp_path / "out"), "--quiet"]
    assert main(["run", "--model", str(checkpoint), *given]) == 2
    assert "does not read scenes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bench(checkpoint: Path, tmp_path: Path, capsys) -> None:
    assert main(["bench", str(checkpoint), "--seconds", "0.01", "--out", str(tmp_path / "speed")]) == 0
    (found,), problems = speed.read_speed([tmp_path])
    assert not problems and found.model == "esr.tiny" and min(found.figures.values()) > 0
    assert main(["leaderboard", "--track", "speed", "--results", str(tmp_path)]) == 0
    assert "esr.tiny" in capsys.readouterr().out


# -- scenes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def persons(tmp_path: Path) -> Path:
    return datasets.reader("coco_person").fake(tmp_path / "persons")


def detections(persons: Path) -> list[dict]:
    """COCO results: every person, moved by a few pixels, and one box where nobody is."""
    data = datasets.reader("coco_person").load(persons, "test")
    out = [{"image_id": 0, "bbox": [1, 1, 20, 20], "score": 0.2}]
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
        ({"image_id": 0, "bbox": [0, 0, 0, 5], "score": 1}, "has no area"),
        ({"image_id": 0, "bbox": [500, 0, 5, 5], "score": 1}, "lies outside test_0.png (128 x 96)"),
        ({"image_id": 0, "bbox": [0, 0, 5], "score": 1}, "bbox is [0, 0, 5], expected 4 numbers"),
        ({"image_id": 0, "bbox": [0, 0, 5, 5], "score": float("nan")}, "score is [nan]"),
        ({"image_id": 0, "bbox": [0, 0, 5, 5]}, "score is [None]"),
        ({"image_id": 0, "person": 3, "emotions": []}, "person 3 with emotions expected"),
        ("text", "entry 0: not an object"),
    ],
)
def test_wrong_entries_are_named(entry, message: str, persons: Path, tmp_path: Path, capsys) -> None:
    assert score(persons, [entry], tmp_path) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "results").exists()


def test_emotions_at_annotated_boxes(tmp_path: Path) -> None:
    data = datasets.reader("emotic").load(datasets.reader("emotic").fake(tmp_path / "emotic"), "test")
    perfect = [{"image": s.file, "person": k, "emotions": row.tolist()}
               for s in data.scenes for k, row in enumerate(data.targets(s)[0])]  # fmt: skip
    path = tmp_path / "found.json"
    path.write_text(json.dumps(perfect), encoding="utf-8")
    found = scenes.score(scenes.read(path, data), data, draws=5)
    assert set(found) == {"emotions"}
    assert found["emotions"].metrics["mAP"].value == pytest.approx(
        np.mean([v > 0 for v in found["emotions"].per_label["AP"].values()])
    )
    path.write_text(json.dumps(perfect[1:]), encoding="utf-8")
    with pytest.raises(UserError, match="emotions are given for"):
        scenes.read(path, data)


# -- clips -----------------------------------------------------------------------------------------------------------


def test_clips_are_scored_per_condition() -> None:
    from emotion.datasets import Samples

    rng = np.random.default_rng(0)
    classes = rng.integers(0, 8, 48)
    targets = {"expression": np.eye(8, dtype=np.float32)[classes]}
    ids, groups = tuple(f"c{i}" for i in range(48)), np.repeat(np.arange(6), 8)
    samples = Samples("ravdess", "test", ids, lambda i: i, {"expression": RAVDESS}, targets, groups)
    p = {c: rng.dirichlet(np.ones(8), 48) for c in ("both", "audio", "noisy audio")}
    p["both"] = 0.5 * p["both"] + 0.5 * np.eye(8)[classes]
    given = Predictions(ids, dict.fromkeys(p, RAVDESS), p, {c: v.argmax(1) for c, v in p.items()})
    found = clips.score(given, samples)["audiovisual"]
    for name, values in p.items():
        suffix = "" if name == "both" else f" {name}"
        assert found.metrics[f"accuracy{suffix}"].value == pytest.approx((values.argmax(1) == classes).mean())
        best = np.argsort(-values, axis=1)[:, :5]
        assert found.metrics[f"top5{suffix}"].value == pytest.approx((best == classes[:, None]).any(1).mean())
    assert found.metrics["accuracy"].low <= found.metrics["accuracy"].value and found.n == 48
    with pytest.raises(UserError, match="expressions differ"):
        clips.score(Predictions(ids, {"both": RAVDESS[::-1]}, {"both": p["both"]}), samples)
