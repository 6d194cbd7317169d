"""The webcam command with a film for a camera: what is shown, recorded and said where there is no window."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emotion.__main__ import main
from emotion.cli import webcam
from emotion.media import sampling, video
from emotion.outputs import Result
from emotion.predict import FacePredictor
from tests import films
from tests.test_cli import fails
from tests.test_cli_films import MADE
from tests.test_sequences import FACE, Boxes, tiny_esr


def options(**changes: object) -> argparse.Namespace:
    return argparse.Namespace(**{"output": None, "smooth": 0.3, "details": False, "detect_every": 3, **changes})


@pytest.fixture(scope="module")
def predictor() -> FacePredictor:
    return FacePredictor(tiny_esr(), Boxes(FACE))


def test_the_window_shows_faces_until_it_is_closed(predictor: FacePredictor) -> None:
    shown: list[np.ndarray] = []

    def window(picture: np.ndarray, title: str) -> bool:
        assert title.startswith("python -m emotion") and ("per second" in title) == bool(shown)
        shown.append(picture)
        return len(shown) < 9

    assert webcam.watch(video.decode(films.TALK), predictor, options(), window) is None
    for (_, before), after in zip(video.decode(films.TALK), shown):
        assert np.abs(after.astype(int) - before)[60:210, 108:114].mean() > 20  # the left side of the box
    assert len(shown) == 9


def test_a_recording_has_the_drawings_and_all_numbers(predictor: FacePredictor, tmp_path: Path) -> None:
    args = options(output=tmp_path / "out", details=True)
    result = webcam.watch(video.decode(films.TALK, take=lambda i, _: i < 20), predictor, args)
    path = args.output / f"{result.source}.mp4"
    pictures = list(video.decode(path))
    np.testing.assert_allclose([s for s, _ in pictures], result.timestamps, atol=1e-4)
    assert len(result) == 20 and set(result.faces.track_ids) == {1} and pictures[0][1].shape[1] > 600
    plain = predictor.stream(3)
    for row, (seconds, picture) in enumerate(video.decode(films.TALK, take=lambda i, _: i < 20)):
        expected = plain.read(picture, seconds).tasks["expression"].values
        np.testing.assert_array_equal(result.tasks["expression"].values[[row]], expected)


def test_ctrl_c_ends_a_recording(predictor: FacePredictor, tmp_path: Path) -> None:
    def frames() -> Iterator[video.Frame]:
        for i, frame in enumerate(video.decode(films.TALK)):
            if i == 5:
                signal.raise_signal(signal.SIGINT)
            yield frame

    result = webcam.watch(frames(), predictor, options(output=tmp_path))
    assert len(result.timestamps) == 6 and len(list(video.decode(tmp_path / f"{result.source}.mp4"))) == 6


@pytest.mark.parametrize("asked", [[], ["--detector", "haar", "--faces", "closest-to-centre"]])
def test_the_command_records_where_no_window_opens(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(webcam, "desktop_window", lambda name: None)
    monkeypatch.setattr(webcam, "camera_frames", lambda *_: video.decode(films.TALK, take=lambda i, _: i < 4))
    assert main(["webcam", "-o", str(tmp_path), *asked]) == 0
    out, err = capsys.readouterr()
    assert "recording until Ctrl-C" in err and "4 frames" in out
    (document,) = [json.loads(p.read_text()) for p in tmp_path.glob("webcam-*[0-9].json")]
    assert len(document["frames"]) == 4 and len(document["frames"][3]["faces"]) == 1
    assert (document["frames"][0]["faces"][0]["score"] == 1) == bool(asked)  # the cascade has no scores
    assert sorted(p.name.split(".", 1)[1] for p in tmp_path.iterdir()) == list(MADE)


def test_without_display_the_page_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(webcam.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "python app.py" in fails(capsys, "webcam")


def test_a_camera_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(webcam, "desktop_window", lambda name: lambda picture, title: True)
    assert "camera 77 gives no picture" in fails(capsys, "webcam", "--camera", "77")
    assert "time constant" in fails(capsys, "webcam", "--smooth", "-1")
    assert "F/30 or all" in fails(capsys, "webcam", "--fps", "often")
    assert "-o DIR" in fails(capsys, "webcam", "--export", "esr")
    assert "unknown face detector 'retina'" in fails(capsys, "webcam", "--detector", "retina")
    assert "mmod_human_face_detector" in fails(capsys, "webcam", "--detector", "esr-standard=")
    assert "predicts no action_units" in fails(capsys, "webcam", "--export", "fg2020", "-o", "x")


def test_only_some_of_a_camera_s_frames_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Camera:
        def __init__(self, number: int) -> None:
            self.left = [np.full((4, 4, 3), n, np.uint8) for n in range(60)]

        def read(self) -> tuple[bool, np.ndarray | None]:
            return (True, self.left.pop(0)) if self.left else (False, None)

        def release(self) -> None: ...

    monkeypatch.setattr(webcam.cv2, "VideoCapture", Camera)
    assert len(list(webcam.camera_frames(0))) == 60
    read = [int(picture[0, 0, 0]) for _, picture in webcam.camera_frames(0, sampling.rule("5/30"))]
    assert read == list(sampling.original_frames(60, 5))


def test_a_stream_s_frames_are_one_result() -> None:
    stream = FacePredictor(tiny_esr(), Boxes(FACE)).stream()
    frames = [frame for _, frame in zip(range(4), video.decode(films.TALK))]
    parts = [stream.read(picture * (i % 2), seconds, "a") for i, (seconds, picture) in enumerate(frames)]
    whole = Result.concatenate(parts)
    assert whole.frame.tolist() == [1, 3] and len(whole.timestamps) == 4 and whole.source == "a"
    np.testing.assert_array_equal(whole.tasks["expression"].values[1], parts[3].tasks["expression"].values[0])
    assert len(Result.concatenate(parts[::2]).timestamps) == 2 and len(Result.concatenate(parts[::2])) == 0
