"""`python -m eval ood`: uncertainty as a detector of what is no face."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emotion import hub
from emotion.models import emenet
from emotion.models.base import FaceInput
from emotion.models.mobilefacenet import MobileFaceNet, MobileFaceNetConfig
from emotion.outputs import Task
from eval import ood
from eval.__main__ import main

SMALL = FaceInput((32, 32))


def unsure(values: list[float]) -> ood.Tasks:
    u = np.array(values)
    p = np.stack([1 - u / 2, u / 2], axis=1)
    return {"expression": Task("categorical", ("a", "b"), p, uncertainty={"total": u})}


def test_auroc_says_how_often_another_picture_is_less_sure() -> None:
    found = ood.compare(unsure([0.1, 0.2, 0.3, 0.4]), unsure([0.35, 0.5]))["expression, total"]
    assert found.auroc == pytest.approx(7 / 8) and found.low < 7 / 8 < found.high
    assert (found.faces, found.others) == (pytest.approx(0.25), pytest.approx(0.425))
    assert ood.compare(unsure([0.1, 0.3]), unsure([0.1, 0.3]))["expression, total"].auroc == 0.5


def pictures(folder: Path, n: int, size: tuple[int, int], seed: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = emenet.EMENet(
        emenet.EMENetConfig(SMALL, action_units=emenet.vocab.ABAW2_ACTION_UNITS[:3], members=2, hidden=8)
    )
    hub.save(model, "emenet", tmp_path / "two", hub.Card("emenet_v.two", "MIT", True), "")
    faces, others = pictures(tmp_path / "f", 35, (20, 30), 0), pictures(tmp_path / "o", 3, (50, 40), 1)
    command = ["ood", "--model", str(tmp_path / "two"), "--faces", str(faces), "--others", str(others)]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert "35 faces, 3 other pictures" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "emenet_v.two--ood.json").read_text())
    kinds = ("deviation", "total", "aleatoric", "epistemic")
    wanted = {f"{task}, {k}" for task in ("expression", "action units", "valence arousal") for k in kinds[1:]}
    assert set(written["uncertainty"]) == wanted | {"valence arousal, deviation"}
    assert all(0 <= d["low"] <= d["high"] <= 1 for d in written["uncertainty"].values())
    assert "</svg>" in (tmp_path / "out" / "emenet_v.two--ood.svg").read_text()

    network = MobileFaceNet(MobileFaceNetConfig(SMALL, labels=(), landmarks=5))
    hub.save(network, "mobilefacenet", tmp_path / "points", hub.Card("a.b", "MIT", True), "")
    for change, message in (
        ((str(tmp_path / "two"), str(tmp_path / "points")), "nothing about its uncertainty"),
        ((str(others), str(tmp_path / "out")), "no pictures"),
    ):
        assert main([change[1] if c == change[0] else c for c in command] + ["-o", str(tmp_path / "no")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
