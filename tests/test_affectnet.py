"""AffectNet's three layouts, the preparation of faces, and wrong files."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from emotion import datasets
from emotion.__main__ import main as command
from emotion.datasets import affectnet, affectnet_layouts
from emotion.errors import UserError
from emotion.labels import AFFECTNET

ALL = ("train", "valid", "automatic")
SPLITS = {"prepared": ALL, "2017": ALL, "2021": ALL[:2]}


@pytest.mark.parametrize("layout", SPLITS)
def test_every_layout_and_split(layout, tmp_path):
    root = datasets.reader("affectnet").fake(tmp_path, layout=layout)
    for split in SPLITS[layout]:
        data = affectnet.load(root, split)
        assert len(data) == 2 * 8 + 5  # the picture without an expression is left out
        assert np.bincount(data.classes(), minlength=8).tolist() == [3, 3, 3, 3, 3, 2, 2, 2]
        rated = np.isfinite(data.targets["valence_arousal"]).all(axis=1)
        assert rated.sum() == len(data) - 1 and np.abs(data.targets["valence_arousal"][rated]).max() <= 1
        assert set(affectnet.quadrants(data.targets["valence_arousal"][rated])) == {0, 1, 2, 3}
        assert all(data.picture(i).shape == (96, 96, 3) for i in range(len(data)))
        assert len(set(data.ids)) == len(data) and data.labels["expression"] == AFFECTNET
    assert affectnet.load(root).fingerprint == affectnet.load(root).fingerprint


def test_seven_expressions_leave_contempt_out(tmp_path):
    data = affectnet.load(affectnet.fake(tmp_path), classes=7)
    assert np.bincount(data.classes()).tolist() == [3, 3, 3, 3, 3, 2, 2]
    assert data.labels["expression"] == AFFECTNET[:7] and data.protocol.startswith("seven")
    with pytest.raises(UserError, match="8 or 7"):
        affectnet.load(tmp_path, classes=6)


def test_the_crop_keeps_its_axes(tmp_path):
    """Columns come from face_x and face_width, rows from face_y and face_height (the original swaps them)."""
    affectnet.fake(tmp_path, layout="2017")
    data = affectnet.load(tmp_path)
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[10:106, 90:186] = data.picture(0)
    stored = np.asarray(Image.open(tmp_path / "Manually_Annotated_Images" / data.ids[0]))
    assert (picture == stored).all() and data.picture(0).min() > 0


def test_boxes_are_clipped_to_the_picture(tmp_path):
    rows = [["a.png", -20, 30, 60, 500, "", 1, 0.1, 0.1], ["a.png", 200, 0, 10, 10, "", 1, 0.1, 0.1]]
    data = affectnet.load(_release(tmp_path, rows))
    assert data.picture(0).shape == (20, 40, 3)
    with pytest.raises(UserError, match="outside the picture"):
        data.picture(1)


def test_folders_are_in_numerical_order(tmp_path):
    data = affectnet.load(affectnet.fake(tmp_path))
    folders = [int(name.split("/")[0]) for name in data.ids]
    assert folders == sorted(folders) and set(folders) == {2, 10}


@pytest.mark.parametrize("layout", ["2017", "2021"])
def test_prepared_copy_has_the_same_faces_and_is_resumable(layout, tmp_path):
    affectnet.fake(tmp_path / "raw", layout=layout)
    raw = affectnet.load(tmp_path / "raw")
    assert affectnet.prepare(tmp_path / "raw", tmp_path / "out", "train", size=48) == (len(raw), ())
    files = sorted((tmp_path / "out").rglob("*.*"))
    assert len(files) == len(raw) and not list((tmp_path / "out").rglob("*.part"))
    files[0].unlink()
    kept = {p: p.stat().st_mtime_ns for p in files[1:]}
    assert affectnet.prepare(tmp_path / "raw", tmp_path / "out", "train", size=48) == (len(raw), ())
    assert {p: p.stat().st_mtime_ns for p in files[1:]} == kept and files[0].is_file()
    ours = affectnet.load(tmp_path / "out")
    assert sorted(ours.classes()) == sorted(raw.classes())
    assert ours.picture(0).shape == (48, 48, 3)
    affect = [np.sort(d.targets["valence_arousal"], axis=0) for d in (ours, raw)]
    np.testing.assert_allclose(*affect, atol=1.01e-3)  # names hold thousandths
    with pytest.raises(UserError, match="prepared already"):
        affectnet.prepare(tmp_path / "out", tmp_path / "again", "train")


def test_preparation_leaves_out_what_cannot_be_read(tmp_path):
    rows = [["a.png", 10, 20, 30, 25, "", k % 8, 0.25, -0.5] for k in range(600)]
    rows[1][0], rows[2][1] = "gone.png", 200
    done = affectnet.prepare(_release(tmp_path, rows), tmp_path / "out", "train")
    assert done.faces == 598 and len(done.problems) == 2
    assert "gone.png" in done.problems[0] and "outside the picture" in done.problems[1]
    data = affectnet.load(tmp_path / "out")
    assert data.ids[0] == "0/0000000s0s250s-500.jpg" and data.ids[-1] == "1/0000599s7s250s-500.jpg"


@pytest.mark.parametrize("layout", SPLITS)
def test_the_command_prepares_every_split(layout, tmp_path, capsys):
    affectnet.fake(tmp_path / "raw", layout=layout)
    assert affectnet_layouts.splits(tmp_path / "raw") == SPLITS[layout]
    given = ["prepare", "affectnet", str(tmp_path / "raw"), "-o", str(tmp_path / "out")]
    assert command(given) == (2 if layout == "prepared" else 0)
    said = capsys.readouterr()
    if layout == "prepared":
        assert "prepared already" in said.err
        return
    assert affectnet_layouts.splits(tmp_path / "out") == SPLITS[layout] and said.out.count("21 faces") == len(
        SPLITS[layout]
    )
    assert "neutral 3, happiness 3" in said.out
    assert command([*given[:-1], str(tmp_path / "one"), "--split", "valid"]) == 0
    assert affectnet_layouts.splits(tmp_path / "one") == ("valid",)


def test_a_list_without_header_is_understood(tmp_path):
    root = _release(tmp_path, [["a.png", 0, 0, 10, 10, "1;2", 3, 0.25, -0.5]], header=None)
    data = affectnet.load(root)
    assert data.classes().tolist() == [3] and data.targets["valence_arousal"].tolist() == [[0.25, -0.5]]


def _release(root, rows, header=affectnet_layouts.COLUMNS):
    (root / "Manually_Annotated_Images").mkdir(parents=True)
    Image.fromarray(np.full((50, 100, 3), 9, np.uint8)).save(root / "Manually_Annotated_Images" / "a.png")
    with (root / "Manually_training.csv").open("w", newline="") as file:
        csv.writer(file).writerows([list(header), *rows] if header else rows)
    return root


GOOD = ["a.png", 0, 0, 10, 10, "", 1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({6: "joy"}, "row 1: box, expression"),
        ({6: 11}, "expression must be 0 to 10"),
        ({7: 1.5}, "valence and arousal must lie in"),
        ({7: "nan"}, "valence and arousal must lie in"),
        ({7: -5}, "valence and arousal must lie in"),
        ({3: "inf"}, "row 1: box"),
        ({1: "NULL"}, "row 1: box"),
        ({0: "../a.png"}, "no path below"),
        ({0: ""}, "no path below"),
    ],
)
def test_bad_rows(change, message, tmp_path):
    row = [change.get(k, v) for k, v in enumerate(GOOD)]
    with pytest.raises(UserError, match=message):
        affectnet.load(_release(tmp_path, [row]))


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match="no AffectNet folder"):
        affectnet.load(tmp_path)
    with pytest.raises(UserError, match="splits train, valid, automatic"):
        affectnet.load(tmp_path, "test")
    with pytest.raises(UserError, match="no column expression"):
        affectnet.load(_release(tmp_path / "a", [], header=[c for c in affectnet_layouts.COLUMNS if c != "expression"]))
    with pytest.raises(UserError, match=r"has no Manually_validation\.csv"):
        affectnet.load(tmp_path / "a", "valid")
    with pytest.raises(UserError, match="no face with an expression"):
        affectnet.load(_release(tmp_path / "b", [["a.png", "NULL", 0, 0, 0, "", 10, -2, -2]]))
    with pytest.raises(UserError, match="cannot read the face"):
        affectnet.load(_release(tmp_path / "c", [["gone.png", *GOOD[1:]]])).picture(0)
    affectnet.fake(tmp_path / "d", layout="2021")
    with pytest.raises(UserError, match="no automatically annotated"):
        affectnet.load(tmp_path / "d", "automatic")
    (tmp_path / "d/train_set/annotations/3_val.npy").write_bytes(b"x")
    with pytest.raises(UserError, match=r"annotation .*3_val\.npy"):
        affectnet.load(tmp_path / "d")
    for damaged in (np.float64("nan"), np.float64(1.5)):
        np.save(tmp_path / "d/train_set/annotations/3_val.npy", 0.1)
        np.save(tmp_path / "d/train_set/annotations/3_exp.npy", damaged)
        with pytest.raises(UserError, match="expression must be 0 to 10"):
            affectnet.load(tmp_path / "d")
    with (tmp_path / "d/train_set/annotations/3_exp.npy").open("wb") as file:
        np.savez(file, a=1)
    with pytest.raises(UserError, match=r"annotation .*3_exp\.npy"):
        affectnet.load(tmp_path / "d")
    affectnet.fake(tmp_path / "e")
    (tmp_path / "e/Training_Labeled/2/holiday.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holiday\.jpg is no prepared AffectNet face"):
        affectnet.load(tmp_path / "e")
    with pytest.raises(UserError, match="comes as"):
        affectnet.fake(tmp_path / "f", layout="1999")
