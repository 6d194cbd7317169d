"""RAVDESS and clips of one's own: names, layouts, splits, preparing."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emotion.datasets import borrowed, clips, ferplus, ravdess
from emotion.errors import UserError
from emotion.labels import RAVDESS
from emotion.models.base import ClipInput, FaceInput, VectorInput
from emotion.outputs import Faces

CONFIG = ClipInput(visual=FaceInput(size=(32, 32)), frames=4)


def write_film(path: Path, frames: int = 50, sound: bool = False) -> None:
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=30)
        video.width = video.height = 64
        track = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        for k in range(frames):
            picture = np.full((64, 64, 3), 20 + 4 * k, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if track is not None:
            frame = av.AudioFrame.from_ndarray(np.full((1, 4800), 0.1, np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48000
            container.mux(track.encode(frame))
            container.mux(track.encode(None))


def write_sound(path: Path, seconds: float = 1.0) -> None:
    t = np.arange(int(48000 * seconds)) / 48000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 200 * t), 48000)


def centre_face(pictures: list[np.ndarray]) -> list[Faces]:
    return [Faces(np.array([[16, 16, 48, 48]]), np.ones(1))] * len(pictures)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Three actors in the set's own layout: films in an archive, sounds in folders."""
    root = tmp_path / "ravdess"
    for actor in ravdess.FAKE_ACTORS:
        folder = root / f"Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for emotion in (1, 5):
            write_sound(folder / f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav")
        write_film(tmp_path / "film.mp4")
        with zipfile.ZipFile(root / f"Video_Speech_Actor_{actor:02d}.zip", "w") as archive:
            archive.write(tmp_path / "film.mp4", f"Actor_{actor:02d}/01-01-05-01-01-01-{actor:02d}.mp4")
            archive.write(tmp_path / "film.mp4", f"Actor_{actor:02d}/01-02-05-01-01-01-{actor:02d}.mp4")
    (root / "notes.txt").write_text("a stray file")
    return root


@pytest.mark.parametrize("name", ["03-01-01-01-01-01-01", "02-01-08-02-02-02-24"])
def test_names(name: str) -> None:
    assert ravdess.parse(name).name == name


def test_labels_follow_the_codes() -> None:
    assert [ravdess.parse(f"03-01-{k:02d}-01-01-01-01").label for k in range(1, 9)] == list(RAVDESS)


@pytest.mark.parametrize("name", ["03-01-09-01-01-01-01", "03-01-01-01-01-01-25", "03-01-01-01-01-01", "holiday"])
def test_wrong_names(name: str) -> None:
    with pytest.raises(UserError, match=name):
        ravdess.parse(name)


def test_sound_alone_needs_no_preparing(published: Path) -> None:
    data = ravdess.load(published, "test", visual="none")
    assert [ravdess.parse(i).actor for i in data.ids] == [5, 5]
    sound, visual = data.picture(0)
    assert visual is None and sound.rate == 48000 and abs(sound.seconds - 1) < 1e-6
    with pytest.raises(UserError, match="prepare the set"):
        ravdess.load(published, "test")


def test_preparing_is_resumable(published: Path, tmp_path: Path) -> None:
    found = ravdess.recordings(published)
    assert len(found) == 6 and sum(r.film is not None for r in found) == 3  # songs are left out
    out, looked = tmp_path / "out", []

    def detector(pictures: list[np.ndarray]) -> list[Faces]:
        looked.append(len(pictures))
        return centre_face(pictures)

    done = clips.prepare(found, out, CONFIG, detector)
    assert [bool(p.faces) for p in done] == [r.film is not None for r in found]
    assert all(p.sound and not p.problem for p in done)
    table = (out / clips.TABLE).read_text()
    calls = len(looked)
    (next((out / "faces").iterdir())).unlink()
    clips.prepare(found, out, CONFIG, detector)
    assert len(looked) == calls + 1  # only what was lost
    assert (out / clips.TABLE).read_text() == table
    with pytest.raises(UserError, match="other settings"):
        clips.prepare(found, out, ClipInput(visual=FaceInput(size=(48, 48))), detector)

    data = ravdess.load(out, "train")
    assert data.groups.tolist() == ["1"] and "incomplete" in data.protocol
    sound, crops = data.picture(0)
    assert len(sound.samples) == CONFIG.samples and crops.shape == (4, 32, 32, 3)
    assert crops[0].max() > 0 and (crops[-1] == crops[-2]).all()  # the film is over before the last picture


def test_problems_belong_to_their_clip(published: Path, tmp_path: Path) -> None:
    found = ravdess.recordings(published)
    broken = published / "Actor_01" / "01-01-08-01-01-01-01.mp4"
    broken.write_bytes(b"no film")
    done = clips.prepare(ravdess.recordings(published), tmp_path / "out", CONFIG, centre_face)
    problems = {p.recording.clip: p.problem for p in done if p.problem}
    assert list(problems) == [broken.stem] and len(done) == len(found) + 1
    done = clips.prepare(found, tmp_path / "other", CONFIG, lambda pictures: [Faces.empty()] * len(pictures))
    assert {p.problem for p in done if p.recording.film} == {"no face in any picture"}
    with pytest.raises(UserError, match="face crops"):
        clips.prepare(found, tmp_path / "third", ClipInput(visual=VectorInput(("a",))), centre_face)


def test_sound_of_the_film_where_there_is_no_other(tmp_path: Path) -> None:
    root = tmp_path / "ravdess"
    root.mkdir()
    write_film(root / "01-01-03-01-01-01-05.mp4", sound=True)
    (found,) = ravdess.recordings(root)
    (done,) = clips.prepare([found], tmp_path / "out", CONFIG, centre_face)
    assert done.sound and done.faces and found.label == "happiness"


def test_action_units(tmp_path: Path) -> None:
    root = ravdess.fake(tmp_path / "fake", size=32, frames=4)
    data = ravdess.load(root, "valid", visual="action_units")
    assert data.picture(0).visual.shape == (1, 3) and set(data.groups) == {"11"}
    table = root / ravdess.ACTION_UNITS
    table.write_text(table.read_text() + "03-01-01-01-01-01-01,a,b,c\n")
    with pytest.raises(UserError, match="line 26"):
        ravdess.load(root, "valid", visual="action_units")
    table.unlink()
    with pytest.raises(UserError, match=ravdess.ACTION_UNITS):
        ravdess.load(root, "valid", visual="action_units")


def test_folder_prepared_by_the_original(tmp_path: Path) -> None:
    root = tmp_path / "Actor 05"
    root.mkdir()
    crops = np.zeros((4, 32, 32, 3), np.uint8)
    crops[..., 0] = 255  # blue
    np.save(root / "01-01-05-01-01-01-05_facecroppad.npy", crops)
    write_sound(root / "03-01-05-01-01-01-05_croppad.wav")
    line = f"{root}/01-01-05-01-01-01-05_facecroppad.npy;{root}/03-01-05-01-01-01-05_croppad.wav;5;testing"
    (tmp_path / "annotations.txt").write_text(line + "\n")
    data = ravdess.load(tmp_path, "test")
    assert data.picture(0).visual[..., 2].min() == 255 and data.classes().tolist() == [RAVDESS.index("anger")]
    (tmp_path / "annotations.txt").write_text(line.replace(";5;", ";9;"))
    with pytest.raises(UserError, match="line 1"):
        ravdess.load(tmp_path, "test")
    shutil.rmtree(root)
    (tmp_path / "annotations.txt").write_text(line)
    with pytest.raises(UserError, match="not there"):
        ravdess.load(tmp_path, "test")


ACTORS = set(range(1, 25))


@pytest.mark.parametrize(("scheme", "folds"), [("published", 1), ("five", 5), ("folds", 4), ("folds", 6)])
def test_splits_share_no_actor(scheme: str, folds: int) -> None:
    tested: list[int] = []
    for fold in range(folds):
        split = ravdess.split_actors(ACTORS, scheme, fold, folds)
        assert sum(map(len, split.values())) == 24 and set.union(*split.values()) == ACTORS
        tested += split["test"]
    if scheme != "published":
        assert sorted(tested) == sorted(ACTORS)  # everybody is tested once


def test_folds_are_balanced_and_seeded() -> None:
    for fold in ravdess.deal(ACTORS, 4):
        assert len(fold) == 6 and sum(actor % 2 for actor in fold) == 3
    assert ravdess.deal(ACTORS, 4) == ravdess.deal(ACTORS, 4) != ravdess.deal(ACTORS, 4, seed=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "train, valid, test"),
        ({"visual": "depth"}, "action_units"),
        ({"scheme": "random"}, "published"),
        ({"scheme": "five", "fold": 5}, "folds 0 to 4"),
        ({"scheme": "folds", "folds": 9}, "3 to 3 folds"),
    ],
)
def test_wrong_options(options: dict, message: str, tmp_path: Path) -> None:
    root = ravdess.fake(tmp_path, size=32, frames=1)
    with pytest.raises(UserError, match=message):
        ravdess.load(root, **options)


