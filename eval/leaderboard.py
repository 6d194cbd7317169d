"""The leaderboard: measured results and published figures, one table per track, data set, split and protocol.

Measured and reported rows are marked as such in every format. Nothing here needs torch or numpy.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, FiniteFloat, TypeAdapter

from emotion import registry
from emotion.cli.console import report
from emotion.errors import UserError
from eval import results
from eval.results import Figure, Result
from eval.speed import SpeedResult, read_speed
from eval.tracks import TRACKS, main_metric

REPORTED = Path(__file__).parent / "reported.yaml"
UNPUBLISHED = ("never published", "not among the published")  # how the registry's `original` begins then
ABOUT = ("model", "source", "note", "checkpoint", "per_label")  # what a reported row has beside figures


@dataclass(frozen=True)
class Row:
    """One line of a table.

    `origin` is a citation (reported) or the commit and date (measured); `command` is what measures it again,
    `risk` and `per_label` are as in `results.TaskResult`; `checkpoint` names the registered model behind the row;
    `weights` says whether they can be had: "bundled", "to import", "not published", "own" or "elsewhere".
    """

    model: str
    measured: bool
    figures: dict[str, Figure]
    origin: str
    note: str = ""
    parameters: int | None = None
    multiply_adds: int | None = None
    speed: float | None = None
    licence: str = ""
    weights: str = ""
    command: str = ""
    checkpoint: str = ""
    risk: tuple[float, ...] = ()
    per_label: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Table:
    """Rows that may be compared with each other, best first; by name where their protocols are unknown (not ranked)."""

    track: str
    dataset: str
    split: str
    protocol: str
    main: str
    rows: list[Row] = field(default_factory=list)
    ranked: bool = True

    @property
    def title(self) -> str:
        """What the table is about, in one line."""
        return ", ".join(part for part in (TRACKS[self.track].title, self.dataset, self.split, self.protocol) if part)

    @property
    def metrics(self) -> list[str]:
        """Columns that any row fills, the deciding one first."""
        names = [self.main, *(m for m in TRACKS[self.track].metrics if m != self.main)]
        return [m for m in names if any(m in row.figures for row in self.rows)]

    def lower(self, metric: str) -> bool:
        """Whether less is better."""
        return metric in TRACKS[self.track].lower

    def sort(self) -> None:
        """Best first; rows without the deciding figure last; equals by name."""
        sign = 1 if self.lower(self.main) else -1

        def key(row: Row) -> tuple:
            figure = row.figures.get(self.main) if self.ranked else None
            return (figure is None, 0 if figure is None else sign * figure.value, row.model, row.origin)

        self.rows.sort(key=key)

    def rank(self, row: Row) -> int | None:
        """Place by the deciding figure, from 1; equal figures share one. None without that figure or any order."""
        if not self.ranked or self.main not in row.figures:
            return None
        sign, value = 1 if self.lower(self.main) else -1, row.figures[self.main].value
        return 1 + sum(sign * r.figures[self.main].value < sign * value for r in self.rows if self.main in r.figures)

    def tied(self, row: Row) -> bool | None:
        """Whether the interval of a measured row overlaps that of the best measured one; None where one has none."""
        best = next((r for r in self.rows if r.measured and self.main in r.figures), None)
        if best is None or row is best or not row.measured or self.main not in row.figures:
            return False
        a, b = best.figures[self.main], row.figures[self.main]
        return None if None in (a.low, b.low) else a.low <= b.high and b.low <= a.high


def run(args: argparse.Namespace) -> int:
    """`leaderboard`: print the tables or write them as a file."""
    from eval import render

    tables, problems = tables_of([results.FOLDER, *args.results], args.track)
    for problem in problems:
        report(UserError(f"left out: {problem}"))
    text = render.FORMATS[args.format](tables)
    if args.out is None:
        print(text)
    else:
        suffix = {"table": "txt"}.get(args.format, args.format)
        path = args.out / f"leaderboard.{suffix}"
        results.replace_file(path, text.encode())
        print(path)
    return 2 if problems and args.strict else 0


def tables_of(folders: list[Path], track: str | None = None) -> tuple[list[Table], list[str]]:
    """All tables in the order of the tracks, and one message per broken result file.

    Raises:
        UserError: `reported.yaml` is damaged.
    """
    found: dict[tuple[str, ...], Table] = {}
    for table in reported():
        found[_key(table)] = table
    measured, problems = results.read_all(folders)
    samples: dict[tuple[str, ...], set[str]] = {}
    for data in (result.data for result in measured):
        samples.setdefault((data.name, data.split, data.protocol), set()).add(data.fingerprint)
    for result in measured:
        data, protocol = result.data, result.data.protocol
        if len(samples[data.name, data.split, data.protocol]) > 1:  # the same words, but other samples or labels
            protocol = f"{protocol}, samples {data.fingerprint[:8]}"
        for name, spec in TRACKS.items():
            if spec.task in result.tasks:
                table = Table(name, data.name, data.split, protocol, main_metric(name, data.name))
                found.setdefault(_key(table), table).rows.append(_row(result, spec.task))
    speeds, broken = read_speed(folders)
    for speed in speeds:
        place = f"{speed.machine}, {speed.threads} thread(s), {speed.device}"
        place += ", processor time" if speed.clock == "cpu" else ""
        table = Table("speed", speed.reads, "", place, main_metric("speed", ""))
        found.setdefault(_key(table), table).rows.append(_speed_row(speed))
    order = list(TRACKS)
    chosen = [t for t in found.values() if track in (None, t.track)]
    for table in chosen:
        table.sort()
    chosen.sort(key=lambda t: (order.index(t.track), not any(r.measured for r in t.rows), t.dataset, t.split))
    return chosen, problems + broken


def _key(table: Table) -> tuple[str, ...]:
    return table.track, table.dataset, table.split, table.protocol


def _row(result: Result, task: str) -> Row:
    model, run, found = result.model, result.run, result.tasks[task]
    entry = registry.entries().get(model.name)
    foreign = entry is not None and "" not in (entry.sha256, model.sha256) and entry.sha256 != model.sha256
    return Row(
        model=f"{model.name} ({model.sha256[:8]})" if foreign else model.name,
        measured=True,
        figures=found.metrics | {name: Figure(value) for name, value in found.calibration.items()},
        origin=f"{run.date}, commit {run.commit}",
        note="; ".join(found.notes),
        parameters=model.parameters,
        multiply_adds=model.multiply_adds,
        speed=run.samples_per_second,
        licence=model.licence,
        weights=model.weights,
        command=run.command,
        checkpoint=model.name,
        risk=found.risk,
        per_label=found.per_label,
    )


def _registered(name: str) -> dict[str, Any]:
    """What the registry says of a model, for `Row`; nothing of others."""
    entry = registry.entries().get(name)
    if entry is None:
        return {}
    had = "not published" if entry.original.startswith(UNPUBLISHED) else "to import"
    weights = "bundled" if entry.bundled else had
    return {"parameters": entry.parameters or None, "licence": entry.licence, "weights": weights}


def _speed_row(speed: SpeedResult) -> Row:
    figures = {name: Figure(value) for name, value in speed.figures.items()}
    origin = f"{speed.date}, commit {speed.commit}"
    return Row(
        model=speed.model,
        measured=True,
        figures=figures,
        origin=origin,
        note="random weights" if speed.weights == "random" else "",
        multiply_adds=speed.multiply_adds,
        command=f"python -m eval bench {speed.model} --device {speed.device} --clock {speed.clock}",
        checkpoint=speed.model,
        **_registered(speed.model) | {"parameters": speed.parameters},
    )


# -- published figures ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReportedTable:
    """A table of `reported.yaml`, whose head says what the fields mean."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    track: str
    dataset: str
    split: str
    protocol: str
    main: str
    scale: FiniteFloat
    rows: list[dict[str, Any]]
    source: str = ""
    ranked: bool = True
    data: str | None = None
    command: str = ""


