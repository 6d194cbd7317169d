"""Faces of one's own: a folder per expression, and a CSV table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.datasets import class_folders, csv_table
from emotion.errors import UserError
from eval.__main__ import main


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return class_folders.fake(tmp_path / "folders")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return csv_table.fake(tmp_path / "table")


def test_folders(folders: Path) -> None:
    samples = class_folders.load(folders, "test")
    assert samples.labels["expression"] == ("neutral", "happiness", "anger") and len(samples) == 6
    said = {"Neutral": 0, "happy": 1, "angry": 2}
    for name, c, i in zip(samples.ids, samples.classes(), range(6)):
        assert said[name.split("/")[1]] == c
        np.testing.assert_array_equal(samples.picture(i), Image.open(folders / name).convert("RGB"))
    assert samples.groups is None


def test_vocabulary_is_that_of_all_splits(folders: Path) -> None:
    for path in [*(folders / "test" / "angry").iterdir(), folders / "test" / "angry"]:
        path.unlink() if path.is_file() else path.rmdir()
    samples = class_folders.load(folders, "test")
    assert samples.labels["expression"] == ("neutral", "happiness", "anger") and set(samples.classes()) == {0, 1}


def test_folders_without_splits_and_with_persons(folders: Path) -> None:
    plain = class_folders.load(folders / "train")
    assert plain.split == "all" and plain.ids[0] == "angry/0.png"
    for path in [*(folders / "train").glob("*/*.png")]:
        (path.parent / f"person_{path.stem}").mkdir()
        path.rename(path.parent / f"person_{path.stem}" / path.name)
    grouped = class_folders.load(folders, "train")
    assert sorted(set(grouped.groups)) == ["person_0", "person_1"]
    (folders / "train" / "happy" / "9.png").write_bytes((folders / "train/happy/person_0/0.png").read_bytes())
    with pytest.raises(UserError, match="lies beside sub-folders"):
        class_folders.load(folders, "train")


@pytest.mark.parametrize(
    ("damage", "split", "message"),
    [
        (lambda f: None, "valid", "has the splits test, train, not 'valid'"),
        (lambda f: (f / "test" / "hungry").mkdir(), "train", "hungry is named after no expression"),
        (lambda f: (f / "test" / "joy").mkdir(), "test", "are the same expression, happiness"),
        (lambda f: (f / "test" / "happy" / "notes.txt").write_text("x"), "test", "notes.txt is no picture"),
        (lambda f: (f / "valid" / "sad").mkdir(parents=True), "valid", "no pictures below"),
        (lambda f: (f / "valid").mkdir(), "test", "valid has no folders"),
    ],
)
def test_wrong_folders(damage, split: str, message: str, folders: Path) -> None:
    damage(folders)
    with pytest.raises(UserError, match=message):
        class_folders.load(folders, split)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it needs one per expression"):
        class_folders.load(tmp_path)


def rows_of(table: Path) -> list[list[str]]:
    with (table / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write(table: Path, rows: list[list]) -> None:
    with (table / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def test_table(table: Path) -> None:
    samples = csv_table.load(table, "test")
    assert samples.labels == {
        "expression": ("neutral", "happiness", "anger"),
        "valence_arousal": ("valence", "arousal"),
        "action_units": ("AU6", "AU12"),
    }
    assert samples.classes().tolist() == [0, 0, 1, 1, 2, 2, -1, -1]
    assert np.isnan(samples.targets["valence_arousal"]).all(axis=1).tolist() == [True] * 2 + [False] * 6
    assert np.isnan(samples.targets["action_units"][:, 0]).tolist() == [True, False] * 4
    assert len(set(samples.groups)) == 2 and samples.picture(0).shape == (64, 64, 3)


def test_votes_and_boxes(table: Path) -> None:
    box = ["x0", "y0", "x1", "y1"]
    write(
        table,
        [
            ["file", "expression.happy", "expression.calm", *box],
            ["test_0_0.png", 3, 1, 0, 0, 10, 20],
            ["test_0_0.png", "", "", 5, 5, 64, 64],
        ],
    )
    samples = csv_table.load(table)
    assert samples.labels["expression"] == ("happiness", "calm") and samples.ids == ("test_0_0.png", "test_0_0.png#2")
    assert (
        samples.targets["expression"][0].tolist() == [0.75, 0.25] and np.isnan(samples.targets["expression"][1]).all()
    )
    assert [samples.picture(i).shape for i in (0, 1)] == [(20, 10, 3), (59, 59, 3)]


@pytest.mark.parametrize(
    ("row", "column", "cell", "message"),
    [
        (0, 3, "emotion", "unknown: emotion"),
        (0, 0, "name", "it needs `file`"),
        (0, 5, "AU5x", "unknown: AU5x"),
        (2, 3, "hungry", "row 3: unknown expression 'hungry'"),
        (4, 4, "1.5", "row 5: valence is '1.5', expected a number from -1 to 1"),
        (4, 5, "nan", "row 5: arousal is 'nan'"),
        (2, 6, "2", "row 3: AU6 is '2', expected a number 0 or 1"),
        (2, 0, "absent.png", "row 3: there is no file"),
        (2, 0, "train_0_0.png", "train_0_0.png occurs twice"),
        (2, 1, "", "row 3: file, split and group must not be empty"),
    ],
)
def test_wrong_tables(row: int, column: int, cell: str, message: str, table: Path) -> None:
    rows = rows_of(table)
    rows[row][column] = cell
    write(table, rows)
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        csv_table.load(table, "train")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["file", "expression"]], "has no rows"),
        ([["file"], ["test_0_0.png"]], "has no labels"),
        ([["file", "valence"], ["test_0_0.png", 0]], "needs all of valence, arousal or none"),
        ([["file", "AU1", "AU1"], ["test_0_0.png", 0, 0]], "each once"),
        ([["file", "AU1"], ["test_0_0.png"]], "row 2: not as many cells"),
        ([["file", "expression", "expression.happy"], ["test_0_0.png", "", 1]], "keep one of them"),
        ([["file", "expression.happy"], ["test_0_0.png", 0]], "row 2: no vote"),
        ([["file", "AU1", "x0", "y0", "x1", "y1"], ["test_0_0.png", 0, 5, 5, 5, 9]], "row 2: the box"),
    ],
)
def test_tables_that_cannot_be(rows: list, message: str, table: Path) -> None:
    write(table, rows)
    with pytest.raises(UserError, match=message):
        csv_table.load(table)


def test_unknown_split_and_no_table(table: Path) -> None:
    with pytest.raises(UserError, match="has the splits test, train, not 'valid'"):
        csv_table.load(table, "valid")
    (table / "labels.csv").unlink()
    with pytest.raises(UserError, match="cannot read"):
        csv_table.load(table)


@pytest.mark.parametrize("name", ["class_folders", "csv_table"])
def test_predictions_of_another_tool_are_scored(name: str, request, tmp_path: Path, capsys) -> None:
    data = str(request.getfixturevalue({"class_folders": "folders", "csv_table": "table"}[name]))
    assert main(["datasets", name, "--data", data]) == 0
    lines = ["id,expression", *(f"{i},happy" for i in capsys.readouterr().out.split())]
    (tmp_path / "theirs.csv").write_text("\n".join(lines), encoding="utf-8")
    given = ["--dataset", name, "--data", data, "--out", str(tmp_path / "out")]
    assert main(["score", "--predictions", str(tmp_path / "theirs.csv"), *given]) == 0
    assert (tmp_path / "out" / f"theirs--{name}--test.json").is_file()
