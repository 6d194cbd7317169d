"""The Video tab: a film in, every face over time, an annotated film and tables out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from emotion import timeline
from emotion.draw import film
from emotion.errors import UserError
from emotion.media import video
from emotion.outputs import Result
from emotion.ui import curves, facefilm, pieces, readouts
from emotion.ui.forms import Done, Film, Forms
from emotion.ui.work import Stops, answering, guarded, limited, told, watched

LONGEST = 600.0  # seconds of video that the page takes; the command line takes any
RATES = [("5 frames per second", "5"), ("10 frames per second", "10"), ("every frame", "all")]
EXAMPLE_ROWS = (
    ("synthetic_faces.mp4", "Seven expressions", "Computer-generated faces, one after the other", "CC0 1.0"),
    ("two_people.mp4", "Two speakers", "Two people saying a sentence side by side", "CC BY 4.0"),
)
EMPTY = pieces.note(
    "Choose a video to begin.",
    "Every face in it is followed and read over time. You get the annotated video, a timeline that moves the player, "
    "and tables. Sound is kept. Up to 10 minutes or 200 MB. Or give pictures of one person's face, in order.",
)
PLAYER = "em-video-player"
FILES = ("MP4", "CSV", "JSON", "Parquet", "VTT")


class VideoTab:
    """The tab's components, and what happens when they are used."""

    def __init__(self, models: pieces.Models, model: gr.Dropdown) -> None:
        self.models, self.stops = models, Stops()
        with gr.Row(equal_height=False, elem_classes="em-columns"):
            with gr.Column(scale=7, min_width=320, elem_classes="em-stage em-loose"):
                self._stage()
            with gr.Column(scale=5, min_width=320, elem_classes="em-readout"):
                self.message = gr.HTML(EMPTY, elem_id="em-video-message")
                self.stop = gr.Button("Stop here, keep what is done", visible=False, elem_id="em-video-stop")
                self.summary = gr.HTML("", js_on_load=readouts.SEEK, elem_id="em-video-summary")
        self.timeline = gr.HTML("", js_on_load=curves.SCRIPT, elem_id="em-video-timeline")
        self._events(model)

    def _stage(self) -> None:
        with gr.Column(elem_id="em-video-input") as self.input:
            self.video = gr.Video(
                label="Video", sources=["upload", "webcam"], height=380, buttons=[], elem_id="em-video-source"
            )
            with gr.Row(elem_classes="em-actions em-form"):
                self.start = gr.Button("Analyse", variant="primary", interactive=False, elem_id="em-video-start")
                self.rate = gr.Dropdown(RATES, value="10", label="Read", show_label=False, elem_id="em-video-rate")
                crops = gr.UploadButton(
                    "Face pictures of one person…", file_count="multiple", file_types=["image"],
                    elem_id="em-video-crops",
                )  # fmt: skip
                self.crops = facefilm.as_paths(crops)
        self.player = gr.Video(
            label="Annotated video", interactive=False, visible=False, height=400, buttons=[], elem_id=PLAYER
        )
        with gr.Row(elem_classes="em-actions em-form", visible=False) as self.actions:
            self.again = gr.Button("Choose another video", elem_id="em-video-again")
            self.files = [gr.DownloadButton(f"Save {kind}", elem_id=f"em-video-{kind.lower()}") for kind in FILES]
            self.forms = Forms(self.stops)
        self.examples = pieces.example_gallery(EXAMPLE_ROWS, elem_id="em-video-examples")

    def _events(self, model: gr.Dropdown) -> None:
        outputs = [
            self.input, self.video, self.start, self.player, self.actions, *self.files, self.examples, self.message,
            self.stop, self.summary, self.timeline, *self.forms.outputs,
        ]  # fmt: skip
        # A queue of its own: pictures need not wait for videos.
        work = {"outputs": outputs, "show_progress": "hidden", "api_visibility": "private", "concurrency_id": "video"}
        self.video.change(
            lambda path: gr.Button(interactive=path is not None), self.video, self.start,
            queue=False, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        # said at once, without waiting for other visitors' films
        said = {"outputs": [self.message, self.start], "queue": False, "show_progress": "hidden"}
        waiting = self.start.click(self.waiting, None, **said, api_visibility="private")
        waiting.then(self.analyse, [self.video, model, self.rate], **work)
        self.examples.click(self.example, [model, self.rate], **work)
        waiting = self.crops.upload(self.waiting, None, **said, api_visibility="private")
        waiting.then(self.pictures, [self.crops, model], **work)
        making = self.forms.listen()
        self.again.click(self.reset, None, cancels=[making], **work | {"concurrency_id": "reset"})
        self.stop.click(self.halt, None, None, queue=False, api_visibility="private")

    def waiting(self) -> dict[Any, Any]:
        """What is shown until it is this visitor's turn."""
        waiting = gr.HTML(pieces.busy("Waiting for the server…"), visible=True)
        return {self.message: waiting, self.start: gr.Button(interactive=False)}

    def halt(self, request: gr.Request) -> None:
        """Stop this session's analysis; what was done so far is shown."""
        self.stops.stop(request.session_hash)

    def example(self, model: str, rate: str, event: gr.EventData, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Analyse an example."""
        path = pieces.example(EXAMPLE_ROWS, event)
        yield {self.video: path}
        yield from self.analyse(path, model, rate, request)

    def analyse(self, path: str | None, model: str, rate: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Read a video and show what was found, or why not."""
        if path is None:
            yield self.reset()
            return
        steps = self._steps(path, model, rate, request.session_hash)
        try:
            yield from guarded(steps, lambda problem: self.reset(pieces.error(problem)))
        finally:
            self.stops.end(request.session_hash)

    def pictures(self, files: list[str], model: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Read face pictures as a film of one person."""
        yield from guarded(self._read_pictures(files, model), lambda problem: self.reset(pieces.error(problem)))

    def _read_pictures(self, files: list[str], model: str) -> Iterator[dict[Any, Any]]:
        yield self._busy(f"Loading {model}…" if not self.models.is_loaded(model) else "Reading face pictures…")
        network = self.models.predictor(model).model
        yield self._busy(f"Reading {len(files)} face pictures…")
        result = facefilm.read(files, network, facefilm.RATE)
        yield self._busy("Drawing the annotated video…")
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch) / "film.mp4"
            facefilm.write(files, result, target)
            yield self._shown(result, target.read_bytes(), float(result.timestamps[-1]))

    def _steps(self, path: str, model: str, rate: str, session: str) -> Iterator[dict[Any, Any]]:
        info = checked(path)
        yield self._busy(f"Loading {model}…" if not self.models.is_loaded(model) else "Opening the video…")
        predictor = self.models.predictor(model)
        stop = self.stops.start(session)
        reading = watched(lambda tell: predictor.video(path, rate=_rate(rate), progress=limited(LONGEST, tell)), stop)
        result = yield from told(reading, "Reading faces", self._busy)
        last = float(result.timestamps[-1])
        until = last if stop.is_set() or last > LONGEST else math.inf  # not the header's length: some have none
        stop = self.stops.start(session)
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch) / "film.mp4"
            drawing = watched(lambda tell: film.annotate(path, result, target, until=until, progress=tell), stop)
            if not (yield from told(drawing, "Drawing the annotated video", self._busy)):
                notes = (*result.notes, "stopped: the annotated video ends before the tables do")
                result = replace(result, notes=notes)
            yield self._shown(result, target.read_bytes(), min(until, info.seconds or last), Film(path, until))

    def _busy(self, text: str, share: float | None = None, stoppable: bool = False) -> dict[Any, Any]:
        return {
            self.message: gr.HTML(pieces.busy(text, share), visible=True),
            self.stop: gr.Button(visible=stoppable),
            self.start: gr.Button(interactive=False),
            self.examples: gr.HTML(visible=False),
        }

    def _shown(self, result: Result, annotated: bytes, length: float, film: Film | None = None) -> dict[Any, Any]:
        files = [pieces.download(name, content) for name, content in saved(result, annotated)]
        notes = "".join(pieces.note(text) for text in result.notes)
        return {
            self.input: gr.Column(visible=False),
            self.player: gr.Video(files[0], visible=True),
            self.actions: gr.Row(visible=True),
            **{button: gr.DownloadButton(value=file) for button, file in zip(self.files, files)},
            self.message: gr.HTML(notes, visible=bool(notes)),
            self.stop: gr.Button(visible=False),
            self.summary: readouts.summary(timeline.summary(result), PLAYER),
            self.timeline: curves.timeline(result, length, PLAYER) if len(result) else "",
            **self.forms.offer(Done(result, film)),
        }

    def reset(self, message: str = EMPTY) -> dict[Any, Any]:
        """Back to the beginning."""
        return {
            self.input: gr.Column(visible=True),
            self.video: None,
            self.start: gr.Button(interactive=False),
            self.player: gr.Video(None, visible=False),
            self.actions: gr.Row(visible=False),
            **{file: gr.DownloadButton(value=None) for file in self.files},
            self.examples: gr.HTML(visible=True),
            self.message: gr.HTML(message, visible=True),
            self.stop: gr.Button(visible=False),
            self.summary: "",
            self.timeline: "",
            **self.forms.offer(None),
        }


def checked(path: str) -> video.VideoInfo:
    """The facts of a video that is not too long for the page.

    Raises:
        UserError: it is, or is no video.
    """
    info = video.probe(path)
    if info.seconds > LONGEST:
        raise UserError(
            f"the video lasts {curves.clock(info.seconds)} minutes, and this page takes {LONGEST / 60:.0f}; cut it, or "
            "use the command line: python -m emotion analyze VIDEO -o FOLDER"
        )
    return info


def _rate(chosen: str) -> str | float:
    return chosen if chosen == "all" else float(chosen)


def saved(result: Result, annotated: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the downloads, in the order of `FILES`."""
    stem = Path(result.source).stem or "video"
    yield f"{stem}_annotated.mp4", annotated
    yield f"{stem}.csv", result.to_csv().encode()
    yield f"{stem}.json", result.to_json(indent=None).encode()
    yield f"{stem}.parquet", result.to_parquet()
    yield f"{stem}.vtt", timeline.webvtt(timeline.smooth(result)).encode()


def tab(models: pieces.Models, model: gr.Dropdown) -> None:
    """Build the tab's contents and its API functions."""
    VideoTab(models, model)
    _endpoint(models)
    _crops_endpoint(models)


def _endpoint(models: pieces.Models) -> None:
    """Offer the analysis as the API (and MCP) function `/analyze_video`."""

    def analyze_video(
        video: str, model: str = models.names()[0], frames_per_second: float = 5.0, only_summary: bool = False
    ) -> dict[str, Any]:
        """Follow every face of a video and predict expression, valence, arousal and uncertainty over time.

        Args:
            video: the file: MP4, WebM, MOV, AVI, ... of up to 10 minutes.
            model: name of a model that this page offers.
            frames_per_second: how many frames to read; 0 for every frame.
            only_summary: leave the rows of single frames out.

        Returns:
            "summary": time per expression, mean and extreme values, peaks with their seconds, for everybody and for
            every face track; "result": the document described in docs/schema.md, with one entry per frame.
        """
        if not video:
            raise gr.Error("give a video", print_exception=False)
        with answering():
            checked(video)
            result = models.predictor(model).video(video, rate=frames_per_second or "all", progress=limited(LONGEST))
        document = {} if only_summary else {"result": replace(result, source=Path(video).name).to_dict()}
        return {"summary": timeline.summary(result), **document}

    with gr.Row(visible=False):
        inputs = [
            gr.Video(label="video"),
            gr.Textbox(models.names()[0], label="model"),
            gr.Number(5.0, label="frames_per_second", minimum=0),
            gr.Checkbox(label="only_summary"),
        ]
        gr.Button().click(
            analyze_video, inputs, gr.JSON(label="result"), api_name="analyze_video", concurrency_id="video"
        )


def _crops_endpoint(models: pieces.Models) -> None:
    """Offer the reading of face pictures as the API (and MCP) function `/analyze_crops`."""

    def analyze_crops(
        pictures: list[str], model: str = models.names()[0], frames_per_second: float = facefilm.RATE
    ) -> dict[str, Any]:
        """Read face pictures of one person, without looking for faces: a film for models that remember.

        Args:
            pictures: the files, ordered by the numbers at the end of their names where all have one, else by name.
            model: name of a model that this page offers.
            frames_per_second: how fast they follow each other.

        Returns:
            The document described in docs/schema.md, with one entry per picture.
        """
        with answering():
            predictor = models.predictor(model)
            result = facefilm.read(pictures or [], predictor.model, frames_per_second)
        return result.to_dict()

    with gr.Row(visible=False):
        inputs = [
            facefilm.as_paths(gr.File(label="pictures", file_count="multiple", file_types=["image"])),
            gr.Textbox(models.names()[0], label="model"),
            gr.Number(facefilm.RATE, label="frames_per_second", minimum=0),
        ]
        gr.Button().click(
            analyze_crops, inputs, gr.JSON(label="result"), api_name="analyze_crops", concurrency_id="video"
        )
