"""Reading sound, changing its rate, and the fusion's sound features."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emotion.errors import UserError
from emotion.media import audio, video
from emotion.media.audio import Sound
from emotion.models import avfusion_audio
from emotion.models.base import AudioInput, ClipInput, VectorInput
from tests import films

RATE = 48000


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = RATE, **options: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=options.pop("format", "WAV"), **options)
    return buffer.getvalue()


def film(path: Path, sound: np.ndarray | None, codec: str = "aac") -> Path:
    """A short film of a grey picture, with or without a sound track."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=30)
        video.width = video.height = 64
        track = container.add_stream(codec, rate=RATE, layout="mono") if sound is not None else None
        for _ in range(15):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if track is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.sample_rate = RATE
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def test_channels_are_averaged_and_levels_kept() -> None:
    left, right = tone(0.5), tone(0.5, hertz=220)
    sound = audio.read(wav(np.stack([left, right], 1), subtype="FLOAT"))
    np.testing.assert_allclose(sound.samples, (left + right) / 2, atol=1e-7)
    assert sound.rate == RATE and sound.seconds == 0.5


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_audio_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(wav(tone(1.0), format=kind))
    np.testing.assert_allclose(audio.read(path).samples[4000:-4000], tone(1.0)[4000:-4000], atol=0.02)


