"""Readers of FG-2020's data sets: synthetic copies, and messages for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from emotion import datasets
from emotion.datasets import afewva, affwild2_2020, disfa, expw
from emotion.errors import UserError


@pytest.mark.parametrize(
    ("name", "split", "options", "task"),
    [
        ("affwild2_2020", "train", {"task": "expression", "published": True}, "expression"),
        ("affwild2_2020", "valid", {"task": "action_units"}, "action_units"),
        ("affwild2_2020", "train", {"task": "valence_arousal", "published": True}, "valence_arousal"),
        ("disfa", "train", {}, "action_units"),
        ("disfa", "valid", {}, "action_units"),
        ("expw", "all", {}, "expression"),
        ("afewva", "valid", {}, "valence_arousal"),
    ],
)
def test_fakes_are_readable(tmp_path: Path, name: str, split: str, options: dict, task: str) -> None:
    reader = datasets.reader(name)
    samples = reader.load(reader.fake(tmp_path), split, **options)
    assert len(samples) > 1
    assert len(set(samples.ids)) == len(samples)
    assert np.isfinite(samples.targets[task]).all()
    for i in (0, len(samples) - 1):
        picture = samples.picture(i)
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
    assert len(np.unique(samples.groups)) > 1
    assert len(reader.load(tmp_path, split, **options).fingerprint) == 64


def test_affwild2_drops_what_is_not_labelled_or_not_there(tmp_path: Path) -> None:
    affwild2_2020.fake(tmp_path, frames=10)
    found = affwild2_2020.tables(tmp_path, "train", "action_units")
    for numbers, _ in found.values():
        assert numbers.tolist() == [0, 1, 2, 4, 6, 8, 9]  # no picture 8, markers in rows 3 and 5


def test_affwild2_test_split(tmp_path: Path) -> None:
    """Every frame of the video gets a picture; labels are missing."""
    for number in (2, 3, 6):
        path = tmp_path / "cropped_aligned" / "clip_left" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(path)
    (tmp_path / "videos" / "batch1").mkdir(parents=True)
    with av.open(str(tmp_path / "videos" / "batch1" / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for _ in range(6):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (tmp_path / "va_test_set.txt").write_text("clip_left\n")
    samples = affwild2_2020.load(tmp_path, "test", "valence_arousal")
    assert [int(i[-9:-4]) for i in samples.ids] == [2, 2, 3, 3, 3, 6, 6]
    assert np.isnan(samples.targets["valence_arousal"]).all()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def break_affwild2(root: Path) -> None:
    path = next((root / "annotations" / "EXPR_Set" / "Training_Set").glob("*.txt"))
    path.write_text("Neutral\n0\nhappy\n1\n")


def shorten_affwild2(root: Path) -> None:
    path = next((root / "annotations" / "EXPR_Set" / "Training_Set").glob("*.txt"))
    path.write_text("Neutral\n0\n1\n1\n")


def number_affwild2(root: Path) -> None:
    for path in (root / "annotations" / "EXPR_Set" / "Training_Set").glob("*.txt"):
        edit(path, "\n6", "\n7")


def break_disfa(root: Path) -> None:
    edit(root / "ActionUnit_Labels" / "SN001" / "SN001_au4.txt", "2,", "7,")


def empty_disfa(root: Path) -> None:
    for path in (root / "LeftVideoSN001_comp").rglob("*.bmp"):
        path.unlink()


def break_expw(root: Path) -> None:
    edit(root / "label" / "label.lst", "0.jpg 0 5 5", "0.jpg 0 5 500")


def break_afewva(root: Path) -> None:
    path = root / "01" / "001" / "001.json"
    table = json.loads(path.read_text())
    table["frames"]["00001"]["valence"] = 11
    path.write_text(json.dumps(table))


def lose_afewva(root: Path) -> None:
    (root / "01" / "001" / "00002.png").unlink()


@pytest.mark.parametrize(
    ("reader", "damage", "message"),
    [
        (affwild2_2020, break_affwild2, "rows of 1 numbers"),
        (affwild2_2020, shorten_affwild2, "has 3 rows, but there is picture"),
        (affwild2_2020, number_affwild2, "must be 0 to 6"),
        (disfa, break_disfa, r"SN001_au4.txt: expected lines"),
        (disfa, empty_disfa, "no pictures"),
        (expw, break_expw, r"label.lst line 1: empty box"),
        (afewva, break_afewva, r"001.json frame 00001"),
        (afewva, lose_afewva, r"00002.png does not exist"),
    ],
)
def test_damage_is_named(tmp_path: Path, reader: object, damage: object, message: str) -> None:
    reader.fake(tmp_path)
    damage(tmp_path)
    split = "train" if reader is affwild2_2020 else "all"
    with pytest.raises(UserError, match=message):
        reader.load(tmp_path, split)


@pytest.mark.parametrize("name", ["affwild2_2020", "disfa", "expw", "afewva"])
def test_empty_folder_and_unknown_split(tmp_path: Path, name: str) -> None:
    reader = datasets.reader(name)
    with pytest.raises(UserError):
        reader.load(tmp_path)
    reader.fake(tmp_path)
    with pytest.raises(UserError, match="holiday"):
        reader.load(tmp_path, "holiday")
