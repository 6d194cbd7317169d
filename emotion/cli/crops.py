"""`python -m emotion crops`: a folder of face crops, as a table, JSON, or the files of the original systems."""

from __future__ import annotations

import argparse
from pathlib import Path

from emotion import cropped, exports, hub
from emotion.cli.console import show
from emotion.errors import UserError


def run(args: argparse.Namespace) -> int:
    """The command: every model reads the folder; what it writes is named after the model."""
    files = cropped.crop_files(args.folder)
    written: dict[str, str] = {}
    for name in args.model:
        model = hub.load(name, args.device)
        result = cropped.analyze_crops(files, model, args.device, args.fps)
        members = getattr(model.config, "members", None)
        if args.format in ("fg2020", "api") and members is None:
            raise UserError(f"--format {args.format} is for FG-2020 models; {result.model} is none")
        if args.format == "fg2020":
            written |= exports.fg2020_files(result.tasks, members)
        elif args.format == "api":
            written[f"{result.model}.csv"] = cropped.fg2020_table(files, model, args.device)
        else:
            written[f"{result.model}.{args.format}"] = result.to_csv() if args.format == "csv" else result.to_json()
        show(f"{result.model}: {len(result)} faces")
    for relative, text in written.items():
        path = Path(args.output) / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    show(f"Written to {args.output}: {', '.join(written)}")
    return 0
