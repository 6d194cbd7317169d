"""Outputs, uncertainty and vocabularies: properties that hold for any model."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import hypothesis.extra.numpy as hnp
import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion import labels, uncertainty
from emotion.errors import UserError
from emotion.outputs import Faces, Result, Task, write_file

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "schema.json").read_text(encoding="utf-8"))
PARTS = ("total", "aleatoric", "epistemic")


def distributions(rng: np.random.Generator, members: int, faces: int, classes: int) -> np.ndarray:
    """Random class distributions [M, N, K], from nearly uniform to one-hot."""
    logits = rng.normal(size=(members, faces, classes)) * rng.choice([0.01, 1, 30], size=(members, faces, 1))
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (p / p.sum(axis=-1, keepdims=True)).astype(np.float32)


def random_result(seed: int, frame: list[int], frames: int, tracked: bool = False) -> Result:
    """A result of all three kinds of tasks with `frame` as its faces' frames."""
    rng = np.random.default_rng(seed)
    n = len(frame)
    corners = np.sort(rng.uniform(0, 400, (n, 2, 2)), axis=1).reshape(n, 4)
    expression = distributions(rng, 3, n, 8)
    affect = rng.uniform(-1, 1, (3, n, 2)).astype(np.float32)
    units = rng.uniform(0, 1, (3, n, 3)).astype(np.float32)
    votes = np.stack([(expression.argmax(-1) == k).mean(axis=0) for k in range(8)], axis=-1)
    return Result(
        model="test.model",
        size=(400, 400),
        timestamps=np.arange(frames) / 25,
        frame=np.array(frame),
        faces=Faces(corners, rng.uniform(0, 1, n), rng.uniform(0, 400, (n, 5, 2)), np.arange(n) if tracked else None),
        tasks={
            "expression": Task(
                kind="categorical",
                labels=labels.AFFECTNET,
                values=expression.mean(axis=0),
                choice=votes.argmax(axis=1),
                votes=votes,
                members=expression,
                uncertainty=uncertainty.categorical(expression),
            ),
            "valence_arousal": Task(
                kind="continuous",
                labels=labels.VALENCE_AROUSAL,
                values=affect.mean(axis=0),
                bounds=(-1, 1),
                uncertainty={"epistemic": uncertainty.spread(affect)},
            ),
            "action_units": Task(
                kind="multilabel",
                labels=("AU1", "AU2", "AU4"),
                values=units.mean(axis=0),
                thresholds=np.full(3, 0.5, np.float32),
                uncertainty=uncertainty.binary(units),
            ),
        },
        source="photo.jpg",
    )


@st.composite
def results(draw: st.DrawFn) -> Result:
    frames = draw(st.integers(1, 4))
    frame = sorted(draw(st.lists(st.integers(0, frames - 1), max_size=6)))
    return random_result(draw(st.integers(0, 2**32 - 1)), frame, frames, draw(st.booleans()))


members = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 5), st.sampled_from([2, 7, 8, 26])
).map(lambda t: distributions(np.random.default_rng(t[0]), *t[1:]))


@given(members)
def test_total_is_aleatoric_plus_epistemic_and_all_lie_in_0_1(p: np.ndarray) -> None:
    parts = uncertainty.categorical(p)
    assert set(parts) == set(PARTS)
    for value in parts.values():
        assert value.shape == p.shape[1:2] and value.dtype == np.float32
        assert (value >= 0).all() and (value <= 1).all()
    np.testing.assert_allclose(parts["total"], parts["aleatoric"] + parts["epistemic"], atol=1e-6)


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(0, 3), st.just(5)), elements=st.floats(0, 1, width=32)
    )
)
def test_binary_uncertainty_is_per_label(p: np.ndarray) -> None:
    parts = uncertainty.binary(p)
    for value in parts.values():
        assert value.shape == p.shape[1:] and (value >= 0).all() and (value <= 1).all()
    np.testing.assert_allclose(parts["total"], parts["aleatoric"] + parts["epistemic"], atol=1e-6)
    np.testing.assert_allclose(parts["total"], uncertainty.binary(1 - p)["total"], atol=1e-5)


