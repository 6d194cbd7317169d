"""Grad-CAM and the choice of the face detector on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emotion.__main__ import main
from emotion.cli import gradcam
from emotion.explain import Maps
from emotion.media import read_image

MEDIA = Path(__file__).parent / "media"
OBAMA = MEDIA / "portrait_obama.jpg"


@pytest.mark.parametrize("how", [[], ["--original"]])
def test_a_sheet_per_face(how, tmp_path, capsys):
    assert main(["gradcam", str(OBAMA), "-o", str(tmp_path), *how]) == 0
    path = tmp_path / "portrait_obama_face1_gradcam.png"
    assert capsys.readouterr().out.split() == [str(path)]
    sheet = read_image(path)
    tiles = sheet[: gradcam.TILE].reshape(gradcam.TILE, -1, gradcam.TILE, 3)
    assert tiles.shape[1] == 1 + 1 + 4  # the face, the ensemble, four branches
    assert all((tiles[:, k] != tiles[:, 0]).mean() > 0.5 for k in range(1, 6))


def test_one_network_has_no_ensemble():
    maps = Maps(np.ones((1, 4, 4)), np.ones((1, 1, 4, 4)), np.array([[1]]), np.array([[0.5]]), {})
    portrait = np.zeros((gradcam.TILE, gradcam.TILE, 3), np.uint8)
    sheet = gradcam.sheet(portrait, maps, 0, ("neutral", "happiness"), gradcam._clean)
    assert sheet.shape == (gradcam.TILE + gradcam.LINE, 2 * gradcam.TILE, 3)


def test_a_picture_without_a_face(tmp_path, capsys):
    assert main(["gradcam", str(MEDIA / "scene_no_person.jpg"), "-o", str(tmp_path)]) == 0
    assert "no face" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_the_detector_is_a_choice(capsys):
    assert main(["analyze", str(OBAMA), "--detector", "esr-haar"]) == 0
    haar = capsys.readouterr().out
    assert main(["analyze", str(OBAMA)]) == 0
    assert "1 face" in haar and haar != capsys.readouterr().out
    assert main(["analyze", str(OBAMA), "--detector", "haar=missing.xml"]) == 2
    assert main(["analyze", str(OBAMA), "--detector", "eyes"]) == 2
    error = capsys.readouterr().err
    assert "no cascade file missing.xml" in error and "mtcnn, haar, dlib" in error
