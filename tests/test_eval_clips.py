"""Clips of voice and face: run, resumed, scored per condition, compared; predictions of other tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from emotion import hub, registry
from emotion.datasets import Samples, ferplus, ravdess
from emotion.errors import UserError
from emotion.labels import RAVDESS
from emotion.measures import FaceMeter
from emotion.models.avfusion import CONDITIONS, AVFusion, AVFusionConfig
from emotion.models.base import ClipInput, VectorInput
from eval import clips, predictions, results
from eval.__main__ import main
from eval.predictions import Predictions

UNITS = ["--option", "visual=action_units"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ravdess.fake(tmp_path_factory.mktemp("data") / "ravdess", size=32, frames=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained fusion of sound and action units."""
    torch.manual_seed(0)
    units = VectorInput(names=("AU04_r", "AU12_r", "AU26_c"))
    model = AVFusion(AVFusionConfig(input=ClipInput(visual=units, frames=1), fusion="it"))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    hub.save(model, "avfusion", folder, hub.Card("avfusion.tiny", "MIT", True), "# Tiny\n")
    return folder


def run(checkpoint: Path, data: Path, out: Path) -> int:
    given = ["--dataset", "ravdess", "--data", str(data), "--out", str(out), "--quiet", *UNITS]
    return main(["run", "--model", str(checkpoint), *given])


def test_run_score_and_compare(checkpoint: Path, data: Path, tmp_path: Path, capsys) -> None:
    assert run(checkpoint, data, tmp_path) == 0
    name = "avfusion.tiny--ravdess--test_visual_action_units"
    result = results.read(tmp_path / f"{name}.json")
    found = result.tasks["audiovisual"]
    assert {f"accuracy{'' if c == 'both' else ' ' + c}" for c in CONDITIONS} <= set(found.metrics)
    assert result.run.command.endswith("--split test --option visual=action_units") and result.run.samples_per_second
    assert result.data.groups == len({"actors of the test split"}) and result.run.unit == "group"
    file = tmp_path / "predictions" / f"{name}.npz"
    given = ["--dataset", "ravdess", "--data", str(data), "--out", str(tmp_path / "again"), *UNITS]
    assert main(["score", "--predictions", str(file), "--name", "again", *given]) == 0
    again = results.read(tmp_path / "again" / "again--ravdess--test_visual_action_units.json")
    assert again.tasks == result.tasks
    capsys.readouterr()
    assert main(["compare", str(file), "avfusion.tiny", *given[:-4], "--out", str(tmp_path), *UNITS]) == 0
    out = capsys.readouterr().out
    assert "accuracy noisy audio" in out and "They differ most on" in out and "+0.0000" in out
    assert "+0.0000 to" not in out  # one actor alone tells nothing of others


