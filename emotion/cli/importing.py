"""`python -m emotion import`: the original's files become a checkpoint folder."""

from __future__ import annotations

import argparse
import importlib
import inspect
import typing
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from emotion import importers
from emotion.cli.console import PROGRAM, show
from emotion.errors import UserError


def run(args: argparse.Namespace) -> int:
    """The command; prints what was read, what was left out, and what was decided."""
    if args.method not in importers.METHODS:
        raise UserError(f"no importer for {args.method!r}; there are: {', '.join(importers.METHODS)}")
    imported = importers.convert(args.method, args.source, args.output, **_options(args.method, args.rest))
    card, numbers = imported.card, sum(tensor.numel() for tensor in imported.tensors.values())
    show(
        f"Read {card.name} from {args.source}: {len(imported.tensors)} tensors, {numbers:,} numbers",
        *(f"- {note}" for note in imported.notes),
        *(f"- not taken over: {name} ({why})" for name, why in imported.dropped.items()),
        f"Licence of the weights: {card.licence} (commercial use: {'yes' if card.commercial else 'no'})",
        f"Written to {args.output}; use it: {PROGRAM} analyze PHOTO --model {args.output}",
    )
    return 0


def _options(method: str, rest: list[str]) -> dict[str, Any]:
    """`--name value` pairs as keyword arguments of the method's importer, which declares them in its signature."""
    read = importlib.import_module(f"emotion.importers.{method}").read
    types = typing.get_type_hints(read)
    program = f"{PROGRAM} import {method} SOURCE -o FOLDER"
    parser = argparse.ArgumentParser(prog=program, allow_abbrev=False, add_help=False)
    for name, parameter in list(inspect.signature(read).parameters.items())[1:]:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_reader(types[name]),
            default=parameter.default,
            metavar="VALUE",
        )
    return vars(parser.parse_args(rest))


def _reader(kind: Any) -> Callable[[str], Any]:
    """Text -> value of an annotated type; the items of one that is, or may be, a tuple are separated by commas."""
    adapter = TypeAdapter(kind)
    many = tuple in map(typing.get_origin, (kind, *typing.get_args(kind)))

    def read(text: str) -> Any:
        return adapter.validate_python(text.split(",") if many else text)

    read.__name__ = getattr(kind, "__name__", str(kind))  # argparse names it when the text does not fit
    return read
