"""Clips of voice and face: cutting, missing modalities, what carried the decision, and the library's entry."""

from __future__ import annotations

import io
import json
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import emotion
from emotion import __main__ as command
from emotion import hub
from emotion.errors import UserError
from emotion.measures import FaceMeter
from emotion.media import audio, video
from emotion.models.avfusion import AVFusion, AVFusionConfig
from emotion.models.avfusion_video import choose_frames
from emotion.models.base import AudioInput, ClipInput, FaceInput, VectorInput
from emotion.outputs import Faces
from emotion.predict import stretches
from emotion.predict.clips import FAITHFUL, ClipPredictor

MEDIA = Path(__file__).parent / "media"
TALK = MEDIA / "talk_man_1.mp4"
CLIP = ClipInput(visual=FaceInput(size=(32, 32)), audio=AudioInput(coefficients=8, hop=1024), frames=4)
STEP = 18


def model(config: ClipInput = CLIP, **options: object) -> AVFusion:
    torch.manual_seed(0)
    net = AVFusion(AVFusionConfig(input=config, heads=2, **options)).eval()
    net.fc.weight.data *= 5  # decisions that differ from each other
    return net


def everywhere(pictures: list[np.ndarray]) -> list[Faces]:
    """A face in the same place of every picture."""
    return [Faces([[10, 10, 42, 42]], [0.9]) for _ in pictures]


def nowhere(pictures: list[np.ndarray]) -> list[Faces]:
    """No face."""
    return [Faces.empty() for _ in pictures]


@pytest.fixture(scope="module")
def predictor() -> ClipPredictor:
    return ClipPredictor(model(), everywhere)


def film(path: Path, seconds: float, sound: Path | None = None) -> Path:
    """A film whose brightness grows with time."""
    with video.VideoWriter(path, 30, sound) as writer:
        for k in range(round(seconds * 30)):
            writer.write(np.full((64, 64, 3), min(10 + k, 255), np.uint8), k / 30)
    return path


