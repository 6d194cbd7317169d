"""Predictions for labelled faces: our own file (.npz), and tables that other tools wrote (.csv, .parquet).

Columns of a table, one row per sample:
- `id`: the sample's name as the reader gives it (`python -m eval datasets NAME --data DIR` lists them);
- `expression`: a label, and/or `expression.<label>` for every label: probabilities that sum to 1;
- `valence`, `arousal`: in [-1, 1];
- `AU1`, `AU2` ...: probabilities, or 0 and 1; a unit is present from 0.5 on;
- `expression.uncertainty.total`, `valence.uncertainty.total`, `AU1.uncertainty.total` ...: larger is less sure.
Other columns are ignored. The prefixes `valence_arousal.` and `action_units.` of our own tables are understood.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import ACTION_UNIT_NAMES, VALENCE_AROUSAL, canonical
from eval.arrays import DAMAGED, read_arrays, unreadable, write_arrays

SHOWN = 8  # problems that a message lists; the rest is counted
PRESENT = 0.5
ROUNDING = 1e-6  # by which values that our models wrote may miss their bounds
SUM = 1e-3  # by which probabilities may miss a sum of one
UNCERTAINTIES = ("total", "epistemic")  # which one is judged: the first that a model gives
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Predictions:
    """What one model says about N samples.

    Attributes:
        ids: sample names.
        labels: vocabulary per task.
        values: task -> float [N, K], probabilities or values.
        choice: "expression" -> int [N], the class; "action_units" -> 0 or 1 [N, U].
        uncertainty: task -> float [N], or [N, K] for values and action units, larger is less sure; where given.
        hard: tasks without probabilities: `values` only repeat the choice.
        about: model, data set and how they were made, in words.
        lines: of a table, every sample's row in the file, for messages.
    """

    ids: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    values: dict[str, np.ndarray]
    choice: dict[str, np.ndarray] = field(default_factory=dict)
    uncertainty: dict[str, np.ndarray] = field(default_factory=dict)
    hard: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    lines: tuple[int, ...] = ()

    def take(self, rows: np.ndarray) -> Predictions:
        """Some rows, by index."""
        parts = {name: {k: v[rows] for k, v in getattr(self, name).items()} for name in _ARRAYS}
        return Predictions(tuple(self.ids[i] for i in rows), self.labels, hard=self.hard, about=self.about, **parts)


_ARRAYS = ("values", "choice", "uncertainty")


def write(predictions: Predictions, path: Path) -> None:
    """Write the .npz file; it appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    head = {"labels": predictions.labels, "hard": predictions.hard, "about": predictions.about}
    arrays = {f"{name}.{task}": v for name in _ARRAYS for task, v in getattr(predictions, name).items()}
    write_arrays(head, {"ids": np.array(predictions.ids, dtype=str), **arrays}, path)


def read(path: Path) -> Predictions:
    """Predictions of any supported file.

    Raises:
        UserError: unreadable, another format, or rows that are wrong (named).
    """
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".csv":
        return from_table(*_read_csv(path), path)
    if path.suffix in (".parquet", ".pq"):
        columns = _read_parquet(path)
        return from_table(columns, range(1, 1 + max(map(len, columns.values()), default=0)), path)
    raise UserError(f"{path}: predictions are .npz (ours), .csv or .parquet; scenes are .json (COCO results)")


def _read_npz(path: Path) -> Predictions:
    head, arrays = read_arrays(path)
    try:
        labels = {task: tuple(names) for task, names in head["labels"].items()}
        ids = arrays.pop("ids")
        if ids.ndim != 1 or ids.dtype.kind != "U" or not isinstance(head["about"], dict):
            raise ValueError("its ids are no names, or it does not say what it is of")
        parts: dict[str, dict[str, np.ndarray]] = {name: {} for name in _ARRAYS}
        for key, array in arrays.items():
            name, task = key.split(".")
            parts[name][task] = array
            if len(array) != len(ids):
                raise ValueError(f"{len(ids)} ids but {len(array)} rows of {key}")
        found = Predictions(tuple(ids.tolist()), labels, hard=tuple(head["hard"]), about=head["about"], **parts)
        _check(found)
        return found
    except DAMAGED as error:
        raise unreadable(path, error) from error


