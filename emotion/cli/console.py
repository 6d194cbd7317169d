"""What the commands print with: tables and plain lines, as wide as the terminal or 120 columns in a pipe."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table

from emotion.errors import UserError

PROGRAM = "python -m emotion"


def report(error: UserError) -> None:
    """One message on stderr."""
    print(f"error: {error}", file=sys.stderr)


def call(run: str, args: argparse.Namespace, stopped: str = "stopped") -> int:
    """Run a command and turn what may end it into an exit code.

    Args:
        run: "module:function" of the command, imported only now; the function takes `args` and returns the exit code.
        args: parsed.
        stopped: said when Ctrl-C ends it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a file name that the terminal cannot show must not end the run
    module, function = run.split(":")
    try:
        return getattr(importlib.import_module(module), function)(args)
    except UserError as error:
        report(error)
        return 2
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def show(*parts: RenderableType) -> None:
    """Print tables and lines to stdout; text is printed as it is, without rich's markup and line breaks."""
    console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 120)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def table(*headers: str) -> Table:
    """An empty table with a line below its headers."""
    out = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header in headers:
        out.add_column(header, overflow="fold")
    return out


def pairs(rows: dict[str, str]) -> Table:
    """Names on the left, values on the right."""
    out = Table.grid(padding=(0, 2))
    out.add_column(no_wrap=True)
    out.add_column(overflow="fold")
    for name, value in rows.items():
        out.add_row(name, value)
    return out
