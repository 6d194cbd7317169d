"""The demo picture and film, and aligned faces of videos."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from emotion import labels, media
from emotion.cli import align
from emotion.draw.dashboard import SIZE, Dashboard, write_film
from emotion.media.video import VideoWriter, decode, probe
from emotion.outputs import Faces, Result, Task

POINTS = np.array([[20.0, 20], [40, 20], [30, 30], [22, 42], [38, 42]], np.float32)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames that get brighter."""
    path = tmp_path_factory.mktemp("film") / "clip.mp4"
    with VideoWriter(path, 10) as out:
        for i in range(6):
            out.write(np.full((64, 64, 3), 40 + 30 * i, np.uint8), i / 10)
    return path


def result(frames: list[int], n: int = 6) -> Result:
    """A face in some of the frames, happier in every one."""
    rising = np.linspace(0, 1, len(frames))
    expression = np.zeros((len(frames), 7))
    expression[:, labels.ABAW.index("happiness")], expression[:, 0] = rising, 1 - rising
    units = np.repeat(rising[:, None], 8, axis=1)
    tasks = {
        "expression": Task("categorical", labels.ABAW, expression),
        "action_units": Task("multilabel", labels.ABAW1_ACTION_UNITS, units, thresholds=np.full(8, 0.5, np.float32)),
        "valence_arousal": Task("continuous", labels.VALENCE_AROUSAL, np.stack([rising, -rising], 1), bounds=(-1, 1)),
    }
    faces = Faces(np.tile([10, 10, 50, 50], (len(frames), 1)), np.ones(len(frames)), np.stack([POINTS] * len(frames)))
    return Result("tiny", (64, 64), np.arange(n) / 10, np.array(frames), faces, tasks)


def test_frames_without_a_face_repeat_the_last() -> None:
    board, picture = Dashboard(result([1, 2, 4])), np.zeros((64, 64, 3), np.uint8)
    shown = [board(f, picture)[:740, 960:] for f in range(6)]
    assert shown[0].shape == (740, SIZE[0] - 960, 3)
    same = [np.array_equal(a, b) for a, b in itertools.pairwise(shown)]
    assert same == [True, False, True, False, True]


def test_nobody_anywhere() -> None:
    empty = result([1])[:0]
    picture = Dashboard(empty)(0, np.zeros((64, 64, 3), np.uint8))
    assert (picture[:, 960:] == 255).all()


def test_film(film: Path, tmp_path: Path) -> None:
    write_film(result([0, 2, 3]), film, tmp_path / "demo.mp4")
    frames = list(decode(tmp_path / "demo.mp4"))
    assert [round(s, 2) for s, _ in frames] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert frames[0][1].shape == (SIZE[1], SIZE[0], 3)
    assert probe(tmp_path / "demo.mp4").frames == 6


def fake_detector(pictures: list[np.ndarray]) -> list[Faces]:
    """Two faces in dark pictures, the second surer; none in bright ones."""
    boxes = np.array([[0, 0, 10, 10], [10, 10, 50, 50]])
    two = Faces(boxes, np.array([0.6, 0.9]), np.stack([POINTS / 4, POINTS]))
    return [two if p.mean() < 150 else Faces.empty() for p in pictures]


def test_align(film: Path, tmp_path: Path) -> None:
    frames, found = align.align_film(film, tmp_path / "clip", fake_detector, size=32)
    assert (frames, found) == (6, 4)
    names = sorted(p.name for p in (tmp_path / "clip").glob("*.jpg"))
    assert names == [f"{i:06d}.jpg" for i in range(1, 5)]
    assert media.read_image(tmp_path / "clip" / names[0]).shape == (32, 32, 3)
    with (tmp_path / "clip" / "keypoints.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["detect"] for r in rows] == ["1", "1", "1", "1", "0", "0"]
    assert rows[0]["left_eye"] == "(20, 20)"
    assert rows[0]["mouth_right"] == "(38, 42)"
    assert rows[5]["nose"] == "(0, 0)"


def test_align_folder_of_frames(tmp_path: Path) -> None:
    """Frames keep their numbers; folders without pictures are no films."""
    (tmp_path / "films" / "empty").mkdir(parents=True)
    for number, level in ((3, 40), (10, 200), (7, 40)):
        path = tmp_path / "films" / "a" / f"shot_{number}.png"
        path.parent.mkdir(exist_ok=True)
        media.save_image(np.full((64, 64, 3), level, np.uint8), path)
    assert align.find_films(tmp_path / "films") == [tmp_path / "films" / "a"]
    assert align.align_film(tmp_path / "films" / "a", tmp_path / "out", fake_detector, size=32) == (3, 2)
    assert sorted(p.name for p in (tmp_path / "out").glob("*.jpg")) == ["000003.jpg", "000007.jpg"]
    with (tmp_path / "out" / "keypoints.csv").open() as file:
        assert [(r["frame"], r["detect"]) for r in csv.DictReader(file)] == [("3", "1"), ("7", "1"), ("10", "0")]


def test_film_of_the_command(film: Path, tmp_path: Path) -> None:
    """`analyze --dashboard` also where there is no face."""
    from emotion.__main__ import main

    assert main(["analyze", str(film), "-o", str(tmp_path), "--dashboard", "--fps", "all"]) == 0
    assert probe(tmp_path / "clip.dashboard.mp4").frames == 6