def _check(found: Predictions) -> None:
    """What holds for tables holds for a file of ours, too.

    Raises:
        ValueError: says what is wrong and of which sample.
    """
    if found.labels.keys() != found.values.keys() or not {*found.choice, *found.uncertainty} <= found.values.keys():
        raise ValueError("labels, values, choices and uncertainties are not of the same tasks")

    def report(bad: np.ndarray, what: str) -> None:
        if bad.any():
            raise ValueError(f"sample {found.ids[int(bad.argmax())]!r}: {what}")

    for task, values in found.values.items():
        labels, low = found.labels[task], -1 if task == "valence_arousal" else 0
        if not _known(task, labels) or values.shape != (len(found.ids), len(labels)):
            raise ValueError(f"{task} of shape {values.shape} has the labels {', '.join(map(str, labels))}")
        inside = (values >= low - ROUNDING) & (values <= 1 + ROUNDING)
        report(~inside.all(axis=1), f"{task} is not from {low} to 1")
        if task == "action_units":
            _check_choice(found, task, values.shape, 2)
        elif task != "valence_arousal":
            report(np.abs(values.sum(axis=1) - 1) > SUM, f"probabilities of {task} do not sum to 1")
            _check_choice(found, task, values.shape[:1], len(labels))
        if (unsure := found.uncertainty.get(task)) is not None:
            if unsure.shape not in (values.shape, values.shape[:1]):
                raise ValueError(f"uncertainty of {task} has the shape {unsure.shape}")
            sound = np.isfinite(unsure) & (unsure >= -ROUNDING)
            report(~sound.reshape(len(values), -1).all(axis=1), f"the uncertainty of {task} is no number from 0 on")


def _known(task: str, labels: tuple[str, ...]) -> bool:
    """Whether a task's labels are of its vocabulary, each of them once."""
    if task == "valence_arousal":
        return sorted(labels) == sorted(VALENCE_AROUSAL)
    if task == "action_units":
        return len(set(labels)) == len(labels) > 0 and set(labels) <= ACTION_UNIT_NAMES.keys()
    return len(set(labels)) == len(labels) > 0 and [canonical(name) for name in labels] == list(labels)


def _check_choice(found: Predictions, task: str, shape: tuple[int, ...], classes: int) -> None:
    choice = found.choice.get(task)
    if choice is None or choice.shape != shape or choice.dtype.kind not in "iub":
        raise ValueError(f"there is no choice of {task} for every sample")
    if choice.size and not (choice.min() >= 0 and choice.max() < classes):
        raise ValueError(f"choices of {task} are from {choice.min()} to {choice.max()}, there are {classes} classes")


def concatenate(parts: list[Predictions]) -> Predictions:
    """Parts of one run, one after the other."""

    def join(name: str) -> dict[str, np.ndarray]:
        columns = [getattr(p, name) for p in parts]
        return {task: np.concatenate([c[task] for c in columns]) for task in columns[0]}

    ids = tuple(i for p in parts for i in p.ids)
    return Predictions(ids, parts[0].labels, **{name: join(name) for name in _ARRAYS}, about=parts[0].about)


def origin(model: Any, data: Any) -> dict[str, Any]:
    """What predictions are of (a loaded model, samples or scenes); only parts of the same are put together."""
    passes = getattr(model, "passes", 0)  # of Monte Carlo dropout
    return ({"mc_dropout": passes} if passes else {}) | {
        "model": model.card.name,
        "sha256": model.card.sha256,
        "config": hashlib.sha256(repr(model.config).encode()).hexdigest(),
        "dataset": data.dataset,
        "split": data.split,
        "fingerprint": data.fingerprint,
    }


