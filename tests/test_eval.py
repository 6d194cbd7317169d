"""`python -m eval`: from data and predictions to result files, and one message with exit code 2 for bad input."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from emotion import datasets
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import FERPLUS
from eval import bootstrap, predictions, results, scoring
from eval.__main__ import main
from eval.metrics.ccc.ccc_core import ccc
from eval.predictions import Predictions


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return datasets.reader("ferplus").fake(tmp_path_factory.mktemp("data") / "ferplus", per_class=3)


@pytest.fixture
def table(faces: Path, tmp_path: Path) -> Path:
    """Predictions for the test split, mostly right, as another tool would write them."""
    samples, rng = datasets.reader("ferplus").load(faces, "test"), np.random.default_rng(0)
    path = tmp_path / "theirs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(f"expression.{name}" for name in FERPLUS), "remark"])
        for name, c in zip(samples.ids, samples.classes()):
            p = rng.dirichlet(np.ones(8)) * 0.6 + 0.4 * np.eye(8)[c if rng.random() < 0.7 else rng.integers(8)]
            writer.writerow([name, *p.round(6), "-"])
    return path


def change(table: Path, row: int, column: int, value: str) -> None:
    """Overwrite one cell, counted from 0 without the header."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    rows[row + 1][column] = value
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def score(table: Path, faces: Path, out: Path, *more: str) -> int:
    given = ["--dataset", "ferplus", "--data", str(faces), "--out", str(out)]
    return main(["score", "--predictions", str(table), "--name", "theirs", *given, *more])


def test_score_writes_a_result_that_reads_back(table: Path, faces: Path, tmp_path: Path, capsys) -> None:
    assert score(table, faces, tmp_path) == 0
    result = results.read(tmp_path / "theirs--ferplus--test.json")
    samples = datasets.reader("ferplus").load(faces, "test")
    found = result.tasks["expression"]
    given = predictions.match(predictions.read(table), samples, table)
    right = given.choice["expression"] == samples.classes()
    assert found.metrics["accuracy"].value == pytest.approx(right.mean())
    assert found.metrics["accuracy"].low < right.mean() < found.metrics["accuracy"].high
    assert result.data.fingerprint == samples.fingerprint and result.data.n == found.n == len(samples)
    assert np.array(found.confusion).sum() == found.n and set(found.per_label["recall"]) == set(FERPLUS)
    assert {"ece", "brier", "nll"} <= set(found.calibration)
    assert "accuracy" in capsys.readouterr().out and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("change_to", "message"),
    [
        ((2, 1, "nan"), "row 4: expression.neutral is 'nan', expected a number from 0 to 1"),
        ((2, 1, "1.5"), "row 4: expression.neutral is '1.5'"),
        ((0, 1, "x"), "row 2: expression.neutral is 'x'"),
        ((5, 3, "0.9"), "row 7: probabilities of expressions sum to"),
        ((5, 0, "nobody.png"), "are for samples that this split lacks: 'nobody.png' (row 7)"),
    ],
)
def test_wrong_cells_are_named_by_row(change_to, message, table, faces, tmp_path, capsys) -> None:
    change(table, *change_to)
    assert score(table, faces, tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_and_repeated_samples(table: Path, faces: Path, tmp_path: Path, capsys) -> None:
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([*lines, lines[3]]), encoding="utf-8")
    assert score(table, faces, tmp_path / "out") == 2
    assert f"row {len(lines) + 1}: sample" in (error := capsys.readouterr().err) and "first in row 4" in error
    table.write_text("\n".join(lines[:-2]), encoding="utf-8")
    assert score(table, faces, tmp_path / "out") == 2
    assert "2 of" in (error := capsys.readouterr().err) and "have no prediction" in error


