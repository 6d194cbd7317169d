"""`python -m emotion analyze` with a model of voice and face: films and sound files, one row per moment."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import RenderableType

from emotion.cli.console import report, show, table
from emotion.cli.films import Bar, Stop, make_folder, progress_bar
from emotion.errors import UserError
from emotion.outputs import Result
from emotion.predict.clips import MODALITIES, ClipPredictor


def analyze(
    predictor: ClipPredictor, paths: list[Path], names: list[str], args: argparse.Namespace, stems: dict[Path, str]
) -> tuple[int, bool]:
    """Read clips, write .csv and .json (where `args.output` says) and print what they show.

    Returns:
        How many cannot be read, and whether the user stopped.
    """
    unreadable = 0
    for path, name in zip(paths, names, strict=True):
        try:
            with Stop() as stop, progress_bar() as progress:
                result = predictor.clip(path, args.fps, name, Bar(progress, f"{name}: listening and looking", stop))
            if args.output is not None:
                make_folder(args.output)
                result.to_csv(args.output / f"{stems[path]}.csv")
                result.to_json(args.output / f"{stems[path]}.json")
        except UserError as error:
            report(error)
            unreadable += 1
            continue
        if args.json:
            print(result.to_json(indent=None))
        else:
            show(*lines(result))
        if stop.asked:
            return unreadable, True
    return unreadable, False


def lines(result: Result) -> list[RenderableType]:
    """What is printed for one clip."""
    count = len(result)
    head = f"{result.source}  {count} moment{'' if count == 1 else 's'}"
    if not count:
        return [head, *result.notes]
    expression = result.tasks["expression"]
    columns = {
        "second": [f"{second:.1f}" for second in result.timestamps[result.frame]],
        "expression": expression.names(),
        "probability": [f"{row[k]:.2f}" for row, k in zip(expression.values, expression.choice)],
        "uncertainty": [f"{u:.2f}" for u in expression.uncertainty["total"]],
    }
    if "contribution" in result.tasks:
        columns |= {f"{name} alone": result.tasks[f"expression_{name}"].names() for name in MODALITIES}
        lost = result.tasks["contribution"].values.T
        columns |= {f"{name} left out": [f"{-v:+.2f}" for v in row] for name, row in zip(MODALITIES, lost)}
    rows = table(*columns)
    for row in zip(*columns.values()):
        rows.add_row(*row)
    return [head, rows, *result.notes]