def test_sound_of_a_film(tmp_path: Path) -> None:
    sound = audio.read(film(tmp_path / "film.mp4", tone(1.0)))
    assert sound.rate == RATE
    heard = sound.window(0.0, RATE)[RATE // 4 : RATE // 2]
    spectrum = np.abs(np.fft.rfft(heard))
    assert abs(spectrum.argmax() * RATE / len(heard) - 440) < 5
    assert abs(np.sqrt((heard**2).mean()) - 0.5 / np.sqrt(2)) < 0.01


def test_film_without_sound(tmp_path: Path) -> None:
    assert audio.read(film(tmp_path / "silent.mp4", None)) is None


@pytest.mark.parametrize("content", [b"", b"no sound at all" * 9, wav(tone(0.1))[:30]])
def test_unreadable(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"voice\.wav"):
        audio.read(path)
    with pytest.raises(UserError, match="missing"):
        audio.read(tmp_path / "missing.wav")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server that offers a film, talk.ts: its address, and what was asked of it."""
    asked: list[str] = []
    films.remuxed(tmp_path / "talk.ts")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", asked
        serving.shutdown()
        thread.join()


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n"
DASH = (
    '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT3S"><Period><AdaptationSet>'
    '<Representation id="0" mimeType="video/mp2t" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>"
)
PLAYLISTS = {"hls": HLS, "concat": "ffconcat version 1.0\nfile '{}'\n", "dash": DASH}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("name", ["list.m3u8", "list.mpd", "voice.mp3", "voice.m4a", "voice.wav", "film.mp4"])
def test_no_file_makes_another_be_read(kind: str, name: str, server: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = server
    for place in (f"{address}/talk.ts", "talk.ts"):
        path = tmp_path / name
        path.write_text(PLAYLISTS[kind].format(place))
        for source in (path, path.read_bytes()):
            with pytest.raises(UserError):
                audio.read(source)
            with pytest.raises(UserError):
                next(video.decode(source))
    assert not asked


def test_recordings_in_many_containers(tmp_path: Path) -> None:
    import av

    kinds = {"aac": "aac", "ac3": "ac3", "caf": "pcm_s16le", "m4a": "alac", "tta": "tta", "webm": "libopus"}
    for kind, codec in kinds.items():
        with av.open(str(tmp_path / f"voice.{kind}"), "w") as container:
            track = container.add_stream(codec, rate=RATE, layout="mono")
            frame = av.AudioFrame.from_ndarray(tone(1.0)[None], format="fltp", layout="mono")
            frame.sample_rate = RATE
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
        sound = audio.read(tmp_path / f"voice.{kind}")
        assert sound.rate == RATE and 0.99 < sound.seconds < 1.05, kind


def test_behind_damage_a_recording_is_heard_on() -> None:
    whole = wav(tone(4.0), format="OGG", subtype="OPUS")
    middle = len(whole) // 2
    damaged = whole[:middle] + np.random.default_rng(0).bytes(600) + whole[middle + 600 :]
    heard = audio.read(damaged)
    assert 3.9 < heard.seconds < 4.1
    np.testing.assert_allclose(heard.window(3.5, 9600), audio.read(whole).window(3.5, 9600), atol=1e-3)


def test_names_of_raw_sound(tmp_path: Path) -> None:
    (tmp_path / "voice.raw").write_bytes(wav(tone(0.5)))
    assert audio.read(tmp_path / "voice.raw").seconds == 0.5
    (tmp_path / "voice.raw").write_bytes(b"1234" * 99)
    with pytest.raises(UserError, match=r"voice\.raw"):
        audio.read(tmp_path / "voice.raw")


def test_empty_and_broken_samples() -> None:
    with pytest.raises(UserError, match="0 samples"):
        audio.read(wav(np.zeros(0, np.float32)))
    with pytest.raises(UserError, match="not finite"):
        audio.read(wav(np.full(100, np.nan, np.float32), subtype="FLOAT"))


@pytest.mark.parametrize("resampler", ["soxr", "kaiser"])
@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_the_tone(rate: int, resampler: str) -> None:
    out = audio.resample(tone(1.0, rate), rate, 22050, resampler)
    assert len(out) == 22050 and out.dtype == np.float32
    np.testing.assert_allclose(out[2000:-2000], tone(1.0, 22050)[2000:-2000], atol=2e-3)


def test_resampling_removes_what_the_new_rate_cannot_hold() -> None:
    for resampler in ("soxr", "kaiser"):
        out = audio.resample(tone(1.0, hertz=15000), RATE, 22050, resampler)
        assert np.abs(out[2000:-2000]).max() < 1e-3


def test_windows_are_filled_with_zeros() -> None:
    sound = Sound(np.arange(1, 11, dtype=np.float32), rate=10, start=0.5)
    np.testing.assert_array_equal(sound.window(0.3, 4), [0, 0, 1, 2])
    np.testing.assert_array_equal(sound.window(1.3, 4), [9, 10, 0, 0])
    np.testing.assert_array_equal(sound.window(9, 2), [0, 0])
    np.testing.assert_array_equal(sound.window(-9, 2), [0, 0])


@pytest.mark.parametrize(("length", "expected"), [(9, [2, 3, 4, 5]), (4, [0, 1, 2, 3]), (2, [0, 1, 0, 0])])
def test_crop_or_pad(length: int, expected: list[int]) -> None:
    assert avfusion_audio.crop_or_pad(np.arange(length, dtype=np.float32), 4).tolist() == expected


def test_same_features_as_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    config = AudioInput()
    samples = tone(2.0, config.rate) + np.random.default_rng(0).normal(0, 0.01, 2 * config.rate).astype(np.float32)
    expected = librosa.feature.mfcc(y=samples, sr=config.rate, n_mfcc=config.coefficients, pad_mode="reflect")
    np.testing.assert_allclose(avfusion_audio.mfcc(samples, config), expected, atol=2e-3)


def test_silence_has_features() -> None:
    config = ClipInput(visual=VectorInput(names=("x",)))
    features = avfusion_audio.mfcc(np.zeros(config.samples, np.float32), config.audio)
    assert features.shape == config.audio_shape and np.isfinite(features).all()


def test_stretches_by_time_and_by_index() -> None:
    sound = Sound(np.arange(1, 22050 * 10 + 1, dtype=np.float32) / 22050 / 10, 22050)
    by_time = ClipInput(visual=VectorInput(names=("x",)))
    by_index = ClipInput(visual=VectorInput(names=("x",)), timing="index")
    assert avfusion_audio.clip_samples(sound, by_time, start=2.0)[0] == sound.samples[44100]
    surplus = len(sound.samples) - by_index.samples
    assert avfusion_audio.clip_samples(sound, by_index)[0] == sound.samples[surplus // 2]


def test_sixteen_bits_round_down() -> None:
    values = np.array([0.9, -0.2, 1.0, -1.0], np.float32) / 32768
    np.testing.assert_array_equal(avfusion_audio.sixteen_bits(values) * 32768, [0, -1, 1, -1])
    np.testing.assert_array_equal(avfusion_audio.sixteen_bits(np.array([2.0, -2.0], np.float32)), [32767 / 32768, -1])
