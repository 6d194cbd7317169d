"""`python -m emotion analyze` on videos: progress, an annotated film, tables, a summary and subtitles."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from emotion import draw, exports, timeline
from emotion.cli.console import show, table
from emotion.draw import dashboard, film, panels
from emotion.errors import UserError
from emotion.outputs import Result, write_file
from emotion.predict import FacePredictor

MOST = 4  # columns of a continuous task that are printed; landmarks have more


class Stop:
    """Turns the first Ctrl-C within its block into a request to finish what was begun; the second one breaks off."""

    def __enter__(self) -> Stop:
        self.asked = False
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)
        print("stopping (Ctrl-C again: at once)", file=sys.stderr)


class Bar:
    """A line on stderr that tells how far one step of the work is and how long it will take; only on a terminal."""

    def __init__(self, progress: Progress, text: str, stop: Stop) -> None:
        self.text, self._progress, self._stop = text, progress, stop
        self._task: TaskID = progress.add_task(text, total=None)

    def __call__(self, done: float, total: float) -> bool:
        """For `progress` of `FacePredictor.video` and `film.annotate`."""
        self._progress.update(self._task, completed=done, total=total or None)
        return not self._stop.asked


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Where `Bar` draws; nothing is drawn where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def analyze(predictor: FacePredictor, path: Path, name: str, args: argparse.Namespace, stem: str | None) -> bool:
    """Read one video, write its files (where `args.output` says) and print what it shows.

    Returns:
        False when the user stopped it; the files then hold what was done.

    Raises:
        UserError: the video cannot be read, or the files cannot be written.
    """
    with Stop() as stop, progress_bar() as progress:
        bar = Bar(progress, f"{name}: reading", stop)
        result = predictor.video(path, args.fps, args.detect_every, name, bar)
    stopped = stop.asked
    result = timeline.smooth(result, args.smooth)
    if stem is not None:
        save(result, args.output, stem, args.export)
        with Stop() as stop, progress_bar() as progress:
            _draw(path, result, args, args.output / f"{stem}.mp4", stopped, Bar(progress, f"{name}: drawing", stop))
        stopped |= stop.asked
    if args.json:
        print(result.to_json(indent=None))
    else:
        show(*_lines(result))
    return not stopped


def save(result: Result, folder: Path, stem: str, formats: list[str]) -> None:
    """The tables, the summary and the subtitles of a video.

    Raises:
        UserError: the place cannot be written to, or the model does not give what a format needs.
    """
    make_folder(folder)
    result.to_csv(folder / f"{stem}.csv")
    result.to_json(folder / f"{stem}.json")
    timeline.summary_json(result, folder / f"{stem}.summary.json")
    timeline.webvtt(timeline.smooth(result), folder / f"{stem}.vtt")
    export(result, folder, stem, formats)


def export(result: Result, folder: Path, stem: str, formats: list[str]) -> None:
    """The formats of `emotion.exports` that were asked for.

    Raises:
        UserError: as `save`.
    """
    for form in formats:
        for name, content in exports.files(form, result, stem).items():
            make_folder((folder / name).parent)
            write_file(folder / name, content)


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it, where they are missing.

    Raises:
        UserError: that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror or error}") from error


def _draw(path: Path, result: Result, args: argparse.Namespace, out: Path, stopped: bool, bar: Bar) -> None:
    smoothing = 0.0 if args.smooth else timeline.DRAWN
    until = float(result.timestamps[-1]) if stopped else np.inf
    beside = panels.Details() if args.details else None
    if not film.annotate(path, result, out, smoothing, until, bar, beside):
        show(f"{out.name} ends where it was stopped; the tables go on")
    panels.curves(result, out.with_suffix(".curves.png"))
    if args.dashboard:
        dashboard.write_film(result, path, out.with_suffix(".dashboard.mp4"), until, bar)


def _lines(result: Result) -> list[RenderableType]:
    """What is printed for one video: a row per track."""
    told: dict[str, Any] = timeline.summary(result)
    people = {0: "nobody", 1: "1 person"}.get(len(told["tracks"]), f"{len(told['tracks'])} persons")
    head = f"{result.source}  {result.size[0]} x {result.size[1]} pixels, {told['seconds']:.1f} s, "
    head += f"{told['frames']} frames, {people}"
    if not told["tracks"]:
        return [head, *result.notes]
    rows = [_row(result, track) for track in told["tracks"]]
    tracks = table(*rows[0])
    for row in rows:
        tracks.add_row(*row.values())
    return [head, tracks, *result.notes]


def _row(result: Result, track: dict[str, Any]) -> dict[str, str]:
    """Headers and cells of one track."""
    row = {"track": str(track["track"]), "seen": f"{track['first']:.1f} to {track['last']:.1f} s"}
    for name, task in result.tasks.items():
        told = track[name]
        if task.kind == "continuous" and len(task.labels) > MOST:
            continue
        if task.kind == "continuous":
            row |= {label: f"{value:+.2f}" for label, value in told["mean"].items()}
        else:
            often = sorted(told["share"].items(), key=lambda pair: -pair[1])[:3]
            shares = [f"{label} {draw.percent(share)}" for label, share in often if share]
            row[name.replace("_", " ")] = ", ".join(shares) or "-"
    return row