def test_parquet_equals_csv(table: Path) -> None:
    import pandas as pd

    path = table.with_suffix(".parquet")
    pd.read_csv(table).to_parquet(path)
    a, b = predictions.read(table), predictions.read(path)
    assert a.ids == b.ids
    np.testing.assert_array_equal(a.values["expression"], b.values["expression"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="is the file complete"):
        predictions.read(path)


def test_rows_are_counted_in_the_file(table: Path, faces: Path, tmp_path: Path, capsys) -> None:
    """Blank lines have a place, too."""
    lines = table.read_text(encoding="utf-8").splitlines()
    for broken, message in (("1.5", "row 7: expression.neutral is '1.5'"), ("", "row 7: expression.neutral is ''")):
        cells = lines[4].split(",")
        rows = [*lines[:2], "", "", *lines[2:4], ",".join([cells[0], broken, *cells[2:]]), *lines[5:]]
        table.write_text("\n".join(rows), encoding="utf-8")
        assert score(table, faces, tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    table.write_text("\n".join([*lines[:2], "", "nobody,0,0,1,0,0,0,0,0,-"]), encoding="utf-8")
    assert score(table, faces, tmp_path / "out") == 2
    assert "'nobody' (row 4)" in capsys.readouterr().err


def test_own_file_of_other_data_is_refused(tmp_path: Path) -> None:
    axes = {"valence_arousal": ("valence", "arousal")}
    samples = samples_of({"valence_arousal": np.zeros((2, 2))}, axes)
    given = Predictions(samples.ids, axes, {"valence_arousal": np.zeros((2, 2))}, about={"fingerprint": "other"})
    with pytest.raises(UserError, match="with other samples or labels"):
        predictions.match(given, samples, "p.npz")


# -- scoring ---------------------------------------------------------------------------------------------------------


def samples_of(targets: dict[str, np.ndarray], labels: dict[str, tuple[str, ...]], groups=None) -> Samples:
    n = len(next(iter(targets.values())))
    ids = tuple(f"s{i}" for i in range(n))
    values = {k: np.asarray(v, np.float32) for k, v in targets.items()}
    return Samples("set", "test", ids, lambda i: np.zeros((4, 4), np.uint8), labels, values, groups)


def test_other_vocabulary() -> None:
    samples = samples_of({"expression": np.eye(3)[[0, 1, 2]]}, {"expression": ("anger", "neutral", "calm")})
    labels = ("neutral", "happiness", "anger")
    p = np.array([[0.2, 0.7, 0.1], [0.9, 0.1, 0.0], [0.5, 0.2, 0.3]])
    given = Predictions(samples.ids, {"expression": labels}, {"expression": p}, {"expression": p.argmax(1)})
    found = scoring.score(given, samples)["expression"]
    # without happiness the first is neutral (0.2 against 0.1), so wrong; calm is never predicted
    assert found.confusion == ((0, 1, 0), (0, 1, 0), (0, 1, 0))
    assert found.notes == (
        "never predicted by this model: calm",
        "left out of this model's answers: happiness",
    )


def test_units_that_the_model_lacks_are_left_out() -> None:
    samples = samples_of({"action_units": [[1, 0], [0, np.nan], [1, 1]]}, {"action_units": ("AU1", "AU2")})
    p = np.array([[0.9], [0.2], [0.4]])
    given = Predictions(samples.ids, {"action_units": ("AU1",)}, {"action_units": p}, {"action_units": p > 0.5})
    found = scoring.score(given, samples)["action_units"]
    assert found.labels == ("AU1",) and found.notes == ("not scored, the model lacks them: AU2",)
    assert found.metrics["f1"].value == pytest.approx(2 / 3)
    assert found.metrics["accuracy"].value == pytest.approx(2 / 3)


def test_affect_equals_the_metric_and_leaves_gaps_out() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.uniform(-1, 1, (40, 2))
    wanted[3] = np.nan
    given = wanted + rng.normal(0, 0.2, wanted.shape)
    given[3] = 0.5
    axes = {"valence_arousal": ("valence", "arousal")}
    samples = samples_of({"valence_arousal": wanted}, axes, np.repeat(["a", "b"], 20))
    found = scoring.score(Predictions(samples.ids, axes, {"valence_arousal": given}), samples)["valence_arousal"]
    wanted = samples.targets["valence_arousal"].astype(np.float64)
    assert found.n == 39
    assert found.metrics["ccc_valence"].value == pytest.approx(ccc(given[:, 0], wanted[:, 0]), abs=1e-9)
    rmse = np.sqrt(np.nanmean((given[:, 1] - wanted[:, 1]) ** 2))
    assert found.metrics["rmse_arousal"].value == pytest.approx(rmse, abs=1e-9)
    each = [ccc(given[r, k], wanted[r, k]) for k in range(2) for r in (slice(0, 20), slice(20, 40))]
    assert found.metrics["ccc_per_video"].value == pytest.approx(np.mean(each), abs=1e-9)


def test_nothing_in_common_and_nothing_labelled() -> None:
    axes = {"valence_arousal": ("valence", "arousal")}
    samples = samples_of({"valence_arousal": np.full((2, 2), np.nan)}, axes)
    found = scoring.score(Predictions(samples.ids, axes, {"valence_arousal": np.zeros((2, 2))}), samples)
    assert found["valence_arousal"].n == 0 and not found["valence_arousal"].metrics
    with pytest.raises(UserError, match="nothing to score"):
        scoring.score(Predictions(samples.ids, {}, {}), samples)


# -- bootstrap -------------------------------------------------------------------------------------------------------


def test_interval_of_a_mean_is_the_textbook_one() -> None:
    terms = np.repeat([[1.0, 1.0], [0.0, 1.0]], [300, 700], axis=0)
    low, high = bootstrap.intervals(terms, lambda s: {"mean": s[..., 0] / s[..., 1]}, count=4000)["mean"]
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((0.3 - spread, 0.3 + spread), abs=0.003)


def test_a_single_video_has_no_interval() -> None:
    rng = np.random.default_rng(0)
    axes, wanted = {"valence_arousal": ("valence", "arousal")}, rng.uniform(-1, 1, (40, 2))
    given = (wanted + rng.normal(0, 0.1, wanted.shape)).clip(-1, 1)
    for groups, some in ((np.zeros(40, int), False), (np.repeat([0, 1], 20), True)):
        samples = samples_of({"valence_arousal": wanted}, axes, groups)
        mine = Predictions(samples.ids, axes, {"valence_arousal": given})
        ccc = scoring.score(mine, samples)["valence_arousal"].metrics["ccc"]
        assert (ccc.low is not None and ccc.high is not None) == some
        worse = dataclasses.replace(mine, values={"valence_arousal": given * 0.5})
        test = scoring.paired(mine, worse, samples)["valence_arousal"]["ccc"]
        assert np.isfinite([test["low"], test["high"]]).all() == some and test["difference"] > 0
    assert np.isnan(bootstrap.limits([0.5, 0.5], 1)).all() and test["p"] > 0.05


def test_whole_groups_are_drawn() -> None:
    values = np.repeat([0.0, 1.0, 0.0, 1.0, 1.0], 200)[:, None]
    terms, groups = np.hstack([values, np.ones_like(values)]), np.repeat(list("abcde"), 200)
    widths = [
        np.diff(bootstrap.intervals(terms, lambda s: {"mean": s[..., 0] / s[..., 1]}, g)["mean"])
        for g in (None, groups)
    ]
    assert widths[1] > 5 * widths[0]


def test_paired_test_sees_a_difference_and_its_absence() -> None:
    rng = np.random.default_rng(0)

    def terms(hits: np.ndarray) -> np.ndarray:
        return np.stack([hits, np.ones(len(hits))], axis=1)

    def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": sums[..., 0] / sums[..., 1]}

    a = (rng.random(400) < 0.8).astype(float)
    worse = a * (rng.random(400) < 0.85)
    found = bootstrap.paired(terms(a), terms(worse), figures, count=2000)["mean"]
    assert found["difference"] == pytest.approx(a.mean() - worse.mean())
    assert found["low"] > 0 and found["p"] < 0.01
    same = bootstrap.paired(terms(a), terms(a[::-1]), figures, count=2000)["mean"]
    assert same["difference"] == 0 and same["p"] == 1 and same["low"] < 0 < same["high"]


def test_holm() -> None:
    assert bootstrap.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


# -- result files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d | {"schema": "emotion-result/9"}, "has schema 'emotion-result/9', this version reads"),
        (lambda d: d | {"extra": 1}, "extra: "),
        (lambda d: {k: v for k, v in d.items() if k != "data"}, "data: "),
        (lambda d: d | {"data": d["data"] | {"n": "many"}}, "data.n: "),
        (lambda d: [d], "has schema None"),
    ],
)
def test_damaged_result_is_named(damage, message, table, faces, tmp_path) -> None:
    score(table, faces, tmp_path)
    path = tmp_path / "theirs--ferplus--test.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(UserError, match=r"theirs--ferplus--test\.json") as error:
        results.read(path)
    assert message in str(error.value)