def kept_part(path: Path, about: dict[str, Any], ids: tuple[str, ...]) -> Predictions | None:
    """A part of an earlier run, if it is of the same model and the same samples."""
    part = read(path)
    return part if part.about == about and part.ids == ids else None


def _read_csv(path: Path) -> tuple[Columns, list[int]]:
    """The columns, and every row's last line in the file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            head = [name.strip() for name in next(rows, [])]
            if len(set(head)) < len(head):
                raise UserError(f"{path} has a column twice: {', '.join(head)}")
            table, lines = [], []
            for row in filter(None, rows):
                if len(row) != len(head):
                    raise UserError(f"{path} row {rows.line_num}: {len(row)} cells under {len(head)} headers")
                table.append(row)
                lines.append(rows.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return {name: [row[k] for row in table] for k, name in enumerate(head)}, lines


def _read_parquet(path: Path) -> Columns:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError("reading Parquet needs pyarrow: pip install 'emotion[eval]', or give a CSV file") from error
    try:
        return pq.read_table(path).to_pydict()
    except Exception as error:  # damaged bytes meet the reader with any exception type
        raise UserError(f"cannot read {path}: {error}; is the file complete?") from error


# -- foreign tables ---------------------------------------------------------------------------------------------------


def from_table(columns: Columns, lines: Sequence[int], path: Path) -> Predictions:
    """Predictions from named columns.

    Args:
        columns: name -> cells, strings or numbers.
        lines: where every row is in the file.
        path: for messages.

    Raises:
        UserError: lists wrong cells by row: no number, outside its range, an unknown label, an id given twice.
    """
    columns = {name.removeprefix("valence_arousal.").removeprefix("action_units."): v for name, v in columns.items()}
    if "id" not in columns:
        raise UserError(f"{path} has no column `id`; its columns are {', '.join(columns) or 'none'}")
    if not columns["id"]:
        raise UserError(f"{path} has no rows")
    problems: list[str] = []
    report = _Reporter(path, lines, problems)
    ids = tuple(str(v) for v in columns["id"])
    seen: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in seen:
            report(row, f"sample {name!r} again, first in row {lines[seen[name]]}")
        seen.setdefault(name, row)
    labels, values, choice, hard = {}, {}, {}, []
    axes = [name for name in VALENCE_AROUSAL if name in columns]
    if len(axes) == 1:
        raise UserError(f"{path} has a column {axes[0]}; valence and arousal are judged together, give both")
    if axes:
        labels["valence_arousal"] = VALENCE_AROUSAL
        values["valence_arousal"] = _numbers(columns, VALENCE_AROUSAL, (-1, 1), report)
    units = tuple(name for name in ACTION_UNIT_NAMES if name in columns)
    if units:
        labels["action_units"] = units
        values["action_units"] = _numbers(columns, units, (0, 1), report)
        choice["action_units"] = (values["action_units"] >= PRESENT).astype(np.uint8)
    probabilities = [name for name in columns if name.startswith("expression.") and ".uncertainty." not in name]
    if "expression" in columns or probabilities:
        found = _expression(columns, probabilities, report)
        labels["expression"], values["expression"], choice["expression"] = found
        hard += [] if probabilities else ["expression"]
    unsure = {}
    for task, names in labels.items():
        names = ("expression",) if task == "expression" else names
        kinds = (tuple(f"{name}.uncertainty.{kind}" for name in names) for kind in UNCERTAINTIES)
        if there := next((c for c in kinds if all(name in columns for name in c)), ()):
            found = _numbers(columns, there, (0, math.inf), report)
            unsure[task] = found[:, 0] if task == "expression" else found
    if problems:
        more = f"\n... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError("\n".join(problems[:SHOWN]) + more)
    if not labels:
        raise UserError(
            f"{path} has no columns of predictions: expression, expression.<label>, valence, arousal, AU1 ..."
        )
    return Predictions(ids, labels, values, choice, unsure, tuple(hard), lines=tuple(lines))


class _Reporter:
    """Collects problems as "FILE row N: what"."""

    def __init__(self, path: Path, lines: Sequence[int], problems: list[str]) -> None:
        self.path, self.lines, self.problems = path, lines, problems

    def __call__(self, row: int, what: str) -> None:
        self.problems.append(f"{self.path} row {self.lines[row]}: {what}")


def _numbers(columns: Columns, names: tuple[str, ...], bounds: tuple[float, float], report: _Reporter) -> np.ndarray:
    out = np.zeros((len(columns["id"]), len(names)))
    for k, name in enumerate(names):
        for row, cell in enumerate(columns[name]):
            try:
                out[row, k] = float(cell)
            except (TypeError, ValueError):
                out[row, k] = np.nan
            if not bounds[0] <= out[row, k] <= bounds[1] or math.isinf(out[row, k]):
                limits = f"from {bounds[0]} to {bounds[1]}" if math.isfinite(bounds[1]) else f"from {bounds[0]} on"
                report(row, f"{name} is {cell!r}, expected a number {limits}")
    return out


def _expression(
    columns: Columns, names: list[str], report: _Reporter
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Labels, probabilities [N, K] and chosen classes [N]; `names` are the columns of probabilities."""
    labels: dict[str, str] = {}
    for name in names:
        try:
            label = canonical(name.removeprefix("expression."))
        except ValueError as error:
            raise UserError(f"{report.path}, column {name}: {error}") from None
        if label in labels.values():
            raise UserError(f"{report.path} has two columns of probabilities of {label}")
        labels[name] = label
    said: list[str] = []
    for row, cell in enumerate(columns.get("expression", [])):
        try:
            said.append(canonical(str(cell)))
        except ValueError as error:
            report(row, str(error))
            said.append("")
    if not names:
        vocabulary = tuple(sorted(set(said)))
        chosen = np.array([vocabulary.index(name) for name in said])
        return vocabulary, np.eye(len(vocabulary))[chosen], chosen
    vocabulary = tuple(labels.values())
    p = _numbers(columns, tuple(names), (0, 1), report)
    for row in np.flatnonzero(np.abs(p.sum(axis=1) - 1) > SUM):
        report(int(row), f"probabilities of expressions sum to {p[row].sum():.4f}, expected 1")
    chosen = p.argmax(axis=1)
    for row, name in enumerate(said):
        if name and name not in vocabulary:
            report(row, f"expression {name!r} has no column expression.{name}")
        elif name:
            chosen[row] = vocabulary.index(name)
    return vocabulary, p, chosen


