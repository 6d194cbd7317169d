"""`python -m emotion analyze`: every face of pictures and videos, as a table, in files, and drawn in."""

from __future__ import annotations

import argparse
import glob
import os
import sys
import warnings
from collections.abc import Iterator, Set
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import RenderableType

from emotion import exports, hub, timeline
from emotion.cli import clips, films, scenes
from emotion.cli.console import report, show, table
from emotion.draw import overlay, panels
from emotion.errors import UserError
from emotion.faces.detectors import WORKING_SIDE, Detector, detector
from emotion.media import FORMATS, SOUND_SUFFIXES, VIDEO_SUFFIXES, is_video, read_image, sampling, save_image
from emotion.models.base import ClipInput
from emotion.models.benet_decode import SceneInput
from emotion.outputs import Result, Task
from emotion.predict import FacePredictor
from emotion.predict.clips import FAITHFUL, ClipPredictor
from emotion.predict.scenes import ScenePredictor

BATCH = 16  # pictures that are read and searched for faces together,
ANNOTATED = (".png", ".mp4")  # what drawings are stored as
WRITTEN = (*ANNOTATED, ".json", ".csv", ".vtt", ".parquet", ".summary.json", ".curves.png", ".dashboard.mp4")
BATCH_PIXELS = 50_000_000  # or fewer, once they have this many pixels (150 MB)