def test_result_round_trip(table, faces, tmp_path) -> None:
    score(table, faces, tmp_path)
    path = tmp_path / "theirs--ferplus--test.json"
    result = results.read(path)
    results.write(result, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert dataclasses.replace(result, schema=results.SCHEMA) == result


def test_nowhere_to_write_and_nothing_to_read(table, faces, tmp_path, capsys) -> None:
    assert score(table, faces, table) == 2
    assert "cannot write" in capsys.readouterr().err
    assert main(["leaderboard", "--results", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["run", "--model", "m", "--dataset", "ferplus", "--data", str(faces), "--batch", "0"])


# -- other commands --------------------------------------------------------------------------------------------------


def test_compare(table, faces, tmp_path, capsys) -> None:
    other = tmp_path / "other.csv"
    other.write_bytes(table.read_bytes())
    change(other, 0, 1, "1")
    for column in range(2, 9):
        change(other, 0, column, "0")
    given = ["--dataset", "ferplus", "--data", str(faces), "--out", str(tmp_path)]
    assert main(["compare", str(table), str(other), *given]) == 0
    out = capsys.readouterr().out
    assert "A - B" in out and "They differ most on: " in out
    assert main(["compare", str(table), "never.run", *given]) == 2
    assert "python -m eval run --model never.run" in capsys.readouterr().err


def test_datasets(tmp_path, capsys) -> None:
    assert main(["datasets"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in datasets.READERS)
    assert main(["datasets", "ferplus", "--fake", str(tmp_path / "copy")]) == 0
    assert main(["datasets", "ferplus", "--data", str(tmp_path / "copy")]) == 0
    assert "fer0" in capsys.readouterr().out
    assert main(["datasets", "ferplus", "--fake", str(tmp_path / "copy")]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    persons = datasets.reader("persons").fake(tmp_path / "persons")
    assert main(["datasets", "persons", "--data", str(persons)]) == 0
    assert "test_0.png" in capsys.readouterr().out
    assert main(["datasets", "ferplus"]) == 0
    assert "fer2013new.csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "nonsense"], "no reader for data set 'nonsense'"),
        (["--dataset", "ferplus", "--split", "both"], "FER+ has the splits"),
        (["--dataset", "ferplus", "--option", "colour=red"], "ferplus has no option 'colour=red'"),
    ],
)
def test_wrong_arguments(arguments, message, table, faces, tmp_path, capsys) -> None:
    assert main(["score", "--predictions", str(table), "--data", str(faces), "--out", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert main(["score", "--predictions", str(table), "--data", str(faces / "no"), "--dataset", "ferplus"]) == 2
    assert "no folder" in capsys.readouterr().err
