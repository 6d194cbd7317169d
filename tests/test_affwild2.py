"""Aff-Wild2 (ABAW 2): reader, tables, sound."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import soundfile
import torch

from emotion.__main__ import main
from emotion.datasets import affwild2, affwild2_2020, affwild2_tables, reader
from emotion.errors import UserError
from emotion.exports import abaw
from emotion.media import audio, windowing
from emotion.models import emenet
from emotion.models.base import FaceInput
from emotion.outputs import Task
from emotion.predict import challenge
from tests.tiny import tiny_fg2020


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return reader("affwild2").fake(tmp_path_factory.mktemp("affwild2"), frames=(20, 30))


def test_labelled_frames(root):
    for task, part in affwild2.PARTS.items():
        samples = affwild2.load(root, "train", task)
        assert set(samples.targets) == {task} and np.isfinite(samples.targets[task]).all()
        assert samples.picture(0).shape == (112, 112, 3)
        frames = [affwild2.parse_path(i)[1] for i in samples.ids]
        assert 3 not in frames and 5 not in frames, "rows with a marker"
        assert 7 not in frames, "a frame without a picture"
        assert len(part.labels) == samples.targets[task].shape[1]


def test_tasks_are_joined_by_frame(root):
    samples = affwild2.load(root, "valid")
    known = np.stack([np.isfinite(t).all(axis=1) for t in samples.targets.values()])
    assert (known.sum(axis=0) >= 1).all() and known.any(axis=1).all()
    assert len(samples) == sum(len(affwild2.load(root, "valid", t)) for t in affwild2.PARTS)


def test_test_clips_have_every_frame(root):
    samples = affwild2.load(root, "test", "expression")
    first = samples.groups == samples.groups[0]
    assert np.isnan(samples.targets["expression"]).all()
    assert samples.ids[7] == samples.ids[6], "a missing picture repeats the one before"
    video = affwild2.find_video(root, samples.groups[0])
    assert first.sum() == affwild2_2020.frame_count(video) + 1


def test_annotation_and_test_tables(root, tmp_path):
    found = affwild2_tables.write_annotations(root, tmp_path / "va.csv", "valence_arousal")
    with (tmp_path / "va.csv").open() as file:
        rows = list(csv.DictReader(file))
    samples = affwild2.load(root, "train", "valence_arousal")
    assert found["train"] == {"clips": 2, "frames": len(samples)}
    written = np.array([[r["valence"], r["arousal"]] for r in rows if r["split"] == "train"], float)
    np.testing.assert_allclose(written, samples.targets["valence_arousal"], atol=1e-6)
    assert {float(r["fps"]) for r in rows} <= {25.0, 30.0}
    found = affwild2_tables.write_test_list(root, tmp_path / "au.csv", "action_units")
    assert found["test"]["frames"] == len(affwild2.load(root, "test", "action_units"))
    counts = affwild2_tables.distribution(samples.targets["valence_arousal"], "valence_arousal")
    assert counts.shape == (20, 20) and counts.sum() == len(samples)


def test_sound_is_extracted_and_cut_around_frames(root, tmp_path):
    files, silent = affwild2_tables.extract_sound(root, tmp_path / "sound")
    assert len(files) == 9 and not silent
    samples, rate = soundfile.read(files[0])
    assert rate == 16000 and samples.ndim == 1 and np.abs(samples).max() > 0.2
    sound = audio.read(files[0])

    def windows(clock):
        starts = windowing.video_sound_windows(12, 25.0, len(sound.samples), clock)
        return windowing.cut_sound(sound, starts)

    true, faithful = windows("true"), windows("faithful")
    assert true.shape == faithful.shape == (12, windowing.SOUND_WINDOW)
    assert not true[0, :4000].any() and true[0, -4000:].any(), "silence before the film begins"
    assert faithful[0, :100].any()
    spectrum = np.abs(np.fft.rfft(true[11, 5040:]))
    assert abs(spectrum.argmax() * 16000 / 5040 - 440) < 4


def remove_annotations(root):
    for path in (root / "annotations/EXPR_Set/Train_Set").glob("*"):
        path.unlink()


def too_few_columns(root):
    next((root / "annotations/EXPR_Set/Train_Set").glob("*")).write_text("Neutral\n1,2\n3,4\n")


def unknown_class(root):
    path = min((root / "annotations/EXPR_Set/Train_Set").glob("*"))
    path.write_text("Neutral\n" + "9\n" * 40)


@pytest.mark.parametrize(
    ("damage", "message"),
    [(remove_annotations, "no annotation files"), (too_few_columns, "rows of 1 numbers"), (unknown_class, "0 to 6")],
)
def test_damaged_copies_are_refused(damage, message, tmp_path):
    affwild2.fake(tmp_path, frames=(12, 12))
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        affwild2.load(tmp_path, "train", "expression")


def test_more_pictures_than_rows_are_cut_with_a_warning(tmp_path):
    affwild2.fake(tmp_path, frames=(12, 12))
    path = min((tmp_path / "annotations/EXPR_Set/Train_Set").glob("*"))
    path.write_text("\n".join(path.read_text().split("\n")[:9]))
    with pytest.warns(UserWarning, match="8 rows"):
        samples = affwild2.load(tmp_path, "train", "expression")
    assert max(affwild2.parse_path(i)[1] for i in samples.ids if path.stem + "/" in i) < 8


@pytest.mark.parametrize(("split", "task"), [("trainn", None), ("train", "emotion")])
def test_unknown_splits_and_tasks_are_refused(root, split, task):
    with pytest.raises(UserError, match="Aff-Wild2 has"):
        affwild2.load(root, split, task)


class Echo(torch.nn.Module):
    """A model of sequences whose valence is the mean level of the picture, its arousal that of the frame before."""

    config = emenet.EMENetConfig(input=FaceInput(size=(16, 16)), expressions=(), action_units=())

    def embed(self, x, sound=None):
        return x.mean((1, 2, 3))[None, :, None]

    def sequence(self, features):
        before = torch.cat([features[:, :1], features[:, :-1]], dim=1)
        return {"valence_arousal": torch.cat([features, before], dim=-1)}

    def decode(self, logits):
        values = logits["valence_arousal"].numpy()
        return {"valence_arousal": Task("continuous", ("valence", "arousal"), values[0], (-1, 1), members=values)}


def test_submission_files_have_every_frame_of_every_listed_clip(root, tmp_path):
    written = challenge.predict(root, Echo(), tmp_path, {"valence_arousal": None})
    names = affwild2.listed_clips(root / "VA_test_set.txt")
    assert len(written) == 2 * len(names)
    for clip in names:
        lines = (tmp_path / "merged" / "VA_Set" / f"{clip}.txt").read_text().split("\n")
        frames = affwild2.frames_to_predict(root, clip)
        assert lines[0] == "valence,arousal" and len(lines) == 1 + len(frames)
        assert lines[8].split(",")[0] == lines[7].split(",")[0], "frame 7 has no picture: frame 6 stands for it"
        assert lines[9].split(",")[1] == lines[8].split(",")[0], "the clip is read in order"
    member = (tmp_path / "0" / "VA_Set" / f"{names[0]}.txt").read_text()
    assert member == (tmp_path / "merged" / "VA_Set" / f"{names[0]}.txt").read_text()
    with pytest.raises(UserError, match="predicts no expression"):
        challenge.predict(root, Echo(), tmp_path, {"expression": None})


def test_file_text_of_repeated_frames_and_bad_names(tmp_path):
    task = Task("continuous", ("valence", "arousal"), np.array([[0.12345, 0], [1, -1], [0.5, 0.5]]), (-1, 1))
    assert abaw.task_text(task, np.array([1, 0, 1])) == "valence,arousal\n1.0000,-1.0000\n0.1235,0.0000"
    with pytest.raises(UserError, match="no name of a video"):
        abaw.write(tmp_path, "../x", {"valence_arousal": task}, np.arange(3))
    with pytest.raises(UserError, match="2 frame numbers"):
        abaw.task_text(task, np.arange(2))


def test_commands(root, tmp_path, capsys):
    assert main(["affwild2", "annotations", str(root), "-o", str(tmp_path / "t")]) == 0
    assert "valence_arousal" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == [
        *(f"{t}.{kind}" for t in sorted(affwild2.PARTS) for kind in ("csv", "png"))
    ]
    assert main(["affwild2", "test-list", str(root), "-o", str(tmp_path / "l"), "--task", "expression"]) == 0
    assert (tmp_path / "l" / "expression.csv").is_file()
    assert main(["affwild2", "sound", str(root), "-o", str(tmp_path / "s")]) == 0
    assert len(list((tmp_path / "s").glob("*.wav"))) == 9
    assert main(["affwild2", "annotations", str(tmp_path / "nothing"), "-o", str(tmp_path / "u")]) == 2


def test_release_of_fg2020_has_its_own_lists(tmp_path):
    """The same command predicts the test clips of either release; members decide on action units above a half."""
    affwild2_2020.fake(tmp_path / "data", frames=8)
    model = tiny_fg2020(("a", "b"), frames=4, thresholds=(0.0,) * 8)
    written = challenge.predict(tmp_path / "data", model, tmp_path / "out", {"action_units": None})
    assert {p.parts[-3] for p in written} == {"0", "1", "merged"}
    merged, member = (next((tmp_path / "out" / m).rglob("*.txt")).read_text().split("\n") for m in ("merged", "0"))
    assert merged[1] == ",".join("1" * 8)
    assert member[1] != merged[1]
