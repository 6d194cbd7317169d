"""Figures of single faces: bars of prediction and uncertainty, landmarks in the picture, the command for both."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emotion import figures, hub
from emotion.__main__ import main
from emotion.errors import UserError
from emotion.faces import TEMPLATES, crop, in_picture
from emotion.models import emenet, mobilefacenet
from emotion.models.base import FaceInput
from emotion.outputs import Faces, Result, Task

MEDIA = Path(__file__).parent / "media"
PORTRAIT = np.full((60, 60, 3), 90, np.uint8)


def result(members: int = 3, faces: int = 2) -> Result:
    rng = np.random.default_rng(0)
    unsure = {"total": rng.uniform(0.2, 0.9, faces)}
    if members > 1:
        unsure |= {"epistemic": unsure["total"] / 4, "aleatoric": unsure["total"] * 3 / 4}
    values = rng.dirichlet(np.ones(7), faces)
    names = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
    two = {k: np.stack([v, v / 2], axis=1) for k, v in unsure.items()}
    tasks = {
        "expression": Task("categorical", names, values, uncertainty=unsure),
        "action_units": Task("multilabel", ("AU1", "AU2"), rng.uniform(size=(faces, 2)), uncertainty=two),
        "valence_arousal": Task(
            "continuous", ("valence", "arousal"), rng.uniform(-1, 1, (faces, 2)), bounds=(-1, 1), uncertainty=two
        ),
    }
    boxes = np.array([[10, 10, 50, 60], [100, 20, 160, 90]], np.float32)[:faces]
    found = Faces(boxes, np.ones(faces))
    return Result("m", (200, 120), np.zeros(1), np.zeros(faces, np.int64), found, tasks)


def test_bars_show_what_the_result_says() -> None:
    one = result()
    drawn = figures.bars(one, 0, PORTRAIT)
    assert drawn.ndim == 3 and drawn.dtype == np.uint8 and drawn.shape[1] == 11 * 120
    assert not np.array_equal(drawn, figures.bars(one, 1, PORTRAIT))
    orange = (np.abs(drawn.astype(int) - (0xD5, 0x5E, 0x00)).max(-1) < 3).sum()  # what the members disagree on
    alone = figures.bars(result(members=1), 0, PORTRAIT)
    assert orange > 500 and (np.abs(alone.astype(int) - (0xD5, 0x5E, 0x00)).max(-1) < 3).sum() == 0
    with pytest.raises(UserError, match="no bars to draw"):
        figures.bars(replace(one, tasks={}), 0, PORTRAIT)


@pytest.mark.parametrize(
    "spec", [FaceInput((40, 60), margin=0.2, square=True), FaceInput((64, 64), template="arcface")]
)
def test_points_of_a_crop_lie_in_the_picture_where_they_were_seen(spec: FaceInput) -> None:
    """A bright spot in the picture, found in the crop, is mapped back to itself."""
    if spec.template is not None:
        spec = replace(spec, template=next(k for k, v in TEMPLATES.items() if not callable(v)))
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[88:96, 140:148] = 255  # middle at (144, 92)
    points = np.array([[[120, 70], [170, 74], [146, 95], [126, 120], [166, 122]]], np.float32)
    faces = Faces(np.array([[100, 40, 190, 150]], np.float32), np.ones(1), points)
    seen = crop(picture, faces, spec)[0].astype(float).sum(-1)
    rows, columns = np.indices(seen.shape)
    middle = np.array([[(columns * seen).sum(), (rows * seen).sum()]]) / seen.sum() + 0.5
    fractions = middle / spec.size[::-1]
    np.testing.assert_allclose(in_picture(fractions[None], faces, spec, (300, 200))[0, 0], (144, 92), atol=1.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A face reader without ensemble, and a network for landmarks, with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    card = hub.Card("emenet.tiny", "MIT", True, source="a test")
    small = FaceInput((32, 32), margin=0.1)
    hub.save(emenet.EMENet(emenet.EMENetConfig(input=small, landmarks=68)).eval(), "emenet", folder / "faces", card, "")
    aligner = mobilefacenet.MobileFaceNet(mobilefacenet.face_alignment()).eval()
    hub.save(aligner, "mobilefacenet", folder / "points", replace(card, name="mobilefacenet.tiny"), "")
    return {"faces": folder / "faces", "points": folder / "points"}


def test_command(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(MEDIA / "portrait_hopper.jpg")
    assert main(["figure", picture, "--model", str(models["faces"]), "-o", str(tmp_path / "a")]) == 0
    names = [f"portrait_hopper_{end}" for end in ("face1_figure.png", "landmarks.csv", "landmarks.png")]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == names
    assert main(["figure", picture, "--model", str(models["points"]), "-o", str(tmp_path / "b")]) == 0
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == names[1:]
    with (tmp_path / "b" / "portrait_hopper_landmarks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 68 and list(rows[0]) == ["face", "point", "x", "y"] and rows[67]["point"] == "67"
    assert Image.open(tmp_path / "b" / "portrait_hopper_landmarks.png").size == Image.open(picture).size
    command = ["figure", picture, "--model", str(models["faces"]), "-o", str(tmp_path / "c"), "--mc-dropout", "5"]
    assert main(command) == 0
    one, other = (Image.open(tmp_path / k / names[0]).convert("RGB") for k in "ac")
    assert not np.array_equal(np.asarray(one), np.asarray(other))
    capsys.readouterr()
    assert main(["figure", picture, "--model", str(models["points"]), "--mc-dropout", "5"]) == 2
    assert "no Monte Carlo dropout" in capsys.readouterr().err
    assert main(["figure", str(MEDIA / "scene_no_person.jpg"), "--model", str(models["faces"])]) == 0
    assert "no face" in capsys.readouterr().out


def test_formats_of_crops_know_members_that_are_only_counted(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    for n in range(3):
        Image.new("RGB", (40, 40), (60 * n, 90, 120)).save(tmp_path / "crops" / f"a_{n:05}.png")
    command = ["crops", str(tmp_path / "crops"), "--model", str(models["faces"]), "-o", str(tmp_path / "out")]
    assert main([*command, "--format", "fg2020"]) == 0 and main([*command, "--format", "api"]) == 0
    assert sorted(p.name for p in (tmp_path / "out" / "member_0").iterdir()) == ["AU.txt", "EXPR.txt", "VA.txt"]
    table = (tmp_path / "out" / "emenet.tiny.csv").read_text().splitlines()
    assert table[0].startswith("frames_ids,AU1,") and [row.split(",")[0] for row in table[1:]] == ["0", "1", "2"]
    points = ["crops", str(tmp_path / "crops"), "--model", str(models["points"]), "-o", str(tmp_path / "no")]
    assert main([*points, "--format", "api"]) == 2
