"""Videos in and out: true times, upright pictures, sampling, sound in sync, one message for anything unreadable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from emotion.errors import UserError
from emotion.media import sampling, video
from tests import films

MEDIA = Path(__file__).parent / "media"
TALK = MEDIA / "talk_man_1.mp4"


@pytest.fixture(scope="module")
def talk() -> list[tuple[float, np.ndarray]]:
    return list(video.decode(TALK))


def test_every_frame_at_its_time(talk: list[tuple[float, np.ndarray]]) -> None:
    assert video.probe(TALK) == video.VideoInfo(rate=25.0, seconds=3.0, frames=75, sound=True)
    np.testing.assert_allclose([seconds for seconds, _ in talk], np.arange(75) / 25)
    assert {picture.shape for _, picture in talk} == {(288, 360, 3)}
    same = next(video.decode(TALK.read_bytes()))[1]
    np.testing.assert_array_equal(same, talk[0][1])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_pictures_are_upright(quarters: int, talk: list[tuple[float, np.ndarray]], tmp_path: Path) -> None:
    _, picture = next(video.decode(films.turned(tmp_path / "turned.mp4", quarters)))
    np.testing.assert_array_equal(picture, np.rot90(talk[0][1], -quarters))


def test_sampling() -> None:
    times = [seconds for seconds, _ in video.decode(TALK, take=sampling.pace(5))]
    np.testing.assert_allclose(times, np.arange(15) / 5)
    times = [seconds for seconds, _ in video.decode(TALK, take=sampling.of_30(5))]
    np.testing.assert_allclose(times, np.arange(5, 75, 6) / 25)


def test_writing_keeps_irregular_times_and_sound(talk: list[tuple[float, np.ndarray]], tmp_path: Path) -> None:
    chosen = [talk[i] for i in (0, 1, 5, 6, 20, 40)]
    with video.VideoWriter(tmp_path / "out.mp4", 25, sound=TALK) as out:
        for seconds, picture in chosen:
            out.write(picture[:287, :359], seconds)
        assert not (tmp_path / "out.mp4").exists()
    back = list(video.decode(tmp_path / "out.mp4"))
    np.testing.assert_allclose([s for s, _ in back], [s for s, _ in chosen], atol=1e-4)
    for (_, a), (_, b) in zip(back, chosen):
        assert a.shape == (286, 358, 3) and np.abs(a.astype(int) - b[:286, :358]).mean() < 6
    with av.open(str(tmp_path / "out.mp4")) as film:
        picture, sound = film.streams.video[0], film.streams.audio[0]
        assert (picture.codec_context.name, picture.pix_fmt, sound.codec_context.name) == ("h264", "yuv420p", "aac")
        assert float(sound.duration * sound.time_base) == pytest.approx(1.64, abs=0.05)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4"]


def test_a_failure_leaves_nothing(talk: list[tuple[float, np.ndarray]], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), video.VideoWriter(tmp_path / "out.mp4", sound=TALK) as out:
        out.write(talk[0][1], 0.0)
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_the_next_encoder_when_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert video.encoder() == "libx264"
    monkeypatch.setattr(video, "ENCODERS", {"libnothing": {}, "mpeg4": {}})
    assert video.encoder() == "mpeg4"
    monkeypatch.setattr(video, "ENCODERS", {"libnothing": {}})
    with pytest.raises(UserError, match="no video encoder"):
        video.encoder()


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "truncated"])
def test_unreadable(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    whole = TALK.read_bytes()
    content = {"empty": b"", "text": b"hello" * 99, "truncated": whole[: whole.index(b"mdat") + 30]}
    if kind == "folder":
        path.mkdir()
    elif kind in content:
        path.write_bytes(content[kind])
    with pytest.raises(UserError, match=r"clip\.mp4"):
        next(video.decode(path))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no moving pictures, only sound"):
        video.probe(films.remuxed(tmp_path / "voice.mp4", "a"))


def test_the_clock_starts_with_the_clip(talk: list[tuple[float, np.ndarray]], tmp_path: Path) -> None:
    path = films.remuxed(tmp_path / "broadcast.ts")
    with av.open(str(path)) as container:
        lag = container.streams.video[0].start_time * container.streams.video[0].time_base - container.start_time / 1e6
        assert container.start_time > 0
    back = list(video.decode(path))
    np.testing.assert_allclose([s for s, _ in back], [s + float(lag) for s, _ in talk], atol=1e-4)
    np.testing.assert_array_equal(back[-1][1], talk[-1][1])


def test_irregular_times_are_in_the_header_too(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.15, 0.5, 0.9]
    path = films.silent(tmp_path / "irregular.mp4", times)
    np.testing.assert_allclose([s for s, _ in video.decode(path)], times, atol=1e-4)
    info = video.probe(path)
    assert info.seconds == pytest.approx(0.94, abs=0.01) and not info.sound


def test_covers_are_no_pictures_of_the_film(tmp_path: Path) -> None:
    path = films.with_cover(tmp_path / "cover.mp4")
    assert [picture.shape for _, picture in video.decode(path)] == [(288, 360, 3)] * 75


@pytest.mark.parametrize("make", [films.damaged, films.cut_off])
def test_what_is_whole_in_a_damaged_film_is_shown(make: Callable[[Path], Path], tmp_path: Path) -> None:
    times = [seconds for seconds, _ in video.decode(make(tmp_path / "clip.mp4"))]
    assert 20 < len(times) < 75 and times == sorted(times)
