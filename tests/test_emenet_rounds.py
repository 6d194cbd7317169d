"""Rounds of iterative distillation: they run, resume, and end in a small checkpoint; strange pictures are strange."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from emotion import hub
from emotion.datasets import diffusionfer, ferplus
from train import emenet_rounds as rounds
from train import recipe as recipes


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("data")
    return {
        "ferplus": str(ferplus.fake(root / "f", per_class=2)),
        "diffusionfer": str(diffusionfer.fake(root / "d", per_class=1)),
    }


def short(name: str, folder: Path) -> str:
    """A shipped recipe with at most two members of one epoch on 16-pixel faces."""
    table = yaml.safe_load((recipes.FOLDER / f"{name}.yaml").read_text())
    members = min(table["model"]["members"], 2)
    table["model"] |= {"input": table["model"]["input"] | {"size": [16, 16]}, "members": members, "hidden": 4}
    table |= {"batch": 8, "workers": 0, "settings": {"seed": 0, "optimizer": "adamw"}}
    table["stages"] = [{"member": m, "epochs": 1} for m in range(members)]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(table))
    return str(path)


def test_rounds_run_and_resume(
    folders: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "REPLICATES", 5)
    (tmp_path / "scenes").mkdir()
    Image.fromarray(np.zeros((70, 90, 3), np.uint8)).save(tmp_path / "scenes" / "a.png")
    command = [
        *(f"--data={name}={folder}" for name, folder in folders.items()),
        *(f"--{role}={short(f'emenet-open-{role}', tmp_path)}" for role in ("backbone", "teacher", "student")),
        *("--out", str(tmp_path / "out"), "--scenes", str(tmp_path / "scenes"), "--keep", "1"),
    ]
    assert rounds.main(command) == 0
    first = capsys.readouterr().out
    for text in (
        "round 0, one network",
        "round 1, ensemble",
        "round 1, change",
        "round 1, change, calibrated",
        "expression NLL",
        "without people",
    ):
        assert text in first
    small, whole = (
        hub.load(tmp_path / "out" / place / "emenet_v.open_student") for place in ("", "seed-0/round-1")
    )  # fmt: skip
    assert (small.config.members, whole.config.members) == (1, 2)
    assert torch.equal(small.members[0].backbone.conv1.conv.weight, whole.members[0].backbone.conv1.conv.weight)
    assert small.card.metrics
    assert "without people" in (tmp_path / "out" / "emenet_v.open_student" / "README.md").read_text()
    monkeypatch.setattr(rounds.loop, "fit", None)  # nothing is trained again
    assert rounds.main(command) == 0
    assert capsys.readouterr().out == first


def test_changes_are_those_of_the_answers() -> None:
    eye = np.eye(4)[np.arange(40) % 4]
    truth = {"expression": eye}

    def said(p: float) -> rounds.Tasks:
        values = p * eye + (1 - p) / 4
        return {"expression": rounds.Task("categorical", ("a", "b", "c", "d"), values)}

    first = {"one network": [said(0.2), said(0.4)], "ensemble": [said(0.3)]}
    networks = [[first, {"one network": [said(0.8)], "ensemble": [said(0.9)]}]]
    row = rounds._row(networks, truth, np.arange(40), np.zeros(1, int))
    assert row["expression_accuracy", "round 0, ensemble"] == 1
    nll = {p: -np.log(p + (1 - p) / 4) for p in (0.2, 0.3, 0.4, 0.9)}
    assert row["expression_nll", "round 0, one network"] == pytest.approx((nll[0.2] + nll[0.4]) / 2)
    assert row["expression_nll", "round 1, change"] == pytest.approx(nll[0.9] - nll[0.3])


@pytest.mark.parametrize("channels", [1, 3])
def test_strange_pictures(channels: int) -> None:
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (3, 16, 16, channels), dtype=np.uint8)
    scenes = [rng.integers(0, 256, (40, 90, 3), dtype=np.uint8)]
    found = rounds.strange(faces, scenes)
    assert {v.shape for v in found.values()} == {faces.shape}
    shuffled = found["faces with their tiles shuffled"]
    np.testing.assert_array_equal(np.sort(shuffled.reshape(3, -1)), np.sort(faces.reshape(3, -1)))
    assert not np.array_equal(shuffled, faces)
    half = found["faces whose lower half is noise"]
    np.testing.assert_array_equal(half[:, :8], faces[:, :8])
    assert "pictures without people" not in rounds.strange(faces, [])
