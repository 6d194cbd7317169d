"""FER+: layouts, label protocols and what happens to broken files."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emotion.datasets import ferplus
from emotion.errors import UserError

BALLOTS = st.lists(st.lists(st.integers(0, 10), min_size=10, max_size=10), min_size=1, max_size=20).map(np.array)


@pytest.fixture(params=["folder", "table"])
def root(request, tmp_path):
    return ferplus.fake(tmp_path, request.param)


def test_layouts_hold_the_same_faces(tmp_path):
    folder, table = (ferplus.load(ferplus.fake(tmp_path / n, n), "valid") for n in ("folder", "table"))
    assert folder.ids == table.ids and folder.fingerprint == table.fingerprint
    assert all((folder.picture(i) == table.picture(i)).all() for i in range(len(folder)))
    assert folder.protocol != table.protocol  # the result says which votes were used


def test_images_and_labels_in_separate_folders(tmp_path):
    ferplus.fake(tmp_path / "a", "folder")
    for split in ("FER2013Train", "FER2013Valid", "FER2013Test"):
        (tmp_path / "b/Labels" / split).mkdir(parents=True)
        (tmp_path / "b/Images").mkdir(exist_ok=True)
        (tmp_path / "a" / split / "label.csv").rename(tmp_path / "b/Labels" / split / "label.csv")
        (tmp_path / "a" / split).rename(tmp_path / "b/Images" / split)
    assert len(ferplus.load(tmp_path / "b", "test")) == 8


def pack(source, target):
    """The packed layout, written from the table layout: two atlases, an index, changed votes of one row."""
    target.mkdir()
    rows, number = [], 0
    for split in ("train", "valid"):
        samples = ferplus.load(source, split, protocol="votes")
        cells = np.zeros((1, ferplus.ATLAS_COLUMNS, 48, 48), np.uint8)
        cells[0, : len(samples)] = [samples.picture(i) for i in range(len(samples))]
        atlas = cells.transpose(0, 2, 1, 3).reshape(48, -1)
        Image.fromarray(atlas).save(target / f"{split}.png")
        for i, name in enumerate(samples.ids):
            votes = np.round(samples.targets["expression"][i] * 10).astype(int).tolist()
            rows.append([number, split, name, *votes, 0, 0, "png"])
            number += 1
    rows[1][-1] = "absent"
    columns = [v.lower() for v in ferplus.VOTES]
    with (target / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["row", "split", "name", *columns, "source"], *rows])
    with (target / "label_csv_votes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["row", "name", *columns], [0, rows[0][2], 0, 0, 0, 0, 0, 10, 0, 0, 0, 0]])


def test_packed_layout(tmp_path):
    pack(ferplus.fake(tmp_path / "table", "table"), tmp_path / "packed")
    new, old = (ferplus.load(tmp_path / "packed", "train", votes=v) for v in ("fer2013new.csv", "label.csv"))
    assert len(new) == len(old) == 7  # the absent face is left out
    assert ferplus.FERPLUS[new.classes()[0]] == "neutral" and ferplus.FERPLUS[old.classes()[0]] == "disgust"
    assert (new.classes()[1:] == old.classes()[1:]).all()
    with pytest.raises(UserError, match="does not hold the test split"):
        ferplus.load(tmp_path / "packed", "test")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_every_protocol_reads_every_split(root, split):
    for protocol in ferplus.PROTOCOLS:
        samples = ferplus.load(root, split, protocol)
        assert set(samples.classes()) == set(range(8))
        assert np.allclose(samples.targets["expression"].sum(axis=1), 1)
        assert samples.picture(0).shape == (48, 48) and samples.picture(0).dtype == np.uint8
    kept = {p: len(ferplus.load(root, split, p)) for p in ("majority", "crossentropy")}
    assert kept == {"majority": 8, "crossentropy": 9}  # a tie has no majority, but a distribution


@given(BALLOTS)
def test_protocols_give_distributions_over_classes_that_were_voted_for(votes):
    for protocol in ferplus.PROTOCOLS.values():
        targets, kept = protocol(votes)
        assert targets.shape == (len(votes), 8) and kept.dtype == bool
        assert np.allclose(targets.sum(axis=1), kept)
        assert (votes[:, :8][targets > 0] > 1).all()


@given(BALLOTS)
def test_a_majority_is_the_strongest_class_of_every_protocol(votes):
    targets, kept = ferplus.majority(votes)
    for protocol in ("crossentropy", "multi", "votes"):
        other, also = ferplus.PROTOCOLS[protocol](votes)
        assert also[kept].all() and (other[kept].argmax(axis=1) == targets[kept].argmax(axis=1)).all()


def rewrite(path, change):
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in change(lines)))


@pytest.mark.parametrize(
    ("layout", "file", "change", "message"),
    [
        ("folder", "FER2013Train/label.csv", lambda s: [*s[:2], "x.png,1,2"], "line 3: expected name, box"),
        ("folder", "FER2013Train/label.csv", lambda s: [s[0].replace("48)", "40)"), *s[1:]], "does not end with 48"),
        ("folder", "FER2013Train/label.csv", lambda s: [s[0].rsplit(",", 1)[0] + ",many", *s[1:]], "whole numbers"),
        ("folder", "FER2013Train/label.csv", lambda s: [s[0].rsplit(",", 1)[0] + ",-1", *s[1:]], "negative votes"),
        (
            "folder",
            "FER2013Train/label.csv",
            lambda s: [s[0].replace("fer", "gone", 1), *s[1:]],
            "cannot read .*gone",
        ),
        ("folder", "FER2013Train/label.csv", lambda s: ["a\0" + s[0], *s[1:]], "cannot read"),
        ("folder", "FER2013Train/label.csv", lambda s: [], "no faces of the train"),
        ("table", "fer2013.csv", lambda s: s[:-1], "must correspond"),
        ("table", "fer2013.csv", lambda s: [s[0].replace("pixels", "bytes"), *s[1:]], "no column pixels"),
        (
            "table",
            "fer2013.csv",
            lambda s: [s[0], s[1].replace(" ", "", 1), *s[2:]],
            "line 2: expected 2304",
        ),
        ("table", "fer2013.csv", lambda s: [s[0], s[1].replace(" ", " x", 1), *s[2:]], "line 2: expected 2304"),
        ("table", "fer2013.csv", lambda s: [s[0], s[1].replace(" ", " " + "9" * 23, 1), *s[2:]], "expected 2304"),
        ("table", "fer2013new.csv", lambda s: [s[0], s[12], *s[2:12], s[1], *s[13:]], "disagree on the split"),
    ],
)
def test_broken_files_are_named(tmp_path, layout, file, change, message):
    ferplus.fake(tmp_path, layout)
    rewrite(tmp_path / file, change)
    with pytest.raises(UserError, match=message):
        ferplus.load(tmp_path, "train")


def test_a_table_from_a_spreadsheet_begins_with_a_byte_order_mark(tmp_path):
    ferplus.fake(tmp_path, "folder")
    before = ferplus.load(tmp_path, "train")
    table = tmp_path / "FER2013Train/label.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert ferplus.load(tmp_path, "train").fingerprint == before.fingerprint
    table.write_bytes(b"\xff" + table.read_bytes())
    with pytest.raises(UserError, match=r"cannot read .*label\.csv"):
        ferplus.load(tmp_path, "train")


@pytest.mark.parametrize("damage", ["cut", "text", "narrow"])
def test_damaged_atlas(damage, tmp_path):
    pack(ferplus.fake(tmp_path / "table", "table"), tmp_path / "packed")
    atlas = tmp_path / "packed/train.png"
    if damage == "narrow":
        Image.new("L", (480, 48)).save(atlas)
    else:
        atlas.write_bytes(atlas.read_bytes()[:900] if damage == "cut" else b"no picture")
    with pytest.raises(UserError, match=r"train\.png"):
        ferplus.load(tmp_path / "packed", "train")


def test_a_table_is_joined_by_row_order(tmp_path):
    ferplus.fake(tmp_path, "table")
    before = ferplus.load(tmp_path, "train")
    rewrite(tmp_path / "fer2013new.csv", lambda s: [s[0], s[2], s[1], *s[3:]])
    after = ferplus.load(tmp_path, "train")
    assert (after.picture(0) == before.picture(0)).all()
    assert after.classes()[:2].tolist() == before.classes()[1::-1].tolist()


def test_wrong_names_say_what_there_is(root, tmp_path):
    with pytest.raises(UserError, match="splits train, valid, test"):
        ferplus.load(root, "dev")
    with pytest.raises(UserError, match="majority, crossentropy"):
        ferplus.load(root, "train", "plurality")
    with pytest.raises(UserError, match="has the votes of"):
        ferplus.load(root, "train", votes="mine.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no FER"):
        ferplus.load(tmp_path / "empty")


def test_a_face_of_another_size_is_refused(tmp_path):
    ferplus.fake(tmp_path, "folder")
    Image.new("L", (64, 64)).save(next((tmp_path / "FER2013Valid").glob("*.png")))
    with pytest.raises(UserError, match="64x64 pixels, expected 48x48"):
        ferplus.load(tmp_path, "valid")
