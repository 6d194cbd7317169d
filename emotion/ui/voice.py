"""The Voice & face tab: a film or a voice in, the expression over time, and which of the two carried it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emotion import media
from emotion.errors import UserError
from emotion.media import audio, video
from emotion.outputs import Faces, Result, Task
from emotion.ui import curves, modalities, pieces
from emotion.ui.work import Stops, answering, guarded, limited, told, watched

READS = "ClipInput"
LONGEST = 600.0  # seconds that the page takes; the command line takes any
EXAMPLE_ROWS = (("two_people.mp4", "Two speakers", "Two people saying a sentence side by side", "CC BY 4.0"),)
EMPTY = pieces.note(
    "Choose or record a clip of somebody speaking.",
    "Voice and face are read together, every 0.6 seconds, and then each alone, to see which of them carried the "
    "decision. A voice without pictures, and pictures without a voice, are judged too. Up to 10 minutes or 200 MB.",
)
NO_MODEL = pieces.note(
    "There is no model of voice and face on this page.",
    "Start it with --model FOLDER, the folder of an audiovisual checkpoint.",
)
PLAYER = "em-voice-player"
FILES = ("CSV", "JSON")


class VoiceTab:
    """The tab's components, and what happens when they are used."""

    def __init__(self, models: pieces.Models) -> None:
        self.models, self.stops, names = models, Stops(), models.names(READS)
        with gr.Row(elem_classes="em-filters"):
            self.model = gr.Dropdown(names, value=names[0], label="Model", elem_id="em-voice-model")
        with gr.Row(equal_height=False, elem_classes="em-columns"):
            with gr.Column(scale=7, min_width=320, elem_classes="em-stage em-loose"):
                self._stage()
            with gr.Column(scale=5, min_width=320, elem_classes="em-readout"):
                self.message = gr.HTML(EMPTY, elem_id="em-voice-message")
                self.stop = gr.Button("Stop here, keep what is done", visible=False, elem_id="em-voice-stop")
                self.readout = gr.HTML("", elem_id="em-voice-readout")
        self.timeline = gr.HTML("", js_on_load=curves.SCRIPT, elem_id="em-voice-timeline")
        self._events()

    def _stage(self) -> None:
        with gr.Column(elem_id="em-voice-input") as self.input:
            self.film = gr.Video(
                label="Film with sound", sources=["upload", "webcam"], height=320, buttons=[], elem_id="em-voice-film"
            )
            self.sound = gr.Audio(
                label="Voice alone", sources=["upload", "microphone"], type="filepath", buttons=[],
                elem_id="em-voice-sound",
            )  # fmt: skip
        self.player = gr.Video(label="Film", interactive=False, visible=False, buttons=[], elem_id=PLAYER)
        self.heard = gr.Audio(label="Voice", interactive=False, visible=False, buttons=[], elem_id="em-voice-heard")
        with gr.Row(elem_classes="em-actions", visible=False) as self.actions:
            self.again = gr.Button("Choose another clip", elem_id="em-voice-again")
            self.files = [gr.DownloadButton(f"Save {kind}", elem_id=f"em-voice-{kind.lower()}") for kind in FILES]
        self.examples = pieces.example_gallery(EXAMPLE_ROWS, elem_id="em-voice-examples")

    def _events(self) -> None:
        outputs = [
            self.input, self.film, self.sound, self.player, self.heard, self.actions, *self.files, self.examples,
            self.message, self.stop, self.readout, self.timeline,
        ]  # fmt: skip
        work = {"outputs": outputs, "show_progress": "hidden", "api_visibility": "private", "concurrency_id": "video"}
        for source in (self.film, self.sound):
            finished = [source.upload, source.stop_recording]
            # said at once, without waiting for other visitors' films
            waiting = gr.on(
                finished, lambda: self._busy("Waiting for the server…"), None,
                [self.message, self.stop, self.examples],
                queue=False, show_progress="hidden", api_visibility="private",
            )  # fmt: skip
            waiting.then(self.analyse, [source, self.model], **work)
        self.examples.click(self.example, self.model, **work)
        self.again.click(self.reset, None, **work | {"concurrency_id": "reset"})
        self.stop.click(self.halt, None, None, queue=False, api_visibility="private")

    def halt(self, request: gr.Request) -> None:
        """Stop this session's analysis; what was done so far is shown."""
        self.stops.stop(request.session_hash)

    def example(self, model: str, event: gr.EventData, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Analyse an example."""
        yield from self.analyse(pieces.example(EXAMPLE_ROWS, event), model, request)

    def analyse(self, path: str | None, model: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Read a clip and show what was found, or why not."""
        if path is None:
            yield self.reset()
            return
        steps = self._steps(path, model, request.session_hash)
        try:
            yield from guarded(steps, lambda problem: self.reset(pieces.error(problem)))
        finally:
            self.stops.end(request.session_hash)

    def _steps(self, path: str, model: str, session: str) -> Iterator[dict[Any, Any]]:
        length = checked(path)
        yield self._busy(f"Loading {model}…" if not self.models.is_loaded(model) else "Opening the clip…")
        predictor = self.models.predictor(model, READS)
        reading = watched(lambda tell: predictor.clip(path, progress=limited(LONGEST, tell)), self.stops.start(session))
        result = yield from told(reading, "Listening and looking", self._busy)
        yield self._shown(path, result, length)

    def _busy(self, text: str, share: float | None = None, stoppable: bool = False) -> dict[Any, Any]:
        return {
            self.message: gr.HTML(pieces.busy(text, share), visible=True),
            self.stop: gr.Button(visible=stoppable),
            self.examples: gr.HTML(visible=False),
        }

    def _shown(self, path: str, result: Result, length: float) -> dict[Any, Any]:
        files = [pieces.download(name, content) for name, content in saved(result)]
        notes = "".join(pieces.note(text) for text in result.notes)
        is_film = result.size != (0, 0)
        length = max(length, float(result.timestamps[-1]))
        return {
            self.input: gr.Column(visible=False),
            self.player: gr.Video(path if is_film else None, visible=is_film),
            self.heard: gr.Audio(None if is_film else path, visible=not is_film),
            self.actions: gr.Row(visible=True),
            **{button: gr.DownloadButton(value=file) for button, file in zip(self.files, files)},
            self.message: gr.HTML(notes, visible=bool(notes)),
            self.stop: gr.Button(visible=False),
            self.readout: modalities.readout(result) if len(result) else "",
            self.timeline: drawn(result, length) if len(result) > 1 else "",
        }

    def reset(self, message: str = EMPTY) -> dict[Any, Any]:
        """Back to the beginning."""
        return {
            self.input: gr.Column(visible=True),
            self.film: None,
            self.sound: None,
            self.player: gr.Video(None, visible=False),
            self.heard: gr.Audio(None, visible=False),
            self.actions: gr.Row(visible=False),
            **{file: gr.DownloadButton(value=None) for file in self.files},
            self.examples: gr.HTML(visible=True),
            self.message: gr.HTML(message, visible=True),
            self.stop: gr.Button(visible=False),
            self.readout: "",
            self.timeline: "",
        }


def checked(path: str) -> float:
    """Seconds of a clip that is not too long for the page; 0 where it does not tell.

    Raises:
        UserError: it is too long, or cannot be read.
    """
    if media.is_video(path):
        try:
            length = video.probe(path).seconds
        except UserError:  # a sound file in a film's container
            length = sounding(path)
    else:
        length = sounding(path)
    if length > LONGEST:
        raise UserError(
            f"the clip lasts {curves.clock(length)} minutes, and this page takes {LONGEST / 60:.0f}; cut it, or "
            "use the command line: python -m emotion analyze CLIP --model MODEL"
        )
    return length


def sounding(path: str) -> float:
    """Seconds of a sound file."""
    sound = audio.read(path)
    return 0.0 if sound is None else sound.start + sound.seconds


def drawn(result: Result, length: float) -> str:
    """The timeline: one strip for what was decided, and one for what each modality says alone."""
    alone = modalities.alone(result)
    count = len(alone)
    strips = replace(
        result,
        frame=np.tile(result.frame, count),
        faces=Faces(np.zeros((count * len(result), 4)), np.ones(count * len(result)), track_ids=_each(count, result)),
        tasks={"expression": Task.concatenate(list(alone.values()))},
    )
    return curves.timeline(strips, length, PLAYER, [title.capitalize() for title in alone])


def _each(count: int, result: Result) -> np.ndarray:
    return np.repeat(np.arange(count), len(result))


def saved(result: Result) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the downloads, in the order of `FILES`."""
    stem = Path(result.source).stem or "clip"
    yield f"{stem}.csv", result.to_csv().encode()
    yield f"{stem}.json", result.to_json(indent=None).encode()


def tab(models: pieces.Models, _: gr.Dropdown) -> gr.Dropdown | None:
    """Build the tab's contents and its API function; returns its chooser of models."""
    if not models.names(READS):
        gr.HTML(NO_MODEL)
        return None
    built = VoiceTab(models)
    _endpoint(models)
    return built.model


def _endpoint(models: pieces.Models) -> None:
    """Offer the analysis as the API (and MCP) function `/analyze_clip`."""

    def analyze_clip(
        clip: str, model: str = models.names(READS)[0], per_second: float = 0.0, faithful: bool = False
    ) -> dict[str, Any]:
        """Read voice and face of a clip over time, together and each alone.

        Args:
            clip: a film with or without sound (MP4, WebM, ...), or a sound file (WAV, FLAC, MP3, OGG, M4A), of up to
                10 minutes.
            model: name of a model of voice and face that this page offers.
            per_second: decisions per second; 0 for the model's own pace.
            faithful: instead one decision by the original system's rule.

        Returns:
            The document described in docs/schema.md: one frame per decision.
        """
        if not clip:
            raise gr.Error("give a clip", print_exception=False)
        with answering():
            checked(clip)
            predictor = models.predictor(model, READS)
            rate = "faithful" if faithful else per_second or None
            return predictor.clip(clip, rate, progress=limited(LONGEST)).to_dict()

    with gr.Row(visible=False):
        inputs = [
            gr.Video(label="clip"),  # not gr.File, which leaves an empty file behind
            gr.Textbox(models.names(READS)[0], label="model"),
            gr.Number(0.0, label="per_second", minimum=0),
            gr.Checkbox(label="faithful"),
        ]
        gr.Button().click(
            analyze_clip, inputs, gr.JSON(label="result"), api_name="analyze_clip", concurrency_id="video"
        )
