"""`python -m emotion affwild2`: tables, sound and submission files from the Aff-Wild2 data set (ABAW 2)."""

from __future__ import annotations

import argparse

from emotion import hub
from emotion.cli.console import show, table
from emotion.datasets import affwild2, affwild2_plots, affwild2_tables
from emotion.predict import challenge


def run(args: argparse.Namespace) -> int:
    """The command: one of annotations, test-list, sound, predict."""
    return {"annotations": _annotations, "test-list": _test_list, "sound": _sound, "predict": _predict}[args.what](args)


def _tasks(args: argparse.Namespace) -> list[str]:
    return args.task or list(affwild2.PARTS)


def _counts(args: argparse.Namespace, found: dict[str, dict[str, dict[str, int]]]) -> None:
    rows = table("task", "split", "clips", "frames")
    for task, splits in found.items():
        for split, n in splits.items():
            rows.add_row(task, split, str(n["clips"]), f"{n['frames']:,}")
    show(rows, f"Written to {args.output}")


def _annotations(args: argparse.Namespace) -> int:
    args.output.mkdir(parents=True, exist_ok=True)
    found = {}
    for task in _tasks(args):
        found[task] = affwild2_tables.write_annotations(args.source, args.output / f"{task}.csv", task)
        targets = affwild2.load(args.source, "train", task).targets[task]
        affwild2_plots.save(affwild2_tables.distribution(targets, task), task, args.output / f"{task}.png")
    _counts(args, found)
    return 0


def _test_list(args: argparse.Namespace) -> int:
    args.output.mkdir(parents=True, exist_ok=True)
    tables = {t: affwild2_tables.write_test_list(args.source, args.output / f"{t}.csv", t) for t in _tasks(args)}
    _counts(args, tables)
    return 0


def _sound(args: argparse.Namespace) -> int:
    written, silent = affwild2_tables.extract_sound(args.source, args.output)
    show(f"{len(written)} files in {args.output}", *(f"{name} has no sound" for name in silent))
    return 0


def _predict(args: argparse.Namespace) -> int:
    model = hub.load(args.model, args.device)
    tasks = args.task or [t for t in affwild2.PARTS if t in model.labels]
    written = challenge.predict(args.source, model, args.output, dict.fromkeys(tasks), args.device)
    show(f"{len(written)} files in {args.output}; merged/ holds the ensemble's, the numbered folders its members'")
    return 0