def test_uncertainty_of_known_ensembles() -> None:
    uniform = np.full((3, 1, 8), 1 / 8)
    sure = np.tile(np.eye(8)[0], (3, 1, 1))
    torn = np.eye(8)[:, None]  # eight sure members, each for another class
    expected = [(uniform, 1, 1, 0), (sure, 0, 0, 0), (torn, 1, 0, 1)]
    for p, *values in expected:
        parts = uncertainty.categorical(p)
        np.testing.assert_allclose([parts[name][0] for name in PARTS], values, atol=1e-6)


def test_rounding_never_makes_uncertainty_negative() -> None:
    over = np.zeros((2, 1, 8), np.float32)
    over[..., 0] = np.float32(1.0000001)  # a float32 softmax may exceed 1 by one step
    assert all((value >= 0).all() for value in uncertainty.categorical(over).values())


def test_one_member_has_no_epistemic_uncertainty() -> None:
    p = distributions(np.random.default_rng(0), 1, 10, 8)
    assert np.allclose(uncertainty.categorical(p)["epistemic"], 0, atol=1e-6)
    assert (uncertainty.spread(p) == 0).all()


@given(results())
@settings(max_examples=40)
def test_document_follows_the_published_schema(result: Result) -> None:
    document = json.loads(result.to_json())
    jsonschema.validate(document, SCHEMA)
    assert document["labels"] == {name: list(task.labels) for name, task in result.tasks.items()}
    assert len(document["frames"]) == len(result.timestamps)
    faces = [face for frame in document["frames"] for face in frame["faces"]]
    assert len(faces) == len(result)
    for i, face in enumerate(faces):
        np.testing.assert_allclose(face["box"], result.faces.boxes[i], atol=0.006)
        for name, task in result.tasks.items():
            assert list(face[name]["values"]) == list(task.labels)
            np.testing.assert_allclose(list(face[name]["values"].values()), task.values[i], atol=1e-6)
        above = result.tasks["action_units"].values[i] >= 0.5
        assert face["action_units"]["present"] == list(np.array(["AU1", "AU2", "AU4"])[above])
        assert np.shape(face["expression"]["members"]) == (3, 8)


@given(results())
@settings(max_examples=40)
def test_table_holds_every_frame_and_agrees_with_the_document(result: Result) -> None:
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert rows and list(rows[0]) == list(result.to_frame().columns)
    assert len(rows) == sum(max(1, int((result.frame == f).sum())) for f in range(len(result.timestamps)))
    frames = result.to_dict()["frames"]
    for row in rows:
        faces = frames[int(row["frame"])]["faces"]
        assert float(row["timestamp"]) == frames[int(row["frame"])]["timestamp"]
        if row["face"] == "":
            assert not faces and not row["expression"] and not row["x0"]
            continue
        face = faces[int(row["face"]) - 1]
        assert [float(row[k]) for k in ("x0", "y0", "x1", "y1")] == face["box"]
        assert row["expression"] == face["expression"]["label"]
        for name, task in result.tasks.items():
            for label in task.labels:
                assert float(row[f"{name}.{label}"]) == face[name]["values"][label]
        assert float(row["expression.uncertainty.total"]) == face["expression"]["uncertainty"]["total"]
        spread = face["valence_arousal"]["uncertainty"]["epistemic"]["valence"]
        assert float(row["valence_arousal.valence.uncertainty.epistemic"]) == spread


def test_columns_do_not_depend_on_what_was_found() -> None:
    found, nothing = random_result(0, [0, 0], 1), random_result(0, [], 1)
    assert found.to_csv().splitlines()[0] == nothing.to_csv().splitlines()[0]
    assert len(nothing.to_csv().splitlines()) == 2


def test_values_that_are_not_finite_are_empty_not_text() -> None:
    task = Task("continuous", ("valence",), np.array([[np.nan]]), bounds=(-1, 1))
    result = Result("m", (10, 10), np.zeros(1), np.zeros(1), Faces(np.zeros((1, 4)), np.ones(1)), {"affect": task})
    assert result.to_dict()["frames"][0]["faces"][0]["affect"]["values"] == {"valence": None}
    assert next(csv.DictReader(io.StringIO(result.to_csv())))["affect.valence"] == ""


