"""What the sub-commands of `python -m eval` do; each takes parsed arguments and returns the exit code."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np

from emotion import datasets, registry
from emotion.cli.console import pairs, show, table
from emotion.datasets.scenes import Scenes
from emotion.errors import UserError
from emotion.hub.provenance import commit, machine, versions
from eval import bootstrap, clips, data, predictions, results, scene_predictions, scenes, scoring
from eval.results import DataInfo, ModelInfo, Result, RunInfo, TaskResult

DIFFERING = 10  # samples that `compare` lists


def run(args: argparse.Namespace) -> int:
    """`run`: predictions and a result file of one model."""
    from emotion import hub, uncertainty
    from eval import runner

    loaded = data.load(args.dataset, args.data, args.split, args.option)
    is_scenes = data.is_scenes(loaded, args)
    model = hub.load(args.model, args.device)
    if args.mc_dropout:
        uncertainty.monte_carlo(model, args.mc_dropout)
    path = args.out / "predictions" / f"{_name(args, model.card.name, model.card.sha256)}.npz"
    if is_scenes:
        found, speed = scene_predictions.predict(model, loaded, path, args.published, args.quiet, args.heads)
        tasks, about = _scenes(args, found, loaded)
    else:
        about = data.info(loaded)
        if clips.are_clips(loaded):
            found, speed = clips.predict(model, loaded, path, args.device, quiet=args.quiet)
            tasks = clips.score(found, loaded)
        else:
            runner.check(model)
            found, speed = runner.predict(model, loaded, path, args.batch, args.device, args.quiet)
            tasks = scoring.score(found, loaded)
            tasks = {name: replace(task, notes=(*task.notes, *_dropout(args))) for name, task in tasks.items()}
    return _finish(args, tasks, about, runner.describe(model.cpu()), path, speed)


def score(args: argparse.Namespace) -> int:
    """`score`: a result file for predictions that another tool made."""
    loaded = data.load(args.dataset, args.data, args.split, args.option)
    if data.is_scenes(loaded, args):
        tasks, about = _scenes(args, scene_predictions.read(args.predictions, loaded), loaded)
    else:
        found = predictions.match(predictions.read(args.predictions), loaded, args.predictions)
        scorer = clips if clips.are_clips(loaded) else scoring
        tasks, about = scorer.score(found, loaded), data.info(loaded)
    model = ModelInfo(args.name or args.predictions.stem)
    if _measured(file := args.out / f"{_name(args, model.name)}.json"):
        raise UserError(f"{file} is a result of weights that were run here; give these predictions another --name")
    return _finish(args, tasks, about, model, args.predictions, None)


def _scenes(
    args: argparse.Namespace, found: list[scenes.Found], loaded: Scenes
) -> tuple[dict[str, TaskResult], DataInfo]:
    """Figures of scenes; writes the score file where one is asked for."""
    tasks = scenes.score(found, loaded, args.published)
    if args.scores is not None:
        from eval import score_file

        results.replace_file(args.scores, score_file.text(found, loaded, args.published).encode())
    return tasks, scenes.info(loaded, args.published)


def _name(args: argparse.Namespace, model: str, sha256: str = "") -> str:
    """Files of one run: model, data set, split and the options that choose other samples or figures.

    A model's name stands for the weights that the registry knows by it, else for those that were measured first. Other
    weights of that name add their checksum, so that they overwrite nothing.
    """
    parts = [args.split, *args.option] + (["published"] if getattr(args, "published", False) else []) + _dropout(args)
    plain = results.file_name(model, args.dataset, " ".join(parts))
    entry = registry.entries().get(model)
    known = (entry.sha256 if entry else "") or _measured(args.out / f"{plain}.json")
    if not sha256 or known in ("", sha256):
        return plain
    return results.file_name(f"{model}-{sha256[:8]}", args.dataset, " ".join(parts))


def _measured(path: Path) -> str:
    """SHA-256 of the weights that a result is of; "" without one."""
    try:
        return results.read(path).model.sha256 if path.is_file() else ""
    except UserError:
        return ""


def _dropout(args: argparse.Namespace) -> list[str]:
    """What to say of a run with Monte Carlo dropout; nothing without."""
    passes = getattr(args, "mc_dropout", 0)
    return [f"Monte Carlo dropout, {passes} passes"] if passes else []


def _finish(
    args: argparse.Namespace,
    tasks: dict[str, TaskResult],
    asked: DataInfo,
    model: ModelInfo,
    path: Path | None,
    speed: float | None,
) -> int:
    foreign = model.weights == "own" and model.name in registry.entries()  # the name alone would load others
    about = RunInfo(
        command=_command(args, f"{model.name}/" if foreign else model.name),
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
    file = args.out / f"{_name(args, model.name, model.sha256)}.json"
    results.write(result, file)
    _print(result)
    show("", f"Written to {file}")
    return 0


def _command(args: argparse.Namespace, model: str) -> str:
    """What reproduces the run, with folder names left out."""
    asked = f"--model {model}" if args.command == "run" else f"--predictions FILE --name {model}"
    options = "".join(f" --option {o}" for o in args.option) + (" --published" if args.published else "")
    options += " --heads" if getattr(args, "heads", False) else ""
    options += f" --mc-dropout {passes}" if (passes := getattr(args, "mc_dropout", 0)) else ""
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
    loaded = data.load(args.dataset, args.data, args.split, args.option)
    paths = [_predictions(args, given) for given in (args.a, args.b)]
    if data.is_scenes(loaded, args):
        a, b = (scene_predictions.read(path, loaded) for path in paths)
        tests, unit = scenes.paired(a, b, loaded), "pictures"
        ids = [scene.file for scene in loaded.scenes]
        differing = dict.fromkeys(tests, scenes.differences(a, b))
    else:
        a, b = (predictions.match(predictions.read(path), loaded, path) for path in paths)
        tests = (clips if clips.are_clips(loaded) else scoring).paired(a, b, loaded)
        unit, ids = "samples" if loaded.groups is None else "groups (videos, subjects)", loaded.ids
        differing = {task: scoring.differences(task, a, b, loaded) for task in tests}
    show(f"A = {args.a}, B = {args.b}; resampled: {unit}")
    for task, found in tests.items():
        corrected = bootstrap.holm([t["p"] for t in found.values()])
        rows = table(task.replace("_", " "), "A", "B", "A - B", "95 % interval", "p", "p (Holm)")
        for (metric, t), p in zip(found.items(), corrected):
            limits = "" if np.isnan(t["low"]) else f"{t['low']:+.4f} to {t['high']:+.4f}"
            values = (f"{t['a']:.4f}", f"{t['b']:.4f}", f"{t['difference']:+.4f}")
            rows.add_row(metric, *values, limits, f"{t['p']:.4f}", f"{p:.4f}")
        order = np.argsort(-differing[task], kind="stable")[:DIFFERING]
        apart = ", ".join(f"{ids[i]} ({differing[task][i]:.2f})" for i in order)
        show("", rows, f"They differ most on: {apart}")
    return 0


def _predictions(args: argparse.Namespace, given: str) -> Path:
    """A predictions file, by path, or by the name or the folder of a model that was run."""
    path = Path(given)
    if path.is_file():
        return path
    name, sha256 = given, ""
    if path.is_dir():
        from emotion import hub

        card = hub.load(path).card
        name, sha256 = card.name, card.sha256
    path = args.out / "predictions" / f"{_name(args, name, sha256)}.npz"
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
        loaded = data.load(args.dataset, args.data, args.split, args.option)
        show(*([s.file for s in loaded.scenes] if data.is_scenes(loaded, args) else loaded.ids))
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
