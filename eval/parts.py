"""Long runs in parts that are kept on disk until all are there: what was computed once is not computed again."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from emotion.errors import UserError

Part = TypeVar("Part")


def slices(n: int, step: int) -> list[range]:
    """Rows 0 to n - 1, `step` at a time."""
    return [range(first, min(first + step, n)) for first in range(0, n, step)]


def in_parts(
    rows_of: list[range],
    folder: Path,
    compute: Callable[[range], Part],
    write: Callable[[Part, Path], None],
    read: Callable[[Path, range], Part | None],
    title: str = "",
    quiet: bool = False,
) -> tuple[list[Part], float | None]:
    """All parts, in order; call `finish` once the whole is safe.

    Args:
        rows_of: the rows of every part, one after the other.
        folder: where parts lie meanwhile.
        compute: rows -> part.
        write: keeps a part.
        read: a kept part of these rows, None if it is of another run; what it raises as `UserError` counts as None.
        title: beside the progress bar.
        quiet: no progress bar.

    Returns:
        The parts, and the rows per second of what was computed now (None if nothing was).
    """
    parts, computed, seconds = [], 0, 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(title, total=sum(map(len, rows_of)))
        for rows in rows_of:
            path, part = folder / f"{rows.start:09d}.npz", None
            if path.is_file():
                with contextlib.suppress(UserError):
                    part = read(path, rows)
            if part is None:
                start = time.perf_counter()
                part = compute(rows)
                seconds, computed = seconds + time.perf_counter() - start, computed + len(rows)
                write(part, path)
            parts.append(part)
            bar.advance(task, len(rows))
    return parts, computed / seconds if seconds else None


def finish(folder: Path) -> None:
    """Remove the parts."""
    shutil.rmtree(folder, ignore_errors=True)
