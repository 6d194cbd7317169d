"""What the sub-commands of `python -m eval` do; each takes parsed arguments and returns the exit code."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import inspect
from pathlib import Path

import numpy as np

from emotion import datasets
from emotion.cli.console import pairs, show, table
from emotion.datasets.scenes import Scenes
from emotion.errors import UserError
from emotion.provenance import commit, machine, versions
from eval import bootstrap, clips, data, predictions, results, scenes, scoring
from eval.results import DataInfo, ModelInfo, Result, RunInfo, TaskResult

DIFFERING = 10  # samples that `compare` lists


def run(args: argparse.Namespace) -> int:
    """`run`: predictions and a result file of one model."""
    from emotion import hub
    from eval import runner

    loaded = data.load(args.dataset, args.data, args.split, args.option)
    if isinstance(loaded, Scenes):
        model = hub.load(args.model, args.device)
        tasks = scenes.score(scenes.predict(model, loaded, args.quiet), loaded)
        return _finish(args, tasks, scenes.info(loaded), runner.describe(model.cpu()), None, None)
    samples = data.checked(loaded, args)
    model = hub.load(args.model, args.device)
    path = args.out / "predictions" / f"{results.file_name(model.card.name, samples.dataset, samples.split)}.npz"
    if clips.are_clips(samples):
        tasks = clips.score(clips.predict(model, samples, path, quiet=args.quiet), samples)
        return _finish(args, tasks, data.info(samples), runner.describe(model), path, None)
    runner.check(model)
    found, speed = runner.predict(model, samples, path, args.batch, args.device, args.quiet)
    return _finish(args, scoring.score(found, samples), data.info(samples), runner.describe(model.cpu()), path, speed)


def score(args: argparse.Namespace) -> int:
    """`score`: a result file for predictions that another tool made."""
    loaded = data.load(args.dataset, args.data, args.split, args.option)
    if isinstance(loaded, Scenes):
        tasks, about = scenes.score(scenes.read(args.predictions, loaded), loaded), scenes.info(loaded)
    else:
        samples = data.checked(loaded, args)
        found = predictions.match(predictions.read(args.predictions), samples, args.predictions)
        tasks, about = scoring.score(found, samples), data.info(samples)
    return _finish(args, tasks, about, ModelInfo(args.name or args.predictions.stem), args.predictions, None)


def _finish(
    args: argparse.Namespace,
    tasks: dict[str, TaskResult],
    asked: DataInfo,
    model: ModelInfo,
    path: Path | None,
    speed: float | None,
) -> int:
    about = RunInfo(
        command=_command(args, model.name),
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        commit=commit(),
        versions=versions(),
        machine=machine(),
        device=getattr(args, "device", ""),
        samples_per_second=None if speed is None else round(speed, 1),
        predictions="" if path is None else path.name,
        predictions_sha256="" if path is None else hashlib.sha256(path.read_bytes()).hexdigest(),
        unit="sample" if asked.groups is None else "group",
    )
    result = Result(model, asked, tasks, about)
    file = args.out / f"{result.name}.json"
    results.write(result, file)
    _print(result)
    show("", f"Written to {file}")
    return 0


def _command(args: argparse.Namespace, model: str) -> str:
    """What reproduces the run, with folder names left out."""
    asked = f"--model {model}" if args.command == "run" else f"--predictions FILE --name {model}"
    options = "".join(f" --option {o}" for o in args.option)
    return f"python -m eval {args.command} {asked} --dataset {args.dataset} --data DIR --split {args.split}{options}"


def _print(result: Result) -> None:
    where = f"{result.data.name} {result.data.split}, {result.data.n} samples"
    show(f"{result.model.name} on {where}" + (f" ({result.data.protocol})" if result.data.protocol else ""))
    for name, found in result.tasks.items():
        rows = table(name.replace("_", " "), "value", "95 % interval")
        for metric, figure in found.metrics.items():
            limits = "" if figure.low is None else f"{figure.low:.4f} to {figure.high:.4f}"
            rows.add_row(metric, f"{figure.value:.4f}", limits)
        for metric, value in found.calibration.items():
            rows.add_row(metric, f"{value:.4f}", "")
        show("", rows, *found.notes)
        if found.per_label:
            rows = table("label", *found.per_label)
            for label in found.labels:
                cells = (column.get(label) for column in found.per_label.values())
                rows.add_row(label, *("" if v is None else f"{v:.4f}" for v in cells))
            show("", rows)


def compare(args: argparse.Namespace) -> int:
    """`compare`: paired bootstrap and permutation test of two models on the same samples."""
    samples = data.faces(args)
    a, b = (
        predictions.match(predictions.read(p), samples, p) for p in (_predictions(args, x) for x in (args.a, args.b))
    )
    tasks = [t for t in scoring.SCORERS if t in a.values and t in b.values and t in samples.targets]
    if not tasks:
        raise UserError(f"{args.a} and {args.b} have no labelled task of {samples.dataset} in common")
    unit = "samples" if samples.groups is None else "groups (videos, subjects)"
    for task in tasks:
        left, right = (scoring.scorable(task, p, samples) for p in (a, b))
        if left.labels != right.labels:
            raise UserError(f"{task}: the two models are scored on different labels; compare the tables instead")
        groups = None if samples.groups is None else np.asarray(samples.groups)[left.known]
        tests = bootstrap.paired(left.terms, right.terms, left.figures, groups)
        corrected = bootstrap.holm([t["p"] for t in tests.values()])
        rows = table(task.replace("_", " "), "A", "B", "A - B", "95 % interval", "p", "p (Holm)")
        for (metric, t), p in zip(tests.items(), corrected):
            limits = f"{t['low']:+.4f} to {t['high']:+.4f}"
            rows.add_row(
                metric, f"{t['a']:.4f}", f"{t['b']:.4f}", f"{t['difference']:+.4f}", limits, f"{t['p']:.4f}", f"{p:.4f}"
            )
        differing = scoring.worst(task, a, b, samples)
        order = np.argsort(-differing, kind="stable")[:DIFFERING]
        apart = ", ".join(f"{samples.ids[i]} ({differing[i]:.2f})" for i in order)
        show(f"A = {args.a}, B = {args.b}; resampled: {unit}", rows, f"They differ most on: {apart}", "")
    return 0


def _predictions(args: argparse.Namespace, given: str) -> Path:
    """A predictions file, by path or by the name of a model that was run."""
    path = Path(given)
    if path.is_file():
        return path
    path = args.out / "predictions" / f"{results.file_name(given, args.dataset, args.split)}.npz"
    if not path.is_file():
        raise UserError(
            f"no predictions {path}; make them: python -m eval run --model {given} --dataset {args.dataset}"
        )
    return path


def list_datasets(args: argparse.Namespace) -> int:
    """`datasets`: what is known, one of them in full, its sample ids, or a synthetic copy."""
    if args.dataset is None:
        rows, known = table("name", "what", "terms"), data.known()
        for name in datasets.READERS:
            rows.add_row(name, data.summary(name), known.get(name, {}).get("terms", "-"))
        show(rows, "", "Layout and origin of one of them: python -m eval datasets NAME")
        return 0
    reader = datasets.reader(args.dataset)
    if args.fake is not None:
        if args.fake.exists() and (not args.fake.is_dir() or any(args.fake.iterdir())):
            raise UserError(f"{args.fake} is not an empty folder")
        reader.fake(args.fake)
        show(f"A synthetic copy of {args.dataset} is in {args.fake}")
        return 0
    if args.data is not None:
        show(*data.faces(args).ids)
        return 0
    about = data.known().get(args.dataset, {})
    signature = inspect.signature(reader.load)
    options = ", ".join(str(p) for p in list(signature.parameters.values())[2:])
    show(
        pairs({**about, "options": options or "none"}),
        "",
        inspect.getdoc(reader) or "",
        "",
        inspect.getdoc(reader.load) or "",
    )
    return 0
