"""Predictions for labelled faces: our own file (.npz), and tables that other tools wrote (.csv, .parquet).

Columns of a table, one row per sample:
- `id`: the sample's name as the reader gives it (`python -m eval datasets NAME --data DIR --ids` lists them);
- `expression`: a label, and/or `expression.<label>` for every label: probabilities that sum to 1;
- `valence`, `arousal`: in [-1, 1];
- `AU1`, `AU2` ...: probabilities, or 0 and 1; a unit is present from 0.5 on;
- `expression.uncertainty.total`, `valence.uncertainty.total`, `AU1.uncertainty.total` ...: larger is less sure.
Other columns are ignored. The prefixes `valence_arousal.` and `action_units.` of our own tables are understood.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import ACTION_UNIT_NAMES, VALENCE_AROUSAL, canonical
from eval.results import replace_file

SHOWN = 8  # problems that a message lists; the rest is counted
PRESENT = 0.5
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
    """

    ids: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    values: dict[str, np.ndarray]
    choice: dict[str, np.ndarray] = field(default_factory=dict)
    uncertainty: dict[str, np.ndarray] = field(default_factory=dict)
    hard: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

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


def write_arrays(head: dict[str, Any], arrays: dict[str, np.ndarray], path: Path) -> None:
    """A compressed .npz file of arrays and `head`, anything that JSON can hold."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, head=np.array(json.dumps(head)), **arrays)
    replace_file(path, buffer.getvalue())


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_arrays` wrote; nothing is unpickled.

    Raises:
        UserError: unreadable, cut short or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(str(arrays.pop("head"))), arrays
    except (*DAMAGED, zlib.error) as error:
        raise unreadable(path, error) from error


DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile)


def unreadable(path: Path, error: Exception) -> UserError:
    """What to say of a damaged .npz file."""
    return UserError(f"cannot read {path}: {error}; is it complete, and written by `python -m eval run`?")


def read(path: Path) -> Predictions:
    """Predictions of any supported file.

    Raises:
        UserError: unreadable, another format, or rows that are wrong (named).
    """
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".csv":
        return from_table(_read_csv(path), path, first_row=2)
    if path.suffix in (".parquet", ".pq"):
        return from_table(_read_parquet(path), path, first_row=1)
    raise UserError(f"{path}: predictions are .npz (ours), .csv or .parquet; scenes are .json (COCO results)")


def _read_npz(path: Path) -> Predictions:
    head, arrays = read_arrays(path)
    try:
        labels = {task: tuple(names) for task, names in head["labels"].items()}
        ids = tuple(arrays.pop("ids").tolist())
        parts: dict[str, dict[str, np.ndarray]] = {name: {} for name in _ARRAYS}
        for key, array in arrays.items():
            name, task = key.split(".")
            parts[name][task] = array
            if len(array) != len(ids):
                raise ValueError(f"{len(ids)} ids but {len(array)} rows of {key}")
        for task, values in parts["values"].items():
            if values.shape != (len(ids), len(labels[task])) or not np.isfinite(values).all():
                raise ValueError(f"{task} is not {len(labels[task])} numbers per sample")
        return Predictions(ids, labels, hard=tuple(head["hard"]), about=head["about"], **parts)
    except DAMAGED as error:
        raise unreadable(path, error) from error


def concatenate(parts: list[Predictions]) -> Predictions:
    """Parts of one run, one after the other."""

    def join(name: str) -> dict[str, np.ndarray]:
        columns = [getattr(p, name) for p in parts]
        return {task: np.concatenate([c[task] for c in columns]) for task in columns[0]}

    ids = tuple(i for p in parts for i in p.ids)
    return Predictions(ids, parts[0].labels, **{name: join(name) for name in _ARRAYS}, about=parts[0].about)


def origin(model: Any, data: Any) -> dict[str, Any]:
    """What predictions are of (a loaded model, samples or scenes); only parts of the same are put together."""
    return {
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


def _read_csv(path: Path) -> Columns:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            head = [name.strip() for name in next(rows, [])]
            if len(set(head)) < len(head):
                raise UserError(f"{path} has a column twice: {', '.join(head)}")
            table = []
            for row in rows:
                if row and len(row) != len(head):
                    raise UserError(f"{path} row {rows.line_num}: {len(row)} cells under {len(head)} headers")
                table += [row] if row else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return {name: [row[k] for row in table] for k, name in enumerate(head)}


def _read_parquet(path: Path) -> Columns:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError("reading Parquet needs pyarrow: pip install 'emotion[eval]', or give a CSV file") from error
    try:
        return pq.read_table(path).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {error}; is the file complete?") from error


# -- foreign tables ---------------------------------------------------------------------------------------------------


def from_table(columns: Columns, path: Path, first_row: int = 2) -> Predictions:
    """Predictions from named columns.

    Args:
        columns: name -> cells, strings or numbers.
        path: for messages.
        first_row: number of the first data row in the file.

    Raises:
        UserError: lists wrong cells by row: no number, outside its range, an unknown label, an id given twice.
    """
    columns = {name.removeprefix("valence_arousal.").removeprefix("action_units."): v for name, v in columns.items()}
    if "id" not in columns:
        raise UserError(f"{path} has no column `id`; its columns are {', '.join(columns) or 'none'}")
    if not columns["id"]:
        raise UserError(f"{path} has no rows")
    problems: list[str] = []
    report = _Reporter(path, first_row, problems)
    ids = tuple(str(v) for v in columns["id"])
    seen: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in seen:
            report(row, f"sample {name!r} again, first in row {seen[name] + first_row}")
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
    return Predictions(ids, labels, values, choice, unsure, tuple(hard))


class _Reporter:
    """Collects problems as "FILE row N: what"."""

    def __init__(self, path: Path, first_row: int, problems: list[str]) -> None:
        self.path, self.first_row, self.problems = path, first_row, problems

    def __call__(self, row: int, what: str) -> None:
        self.problems.append(f"{self.path} row {row + self.first_row}: {what}")


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
    for row in np.flatnonzero(np.abs(p.sum(axis=1) - 1) > 1e-3):
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
        rows = ", ".join(f"{name!r} (prediction {row_of[name] + 1})" for name in unknown[:SHOWN])
        raise UserError(f"{where}: {len(unknown)} predictions are for samples that this split lacks: {rows}")
    missing = [name for name in ids if name not in row_of]
    if missing:
        names = ", ".join(map(repr, missing[:SHOWN]))
        raise UserError(f"{where}: {len(missing)} of {len(ids)} samples have no prediction: {names}")
    return predictions.take(np.array([row_of[name] for name in ids], dtype=int))