def test_a_stopped_run_goes_on_with_the_same_noise(checkpoint: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(clips, "BATCH", 3)
    samples, model = ravdess.load(data, "test", "action_units"), hub.load(checkpoint)
    whole, _ = clips.predict(model, samples, tmp_path / "whole.npz", quiet=True)
    seen: list[int] = []

    def picture(i: int) -> object:
        seen.append(i)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return samples.picture(i)

    stopping = samples.subset(slice(None))
    object.__setattr__(stopping, "picture", picture)
    with pytest.raises(KeyboardInterrupt):
        clips.predict(model, stopping, tmp_path / "parts.npz", quiet=True)
    found, _ = clips.predict(model, stopping, tmp_path / "parts.npz", quiet=True)
    assert seen[5] == 3 and not (tmp_path / "parts.parts").exists()
    assert set(found.values) == set(CONDITIONS)
    for condition, values in whole.values.items():
        np.testing.assert_array_equal(found.values[condition], values)


def test_sound_alone_is_tested_without_pictures(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    samples = ravdess.load(data, "test", "none")
    found, _ = clips.predict(hub.load(checkpoint), samples, tmp_path / "p.npz", quiet=True)
    assert set(found.values) == {"both", "audio", "noisy audio"}
    np.testing.assert_array_equal(found.values["both"], found.values["audio"])


def test_a_face_model_measures_the_pictures(data: Path, tmp_path: Path) -> None:
    """What a face model says of every frame is the visual channel of a fusion trained so."""
    from emotion.measures import FaceMeter

    name = "esr_compact.ferplus"
    torch.manual_seed(0)
    visual = VectorInput(names=FaceMeter(name).names, measured_by=name)
    model = AVFusion(AVFusionConfig(input=ClipInput(visual=visual, frames=2), fusion="it")).eval()
    hub.save(model, "avfusion", tmp_path / "c", hub.Card("avfusion.measured", "MIT", True), "# Tiny\n")
    samples = ravdess.load(data, "test").subset(slice(0, 2))
    found, _ = clips.predict(hub.load(tmp_path / "c"), samples, tmp_path / "p.npz", quiet=True)
    assert set(found.values) == set(CONDITIONS) and (found.values["both"] != found.values["audio"]).any()


def test_predictions_of_another_tool(data: Path, tmp_path: Path) -> None:
    samples = ravdess.load(data, "test", "action_units")
    labels = samples.labels["expression"]
    table = ["id,expression", *(f"{i},{labels[c]}" for i, c in zip(samples.ids, samples.classes()))]
    (tmp_path / "theirs.csv").write_text("\n".join(table), encoding="utf-8")
    given = ["--dataset", "ravdess", "--data", str(data), "--out", str(tmp_path), *UNITS]
    assert main(["score", "--predictions", str(tmp_path / "theirs.csv"), *given]) == 0
    result = results.read(tmp_path / "theirs--ravdess--test_visual_action_units.json")
    assert result.tasks["audiovisual"].metrics["accuracy"].value == 1
    assert predictions.read(tmp_path / "theirs.csv").hard == ("expression",)


def test_face_models_do_not_read_clips(data: Path, tmp_path: Path, capsys) -> None:
    given = ["--dataset", "ravdess", "--data", str(data), "--out", str(tmp_path / "out"), "--quiet", *UNITS]
    assert main(["run", "--model", "esr_compact.ferplus", *given]) == 2
    assert "does not read clips" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_clips_are_scored_per_condition() -> None:
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
    backwards = {"both": p["both"][:, ::-1]}
    choice = {"both": 7 - given.choice["both"]}
    other = clips.score(Predictions(ids, {"both": RAVDESS[::-1]}, backwards, choice), samples)["audiovisual"]
    assert other.metrics["accuracy"] == found.metrics["accuracy"] and other.confusion == found.confusion
    with pytest.raises(UserError, match="only of valence_arousal"):
        clips.score(Predictions(ids, {}, {"valence_arousal": p["both"]}), samples)


def test_borrowed_faces_are_measured(data: Path, tmp_path: Path, capsys) -> None:
    ferplus.fake(data / "ferplus")
    meter = FaceMeter(registry.DEFAULT)
    seen = VectorInput(meter.names, measured_by=registry.DEFAULT)
    for frames in (4, 2):
        model = AVFusion(AVFusionConfig(input=ClipInput(visual=seen, frames=frames), fusion="it"))
        hub.save(model, "avfusion", tmp_path / "model", hub.Card("avfusion.seen", "MIT", True), "# Seen\n")
        given = ["--dataset", "ravdess", "--data", str(data), "--option", "visual=borrowed", "--quiet"]
        code = main(["run", "--model", str(tmp_path / "model"), *given, "--out", str(tmp_path / f"out{frames}")])
        assert code == (0 if frames == 4 else 2)
    assert "4 pictures, the model reads 2" in capsys.readouterr().err
    result = results.read(tmp_path / "out4" / "avfusion.seen--ravdess--test_visual_borrowed.json")
    assert {f"accuracy{'' if c == 'both' else ' ' + c}" for c in CONDITIONS} <= set(result.tasks["audiovisual"].metrics)
    assert "different persons" in result.data.protocol
