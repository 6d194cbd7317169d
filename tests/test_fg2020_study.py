"""The study of incomplete labels: it runs and resumes, and its tables say what the predictions say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emotion.datasets import diffusionfer, ferplus
from train import fg2020_study as study


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("data")
    return {
        "ferplus": str(ferplus.fake(root / "f", per_class=3)),
        "diffusionfer": str(diffusionfer.fake(root / "d", per_class=3)),
    }


@pytest.fixture(scope="module")
def data(folders: dict[str, str]) -> study.Data:
    return study.load(folders, "across", labelled=15)


@pytest.mark.parametrize(("design", "sizes"), [("across", [15, 21]), ("within", [11, 10])])
def test_every_training_face_has_labels_of_one_task(folders: dict[str, str], design: str, sizes: list[int]) -> None:
    data = study.load(folders, design, labelled=15)
    assert [len(data.train[t]) for t in study.TASKS] == sizes
    for task, samples in data.train.items():
        assert list(samples.targets) == [task]
    assert len({i for samples in data.train.values() for i in samples.ids}) == sum(sizes)
    assert {t for part in data.test for t in part.targets} == set(study.TASKS)


def test_contempt_is_left_out(data: study.Data) -> None:
    contempt = data.test[0].labels["expression"].index("contempt")
    assert contempt not in data.test[0].classes()


def perfect(data: study.Data) -> dict[str, np.ndarray]:
    """Answers equal to the truth; whatever for faces without labels."""
    targets = study.truth(data)
    return {t: np.nan_to_num(y) for t, y in targets.items()}


def test_gains_are_those_of_the_predictions(data: study.Data) -> None:
    right, rng = perfect(data), np.random.default_rng(0)
    wrong = {t: rng.normal(size=y.shape) for t, y in right.items()}
    arms = dict(zip(study.ARMS, (wrong, right, wrong)))
    found = {arm: {t: np.stack([y, y]) for t, y in answers.items()} for arm, answers in arms.items()}
    compared = study.compare(found, data)
    assert set(compared) == set(data.rows)
    for row in compared.values():
        assert row[study.TEACHER][0] == pytest.approx(1)
        value, low, high = row[f"gain of {study.TEACHER}"]
        assert value == pytest.approx(1 - row[study.ALONE][0])
        assert 0 < low <= value <= high
        assert row[f"gain of {study.STUDENT}"] == (0, 0, 0)
    text = study.markdown(compared)
    assert text.count("\n| ") == 2 * (1 + 1 + len(data.rows)) - 1
    assert "+0.000 [+0.000, +0.000]" in text


def test_command_runs_and_resumes(
    folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [f"--data={name}={folder}" for name, folder in folders.items()]
    command = [*given, "--out", str(tmp_path), "--seeds", "1", "--design", "within", "--steps", "2", "--labelled", "15"]
    assert study.main(command) == 0
    first = capsys.readouterr().out
    assert first == (tmp_path / "within" / "study.md").read_text() + "\n"
    monkeypatch.setattr(study.FG2020Trainee, "loss", None)  # nothing is trained again
    assert study.main(command) == 0
    assert capsys.readouterr().out == first
    assert study.main(["--data", "ferplus=nowhere"]) == 2
    assert "--data diffusionfer=DIR" in capsys.readouterr().err
