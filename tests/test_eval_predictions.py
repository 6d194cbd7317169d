"""Files of predictions: what is wrong with a table or with a file of ours is told in one message."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from emotion.errors import UserError
from emotion.labels import FERPLUS
from eval import predictions
from eval.predictions import Predictions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,expression\na,happiness\n", "has no column `id`"),
        ("id,remark\na,b\n", "has no columns of predictions"),
        ("id,expression\n", "has no rows"),
        ("id,expression\na,joyful\n", "row 2: unknown expression 'joyful'"),
        ("id,expression.joyful\na,1\n", "column expression.joyful"),
        ("id,expression\na,happiness,x\n", "row 2: 3 cells under 2 headers"),
        ("id,valence,arousal\na,0.5,-1.5\n", "arousal is '-1.5', expected a number from -1 to 1"),
        ("id,AU1\na,0.5\na,1\n", "sample 'a' again, first in row 2"),
        ("id,AU1,AU1\na,0.5,1\n", "has a column twice"),
        ("id,valence\na,0.5\n", "valence and arousal are judged together"),
        ("id,expression.happy,expression.joy\na,0.5,0.5\n", "two columns of probabilities of happiness"),
    ],
)
def test_wrong_tables(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        predictions.read(path)


def test_files_that_are_no_predictions(tmp_path: Path) -> None:
    for name in ("a.npz", "a.parquet", "a.csv", "a.txt"):
        (tmp_path / name).write_bytes(b"\xff\xfe not that")
        with pytest.raises(UserError, match=name):
            predictions.read(tmp_path / name)


def test_own_file_reads_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = Predictions(
        ids=("a", "bé"),
        labels={"action_units": ("AU1", "AU2")},
        values={"action_units": rng.random((2, 2))},
        choice={"action_units": np.array([[0, 1], [1, 1]], np.uint8)},
        about={"model": "m"},
    )
    predictions.write(given, tmp_path / "p.npz")
    back = predictions.read(tmp_path / "p.npz")
    assert (back.ids, back.labels, back.about, back.hard) == (given.ids, given.labels, given.about, ())
    np.testing.assert_array_equal(back.values["action_units"], given.values["action_units"])
    np.testing.assert_array_equal(back.choice["action_units"], given.choice["action_units"])


def own(**change) -> Predictions:
    """Predictions of every kind by a model of ours."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(8), 3)
    labels = {"expression": FERPLUS, "valence_arousal": ("valence", "arousal"), "action_units": ("AU1", "AU2")}
    values = {"expression": p, "valence_arousal": rng.uniform(-1, 1, (3, 2)), "action_units": rng.random((3, 2))}
    choice = {"expression": p.argmax(axis=1), "action_units": (values["action_units"] >= 0.5).astype(np.uint8)}
    given = Predictions(("a", "b", "c"), labels, values, choice, {"expression": rng.random(3)}, about={"model": "m"})
    return dataclasses.replace(given, **{k: {**getattr(given, k), **v} for k, v in change.items()})


def test_a_file_of_every_kind_reads_back(tmp_path: Path) -> None:
    predictions.write(own(), tmp_path / "p.npz")
    back = predictions.read(tmp_path / "p.npz")
    assert back.labels == own().labels and set(back.choice) == {"expression", "action_units"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {"expression": own().values["expression"] * 7 - 3}}, "sample 'a': expression is not from 0 to 1"),
        ({"values": {"expression": own().values["expression"] / 2}}, "sample 'a': probabilities of expression do not"),
        ({"values": {"valence_arousal": np.array([[0, 0], [0, 1.5], [0, 0]])}}, "sample 'b': valence_arousal is not"),
        ({"values": {"action_units": np.full((3, 2), np.nan)}}, "sample 'a': action_units is not from 0 to 1"),
        ({"values": {"expression": np.ones((3, 1))}}, "expression of shape (3, 1) has the labels"),
        ({"labels": {"expression": tuple(f"x{k}" for k in range(8))}}, "unknown expression 'x0'"),
        ({"labels": {"expression": ("anger",) * 8}}, "has the labels anger, anger"),
        ({"labels": {"action_units": ("AU1", "AU99")}}, "has the labels AU1, AU99"),
        ({"labels": {"valence_arousal": ("valence", "valence")}}, "has the labels valence, valence"),
        ({"labels": {"gaze": ("left",)}}, "not of the same tasks"),
        ({"choice": {"expression": np.array([0, 8, 0])}}, "choices of expression are from 0 to 8, there are 8 classes"),
        ({"choice": {"expression": np.zeros(3)}}, "no choice of expression for every sample"),
        ({"choice": {"action_units": np.full((3, 2), 2)}}, "choices of action_units are from 2 to 2"),
        ({"uncertainty": {"expression": np.array([0.1, 0.2, np.nan])}}, "sample 'c': the uncertainty of expression"),
        ({"uncertainty": {"expression": np.zeros((3, 5))}}, "uncertainty of expression has the shape"),
    ],
)
def test_own_files_keep_the_rules_of_tables(change: dict, message: str, tmp_path: Path) -> None:
    predictions.write(own(**change), tmp_path / "p.npz")
    with pytest.raises(UserError, match=r"p\.npz") as error:
        predictions.read(tmp_path / "p.npz")
    assert message in str(error.value)


@pytest.mark.parametrize("damage", [{"about": []}, {"labels": {}}, {"hard": 1}, {"labels": [1]}])
def test_own_files_with_an_odd_head(damage: dict, tmp_path: Path) -> None:
    head = {"labels": {"action_units": ["AU1"]}, "hard": [], "about": {}} | damage
    arrays = {
        "ids": np.array(["a"]),
        "values.action_units": np.zeros((1, 1)),
        "choice.action_units": np.zeros((1, 1), int),
    }
    predictions.write_arrays(head, arrays, tmp_path / "p.npz")
    with pytest.raises(UserError, match=r"p\.npz"):
        predictions.read(tmp_path / "p.npz")
    predictions.write_arrays(head, arrays | {"ids": np.array([1])}, tmp_path / "p.npz")
    with pytest.raises(UserError, match=r"p\.npz"):
        predictions.read(tmp_path / "p.npz")


def test_no_choice_at_all(tmp_path: Path) -> None:
    predictions.write(dataclasses.replace(own(), choice={}), tmp_path / "p.npz")
    with pytest.raises(UserError, match="no choice of expression"):
        predictions.read(tmp_path / "p.npz")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_flipped_byte_is_one_message(suffix: str, tmp_path: Path) -> None:
    """Wherever it is: the file still reads, or is refused by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / f"p{suffix}"
    if suffix == ".npz":
        predictions.write(own(), path)
    else:
        pq.write_table(pa.table({"id": ["á", "b"], "expression": ["happiness", "anger"]}), path)
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 300)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            predictions.read(path)
        except UserError as error:
            assert path.name in str(error)