def match(predictions: Predictions, samples: Samples, where: Path | str) -> Predictions:
    """The rows for the samples, in their order.

    Raises:
        UserError: made for other data or labels, rows for unknown samples, or samples without a row.
    """
    ids, made_for = samples.ids, predictions.about
    if made_for.get("fingerprint", samples.fingerprint) != samples.fingerprint:
        raise UserError(
            f"{where} was made for {made_for.get('dataset')} {made_for.get('split')} with other samples or labels than "
            f"this {samples.dataset} {samples.split}; run the model again"
        )
    if predictions.ids == ids:
        return predictions
    row_of = {name: row for row, name in enumerate(predictions.ids)}
    if len(row_of) < len(predictions.ids):
        raise UserError(f"{where} has {len(predictions.ids) - len(row_of)} samples more than once")
    unknown = sorted(row_of.keys() - set(ids), key=row_of.__getitem__)
    if unknown:
        kind, lines = ("row", predictions.lines) if predictions.lines else ("prediction", range(1, 1 + len(row_of)))
        rows = ", ".join(f"{name!r} ({kind} {lines[row_of[name]]})" for name in unknown[:SHOWN])
        raise UserError(f"{where}: {len(unknown)} predictions are for samples that this split lacks: {rows}")
    missing = [name for name in ids if name not in row_of]
    if missing:
        names = ", ".join(map(repr, missing[:SHOWN]))
        raise UserError(f"{where}: {len(missing)} of {len(ids)} samples have no prediction: {names}")
    return predictions.take(np.array([row_of[name] for name in ids], dtype=int))
