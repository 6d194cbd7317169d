"""`python -m eval run` and `bench` with a small untrained model of faces."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emotion import datasets, hub, registry
from emotion.datasets import Samples
from emotion.labels import FERPLUS
from emotion.models import emenet, esr
from emotion.models.base import FaceInput
from emotion.outputs import Task
from eval import predictions, results, runner, speed
from eval.__main__ import main


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
    assert main(["score", "--predictions", str(file), "--name", "esr.tiny", *given[:-1], str(tmp_path)]) == 2
    assert results.read(tmp_path / "esr.tiny--ferplus--test.json") == result, "what was run here is not overwritten"


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


def test_other_weights_of_one_name(checkpoint: Path, faces: Path, tmp_path: Path, capsys) -> None:
    """They overwrite nothing, are not taken for the registry's, and are compared by their folders."""
    model = hub.load(checkpoint)
    with torch.no_grad():
        for values in model.parameters():
            values.mul_(1.3)
    other, odd = tmp_path / "other", tmp_path / "odd"
    sha = hub.save(model, "esr", other, hub.Card("esr.tiny", "MIT", True), "").sha256[:8]
    odd_sha = hub.save(model, "esr", odd, hub.Card(registry.DEFAULT, "MIT", True), "").sha256[:8]
    out = tmp_path / "out"
    for folder in (checkpoint, other, odd, checkpoint, other):
        assert run(folder, faces, out) == 0
    end = "--ferplus--test"
    names = {path.stem for path in out.glob("*.json")}
    assert names == {f"esr.tiny{end}", f"esr.tiny-{sha}{end}", f"{registry.DEFAULT}-{odd_sha}{end}"}
    found = {name: results.read(out / f"{name}.json") for name in names}
    assert found[f"esr.tiny{end}"].model.sha256 == hub.load(checkpoint).card.sha256
    assert {row.model.weights for row in found.values()} == {"own"}
    assert f"--model {registry.DEFAULT}/ " in found[f"{registry.DEFAULT}-{odd_sha}{end}"].run.command
    capsys.readouterr()
    given = ["--dataset", "ferplus", "--data", str(faces), "--out", str(out)]
    files = [str(out / "predictions" / f"{name}{end}.npz") for name in ("esr.tiny", f"esr.tiny-{sha}")]
    assert main(["compare", str(checkpoint), str(other), *given]) == 0
    by_folder = capsys.readouterr().out.splitlines()[1:]
    assert main(["compare", *files, *given]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == by_folder
    assert main(["leaderboard", "--track", "expression", "--format", "md", "--results", str(out)]) == 0
    assert f"{registry.DEFAULT} ({odd_sha})" in capsys.readouterr().out


def test_only_the_registrys_weights_are_called_bundled() -> None:
    model = hub.load(registry.DEFAULT)
    assert runner.describe(model).weights == "bundled"
    model.card = dataclasses.replace(model.card, sha256="0" * 64)
    assert runner.describe(model).weights == "own"


def test_dropout_at_prediction_time_is_a_model_of_its_own(
    checkpoint: Path, faces: Path, tmp_path: Path, capsys
) -> None:
    torch.manual_seed(0)
    config = emenet.EMENetConfig(FaceInput((32, 32)), FERPLUS, action_units=(), bins=0, hidden=16)
    hub.save(emenet.EMENet(config), "emenet", tmp_path / "one", hub.Card("emenet_v.one", "MIT", True), "")
    for out, more in (("a", ()), ("a", ("--mc-dropout", "6")), ("b", ("--mc-dropout", "6", "--batch", "7"))):
        assert run(tmp_path / "one", faces, tmp_path / out, *more) == 0
    name = "emenet_v.one--ferplus--test"
    plain, dropped = (tmp_path / "a" / f"{name}{end}.json" for end in ("", "_Monte_Carlo_dropout_6_passes"))
    result = results.read(dropped)
    assert result.run.command.endswith(" --split test --mc-dropout 6")
    assert result.tasks["expression"].notes[-1] == "Monte Carlo dropout, 6 passes"
    assert results.read(plain).tasks["expression"].notes == result.tasks["expression"].notes[:-1]
    said = [
        predictions.read(f.parent / "predictions" / f"{f.stem}.npz")
        for f in (plain, dropped, tmp_path / "b" / dropped.name)
    ]
    once, many, again = (s.values["expression"] for s in said)
    assert np.abs(once - many).max() > 1e-5
    np.testing.assert_allclose(many, again, atol=1e-6)
    capsys.readouterr()
    assert run(checkpoint, faces, tmp_path / "c", "--mc-dropout", "6") == 2
    assert "no Monte Carlo dropout" in capsys.readouterr().err


def test_bench(checkpoint: Path, tmp_path: Path, capsys) -> None:
    assert main(["bench", str(checkpoint), "--seconds", "0.01", "--out", str(tmp_path / "speed")]) == 0
    (found,), problems = speed.read_speed([tmp_path])
    assert not problems and found.model == "esr.tiny" and min(found.figures.values()) > 0
    (file,) = (tmp_path / "speed").iterdir()
    file.write_text(file.read_text().replace(f'"parameters": {found.parameters}', '"parameters": 7'))
    assert main(["bench", str(checkpoint), "--seconds", "0.01", "--out", str(tmp_path / "speed")]) == 0
    sizes = sorted(s.parameters for s in speed.read_speed([tmp_path])[0])
    assert sizes == [7, found.parameters], "another network of that name is kept"
    file.unlink()
    assert main(["leaderboard", "--track", "speed", "--results", str(tmp_path)]) == 0
    assert "esr.tiny" in capsys.readouterr().out


def test_bench_on_a_device_that_is_not_there(tmp_path: Path, capsys) -> None:
    assert main(["bench", "--device", "cuda:99", "--out", str(tmp_path / "speed")]) == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1 and "cannot use the device cuda:99" in said and not (tmp_path / "speed").exists()


class Position(torch.nn.Module):
    """A model of sequences that answers with the frame's place in what it follows, in hundredths."""

    window = 3

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(input=FaceInput((8, 8)))
        self.card = hub.Card("position", "MIT", True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x))

    def step(self, x: torch.Tensor, state: int | None) -> tuple[torch.Tensor, int]:
        first = state or 0
        return torch.arange(first, first + len(x)), first + len(x)

    def decode(self, places: torch.Tensor) -> dict[str, Task]:
        values = places.float().numpy()[:, None].repeat(2, axis=1) / 100
        return {"valence_arousal": Task("continuous", ("valence", "arousal"), values, bounds=(-1.0, 1.0))}


def test_films_are_followed_by_models_of_sequences(tmp_path: Path) -> None:
    groups = np.repeat(["b", "a", "c"], [4, 1, 5])
    axes = {"valence_arousal": ("valence", "arousal")}
    ids = tuple(f"{g}{i}" for i, g in enumerate(groups))
    targets = {"valence_arousal": np.zeros((10, 2), np.float32)}
    samples = Samples("s", "valid", ids, lambda i: np.zeros((9, 7), np.uint8), axes, targets, groups, films=True)
    found, _ = runner.predict(Position(), samples, tmp_path / "p.npz", quiet=True)
    places = (found.values["valence_arousal"][:, 0] * 100).round().tolist()
    assert places == [0, 1, 2, 3, 0, 0, 1, 2, 3, 4] and found.ids == ids
    alone = dataclasses.replace(samples, films=False)
    found, _ = runner.predict(Position(), alone, tmp_path / "q.npz", quiet=True)
    assert not found.values["valence_arousal"].any()
