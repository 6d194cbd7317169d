"""Scenes: run, resumed, scored, compared; COCO results files of other tools."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion import datasets, hub
from emotion.datasets import scenes as scene_data
from emotion.errors import UserError
from emotion.labels import EMOTIC, VAD
from emotion.models import benet_decode as decode
from emotion.models.benet import BENet, BENetConfig
from eval import bootstrap, emotic, results, scene_predictions, scenes, score_file
from eval.__main__ import main
from eval.metrics.detection_ap import detection_ap_core as detection
from eval.metrics.detection_ap.detection_ap_core import detection_ap

TINY = {"input": decode.SceneInput(size=64), "width": 4, "stem": 4, "modules": (1, 1, 1), "blocks": 1, "bottlenecks": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained BENet whose boxes have plausible sizes."""
    torch.manual_seed(0)
    model = BENet(BENetConfig(**TINY, heads=("det", "bu"), labels=EMOTIC, affect=VAD)).eval()
    with torch.no_grad():
        model.size.low[-1][-1].bias.fill_(6)
        model.size.high[-1][-1].bias.fill_(12)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    hub.save(model, "benet", folder, hub.Card("benet.tiny", "MIT", True), "# Tiny\n")
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return datasets.reader("emotic").fake(tmp_path_factory.mktemp("data") / "emotic", scenes=5)


def run(checkpoint: Path, dataset: str, data: Path, out: Path, *more: str) -> int:
    given = ["--dataset", dataset, "--data", str(data), "--out", str(out), "--quiet", *more]
    return main(["run", "--model", str(checkpoint), *given])


def test_run_score_and_compare(checkpoint: Path, people: Path, tmp_path: Path, capsys) -> None:
    assert run(checkpoint, "emotic", people, tmp_path) == 0
    result = results.read(tmp_path / "benet.tiny--emotic--test.json")
    found = result.tasks["emotions"].metrics
    assert {"mAP", "mAP interpolated", "mAP detected", "VAD error", "VAD error dominance"} <= set(found)
    assert found["mAP"].low <= found["mAP"].high and result.run.samples_per_second
    file = tmp_path / "predictions" / result.run.predictions
    given = ["--dataset", "emotic", "--data", str(people), "--out", str(tmp_path)]
    assert main(["score", "--predictions", str(file), "--name", "again", *given]) == 0
    assert results.read(tmp_path / "again--emotic--test.json").tasks == result.tasks
    capsys.readouterr()
    assert main(["compare", str(file), "benet.tiny", *given]) == 0
    out = capsys.readouterr().out
    assert "mAP detected" in out and "resampled: pictures" in out and "They differ most on" in out
    data = datasets.reader("emotic").load(people, "val")
    with pytest.raises(UserError, match="of other scenes or labels"):
        scene_predictions.read(file, data)


def read_directly(checkpoint: Path, people: Path, mode: str) -> tuple[emotic.Truth, emotic.Outputs]:
    """EMOTIC's test people, and what a model says of them without the command."""
    data, model = datasets.reader("emotic").load(people, "test"), hub.load(checkpoint)
    labels, vad = (np.concatenate(x) for x in zip(*map(data.targets, data.scenes)))
    boxes = [s.boxes for s in data.scenes]
    picture = np.repeat(np.arange(len(data)), [len(b) for b in boxes])
    options = decode.PUBLISHED if mode == "published" else decode.DEFAULT
    outputs = emotic.collect(model, map(data.picture, range(len(data))), boxes, options)
    return emotic.Truth(picture, np.concatenate(boxes), labels, vad, len(data)), outputs


@pytest.mark.parametrize("mode", ["corrected", "published"])
def test_figures_are_those_of_benets_evaluation(mode: str, checkpoint: Path, people: Path, tmp_path: Path) -> None:
    more = ["--published"] if mode == "published" else []
    assert run(checkpoint, "emotic", people, tmp_path, *more) == 0
    name = "benet.tiny--emotic--test" + ("_published" if more else "")
    result = results.read(tmp_path / f"{name}.json")
    assert (result.data.protocol == scenes.PUBLISHED) == bool(more)
    assert result.run.command.endswith("--published") == bool(more)
    truth, outputs = read_directly(checkpoint, people, mode)
    for found in outputs.detections:
        found["emotions"] = found["emotions"][:, : len(EMOTIC)]
    vad, truth = truth.vad, dataclasses.replace(truth, vad=None)
    outputs.scores["bu"], affect = np.split(outputs.scores["bu"], [len(EMOTIC)], axis=1)
    expected = emotic.evaluate(truth, outputs, mode)
    metrics = {k: f.value for k, f in result.tasks["emotions"].metrics.items()}
    assert metrics["mAP"] == pytest.approx(expected["emotion"]["bu_cat_wo_det"].mean() / 100, abs=1e-9)
    assert metrics["mAP detected"] == pytest.approx(expected["emotion"]["bu_cat_all_dets"].mean() / 100, abs=1e-9)
    assert metrics["VAD error"] == pytest.approx(np.nanmean(np.abs(vad - affect)), abs=1e-6)
    found = result.tasks["detection"].metrics["AP"].value
    assert found == pytest.approx(expected["detection"]["AP"], abs=1e-9)


