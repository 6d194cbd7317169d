"""More files of a film's result, each made when it is chosen: what the original systems write, a plot, a demo film."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from emotion import exports
from emotion.draw import dashboard, panels
from emotion.errors import UserError
from emotion.outputs import Result
from emotion.ui import pieces, theme
from emotion.ui.work import Stops, Update, guarded, told, watched

TABLES = {"abaw": "Challenge files (ABAW)", "fg2020": "FG-2020 table", "esr": "ESR table"}
PLOT, DEMO = ("Plot over time", "plot"), ("Demo film, 1920 x 1080", "demo")
NOTHING = ("More files…", "")


@dataclass(frozen=True)
class Film:
    """A film on the server, and the second after which it is not shown."""

    path: str
    until: float


@dataclass(frozen=True)
class Done:
    """What was analysed last: its result, and the film if there was one."""

    result: Result
    film: Film | None


class Forms:
    """A list of kinds of files, and the button that saves the chosen one."""

    def __init__(self, stops: Stops) -> None:
        self.stops = stops
        self.done = gr.State(None, time_to_live=2 * theme.KEPT_SECONDS)
        self.choice = gr.Dropdown([NOTHING], value="", label="More files", show_label=False, elem_id="em-video-more")
        self.file = gr.DownloadButton("Save", visible=False, elem_id="em-video-form")
        self.problem = gr.HTML(visible=False, elem_id="em-video-problem")
        self.outputs = [self.done, self.choice, self.file, self.problem]

    def listen(self) -> Any:
        """Make what is chosen. Returns the event, for what cancels it."""
        return self.choice.input(
            self.make, [self.choice, self.done], [self.choice, self.file, self.problem],
            show_progress="hidden", api_visibility="private", concurrency_id="forms",
        )  # fmt: skip

    def offer(self, done: Done | None) -> Update:
        """What can be made of a result; None takes the offer back."""
        choices = [NOTHING, *(possible(done) if done else ())]
        return {
            **self._said(),
            self.done: done,
            self.choice: gr.Dropdown(choices, value="", interactive=True),
        }

    def _said(self, problem: str = "") -> Update:
        """No file, but perhaps a reason; another kind may be chosen."""
        return {
            self.choice: gr.Dropdown(interactive=True),
            self.file: gr.DownloadButton(value=None, visible=False),
            self.problem: gr.HTML(pieces.error(problem) if problem else "", visible=bool(problem)),
        }

    def make(self, form: str, done: Done | None, request: gr.Request) -> Iterator[Update]:
        """The chosen file behind the button, or why not."""
        if not form:
            yield self._said()
        elif done is None or (form == DEMO[1] and not Path(done.film.path).is_file()):
            yield self._said("this result has been deleted from the server; choose the video again")
        else:
            try:
                yield from guarded(self._steps(form, done, request.session_hash), self._said)
            finally:
                self.stops.end(request.session_hash)

    def _steps(self, form: str, done: Done, session: str) -> Iterator[Update]:
        stem = Path(done.result.source).stem or "video"
        if form == DEMO[1]:
            with tempfile.TemporaryDirectory() as scratch:
                target = Path(scratch) / "film.mp4"
                source, until = done.film.path, done.film.until
                stop = self.stops.start(session)
                drawing = watched(lambda tell: dashboard.write_film(done.result, source, target, until, tell), stop)
                yield from told(drawing, "Demo film", self._busy)
                name, content = f"{stem}_demo.mp4", target.read_bytes()
        elif form == PLOT[1]:
            name, content = f"{stem}_curves.png", _plot(done.result)
        else:
            name, content = packed(exports.files(form, done.result, stem), f"{stem}_{form}")
        label, saved = f"Save {Path(name).suffix[1:].upper()}", pieces.download(name, content)
        yield self._said() | {self.file: gr.DownloadButton(label, value=saved, visible=True, interactive=True)}

    def _busy(self, text: str, share: float | None = None, stoppable: bool = False) -> Update:
        return self._said() | {
            self.choice: gr.Dropdown(interactive=False),
            self.file: gr.DownloadButton(text, value=None, visible=True, interactive=False),
        }


def possible(done: Done) -> list[tuple[str, str]]:
    """Labels and keys of the files that can be made of a result."""
    found = []
    for form, label in TABLES.items():
        try:
            exports.check([form], done.result.model, {k: t[:0] for k, t in done.result.tasks.items()})
        except UserError:
            continue
        found.append((label, form))
    return [*found, *([PLOT] if len(done.result) else []), *([DEMO] if done.film and len(done.result) else [])]


def packed(files: dict[str, bytes], stem: str) -> tuple[str, bytes]:
    """Name and content of one file as it is, or of several in a ZIP archive."""
    if len(files) == 1:
        ((path, content),) = files.items()
        return f"{stem}{Path(path).suffix}", content
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return f"{stem}.zip", out.getvalue()


def _plot(result: Result) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        panels.curves(result, target := Path(scratch) / "curves.png")
        return target.read_bytes()
