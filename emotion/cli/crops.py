"""`python -m emotion crops`: a folder of face crops, as a table, JSON, or the files of the original systems."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from torch import nn

from emotion import exports, hub
from emotion.cli.console import show
from emotion.cli.films import make_folder
from emotion.errors import UserError
from emotion.faces import cropped
from emotion.models.fg2020 import FG2020
from emotion.outputs import write_file


def run(args: argparse.Namespace) -> int:
    """The command: every model reads the folder; what it writes is named after the model."""
    files = cropped.crop_files(args.folder)
    make_folder(args.output)
    if not os.access(args.output, os.W_OK):  # not only after all models have run
        raise UserError(f"cannot write into {args.output}; choose another folder with -o")
    written: dict[str, str] = {}
    for model in args.model:
        name, texts = _read(files, model, args)
        show(f"{name}: {len(files)} faces")
        if args.format == "fg2020" and len(args.model) > 1:  # members of different models have the same names
            texts = {f"{name}/{path}": text for path, text in texts.items()}
        if texts.keys() & written.keys():
            raise UserError(f"two of the models are called {name}; read them one by one, each with its own -o")
        written |= texts
    for relative, text in written.items():
        path = args.output / relative
        make_folder(path.parent)
        write_file(path, text.encode())
    show(f"Written to {args.output}: {', '.join(written)}")
    return 0


def _read(files: list[Path], source: str, args: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """What a model is called, and its files: relative path -> text.

    Raises:
        UserError: it cannot be loaded, does not read faces, or lacks what the format needs.
    """
    model = hub.load(source, args.device)
    result = cropped.analyze_crops(files, model, args.device, args.fps)
    if args.format == "csv":
        return result.model, {f"{result.model}.csv": result.to_csv()}
    if args.format == "json":
        return result.model, {f"{result.model}.json": result.to_json()}
    if missing := exports.FOLDERS.keys() - result.tasks.keys():
        raise UserError(f"--format {args.format} needs {', '.join(sorted(missing))}, which {result.model} lacks")
    if args.format == "fg2020":
        tasks = {name: result.tasks[name] for name in exports.FOLDERS}
        return result.model, exports.fg2020_files(tasks, _members(model))
    if isinstance(model, FG2020):
        return result.model, {f"{result.model}.csv": cropped.fg2020_table(files, model, args.device)}
    numbers = [exports.frame_number(path) for path in files]
    return result.model, {f"{result.model}.csv": exports.fg2020_csv(numbers, result.tasks)}


def _members(model: nn.Module) -> tuple[str, ...]:
    """What the members of a model are called; some models only count theirs."""
    members = getattr(model.config, "members", 1)
    return tuple(f"member_{i}" for i in range(members)) if isinstance(members, int) else tuple(members)