def run(args: argparse.Namespace) -> int:
    """The command. What cannot be read is reported and the rest goes on; the exit code is then 2."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # read_image refuses what is too large itself
    _check(args)
    predictor = _predictor(args)
    paths, errors = _expand(args.paths, isinstance(predictor, ClipPredictor))
    for error in errors:
        report(error)
    stems = {} if args.output is None else _stems(paths, args.output)
    failed = len(errors)
    if isinstance(predictor, ClipPredictor):
        unreadable, stopped = clips.analyze(predictor, paths, [_printable(p.name) for p in paths], args, stems)
        return _finished(failed + unreadable, len(errors) + len(paths), stopped)
    for films_follow, group in groupby(paths, is_video):
        if films_follow:
            unreadable, stopped = _films(predictor, list(group), args, stems)
            if stopped:
                return _finished(failed + unreadable, len(errors) + len(paths), stopped)
        else:
            unreadable = _pictures(predictor, list(group), args, stems)
        failed += unreadable
    return _finished(failed, len(errors) + len(paths), stopped=False)


def _finished(failed: int, total: int, stopped: bool) -> int:
    """The exit code; says how many files failed, where there are several."""
    if stopped:
        return 130
    if failed and total > 1:
        print(f"{failed} of {total} could not be analysed", file=sys.stderr)
    return 2 if failed else 0


def _check(args: argparse.Namespace) -> None:
    """Refuse, before any work, values that options cannot have."""
    if args.fps != FAITHFUL:
        sampling.rule(args.fps)
    timeline.Smoother(args.smooth)
    if args.detect_every < 1:
        raise UserError(f"--detect-every must be at least 1, not {args.detect_every}")
    if args.output is None and (args.export or args.details or args.dashboard):
        raise UserError("--export, --details and --dashboard write files: say where with -o DIR")


def _predictor(args: argparse.Namespace) -> FacePredictor | ScenePredictor | ClipPredictor:
    """The model, when it can give all that was asked for."""
    device = checked_device(args.device)
    model = hub.load(args.model, device)
    reads = getattr(model.config, "input", None)
    if not isinstance(reads, SceneInput):
        scenes.refuse(args)
    if isinstance(reads, ClipInput):
        _refuse_for_clips(args)
        return ClipPredictor(model, args.detector and chosen_detector(args.detector, device), device)
    if isinstance(reads, SceneInput):
        if args.detector is not None or args.faces != "all":
            raise UserError("a scene model finds and reads everybody: --detector and --faces have no meaning for it")
        predictor = scenes.predictor(args, model)
    else:
        predictor = FacePredictor(model, args.detector and chosen_detector(args.detector, device), args.faces, device)
    exports.check(args.export, predictor.name, predictor.nothing)
    return predictor


def _refuse_for_clips(args: argparse.Namespace) -> None:
    """Options that models of voice and face have no use for: they follow the largest face and write tables."""
    used = {name: getattr(args, name) for name in ("export", "details", "dashboard", "smooth")}
    used |= {"faces": args.faces != "all", "detect_every": args.detect_every != 1}
    if names := ", ".join(f"--{name.replace('_', '-')}" for name, value in used.items() if value):
        raise UserError(f"{args.model} reads voice and face: leave {names} away")


def _films(
    predictor: FacePredictor | ScenePredictor, paths: list[Path], args: argparse.Namespace, stems: dict[Path, str]
) -> tuple[int, bool]:
    """Read videos; returns how many cannot be read, and whether the user stopped."""
    unreadable = 0
    for path in paths:
        try:
            if not films.analyze(predictor, path, _printable(path.name), args, stems.get(path)):
                return unreadable, True
        except UserError as error:
            report(error)
            unreadable += 1
    return unreadable, False


def _pictures(
    predictor: FacePredictor | ScenePredictor, paths: list[Path], args: argparse.Namespace, stems: dict[Path, str]
) -> int:
    """Read pictures; returns how many cannot be read."""
    failed = 0
    for pictures, unreadable in _batches(paths):
        for error in unreadable:
            report(error)
        failed += len(unreadable)
        results = predictor.images(list(pictures.values()), [_printable(path.name) for path in pictures])
        for (path, picture), result in zip(pictures.items(), results, strict=True):
            if args.output is not None:
                _save(result, picture, args, stems[path])
            if args.json:
                print(result.to_json(indent=None))
            else:
                show(*_lines(result))
    return failed


def _expand(arguments: list[str], clips_wanted: bool) -> tuple[list[Path], list[UserError]]:
    """The files that the arguments stand for, each once, and what is wrong with the other arguments.

    In folders that is every picture and film, or every film and sound file.
    """
    paths: dict[Path, None] = {}
    errors = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = _media_below(path, VIDEO_SUFFIXES | (SOUND_SUFFIXES if clips_wanted else _picture_suffixes()))
        elif path.exists() or not glob.has_magic(argument):
            found = [path]
        else:
            found = sorted(Path(p) for p in glob.glob(argument, recursive=True) if Path(p).is_file())  # noqa: PTH207
        if not found:
            kinds = "video and no sound file" if clips_wanted else "picture and no video"
            errors.append(UserError(f"no {kinds} in {argument}" if path.is_dir() else f"no file matches {argument}"))
        paths |= dict.fromkeys(found)
    return list(paths), errors


def _picture_suffixes() -> set[str]:
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}


def _media_below(folder: Path, suffixes: Set[str]) -> list[Path]:
    """Files with one of these extensions in a folder and its sub-folders, hidden ones left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _batches(paths: list[Path]) -> Iterator[tuple[dict[Path, np.ndarray], list[UserError]]]:
    """Pictures by path and what is wrong with the unreadable ones, a bounded number at a time."""
    pictures: dict[Path, np.ndarray] = {}
    errors: list[UserError] = []
    for number, path in enumerate(paths, start=1):
        try:
            pictures[path] = read_image(path)
        except UserError as error:
            errors.append(error)
        pixels = sum(picture.shape[0] * picture.shape[1] for picture in pictures.values())
        if len(pictures) == BATCH or pixels >= BATCH_PIXELS or number == len(paths):
            yield pictures, errors
            pictures, errors = {}, []


