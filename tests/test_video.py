"""Videos in and out: true times, upright pictures, sampling, sound in sync, one message for anything unreadable."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from emotion import sampling, video
from emotion.errors import UserError

MEDIA = Path(__file__).parent / "media"
TALK = MEDIA / "talk_man_1.mp4"


@pytest.fixture(scope="module")
def talk() -> list[tuple[float, np.ndarray]]:
    return list(video.decode(TALK))


def turned(path: Path, quarters: int) -> Path:
    """The talk with a display matrix that turns it clockwise by quarters, as phones write it."""
    a, b, c, d = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarters]
    data = bytearray(TALK.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 4 * 5 + 16  # version and flags, times and ids, layer and volume
    rows = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", *rows)
    path.write_bytes(data)
    return path


def test_every_frame_at_its_time(talk: list[tuple[float, np.ndarray]]) -> None:
    assert video.probe(TALK) == video.VideoInfo(rate=25.0, seconds=3.0, frames=75, sound=True)
    np.testing.assert_allclose([seconds for seconds, _ in talk], np.arange(75) / 25)
    assert {picture.shape for _, picture in talk} == {(288, 360, 3)}
    same = next(video.decode(TALK.read_bytes()))[1]
    np.testing.assert_array_equal(same, talk[0][1])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_pictures_are_upright(quarters: int, talk: list[tuple[float, np.ndarray]], tmp_path: Path) -> None:
    _, picture = next(video.decode(turned(tmp_path / "turned.mp4", quarters)))
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
    with av.open(str(tmp_path / "voice.mp4"), "w") as out, av.open(str(TALK)) as talk:
        track = out.add_stream_from_template(talk.streams.audio[0])
        for packet in talk.demux(talk.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = track
                out.mux(packet)
    with pytest.raises(UserError, match="no moving pictures, only sound"):
        video.probe(tmp_path / "voice.mp4")
