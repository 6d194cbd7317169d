"""`python -m emotion crops`: a folder of face crops, as a table, JSON, or the files of the original systems."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import nn

from emotion import exports, hub
from emotion.cli.console import show
from emotion.errors import UserError
from emotion.faces import cropped
from emotion.models.fg2020 import FG2020


def run(args: argparse.Namespace) -> int:
    """The command: every model reads the folder; what it writes is named after the model."""
    files = cropped.crop_files(args.folder)
    written: dict[str, str] = {}
    for name in args.model:
        model = hub.load(name, args.device)
        result = cropped.analyze_crops(files, model, args.device, args.fps)
        missing = exports.FOLDERS.keys() - result.tasks.keys()
        if args.format in ("fg2020", "api") and missing:
            raise UserError(f"--format {args.format} needs {', '.join(sorted(missing))}, which {result.model} lacks")
        if args.format == "fg2020":
            tasks = {name: result.tasks[name] for name in exports.FOLDERS}
            written |= exports.fg2020_files(tasks, _members(model))
        elif args.format == "api" and isinstance(model, FG2020):
            written[f"{result.model}.csv"] = cropped.fg2020_table(files, model, args.device)
        elif args.format == "api":
            numbers = [exports.frame_number(path) for path in files]
            written[f"{result.model}.csv"] = exports.fg2020_csv(numbers, result.tasks)
        else:
            written[f"{result.model}.{args.format}"] = result.to_csv() if args.format == "csv" else result.to_json()
        show(f"{result.model}: {len(result)} faces")
    for relative, text in written.items():
        path = Path(args.output) / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    show(f"Written to {args.output}: {', '.join(written)}")
    return 0


def _members(model: nn.Module) -> tuple[str, ...]:
    """What the members of a model are called; some models only count theirs."""
    members = getattr(model.config, "members", 1)
    return tuple(f"member_{i}" for i in range(members)) if isinstance(members, int) else tuple(members)