def _stems(paths: list[Path], folder: Path) -> dict[Path, str]:
    """What the files of every input are called, without extension: as the input, with a number where taken.

    Taken means: by another input of this run (also on file systems that ignore case), or because files would replace
    some that are not of our making: an input, or any without a .json of ours beside them.
    """
    stems: dict[Path, str] = {}
    home = folder.resolve()
    taken = {p.stem.casefold() for p in paths if p.suffix.lower() in ANNOTATED and p.parent.resolve() == home}

    def free(stem: str) -> bool:
        foreign = not _ours(folder / f"{stem}.json") and any((folder / f"{stem}{end}").exists() for end in WRITTEN)
        return not foreign and stem.casefold() not in taken

    for path in paths:
        stem, number = path.stem, 1
        while not free(stem):
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.casefold())
        stems[path] = stem
    return stems


def _ours(path: Path) -> bool:
    """Whether a file begins like the documents of `Result.to_json`, whatever their version."""
    try:
        with path.open("rb") as file:
            return b'"schema": "emotion/' in file.read(100)
    except OSError:
        return False


def _save(result: Result, picture: np.ndarray, args: argparse.Namespace, stem: str) -> None:
    folder, canvas = args.output, overlay(picture, result)
    films.make_folder(folder)
    if args.details:
        canvas = np.concatenate([canvas, panels.Details()(result, len(canvas))], axis=1)
    save_image(canvas, folder / f"{stem}.png")
    result.to_csv(folder / f"{stem}.csv")
    result.to_json(folder / f"{stem}.json")
    films.export(result, folder, stem, args.export)


def _lines(result: Result) -> list[RenderableType]:
    """What is printed for one picture."""
    one, many = ("person", "people") if "emotions" in result.tasks else ("face", "faces")
    count = {0: f"no {one} found", 1: f"1 {one}"}.get(len(result), f"{len(result)} {many}")
    head = f"{result.source}  {result.size[0]} x {result.size[1]} pixels, {count}"
    if not len(result):
        return [head, *result.notes]
    columns = [(one, [str(i + 1) for i in range(len(result))])]
    columns += [("box", [" ".join(f"{v:.0f}" for v in box) for box in result.faces.boxes])]
    columns += [column for name, task in result.tasks.items() for column in _columns(name, task)]
    faces = table(*(header for header, _ in columns))
    for row in zip(*(cells for _, cells in columns)):
        faces.add_row(*row)
    return [head, faces, *result.notes]


def _columns(name: str, task: Task) -> Iterator[tuple[str, list[str]]]:
    """Headers and cells that show one task."""
    if task.kind == "categorical":
        yield name.replace("_", " "), task.names()
        yield "probability", [f"{row[i]:.2f}" for row, i in zip(task.values, task.choice)]
        if "total" in task.uncertainty:
            yield "uncertainty", [f"{u:.2f}" for u in task.uncertainty["total"]]
    elif task.kind == "multilabel":
        limits = 0.5 if task.thresholds is None else task.thresholds
        present = [[label for label, on in zip(task.labels, row >= limits) if on] for row in task.values]
        yield name.replace("_", " "), [", ".join(labels) or "-" for labels in present]
    elif len(task.labels) <= films.MOST:
        for k, label in enumerate(task.labels):
            ends = [""] * len(task.values) if task.deviation is None else [f" ± {s:.2f}" for s in task.deviation[:, k]]
            sign = "" if name == "vad" else "+"  # scenes' values lie in [0, 1], faces' in [-1, 1]
            yield label, [f"{v:{sign}.2f}{end}" for v, end in zip(task.values[:, k], ends)]


def checked_device(name: str) -> str:
    """The name of a device that is there.

    Raises:
        UserError: it is not.
    """
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: this torch was built without it
        raise UserError(f"there is no device {name!r} here; leave --device away or use cpu") from error
    return name


def chosen_detector(text: str, device: str, longest_side: int = WORKING_SIDE) -> Detector:
    """The detector that `--detector NAME[=FILE]` means; see `faces.detector`.

    Raises:
        UserError: unknown name, or what the detector needs is not there.
    """
    name, _, file = text.partition("=")
    return detector(name, file or None, device, longest_side)


def _printable(name: str) -> str:
    """A file name as valid Unicode; on Linux it may hold any bytes."""
    return os.fsencode(name).decode("utf-8", "replace")