def test_not_ravdess(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no RAVDESS speech clips"):
        ravdess.load(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        ravdess.load(tmp_path / "nothing")
    (tmp_path / "a.zip").write_bytes(b"half a download")
    with pytest.raises(UserError, match=r"a\.zip"):
        ravdess.load(tmp_path)


def test_ravdess_without_sound(tmp_path: Path) -> None:
    root = tmp_path / "ravdess"
    root.mkdir()
    for name in ("02-01-03-01-01-01-01", "02-01-05-01-01-01-01", "01-01-05-01-01-01-01"):
        write_film(root / f"{name}.mp4", sound=name.startswith("01"))
    with pytest.raises(UserError, match="prepare"):
        ravdess.load(root, "train", sound=False)
    clips.prepare(ravdess.recordings(root), tmp_path / "out", CONFIG, centre_face)
    assert len(ravdess.load(tmp_path / "out", "train")) == 1
    data = ravdess.load(tmp_path / "out", "train", sound=False)
    assert data.classes().tolist() == [RAVDESS.index("anger"), RAVDESS.index("happiness")]  # of two films one
    assert data.picture(1).sound is None and data.picture(1).visual.shape == (4, 32, 32, 3)


@pytest.mark.parametrize("damage", ["cut", "header", "nothing", "pickle", "other"])
def test_damaged_crops_are_named(damage: str, tmp_path: Path) -> None:
    root = ravdess.fake(tmp_path / "fake", size=32, frames=4)
    file = sorted((root / "faces").iterdir())[0]
    whole = file.read_bytes()
    if damage == "other":
        np.save(file, np.zeros((4, 32, 32), np.float32))
    elif damage == "pickle":
        np.save(file, np.array([{}], object))
    else:
        file.write_bytes({"cut": whole[:500], "header": b"\x93NUMPY" + bytes(200), "nothing": b""}[damage])
    data = ravdess.load(root, "train")
    with pytest.raises(UserError, match=file.name):
        data.picture(data.ids.index(file.stem))
    lines = [f"{file};{root}/sound/{file.stem}.wav;1;training"]
    (tmp_path / "annotations.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=file.name):
        ravdess.load(tmp_path, "train").picture(0)


def test_fake_clips(tmp_path: Path) -> None:
    root = clips.fake(tmp_path, per_class=1, size=32, frames=4)
    data = clips.load(root, "valid")
    assert len(data) == 8 and data.picture(0).visual.shape == (4, 32, 32, 3)


def test_action_units_relative_to_the_actor(tmp_path: Path) -> None:
    ravdess.fake(tmp_path, size=32, frames=2)
    table = ravdess.action_units(tmp_path)[1]
    samples = ravdess.load(tmp_path, "train", visual="action_units", relative=True)
    values = np.stack([samples.picture(i).visual[0] for i in range(len(samples))])
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-5)
    assert "relative" in samples.protocol and len(table) == 24


def test_borrowed_faces(tmp_path: Path) -> None:
    root = ravdess.fake(tmp_path / "ravdess", size=32, frames=2)
    with pytest.raises(UserError, match="ferplus"):
        ravdess.load(root, "test", visual="borrowed")
    lenders = ferplus.load(ferplus.fake(root / "ferplus"), "valid")
    found = ravdess.load(root, "test", visual="borrowed", frames=3)
    assert "different persons" in found.protocol and "neutral ones for calm" in found.protocol
    own = {label: [] for label in lenders.labels["expression"]}
    for i, k in enumerate(lenders.classes()):
        own[lenders.labels["expression"][k]].append(lenders.picture(i))
    for i, k in enumerate(found.classes()):
        clip = found.picture(i)
        label = "neutral" if RAVDESS[k] == "calm" else RAVDESS[k]
        assert clip.sound is not None and clip.visual.shape == (3, 48, 48, 3)
        assert all(any((face[..., 0] == one).all() for one in own[label]) for face in clip.visual)
        np.testing.assert_array_equal(clip.visual, found.picture(i).visual)
    with pytest.raises(UserError, match="shows calm"):
        borrowed.pools([lenders], RAVDESS, {}, limited=False)
