"""Videos in and out: true times, upright pictures, sampling, sound in sync, one message for anything unreadable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from emotion import media
from emotion.errors import UserError
from emotion.media import audio, sampling, video
from tests import films

MEDIA = Path(__file__).parent / "media"
TALK = MEDIA / "talk_man_1.mp4"
SOUNDS = (("mono", 48000), ("stereo", 48000), ("stereo", 24000))


@pytest.fixture(scope="module")
def talk() -> list[tuple[float, np.ndarray]]:
    return list(video.decode(TALK))


def test_every_frame_at_its_time(talk: list[tuple[float, np.ndarray]]) -> None:
    assert video.probe(TALK) == video.VideoInfo(rate=25.0, seconds=3.0, frames=75, sound=True)
    np.testing.assert_allclose([seconds for seconds, _ in talk], np.arange(75) / 25)
    assert {picture.shape for _, picture in talk} == {(288, 360, 3)}
    same = next(video.decode(TALK.read_bytes()))[1]
    np.testing.assert_array_equal(same, talk[0][1])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_pictures_are_upright(
    quarters: int, mirrored: bool, talk: list[tuple[float, np.ndarray]], tmp_path: Path
) -> None:
    _, picture = next(video.decode(films.turned(tmp_path / "turned.mp4", quarters, mirrored)))
    stored = talk[0][1][:, ::-1] if mirrored else talk[0][1]
    np.testing.assert_array_equal(picture, np.rot90(stored, -quarters))


@pytest.mark.parametrize(("aspect", "width"), [(2.0, 320), (1.5, 240), (0.5, 80), (1.001, 160), (30.0, 160)])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_pixels_become_square(kind: str, aspect: float, width: int, tmp_path: Path) -> None:
    path = films.talking(tmp_path / f"broad.{kind}", aspect=aspect, seconds=0.5)
    seconds, picture = next(video.decode(path))
    assert picture.shape == (120, width, 3)
    assert picture[:, : width // 2 - 8].max() < 50 and picture[:, width // 2 + 8 :].min() > 200
    with video.VideoWriter(tmp_path / "out.mp4", 10) as out:
        out.write(picture, seconds)
    with av.open(str(tmp_path / "out.mp4")) as film:
        stream = film.streams.video[0]
        assert (stream.width, stream.height) == (width, 120) and stream.sample_aspect_ratio in (None, 0, 1)


def test_pixels_become_square_before_pictures_are_turned(tmp_path: Path) -> None:
    broad = films.talking(tmp_path / "broad.mp4", aspect=2.0, seconds=0.5)
    _, picture = next(video.decode(films.turned(tmp_path / "turned.mp4", 1, source=broad)))
    assert picture.shape == (320, 120, 3)


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


def test_joined_films_with_other_sound(tmp_path: Path) -> None:
    """Timestamps, channels and rates that start anew: everything is shown and heard one after the other."""
    parts = [films.talking(tmp_path / f"{k}.ts", *kind) for k, kind in enumerate(SOUNDS)]
    path = films.joined(tmp_path / "joined.ts", *parts)
    times = [seconds for seconds, _ in video.decode(path)]
    assert len(times) == 90 and np.diff(times).min() > 0.05 and times[-1] == pytest.approx(8.9, abs=0.2)
    sound = audio.read(path)
    assert sound.rate == 48000 and sound.seconds == pytest.approx(9.0, abs=0.3)
    levels = [np.sqrt((sound.window(0.5 + k, 24000) ** 2).mean()) for k in range(8)]
    np.testing.assert_allclose(levels, 0.4 / np.sqrt(2), rtol=0.1)
    with video.VideoWriter(tmp_path / "out.mp4", 10, sound=path) as out:
        for seconds, picture in video.decode(path):
            out.write(picture, seconds)
    heard = audio.read(tmp_path / "out.mp4")
    assert heard.seconds == pytest.approx(9.0, abs=0.3)
    assert np.sqrt((heard.window(7.5, 24000) ** 2).mean()) == pytest.approx(0.4 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("kind", ["mp4", "ts"])
def test_damaged_sound_is_silent_and_the_rest_at_its_time(kind: str, tmp_path: Path) -> None:
    path = films.talking(tmp_path / f"whole.{kind}", rate=16000, seconds=4.0)
    damaged = films.noisy(tmp_path / f"damaged.{kind}", slice(20, 30), path)
    whole, heard = audio.read(path), audio.read(damaged)
    late, quiet = heard.window(2.6, 16000), heard.window(1.4, 6400)
    np.testing.assert_allclose(late, whole.window(2.6, 16000), atol=0.05)
    assert (quiet == 0).mean() > 0.5 and np.abs(whole.window(1.4, 6400)).max() > 0.3
    with video.VideoWriter(tmp_path / "out.mp4", 10, sound=damaged) as out:
        for seconds, picture in video.decode(damaged):
            out.write(picture, seconds)
    np.testing.assert_allclose(audio.read(tmp_path / "out.mp4").window(2.6, 16000), late, atol=0.1)


def test_mixed_channels_do_not_clip(tmp_path: Path) -> None:
    path = films.talking(tmp_path / "surround.mkv", "5.1", seconds=1.0)
    with video.VideoWriter(tmp_path / "out.mp4", 10, sound=path) as out:
        for seconds, picture in video.decode(path):
            out.write(picture, seconds)
    assert np.abs(audio.read(tmp_path / "out.mp4").samples).max() < 0.5  # every channel has 0.4


def test_sound_of_an_unknown_kind(talk: list[tuple[float, np.ndarray]], tmp_path: Path) -> None:
    path = films.remuxed(tmp_path / "talk.mkv")
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_XYZ"))
    with pytest.raises(UserError, match=r"talk\.mkv has sound of a kind"):
        audio.read(path)
    with video.VideoWriter(tmp_path / "out.mp4", 25, sound=path) as out:
        out.write(talk[0][1], 0.0)
    assert audio.read(tmp_path / "out.mp4") is None


def test_more_channels_than_speakers(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "many.mov"), "w") as container:
        track = container.add_stream("pcm_s16le", rate=48000, layout="7.1.4")
        frame = av.AudioFrame.from_ndarray(np.full((1, 12 * 4800), 8192, np.int16), format="s16", layout="7.1.4")
        frame.sample_rate = 48000
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    np.testing.assert_allclose(audio.read(tmp_path / "many.mov").samples, np.full(4800, 0.25))


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 4), np.uint8)
    picture[:24] = (200, 60, 40, 255)
    with av.open(str(tmp_path / "cut_out.mov"), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        container.mux(stream.encode(None))
    _, shown = next(video.decode(tmp_path / "cut_out.mov"))
    assert (shown[:24] == (200, 60, 40)).all() and (shown[24:] == 255).all()


def test_pictures_larger_than_any_camera_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_PIXELS", 100_000)
    with pytest.raises(UserError, match=r"talk_man_1\.mp4 has more than .* megapixels"):
        next(video.decode(TALK))


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
