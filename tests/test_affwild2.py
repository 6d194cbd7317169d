"""Aff-Wild2 (ABAW 2): reader, tables, sound."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import soundfile

from emotion import audio, clips
from emotion.datasets import affwild2, affwild2_tables, reader
from emotion.errors import UserError


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
    assert first.sum() == affwild2.frame_count(video) + 1


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
    windows = clips.video_sound(audio.read(files[0]), frames=12, fps=25.0)
    assert windows.shape == (12, clips.SOUND_WINDOW)
    assert not windows[0, :4000].any() and windows[0, -4000:].any(), "silence before the film begins"
    faithful = clips.video_sound(audio.read(files[0]), frames=12, fps=25.0, clock="faithful")
    assert faithful.shape == windows.shape and faithful[0, :100].any()
    spectrum = np.abs(np.fft.rfft(windows[11, 5040:]))
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