def tone(seconds: float, rate: int = 16000) -> np.ndarray:
    """A tone that rises."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (200 + 60 * t) * t)).astype(np.float32)


def sound_file(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    soundfile.write(path, samples, rate)
    return path


# -- cutting ---------------------------------------------------------------------------------------------------------


def test_every_stretch_is_what_it_would_be_alone(tmp_path: Path) -> None:
    path, sound = film(tmp_path / "film.mp4", 6.0), audio.Sound(tone(6.0), 16000)
    cut = list(stretches.slide(CLIP, sound, path, "film", everywhere, STEP))
    assert len(cut) == 5 == stretches.number_of(6.0, CLIP, STEP)
    np.testing.assert_allclose([s.seconds for s in cut], 1.8 + 0.6 * np.arange(5))
    for stretch in cut:
        start = stretch.seconds - 1.8
        alone = choose_frames(video.decode(path), CLIP, start)
        expected = [picture[20, 20, 0] for picture in alone]
        np.testing.assert_array_equal(stretch.seen.crops[:, 16, 16, 0], expected)
        assert stretch.seen.share == 1 and stretch.size == (64, 64)
        samples = stretches.clip_samples(sound, CLIP, start)
        np.testing.assert_allclose(stretch.voice, stretches.mfcc(samples, CLIP.audio))


def test_faces_that_come_and_go(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 7.2)

    def later(pictures: list[np.ndarray]) -> list[Faces]:  # between 2 and 4 seconds
        there = [10 + 60 <= p[0, 0, 0] < 10 + 120 for p in pictures]
        return [everywhere([p])[0] if t else Faces.empty() for p, t in zip(pictures, there)]

    cut = list(stretches.slide(CLIP, None, path, "film", later, STEP))
    middles = np.array([s.seconds for s in cut])
    seen = np.array([s.seen is not None for s in cut])
    due = middles[:, None] - 1.8 + stretches.frame_numbers(CLIP) / 30
    assert seen.tolist() == ((due >= 2) & (due < 4)).any(axis=1).tolist()
    assert not seen[-1] and 0 < cut[0].seen.share < 1
    assert (cut[0].seen.crops.reshape(4, -1).min(axis=1) > 0).all()  # cut where the face is found later


def test_short_and_silent_and_long_sound() -> None:
    (short,) = stretches.slide(CLIP, audio.Sound(tone(1.0), 16000), None, "", everywhere, STEP)
    assert short.voice.shape == CLIP.audio_shape and short.seen is None and short.size == (0, 0)
    quiet = np.concatenate([tone(4.0), np.zeros(16000 * 6, np.float32)])
    there = [s.voice is not None for s in stretches.slide(CLIP, audio.Sound(quiet, 16000), None, "", everywhere, STEP)]
    assert there == [k * 0.6 < 4.0 for k in range(len(there))] and not there[-1]
    late = audio.Sound(tone(2.0), 16000, start=4.0)
    there = [s.voice is not None for s in stretches.slide(CLIP, late, None, "", everywhere, STEP)]
    assert there == [False, True, True, True, True]


# -- predicting ------------------------------------------------------------------------------------------------------


def test_what_either_modality_says_alone(predictor: ClipPredictor) -> None:
    result = predictor.clip(TALK)
    assert len(result) == 1 and result.timestamps == [1.5] and result.size == (360, 288) and not result.notes
    tasks = result.tasks
    assert set(tasks) == {"expression", "expression_voice", "expression_face", "contribution", "attention"}
    choice = tasks["expression"].choice[0]
    whole, voice, face = (tasks[f"expression{n}"].values[0, choice] for n in ("", "_voice", "_face"))
    np.testing.assert_allclose(tasks["contribution"].values, [[whole - face, whole - voice]], atol=1e-6)
    assert ((tasks["attention"].values >= 0) & (tasks["attention"].values <= 1)).all()
    sound_alone = predictor.clip(audio_of(TALK))
    np.testing.assert_allclose(
        sound_alone.tasks["expression"].values, tasks["expression_voice"].values, atol=1e-3
    )  # fmt: skip
    assert result.source == "talk_man_1.mp4" and result.to_dict()["frames"][0]["faces"][0]["expression"]["label"]


def audio_of(path: Path) -> bytes:
    """The film's sound as a WAV file of the model's rate."""
    sound, out = audio.read(path), io.BytesIO()
    soundfile.write(out, sound.samples, sound.rate, format="WAV", subtype="FLOAT")
    return out.getvalue()


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_sound_files_alone(kind: str, predictor: ClipPredictor, tmp_path: Path) -> None:
    path = sound_file(tmp_path / f"voice.{kind}", tone(5.0), 22050)
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        result = predictor.clip(source)
        assert len(result) == stretches.number_of(5.0 * 16000 / 22050, CLIP, STEP)
        assert set(result.tasks) == {"expression"} and "voice alone" in result.notes[0]
    row = next(result.rows())
    assert row["x0"] is None and row["score"] == 0 and row["expression"] in predictor.model.config.labels


def test_m4a_and_silent_films(predictor: ClipPredictor, tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "voice.m4a"), "w", format="ipod") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(4.0)[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        out.mux([*stream.encode(frame), *stream.encode(None)])
    assert "voice alone" in predictor.clip(tmp_path / "voice.m4a").notes[0]
    silent = film(tmp_path / "silent.mp4", 4.2)
    result = predictor.clip(silent)
    assert result.notes == ("no sound: judged by the face alone",) and len(result) == 2
    np.testing.assert_allclose(result.faces.boxes, [[10, 10, 42, 42]] * 2)
    unseen = ClipPredictor(predictor.model, nowhere)
    result = unseen.clip(silent)
    assert len(result) == 0 and len(result.timestamps) == 2 and "neither" in result.notes[-1]
    assert result.to_csv().count("\n") == 3
    assert "no face was found" in unseen.clip(TALK).notes[0]


def live(path: Path, seconds: float) -> Path:
    """A silent film without a length in its header, as browsers record it."""
    import av

    with av.open(str(path), "w", options={"live": "1"}) as out:
        stream = out.add_stream("libvpx", rate=15)
        stream.width = stream.height = 64
        for k in range(round(seconds * 15)):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 10 + k, np.uint8), "rgb24")))
        out.mux(stream.encode(None))
    return path


def test_films_that_do_not_tell_their_length(predictor: ClipPredictor, tmp_path: Path) -> None:
    path, told = live(tmp_path / "live.webm", 6.0), []
    assert video.probe(path).seconds == 0
    result = predictor.clip(path, progress=lambda done, length: told.append((done, length)))
    np.testing.assert_allclose(result.timestamps, 1.8 + 0.6 * np.arange(5))
    assert told == [(pytest.approx(6.0), 0)]


@pytest.mark.parametrize("rate", [0.25, 0.2, 0.1])
def test_few_decisions(rate: float, predictor: ClipPredictor, tmp_path: Path) -> None:
    assert len(predictor.clip(film(tmp_path / "film.mp4", 4.0), rate=rate)) == 1


def test_sound_that_ends_before_the_pictures(predictor: ClipPredictor, tmp_path: Path) -> None:
    short = film(tmp_path / "short.mp4", 9.0, sound=TALK)  # the sound lasts 3 seconds
    result = predictor.clip(short)
    later = result.timestamps[result.frame] - 1.8 > 3.2
    assert later.any() and not later.all() and not result.notes
    voice, face = result.tasks["expression_voice"], result.tasks["expression_face"]
    np.testing.assert_allclose(voice.values[later], 1 / 8)
    np.testing.assert_allclose(face.values[later], result.tasks["expression"].values[later])
    np.testing.assert_allclose(result.tasks["contribution"].values[later, 0], 0, atol=1e-6)
    assert (voice.uncertainty["total"][later] > 0.999).all()


def test_the_originals_rule(predictor: ClipPredictor, tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 8.0)
    result = predictor.clip(path, rate=FAITHFUL)
    assert len(result) == 1
    counted = replace(CLIP, timing="index")
    learned_so = ClipPredictor(model(counted), everywhere)
    one = learned_so.clip(path)
    np.testing.assert_allclose(one.tasks["expression"].values, result.tasks["expression"].values)
    assert len(learned_so.clip(path, rate=2)) > 1
    assert len(learned_so.clip(sound_file(tmp_path / "a.wav", tone(8.0)))) == 1


def test_models_that_read_measurements_hear_only(tmp_path: Path) -> None:
    measured = ClipPredictor(model(replace(CLIP, visual=VectorInput(("AU4", "AU12")), frames=1)))
    assert "measurements" in measured.clip(TALK).notes[0]


def test_faces_measured_by_another_model(tmp_path: Path) -> None:
    meter = FaceMeter("esr_compact.ferplus")
    crops = np.random.default_rng(0).integers(0, 256, (3, *meter.input.size, 3), dtype=np.uint8)
    values = meter(crops)
    assert values.shape == (3, len(meter.names)) and meter.names[-2:] == ("valence", "arousal")
    np.testing.assert_allclose(values[:, :8].sum(axis=1), 1, atol=1e-5)
    assert meter(crops[:0]).shape == (0, len(meter.names))
    visual = VectorInput(meter.names, measured_by="esr_compact.ferplus")
    measured = ClipPredictor(model(replace(CLIP, visual=visual)), everywhere)
    result = measured.clip(TALK)
    assert result.tasks["contribution"].values.shape == (1, 2) and not result.notes
    (stretch,) = stretches.slide(measured.seen, audio.read(TALK), TALK, "", everywhere, STEP)
    clips = measured.model.inputs(None, meter(stretch.seen.crops)[None])
    with torch.inference_mode():
        face = measured.model.decode(measured.model(clips))["expression"]
    np.testing.assert_allclose(result.tasks["expression_face"].values, face.values, atol=1e-5)
    with pytest.raises(UserError, match="cannot measure faces"):
        FaceMeter(str(saved(tmp_path / "clips")))


def test_a_config_cannot_make_anybody_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("somebody was contacted"))
    visual = VectorInput(("a",), measured_by="somebody/their-model")
    with pytest.raises(UserError, match="somebody/their-model"):
        ClipPredictor(model(replace(CLIP, visual=visual)))


def saved(folder: Path) -> Path:
    """A checkpoint of the random model."""
    hub.save(model(), "avfusion", folder, hub.Card("avfusion_small.random", "MIT", True), "# Random\n")
    return folder


def test_stopping_and_progress(predictor: ClipPredictor, tmp_path: Path) -> None:
    path, seen = sound_file(tmp_path / "a.wav", tone(30.0)), []
    whole = predictor.clip(path, progress=lambda done, length: seen.append((done, length)))
    assert seen == sorted(seen) and seen[-1] == (30.0, 30.0) and len(seen) > 3
    part = predictor.clip(path, progress=lambda *_: False)
    assert len(part) == 8 and "stopped" in part.notes[-1]
    np.testing.assert_allclose(part.tasks["expression"].values, whole.tasks["expression"].values[:8], atol=1e-6)


def test_what_cannot_be_read(predictor: ClipPredictor, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no clip")
    for name, message in (("notes.txt", "no sound that can be read"), ("missing.mp4", "missing.mp4")):
        with pytest.raises(UserError, match=message):
            predictor.clip(tmp_path / name)
    for rate in ("often", -1, 0, "nan", float("inf")):
        with pytest.raises(UserError, match="positive number per second"):
            predictor.clip(TALK, rate=rate)
    with pytest.raises(UserError, match="does not read clips"):
        ClipPredictor("esr_compact.ferplus")


def test_analyze_takes_clips(tmp_path: Path) -> None:
    net = model()
    result = emotion.analyze(sound_file(tmp_path / "voice.wav", tone(4.0)), net)
    assert len(result) == 2 and "expression" in result.tasks
    assert len(emotion.analyze(tmp_path / "voice.wav", net, rate=FAITHFUL)) == 1
    result = emotion.analyze(TALK, net)
    assert result.tasks["expression_face"].values.shape == (1, 8)


def test_documents_follow_the_schema(predictor: ClipPredictor, tmp_path: Path) -> None:
    import jsonschema

    schema = json.loads((Path(__file__).parent.parent / "docs" / "schema.json").read_text())
    for source in (TALK, sound_file(tmp_path / "voice.wav", tone(5.0))):
        document = json.loads(predictor.clip(source).to_json())
        assert jsonschema.Draft202012Validator(schema).is_valid(document), jsonschema.validate(document, schema)


# -- command line ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "model")


def test_the_command_reads_films_and_sound_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voice = sound_file(tmp_path / "voice.flac", tone(5.0))
    out = tmp_path / "out"
    paths = [str(p) for p in (TALK, voice, tmp_path / "missing.wav")]
    assert command.main(["analyze", *paths, "--model", str(folder), "-o", str(out)]) == 2
    told = capsys.readouterr()
    assert "missing.wav" in told.err and "1 of 3" in told.err
    assert "voice left out" in told.out and "judged by the voice alone" in told.out
    names = ["talk_man_1.csv", "talk_man_1.json", "voice.csv", "voice.json"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert command.main(["analyze", str(voice), "--model", str(folder), "--json", "--fps", FAITHFUL]) == 0
    assert len(json.loads(capsys.readouterr().out)["frames"]) == 1
    assert command.main(["analyze", str(voice), "--model", str(folder), "--export", "abaw", "-o", str(out)]) == 2
    assert "voice and face" in capsys.readouterr().err
    for option in (["--dashboard", "-o", str(out)], ["--faces", "largest"], ["--detect-every", "3"]):
        assert command.main(["analyze", str(voice), "--model", str(folder), *option]) == 2
        assert f"leave {option[0]} away" in capsys.readouterr().err


def test_the_command_reads_folders_of_sound_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voices, out = tmp_path / "voices", tmp_path / "out"
    (voices / "more").mkdir(parents=True)
    sound_file(voices / "a.wav", tone(5.0))
    sound_file(voices / "more" / "A.FLAC", tone(3.0))
    (voices / "broken.mp3").write_bytes(b"no sound at all" * 9)
    (voices / "empty.wav").write_bytes(b"")
    (voices / "notes.txt").write_text("no clip")
    (voices / "photo.png").write_bytes(b"no clip either")
    assert command.main(["analyze", str(voices), "--model", str(folder), "-o", str(out)]) == 2
    told = capsys.readouterr()
    assert told.err.count("error: ") == 2 and "2 of 4" in told.err
    assert "broken.mp3" in told.err and "empty.wav" in told.err
    assert sorted(p.name for p in out.iterdir()) == ["A-2.csv", "A-2.json", "a.csv", "a.json"]
    rows = (out / "a.csv").read_text().splitlines()
    assert len(rows) == 1 + stretches.number_of(5.0, CLIP, STEP)
    assert len((out / "A-2.csv").read_text().splitlines()) == 2
    (tmp_path / "none").mkdir()
    assert command.main(["analyze", str(tmp_path / "none"), "--model", str(folder)]) == 2
    assert "no video and no sound file" in capsys.readouterr().err