@given(results(), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_parts_of_a_result_concatenate_to_the_whole(result: Result, random) -> None:
    cut = random.randint(0, len(result))
    parts = [result[:cut], result[cut:]]
    faces = Faces.concatenate([p.faces for p in parts])
    np.testing.assert_array_equal(faces.boxes, result.faces.boxes)
    np.testing.assert_array_equal(faces.landmarks, result.faces.landmarks)
    for name, task in result.tasks.items():
        joined = Task.concatenate([p.tasks[name] for p in parts])
        np.testing.assert_array_equal(joined.values, task.values)
        for kind, value in task.uncertainty.items():
            np.testing.assert_array_equal(joined.uncertainty[kind], value)
        for field in ("choice", "votes", "members"):
            np.testing.assert_array_equal(getattr(joined, field), getattr(task, field))


def test_subset_by_mask_index_and_slice_agree() -> None:
    result = random_result(1, [0, 0, 1], 2, tracked=True)
    for index in (1, [1], np.array([False, True, False]), slice(1, 2)):
        part = result[index]
        assert len(part) == 1 and part.faces.track_ids.tolist() == [1] and part.frame.tolist() == [0]
        np.testing.assert_array_equal(part.tasks["expression"].members, result.tasks["expression"].members[:, 1:2])
        assert part.tasks["expression"].names() == result.tasks["expression"].names()[1:2]
    assert len(part.timestamps) == 2


def test_landmarks_survive_only_where_every_part_has_them() -> None:
    box = np.array([[0, 0, 2, 3]])
    bare, full = Faces(box, [0.5]), Faces(box, [0.5], np.zeros((1, 5, 2)))
    assert Faces.concatenate([bare, full]).landmarks is None
    assert Faces.concatenate([Faces.empty(), full]).landmarks is not None
    assert len(Faces.concatenate([])) == 0
    assert full.areas.tolist() == [6]


def categorical(rows: int) -> dict[str, Task]:
    return {"expression": Task("categorical", ("a", "b"), np.zeros((rows, 2)))}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Faces(np.zeros((2, 4)), np.zeros(1)), "2 boxes but 1 scores"),
        (lambda: Task("categorical", ("a", "b"), np.zeros((3, 3))), r"expected \[N, 2\]"),
        (lambda: Task("other", ("a",), np.zeros((1, 1))), "kind must be"),
        (lambda: Result("m", (1, 1), [0], [0], Faces(np.zeros((1, 4)), [1]), categorical(2)), "2 rows of expression"),
        (lambda: Result("m", (1, 1), [0], [1], Faces(np.zeros((1, 4)), [1]), {}), "frame numbers"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    result = random_result(2, [0], 1)
    assert result.to_json(tmp_path / "a.json") == (tmp_path / "a.json").read_text(encoding="utf-8")
    assert result.to_csv(tmp_path / "a.csv") == (tmp_path / "a.csv").read_text(encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "missing" / "a.json", tmp_path / "folder"):
        with pytest.raises(UserError, match="cannot write"):
            write_file(place, b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.json", "folder"]


def test_canonical_expressions_understand_usual_spellings() -> None:
    assert [labels.canonical(x) for x in ("Happy", " angry ", "SURPRISED", "fearful", "sad", "disgusted")] == [
        "happiness", "anger", "surprise", "fear", "sadness", "disgust",
    ]  # fmt: skip
    for vocabulary in (labels.AFFECTNET, labels.FERPLUS, labels.CKPLUS, labels.FER2013, labels.ABAW, labels.RAVDESS):
        assert [labels.canonical(x.title()) for x in vocabulary] == list(vocabulary)
        assert len(set(vocabulary)) == len(vocabulary)
    with pytest.raises(ValueError, match="bored"):
        labels.canonical("bored")


def test_index_maps_lead_back() -> None:
    for source in (labels.FERPLUS, labels.CKPLUS, labels.FER2013, labels.RAVDESS):
        for target in (labels.AFFECTNET, labels.ABAW):
            for name, i in zip(source, labels.index_map(source, target), strict=True):
                assert (target[i] == name) if i >= 0 else (name not in target)
    assert labels.index_map(labels.RAVDESS, labels.AFFECTNET).count(-1) == 1  # calm
    assert len(labels.EMOTIC) == len(set(labels.EMOTIC)) == 26
    for units in (labels.ABAW1_ACTION_UNITS, labels.ABAW2_ACTION_UNITS):
        assert set(units) <= labels.ACTION_UNIT_NAMES.keys()
