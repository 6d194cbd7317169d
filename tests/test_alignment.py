"""The five-point crop as one affine map, the templates that faces can be aligned to, and the command that cuts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion import __main__ as command
from emotion import faces, media
from emotion.cli import align
from emotion.faces import alignment
from emotion.models.base import FaceInput
from emotion.outputs import Faces

FACE = np.array([[70.0, 80.0], [110.0, 80.0], [90.0, 100.0], [75.0, 122.0], [105.0, 122.0]])


def picture(height: int = 200, width: int = 180) -> np.ndarray:
    """Smooth colours, so that interpolation matters little."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points turned about their centre, clockwise in the picture."""
    a = np.radians(degrees)
    centre = points.mean(axis=0)
    return (points - centre) @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + centre


def crop(points: np.ndarray, template: str) -> np.ndarray:
    spec = FaceInput(size=(112, 112), template=template)
    return faces.crop(
        picture(), Faces(np.array([[60, 60, 120, 140]]), np.ones(1), points[None].astype(np.float32)), spec
    )[0]


@pytest.mark.parametrize("degrees", [0, 12, -35])
def test_warp_shows_the_published_crop(degrees: float) -> None:
    points = turned(FACE, degrees)
    one, other = crop(points, "five_point"), alignment.five_point_crop(picture(), points, 112)
    difference = np.abs(one.astype(int) - other)[2:-2, 2:-2]
    assert np.median(difference) <= 1
    assert (difference <= 4).mean() > 0.98  # the published path rounds to whole pixels


@given(degrees=st.floats(-180, 180), scale=st.floats(0.1, 5), x=st.floats(-50, 300), y=st.floats(-50, 300))
def test_eyes_end_level_and_centred(degrees: float, scale: float, x: float, y: float) -> None:
    points = turned(FACE * scale, degrees) + np.array([x, y])
    (matrix,) = alignment.five_point_matrices(points[None], (112, 112))
    placed = points @ matrix[:, :2].T + matrix[:, 2] + 0.5 - matrix[:, :2].sum(axis=1) * 0.5
    eyes, mouth = placed[:2], placed[3:].mean(axis=0)
    assert eyes[0, 1] == pytest.approx(eyes[1, 1], abs=1e-6)
    assert eyes[0, 0] < eyes[1, 0]
    np.testing.assert_allclose((eyes.mean(axis=0) + mouth) / 2, [56, 56], atol=1e-6)
    assert max(eyes[1, 0] - eyes[0, 0], mouth[1] - eyes[0, 1]) == pytest.approx(56, abs=1e-6)


def test_eyes_above_each_other() -> None:
    """The original divides by zero here."""
    assert alignment.eye_angle(np.array([[5, 5], [5, 25]])) == pytest.approx(90)
    assert alignment.five_point_crop(picture(), turned(FACE, 90), 112).shape == (112, 112, 3)


def test_outside_is_black() -> None:
    face = alignment.five_point_crop(picture() + 1, FACE - 80, 112)
    assert (face[:20, :20] == 0).all()
    assert face[80:, 80:].min() > 0


def test_openface_template_is_a_face() -> None:
    placed = alignment.OPENFACE * 112
    assert placed[0, 0] < placed[2, 0] < placed[1, 0]
    assert placed[0, 1] < placed[2, 1] < placed[3, 1]
    points = turned(placed, 20) * 0.7 + 50
    face = crop(points, "openface")
    expected = points[0]  # the left eye's place in the picture gives its colour: red is x, green is y
    np.testing.assert_allclose(face[29, 33, :2], expected, atol=3)


# -- the command -----------------------------------------------------------------------------------------------------


def sure_faces(pictures: list[np.ndarray]) -> list[Faces]:
    """A face in every picture."""
    return [Faces(np.array([[60, 60, 120, 140]]), np.ones(1), FACE[None].astype(np.float32)) for _ in pictures]


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two films as folders of ten frames."""
    monkeypatch.setattr(align, "detector", lambda *_, **__: sure_faces)
    for film in ("a", "b"):
        (tmp_path / "films" / film).mkdir(parents=True)
        for number in range(1, 11):
            media.save_image(picture(), tmp_path / "films" / film / f"{number:03d}.png")
    return tmp_path / "films"


def test_broken_off_films_are_done_again(frames: Path, tmp_path: Path) -> None:
    last, whole = frames / "a" / "010.png", (frames / "a" / "010.png").read_bytes()
    last.write_bytes(b"damaged")
    arguments = ["align", str(frames), "-o", str(tmp_path / "out"), "--size", "48"]
    assert command.main(arguments) == 2
    assert not (tmp_path / "out" / "a" / align.TABLE).exists() and (tmp_path / "out" / "b" / align.TABLE).exists()
    last.write_bytes(whole)
    done = (tmp_path / "out" / "b" / align.TABLE).stat().st_mtime_ns
    assert command.main(arguments) == 0
    assert len(list((tmp_path / "out" / "a").glob("*.jpg"))) == 10
    assert len((tmp_path / "out" / "a" / align.TABLE).read_text().splitlines()) == 11
    assert (tmp_path / "out" / "b" / align.TABLE).stat().st_mtime_ns == done
    assert not list((tmp_path / "out").rglob("*.part"))


def test_other_files_are_not_written_among(frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in frames.rglob("*.png")}
    assert command.main(["align", str(frames), "-o", str(frames)]) == 2
    assert "has other files" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in frames.rglob("*") if path.is_file()} == before


def test_films_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    films = [tmp_path / name for name in ("a.mp4", "A.avi", "b.mp4", "below/a.mp4")]
    folders = align.places(films, tmp_path).values()
    assert [str(p) for p in folders] == ["a.mp4", "A.avi", "b", str(Path("below") / "a")]


def test_crops_of_the_interface(frames: Path, tmp_path: Path) -> None:
    for crop_name in align.CROPS:
        asked = ["align", str(frames / "a"), "-o", str(tmp_path / crop_name), "--crop", crop_name]
        assert command.main(asked) == 0
        cut = media.read_image(tmp_path / crop_name / "000003.jpg")
        expected = crop(FACE, crop_name)
        assert cut.shape == expected.shape and np.abs(cut.astype(int) - expected)[3:-3, 3:-3].mean() < 3
    assert command.main([*asked, "--no-rotation"]) == 2
