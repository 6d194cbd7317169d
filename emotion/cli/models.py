"""`python -m emotion models` and `info`: the registry as a table, and one model in full."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from emotion import registry, remote
from emotion.cli.console import PROGRAM, pairs, show, table
from emotion.errors import UserError
from emotion.registry import Entry


def run(args: argparse.Namespace) -> int:
    """`models`."""
    chosen = [
        entry
        for entry in registry.entries().values()
        if args.method in (None, entry.method) and (args.task is None or args.task in entry.tasks)
    ]
    if not chosen:
        methods = sorted({entry.method for entry in registry.entries().values()})
        tasks = sorted({task for entry in registry.entries().values() for task in entry.tasks})
        raise UserError(f"no such model; methods are {', '.join(methods)}, tasks are {', '.join(tasks)}")
    if args.json:
        rows = [dataclasses.asdict(entry) | {"bytes": _size(entry), "weights": _where(entry)} for entry in chosen]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    out = table("name", "predicts", "size", "weights", "licence")
    for column in out.columns[:4]:
        column.no_wrap = column.header != "predicts"
    for entry in chosen:
        tasks = ", ".join(entry.tasks).replace("_", " ")
        out.add_row(entry.name, tasks, _megabytes(entry), _where(entry), entry.licence)
    show(out, "", "A size with ~ is that of a checkpoint in single precision, which is not here yet.")
    show(f"More on one of them: {PROGRAM} info NAME")
    return 0


def run_info(args: argparse.Namespace) -> int:
    """`info`."""
    entry = registry.entries().get(args.model)
    if entry is None or entry.bundled or Path(args.model).exists() or _where(entry) == "cached":
        _show_checkpoint(args.model, entry)
        return 0
    rows = {
        "name": entry.name,
        "summary": entry.summary,
        "method": entry.method,
        "takes": entry.input,
        "predicts": ", ".join(entry.tasks),
        "trained on": ", ".join(entry.trained_on),
        "licence": f"{entry.licence} (commercial use: {_yes(entry.commercial)})",
        "reported": entry.reported or "-",
        "paper": entry.citation,
        "weights": "not part of this package; two steps:",
        "  1. get them": entry.original,
        "  2. import them": entry.import_command,
    }
    show(pairs(rows))
    return 0


def _show_checkpoint(name: str, entry: Entry | None) -> None:
    from rich.markdown import Markdown

    from emotion import hub

    folder = hub.find(name)
    model = hub.load(name)
    card = model.card
    rows = {
        "name": card.name,
        **{f"predicts {task}": ", ".join(labels) for task, labels in model.labels.items()},
        "trained on": ", ".join(card.trained_on) or "not stated",
        "licence": f"{card.licence} (commercial use: {_yes(card.commercial)})",
        "origin": card.source or "not stated",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "size": f"{(folder / hub.WEIGHTS).stat().st_size / 1e6:.1f} MB",
        "sha256": card.sha256,
        **({"paper": entry.citation} if entry else {}),
        **{metric: f"{value:g} (measured)" for metric, value in card.metrics.items()},
    }
    show(pairs(rows))
    readme = folder / hub.CARD
    if readme.is_file():
        text = readme.read_text(encoding="utf-8", errors="replace")
        body = text.partition("\n---\n")[2] if text.startswith("---\n") else text  # front matter is for the Hub
        show("", Markdown(body))


def _where(entry: Entry) -> str:
    """Where the weights are found under the entry's name, in the order of `hub.find`."""
    if entry.bundled:
        return "bundled" if _size(entry) else "missing"
    if (Path(entry.name) / "config.json").is_file():
        return "in this folder"
    if (place := remote.trusted(entry.name)) is not None:
        return "cached" if _size(entry) else f"Hub: {place}"
    return "to import"


def _size(entry: Entry) -> int | None:
    """Bytes of the weights, where they are on this machine."""
    if entry.bundled:
        file = entry.folder / entry.file
        return file.stat().st_size if file.is_file() else None
    place = remote.trusted(entry.name)
    return remote.cached_size(place, entry.file) if place is not None else None


def _megabytes(entry: Entry) -> str:
    size = _size(entry) or entry.size or None
    return f"~{4e-6 * entry.parameters:.1f} MB" if size is None else f"{size / 1e6:.1f} MB"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