_REPORTED = TypeAdapter(list[ReportedTable])


def reported(path: Path = REPORTED) -> list[Table]:
    """Published figures, every row with its source.

    Raises:
        UserError: the file is damaged: unknown track or column, a row without a source.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return [_reported_table(t, path) for t in results.validated(_REPORTED, document, path)]


def _reported_table(given: ReportedTable, path: Path) -> Table:
    if given.track not in TRACKS or given.main not in TRACKS[given.track].metrics:
        raise UserError(f"{path}: no track {given.track!r} with the figure {given.main!r}")
    rows = [_reported_row(row, given, f"{path}, {given.dataset}") for row in given.rows]
    return Table(given.track, given.dataset, given.split, given.protocol, given.main, rows, given.ranked)


def _reported_row(row: dict[str, Any], given: ReportedTable, where: str) -> Row:
    model, source = str(row.get("model", "")), row.get("source", given.source)
    checkpoint = row.get("checkpoint", "")
    figures = {k: v for k, v in row.items() if k not in ABOUT}
    per_label = row.get("per_label", {})
    each = [*figures.items(), *((f"per_label {k}", v) for column in per_label.values() for k, v in column.items())]
    wrong = [k for k, v in each if not isinstance(v, (int, float))]
    wrong += [k for k in figures if k not in TRACKS[given.track].metrics]
    if wrong or not model or not source or not figures:
        raise UserError(f"{where}, row {model!r}: needs model, source and figures; wrong: {wrong}")
    return Row(
        model=model,
        measured=False,
        figures={k: Figure(_scaled(v, given)) for k, v in figures.items()},
        origin=source,
        note=row.get("note", ""),
        command=_command(checkpoint, given),
        checkpoint=checkpoint,
        per_label={k: {label: _scaled(v, given) for label, v in column.items()} for k, column in per_label.items()},
        **_registered(checkpoint),
    )


def _scaled(value: float, given: ReportedTable) -> float:
    return round(value / given.scale, 6)


def _command(checkpoint: str, given: ReportedTable) -> str:
    """What measures a reported row for whoever has the data and the model or its predictions."""
    data = f"--dataset {given.dataset} --data DIR --split {given.split}" if given.data is None else given.data
    if given.command or not data:
        return given.command
    return f"python -m eval {f'run --model {checkpoint}/' if checkpoint else 'score --predictions FILE'} {data}"
