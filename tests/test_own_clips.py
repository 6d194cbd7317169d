"""The documented way to a model of one's own clips: a table, `prepare`, `train`, `analyze`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

import emotion
from emotion import __main__ as command
from emotion import hub
from emotion.models.avfusion import AVFusion, AVFusionConfig
from emotion.models.base import ClipInput, FaceInput
from train import __main__ as training
from train import recipe as recipes

TALK = Path(__file__).parent / "media" / "talk_man_1.mp4"
LABELS = ("calm", "anger")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two expressions by three speakers, one per split: films, one of them with its sound in a file of its own."""
    rows = ["file,label,speaker,split,sound"]
    for speaker, split in (("anna", "train"), ("ben", "valid"), ("cleo", "test")):
        (tmp_path / speaker).mkdir()
        for number, label in enumerate(LABELS):
            name = f"{speaker}/{speaker}-{label}"
            shutil.copy(TALK, tmp_path / f"{name}.mp4")
            t = np.arange(4 * 16000) / 16000
            soundfile.write(tmp_path / f"{name}.wav", 0.3 * np.sin(2 * np.pi * 200 * (1 + 3 * number) * t), 16000)
            rows.append(f"{name}.mp4,{label},{speaker},{split},{name}.wav")
    rows.append("anna/lost.mp4,anger,anna,train,")
    (tmp_path / "anna" / "lost.mp4").write_bytes(b"no film")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_the_documented_way(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ClipInput(visual=FaceInput(size=(32, 32)), frames=2)
    torch.manual_seed(0)
    begin = AVFusion(AVFusionConfig(input=config))
    hub.save(begin, "avfusion", tmp_path / "begin", hub.Card("avfusion_tiny.begin", "MIT", True), "# Untrained\n")

    arguments = ["prepare", "clips", str(table), "-o", str(tmp_path / "mine"), "--model", str(tmp_path / "begin")]
    assert command.main(arguments) == 0
    told = capsys.readouterr().out
    assert "lost" in told and "6 of 7 clips prepared: 6 with sound, 6 with a face" in told

    recipe = yaml.safe_load((recipes.FOLDER / "avfusion-clips.yaml").read_text())
    recipe["model"]["input"] = {"visual": {"size": [32, 32]}, "frames": 2}
    recipe["model"]["labels"] = list(LABELS)
    for rows in recipe["data"].values():
        rows[0]["labels"] = list(LABELS)
    recipe["stages"][0]["epochs"] = 8
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "run"
    arguments = [str(tmp_path / "mine.yaml"), "--data", str(tmp_path / "mine"), "--init", str(tmp_path / "begin")]
    assert training.main([*arguments, "--out", str(out)]) == 0

    folder = out / recipe["name"]
    result = emotion.analyze(TALK, model=folder)
    assert result.tasks["expression"].labels == LABELS and "contribution" in result.tasks
    assert "clips/test" in (folder / "README.md").read_text()
    with torch.inference_mode():
        own = hub.load(folder)
    assert not torch.equal(own.audio.stage1[0].weight, begin.audio.stage1[0].weight)
