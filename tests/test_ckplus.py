"""CK+: folds by subject, the samples of a sequence, and wrong files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from emotion import datasets
from emotion.__main__ import main as command
from emotion.cli import prepare
from emotion.datasets import ckplus
from emotion.errors import UserError
from emotion.labels import CKPLUS
from emotion.outputs import Faces


@pytest.fixture
def root(tmp_path):
    return datasets.reader("ckplus").fake(tmp_path / "ck")


def test_samples_of_a_sequence(root):
    data = ckplus.load(root)
    assert len(data) == 11 * 4 and len(set(data.groups)) == 11  # one of twelve subjects is not labelled
    assert data.labels["expression"] == CKPLUS
    names = {s: [i for i, g in zip(data.ids, data.groups) if g == s] for s in set(data.groups)}
    for subject, files in names.items():
        frames = sorted(p.name for p in (root / ckplus.IMAGES / subject / "001").iterdir())
        assert files == [frames[0], *frames[-3:]]
    classes = data.classes().reshape(-1, 4)
    assert (classes[:, 0] == CKPLUS.index("neutral")).all() and (classes[:, 1:] == classes[:, 1:2]).all()
    assert set(classes[:, 1]) == set(range(7))  # every expression of the emotion files
    assert data.picture(0).shape == (96, 96)


def test_the_neutral_frame_is_a_choice(root):
    first, fourth = (ckplus.load(root, neutral=n) for n in ("first", "fourth-last"))
    differ = [a != b for a, b in zip(first.ids, fourth.ids)]
    assert any(differ) and not all(differ) and all(k % 4 == 0 for k in np.flatnonzero(differ))
    short = [g for g in set(first.groups) if len(list((root / ckplus.IMAGES / g / "001").iterdir())) == 4]
    assert short and not any(d for d, g in zip(differ, first.groups) if g in short)


def test_no_subject_is_in_two_parts_of_a_trial(root):
    tested = []
    for fold in range(ckplus.FOLDS):
        parts = {s: set(ckplus.load(root, s, fold).groups) for s in ("train", "valid", "test")}
        assert not (parts["train"] & parts["valid"] or parts["train"] & parts["test"] or parts["valid"] & parts["test"])
        tested += parts["test"]
    assert sorted(tested) == sorted(set(ckplus.load(root).groups))  # every subject is tested exactly once


def test_each_branch_leaves_out_another_fold(root):
    whole = set(ckplus.load(root, "train", fold=3).groups)
    left = [whole - set(ckplus.load(root, "train", fold=3, leave_out=b).groups) for b in (1, 2, 3, 4)]
    assert set.union(*left) == whole and sum(map(len, left)) == len(whole) and all(left)


def test_preparation_cuts_the_largest_face_and_is_resumable(root, tmp_path):
    calls = []

    def detect(pictures):
        calls.append(pictures)
        return [Faces(np.array([[0, 0, 10, 10], [20, 30, 70, 90]]), np.ones(2)) for _ in pictures]

    out = tmp_path / "out"
    assert ckplus.prepare(root, out, detect) == (44, ())
    assert [len(c) for c in calls] == [4] * 11
    data, whole = ckplus.load(out), ckplus.load(root)
    assert data.ids == whole.ids and data.fingerprint == whole.fingerprint
    assert ckplus.load(out, neutral="fourth-last").ids == data.ids  # only four frames are left
    assert (data.picture(5) == whole.picture(5)[30:90, 20:70]).all()
    label = next((out / ckplus.EMOTION).glob("*/*"))
    shutil.rmtree(label)  # as if stopped before the sequence was complete
    assert ckplus.prepare(root, out, detect) == (44, ())
    assert len(calls) == 12 and ckplus.load(out).fingerprint == whole.fingerprint and not list(out.rglob("*.part"))


def test_a_frame_without_a_face_is_cut_as_its_neighbour(root, tmp_path):
    def detect(pictures):
        box = Faces(np.array([[20, 30, 70, 90]]), np.ones(1))
        return [Faces.empty(), box, *[Faces.empty()] * (len(pictures) - 2)]

    assert ckplus.prepare(root, tmp_path / "out", detect).faces == 44
    data, whole = ckplus.load(tmp_path / "out"), ckplus.load(root)
    assert all((data.picture(k) == whole.picture(k)[30:90, 20:70]).all() for k in range(4))
    done = ckplus.prepare(root, tmp_path / "none", lambda pictures: [Faces.empty()] * len(pictures))
    assert done.faces == 0 and len(done.problems) == 11 and "no face found in" in done.problems[0]
    assert not (tmp_path / "none").exists()


def test_the_command_prepares_what_it_can(root, tmp_path, capsys, monkeypatch):
    face = Faces(np.array([[20, 30, 70, 90]]), np.ones(1))
    monkeypatch.setattr(prepare, "detector", lambda name: lambda pictures: [face] * len(pictures))
    broken = ckplus.read_sequences(root)[0].frames[-1]
    broken.write_bytes(b"no picture")
    given = ["prepare", "ckplus", str(root), "-o", str(tmp_path / "out")]
    assert command(given) == 0
    said = capsys.readouterr().out
    assert f"cannot read the frame {broken}" in said and "40 faces" in said and "neutral 10" in said
    monkeypatch.setattr(prepare, "detector", lambda name: lambda pictures: [Faces.empty()] * len(pictures))
    assert command([*given[:-1], str(tmp_path / "none")]) == 2


def test_bad_files(root):
    with pytest.raises(UserError, match="no cohn-kanade-images/"):
        ckplus.load(root / "Emotion")
    for options in ({"split": "dev"}, {"fold": 10}, {"leave_out": 5}, {"neutral": "middle"}):
        with pytest.raises(UserError):
            ckplus.load(root, **options)
    label = next((root / "Emotion").rglob("*.txt"))
    for text in ("happy", "", "0", "8.0", "1 2"):
        label.write_text(text)
        with pytest.raises(UserError, match=label.name):
            ckplus.load(root)
    label.write_text("3.0")
    frames = sorted((root / ckplus.IMAGES / label.parts[-3] / "001").iterdir())
    frames[-1].write_bytes(b"no picture")
    data = ckplus.load(root)
    with pytest.raises(UserError, match="cannot read the frame"):
        data.picture(data.ids.index(frames[-1].name))
    for path in frames[2:]:
        path.unlink()
    with pytest.raises(UserError, match="has 2 frames"):
        ckplus.load(root)


def test_a_folder_without_labels(root):
    for path in (root / "Emotion").rglob("*.txt"):
        path.unlink()
    with pytest.raises(UserError, match="holds no file like"):
        ckplus.load(root)