@pytest.fixture(scope="module")
def every_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained BENet with all heads."""
    torch.manual_seed(1)
    heads = ("det", "bu", "pc", "bg", "fusion")
    model = BENet(BENetConfig(**TINY, heads=heads, labels=EMOTIC, affect=VAD)).eval()
    folder = tmp_path_factory.mktemp("models") / "full"
    hub.save(model, "benet", folder, hub.Card("benet.full", "MIT", True), "# Tiny\n")
    return folder


@pytest.mark.parametrize("mode", ["corrected", "published"])
def test_every_head_and_the_score_file(mode: str, every_head: Path, people: Path, tmp_path: Path, monkeypatch) -> None:
    """Person, background, fusion and means of heads: figures with intervals, and the file of the original."""
    monkeypatch.setattr(scene_predictions, "CHUNK", 2)
    more = ["--published"] if mode == "published" else []
    file = tmp_path / "scores.txt"
    assert run(every_head, "emotic", people, tmp_path, "--heads", "--scores", str(file), *more) == 0
    truth, outputs = read_directly(every_head, people, mode)
    expected = emotic.evaluate(truth, outputs, mode)
    assert file.read_text() == emotic.scores_text(expected)
    assert all(f"<{head.upper()}_C" in file.read_text() for head in ("pc", "context", "fusion", *emotic.MIXTURES))
    (path,) = tmp_path.glob("*.json")
    result = results.read(path)
    metrics = result.tasks["emotions"].metrics
    for head in ("pc", "context", "fusion", *emotic.MIXTURES):
        figure = metrics[f"mAP {head}"]
        assert figure.value == pytest.approx(expected["emotion"][f"{head}_cat"].mean() / 100, abs=1e-9)
        assert figure.low <= figure.high and "--heads" in result.run.command
    again = tmp_path / "again.txt"
    kept = tmp_path / "predictions" / result.run.predictions
    given = ["--dataset", "emotic", "--data", str(people), "--out", str(tmp_path), "--scores", str(again), *more]
    assert main(["score", "--predictions", str(kept), "--name", "again", *given]) == 0
    assert again.read_text() == file.read_text()


def test_pictures_without_people_and_heads_that_are_not_there(every_head: Path, checkpoint: Path, people: Path) -> None:
    data = datasets.reader("emotic").load(people, "test")
    scene = data.scenes[1]
    nobody = {"boxes": scene.boxes[:0], "labels": (), "vad": scene.vad[:0], "rows": scene.rows[:0]}
    empty = dataclasses.replace(scene, crowd=scene.crowd[:0], people=(), **nobody)
    data = dataclasses.replace(data, scenes=(empty, *data.scenes[1:3]))
    out = people.parent / "few.npz"
    found, _ = scene_predictions.predict(hub.load(every_head), data, out, quiet=True, heads=True)
    assert [len(f["context"]) for f in found] == [0, 1, 1] and len(found[0]["pc"]) == len(found[0]["people"]) == 0
    assert "mAP context" in scenes.score(found, data, draws=2)["emotions"].metrics
    assert "<CONTEXT_CAT>" in score_file.text(found, data)
    alone, _ = scene_predictions.predict(hub.load(every_head), data.subset([0]), out, quiet=True, heads=True)
    assert alone[0]["fusion"].shape == found[1]["fusion"][:0].shape
    with pytest.raises(UserError, match="only the heads det, bu; leave out --heads"):
        scene_predictions.predict(hub.load(checkpoint), data, out, heads=True)


def test_the_score_file_needs_emotions(checkpoint: Path, tmp_path: Path, capsys) -> None:
    heco, file = datasets.reader("heco").fake(tmp_path / "heco"), tmp_path / "scores.txt"
    assert run(checkpoint, "heco", heco, tmp_path, "--split", "train", "--scores", str(file)) == 2
    assert "everybody's emotions" in capsys.readouterr().err and not file.exists()
    faces = datasets.reader("diffusionfer").fake(tmp_path / "faces")
    for option in (["--heads"], ["--scores", str(file)]):
        assert run(checkpoint, "diffusionfer", faces, tmp_path, *option) == 2
        assert f"{option[0]} is for scenes" in capsys.readouterr().err


def test_a_stopped_run_goes_on(checkpoint: Path, people: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(scene_predictions, "CHUNK", 2)
    data, model = datasets.reader("emotic").load(people, "test"), hub.load(checkpoint)
    whole, _ = scene_predictions.predict(model, data, tmp_path / "whole.npz", quiet=True)
    seen: list[int] = []

    def picture(i: int) -> np.ndarray:
        seen.append(i)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return data.picture(i)

    stopping = data.subset(slice(None))
    object.__setattr__(stopping, "picture", picture)
    with pytest.raises(KeyboardInterrupt):
        scene_predictions.predict(model, stopping, tmp_path / "parts.npz", quiet=True)
    found, _ = scene_predictions.predict(model, stopping, tmp_path / "parts.npz", quiet=True)
    assert seen[4] == 2 and not (tmp_path / "parts.parts").exists()
    for one, other in zip(whole, found, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_a_detector_alone_and_other_emotions(checkpoint: Path, people: Path, tmp_path: Path, capsys, caplog) -> None:
    heco = datasets.reader("heco").fake(tmp_path / "heco")
    assert run(checkpoint, "heco", heco, tmp_path, "--split", "train") == 0
    assert "odd annotations (1)" in caplog.text
    assert set(results.read(tmp_path / "benet.tiny--heco--train.json").tasks) == {"detection"}
    torch.manual_seed(0)
    model = BENet(BENetConfig(**TINY, heads=("bu",), labels=EMOTIC)).eval()
    hub.save(model, "benet", tmp_path / "bu", hub.Card("benet.bu", "MIT", True), "# Tiny\n")
    assert run(tmp_path / "bu", "emotic", people, tmp_path) == 0
    found = results.read(tmp_path / "benet.bu--emotic--test.json").tasks
    assert set(found) == {"emotions"} and set(found["emotions"].metrics) == {"mAP", "mAP interpolated"}
    assert run(tmp_path / "bu", "heco", heco, tmp_path, "--split", "train") == 2
    assert "nothing to score" in capsys.readouterr().err


def boxes_of(pictures: int, seed: int) -> tuple[list[dict], list[dict]]:
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(pictures):
        corner = rng.uniform(0, 300, (rng.integers(0, 5), 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 200, corner.shape)], axis=1)
        near = boxes + rng.normal(0, 15, boxes.shape)
        truth.append({"boxes": boxes})
        found.append({"boxes": near, "scores": rng.random(len(near))})
    return found, truth


def test_weights_are_repetitions() -> None:
    found, truth = boxes_of(30, 0)
    matches = detection.match(found, truth)
    for weights in bootstrap.multiplicities(30, 3):
        rows = np.repeat(np.arange(30), weights)
        again = detection.match([found[i] for i in rows], [truth[i] for i in rows])
        np.testing.assert_allclose(
            detection.average_precision(matches, weights=weights), detection.average_precision(again), atol=1e-12
        )


def test_paired_test_of_detectors() -> None:
    found, truth = boxes_of(60, 1)
    data = scene_data.Scenes("s", "test", tuple(
        scene_data.make_scene(f"{i}.png", (600, 600), t["boxes"], []) for i, t in enumerate(truth)
    ), (), lambda i: np.zeros((600, 600, 3), np.uint8))  # fmt: skip
    exact = [{"boxes": t["boxes"], "scores": f["scores"]} for t, f in zip(truth, found)]
    test = scenes.paired(exact, found, data, draws=200)["detection"]["AP"]
    assert test["a"] == pytest.approx(1) and test["b"] == pytest.approx(detection_ap(found, truth)["AP"], abs=1e-3)
    assert test["p"] < 0.02 and test["low"] > 0
    same = scenes.paired(found, found, data, draws=50)["detection"]["AP"]
    assert same["difference"] == 0 and same["p"] == 1 and same["low"] == same["high"] == 0


def test_models_are_compared_on_what_both_say(tmp_path: Path) -> None:
    """One has VAD or emotions of detected people, the other not."""
    data = datasets.reader("emotic").load(datasets.reader("emotic").fake(tmp_path / "emotic"), "test")
    rng, k = np.random.default_rng(0), len(EMOTIC)
    whole = [
        {"boxes": s.boxes, "scores": rng.random(len(s)), "emotions": rng.random((len(s), k)),
         "people": rng.random((len(s), k)), "vad": rng.random((len(s), 3))}
        for s in data.scenes
    ]  # fmt: skip

    def only(*keys: str) -> list[dict]:
        return [{key: one[key] for key in keys} for one in whole]

    for left, right in ((whole, only("people")), (only("people"), whole), (only("people", "vad"), only("people"))):
        found = scenes.paired(left, right, data, draws=5)
        assert {task: set(test) for task, test in found.items()} == {"emotions": {"mAP", "mAP interpolated"}}
        assert found["emotions"]["mAP"]["difference"] == 0
    for left, right in (
        (whole, only("boxes", "scores")),
        (only("boxes", "scores"), only("boxes", "scores", "emotions")),
    ):
        assert set(scenes.paired(left, right, data, draws=5)) == {"detection"}
    with pytest.raises(UserError, match="A gives boxes, scores, B gives people"):
        scenes.paired(only("boxes", "scores"), only("people"), data, draws=5)


def test_without_annotated_vad_there_is_no_error_of_it(tmp_path: Path) -> None:
    data = datasets.reader("emotic").load(datasets.reader("emotic").fake(tmp_path / "emotic"), "test")
    bare = dataclasses.replace(
        data, scenes=tuple(dataclasses.replace(s, vad=np.full((len(s), 3), np.nan)) for s in data.scenes)
    )
    found = [{"people": np.full((len(s), len(EMOTIC)), 0.5), "vad": np.full((len(s), 3), 0.5)} for s in data.scenes]
    assert "VAD error" in scenes.score(found, data, draws=5)["emotions"].metrics
    assert "VAD error" not in scenes.score(found, bare, draws=5)["emotions"].metrics
