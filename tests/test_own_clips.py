"""Clips of one's own: the documented way from a table to `analyze`, and what `prepare` makes of films and sounds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

import emotion
from emotion import __main__ as command
from emotion import hub
from emotion.datasets import clips
from emotion.errors import UserError
from emotion.models.avfusion import AVFusion, AVFusionConfig
from emotion.models.base import ClipInput, FaceInput
from tests.test_ravdess import CONFIG, centre_face, write_film, write_sound
from train import __main__ as training
from train import recipe as recipes

TALK = Path(__file__).parent / "media" / "talk_man_1.mp4"
LABELS = ("calm", "anger")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two expressions by three speakers, one per split: films, one of them with its sound in a file of its own."""
    rows = ["file,label,speaker,split,sound"]
    for speaker, split in (("anna", "train"), ("ben", "valid"), ("cleo", "test")):
        (tmp_path / speaker).mkdir()
        for number, label in enumerate(LABELS):
            name = f"{speaker}/{speaker}-{label}"
            shutil.copy(TALK, tmp_path / f"{name}.mp4")
            t = np.arange(4 * 16000) / 16000
            soundfile.write(tmp_path / f"{name}.wav", 0.3 * np.sin(2 * np.pi * 200 * (1 + 3 * number) * t), 16000)
            rows.append(f"{name}.mp4,{label},{speaker},{split},{name}.wav")
    rows.append("anna/lost.mp4,anger,anna,train,")
    (tmp_path / "anna" / "lost.mp4").write_bytes(b"no film")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_the_documented_way(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ClipInput(visual=FaceInput(size=(32, 32)), frames=2)
    torch.manual_seed(0)
    begin = AVFusion(AVFusionConfig(input=config))
    hub.save(begin, "avfusion", tmp_path / "begin", hub.Card("avfusion_tiny.begin", "MIT", True), "# Untrained\n")

    arguments = ["prepare", "clips", str(table), "-o", str(tmp_path / "mine"), "--model", str(tmp_path / "begin")]
    assert command.main(arguments) == 0
    told = capsys.readouterr().out
    assert "lost" in told and "6 of 7 clips prepared: 6 with sound, 6 with a face" in told

    recipe = yaml.safe_load((recipes.FOLDER / "avfusion-clips.yaml").read_text())
    recipe["model"]["input"] = {"visual": {"size": [32, 32]}, "frames": 2}
    recipe["model"]["labels"] = list(LABELS)
    for rows in recipe["data"].values():
        rows[0]["labels"] = list(LABELS)
    recipe["stages"][0]["epochs"] = 8
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "run"
    arguments = [str(tmp_path / "mine.yaml"), "--data", str(tmp_path / "mine"), "--init", str(tmp_path / "begin")]
    assert training.main([*arguments, "--out", str(out)]) == 0

    folder = out / recipe["name"]
    result = emotion.analyze(TALK, model=folder)
    assert result.tasks["expression"].labels == LABELS and "contribution" in result.tasks
    assert "clips/test" in (folder / "README.md").read_text()
    with torch.inference_mode():
        own = hub.load(folder)
    assert not torch.equal(own.audio.stage1[0].weight, begin.audio.stage1[0].weight)


def test_own_clips(tmp_path: Path) -> None:
    write_film(tmp_path / "first.mp4", sound=True)
    write_film(tmp_path / "second.mp4")
    write_sound(tmp_path / "second.wav")
    write_sound(tmp_path / "third.wav")
    (tmp_path / "table.csv").write_text(
        "file,label,speaker,split,sound\nfirst.mp4,Happy,ann,train,\nsecond.mp4,angry,bob,test,second.wav\n"
        "third.wav,calm,ann,train,\n"
    )
    found = clips.recordings(tmp_path / "table.csv")
    assert [r.label for r in found] == ["happiness", "anger", "calm"]
    assert found[2].film is None and found[1].sound.name == "second.wav"
    clips.prepare(found, tmp_path / "out", CONFIG, centre_face)
    assert clips.load(tmp_path / "out", "train").ids == ("first",)
    assert clips.load(tmp_path / "out", "train", visual="none").ids == ("first", "third")
    with pytest.raises(UserError, match="vocabulary"):
        clips.load(tmp_path / "out", "train", labels=("neutral", "anger"))
    with pytest.raises(UserError, match="split valid"):
        clips.load(tmp_path / "out", "valid")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.wav", "label"),
        ("file,label\nmissing.wav,happy", "line 2"),
        ("file,label\na.wav,gloomy", "gloomy"),
        ("file,label,split\na.wav,happy,dev", "split"),
        ("file,label\na.wav,happy\na.wav,sad", "line 3"),
        ("file,label\na.wav,happy\nA.flac,sad", "line 3"),
        ("file,label\nb/a.wav,happy\nb__a.wav,sad", "line 3"),
    ],
)
def test_wrong_tables(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a.wav", "A.flac", "b/a.wav", "b__a.wav"):
        write_sound(tmp_path / name)
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        clips.recordings(tmp_path / "table.csv")


def test_the_documented_table(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "clips.md").read_text().partition("\nfile,label,speaker,split\n")
    rows = text[2].partition("```")[0].split()
    for row in rows:
        file = tmp_path / row.split(",")[0]
        file.parent.mkdir(exist_ok=True)
        write_sound(file) if file.suffix == ".wav" else write_film(file, sound=True)
    (tmp_path / "table.csv").write_text("\n".join(["file,label,speaker,split", *rows]))
    found = clips.recordings(tmp_path / "table.csv")
    assert len(rows) == 4 and [r.clip for r in found] == ["anna__one", "anna__two", "ben__one", "cleo__one"]
    done = clips.prepare(found, tmp_path / "out", CONFIG, centre_face)
    assert all(p.sound and not p.problem for p in done) and sum(bool(p.faces) for p in done) == 3
    assert clips.load(tmp_path / "out", "valid").ids == ("ben__one",)


def test_pictures_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_film(tmp_path / f"{name}.mp4")
    write_sound(tmp_path / "voice.wav")
    (tmp_path / "table.csv").write_text("file,label,split\none.mp4,sad,train\ntwo.mp4,sad,train\nvoice.wav,sad,train\n")
    found = clips.recordings(tmp_path / "table.csv")
    done = clips.prepare(found, tmp_path / "out", CONFIG, centre_face)
    assert [(p.sound, p.faces) for p in done][:2] == [("", "faces/one.npy"), ("", "faces/two.npy")]
    with pytest.raises(UserError, match="sound and pictures"):
        clips.load(tmp_path / "out", "train")
    data = clips.load(tmp_path / "out", "train", sound=False)
    assert data.ids == ("one", "two") and "without sound" in data.protocol
    sound, crops = data.picture(0)
    assert sound is None and crops.shape == (4, 32, 32, 3)
    with pytest.raises(UserError, match="leave nothing"):
        clips.load(tmp_path / "out", "train", visual="none", sound=False)


def write_late(path: Path, seconds: int, begin: int) -> None:
    """A film at 30 pictures per second, as bright as their time in tenths of a second, whose sound starts late: it is
    as loud as its time on the clip's clock."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=30)
        video.width = video.height = 64
        track = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for k in range(30 * seconds):
            picture = np.full((64, 64, 3), k // 3 * 2, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        for second in range(begin, seconds):
            loud = np.linspace(second, second + 1, 8000, endpoint=False)
            frame = av.AudioFrame.from_ndarray((loud * 3000).astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, 8000 * second
            container.mux(track.encode(frame))
        container.mux(track.encode(None))


@pytest.mark.parametrize(("begin", "start"), [(0, 2.2), (2, 3.2), (7, 5.7)])
def test_sound_that_starts_late(begin: int, start: float, tmp_path: Path) -> None:
    film = tmp_path / "late.mkv"
    write_late(film, seconds=8, begin=begin)
    config = ClipInput(visual=FaceInput(size=(32, 32)), frames=15)
    found = clips.Recording("late", "anger", "x", "train", film, film)
    clips.prepare([found], tmp_path / "out", config, centre_face)
    sound, crops = clips.load(tmp_path / "out", "train").picture(0)
    shown = crops[:, 16, 16].mean(axis=-1) / 20  # seconds
    there = shown < 7.7  # the film has an end
    np.testing.assert_allclose(shown[there], (start + np.linspace(0.1, 3.4, 15))[there], atol=0.2)
    at = int((7.5 - start if begin == 7 else 1.8) * sound.rate)
    heard = sound.samples[at - 500 : at + 500].mean() * 32768 / 3000
    assert heard == pytest.approx(start + at / sound.rate, abs=0.1)


def test_silent_films_give_their_middle(tmp_path: Path) -> None:
    film = tmp_path / "silent.mkv"
    write_late(film, seconds=8, begin=8)
    config = ClipInput(visual=FaceInput(size=(32, 32)), frames=15)
    clips.prepare([clips.Recording("silent", "anger", "x", "train", film, None)], tmp_path / "out", config, centre_face)
    crops = clips.load(tmp_path / "out", "train", sound=False).picture(0).visual
    assert crops[0].mean() / 20 == pytest.approx(2.3, abs=0.2)
