"""The Image tab: one picture in, every face with its expression, and the details of the face that is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emotion import draw
from emotion.errors import UserError
from emotion.explain import Maps, grad_cam
from emotion.faces import crop
from emotion.media import read_image
from emotion.outputs import Result
from emotion.ui import face, pieces
from emotion.ui.theme import KEPT_SECONDS
from emotion.ui.work import answering, guarded

PORTRAIT_SIDE = 192  # pixels
# File, caption, what is to be seen, licence; sources in examples/LICENSES.md.
EXAMPLE_ROWS = (
    ("astronaut.jpg", "Astronaut", "Portrait of a smiling astronaut in front of a flag", "public domain"),
    ("conference_1927.jpg", "Group, 1927", "Group photograph of a conference with 29 people", "public domain"),
    ("laughing.jpg", "Laughing", "Bearded man looking up and laughing", "CC BY-SA 2.0"),
    ("officer.jpg", "Officer", "Portrait of a navy officer with glasses", "public domain"),
    ("synthetic.png", "Synthetic", "Computer-generated surprised face", "CC0 1.0"),
)
EMPTY = pieces.note(
    "Choose a picture to begin.",
    "Every face in it gets an expression, a probability, and how uncertain the model is. "
    "Then click a face, or choose its number, for the details.",
)
NO_FACE = pieces.note(
    "No face found in this picture.",
    "Faces must be at least about 20 pixels high, turned towards the camera and upright.",
)


@dataclass(frozen=True)
class View:
    """What one session looks at.

    Attributes:
        result: the prediction.
        picture: uint8 [H, W, 3], the picture, reduced to `pieces.WORKING_SIDE`.
        crops: uint8 [N, h, w, 3], the faces as the model saw them.
        portraits: uint8 [N, H', W', 3], the same regions at a size for people.
        model: which model of the page it was.
    """

    result: Result
    picture: np.ndarray
    crops: np.ndarray
    portraits: np.ndarray
    model: str


def face_at(result: Result, picture: np.ndarray, x: float, y: float) -> int:
    """The face at a point of `picture` (`result`'s, at any size): the smallest box around it, else the nearest box."""
    height, width = picture.shape[:2]
    boxes = result.faces.boxes * np.tile([width, height], 2) / np.tile(result.size, 2)
    outside = np.maximum(np.maximum(boxes[:, :2] - (x, y), (x, y) - boxes[:, 2:]), 0)
    return int(np.lexsort((result.faces.areas, np.hypot(*outside.T)))[0])


def look(models: pieces.Models, path: str, model: str) -> Iterator[str | View]:
    """Analyse a file: words about what is going on, and the view at the end.

    Raises:
        UserError: not a picture, or no such model.
    """
    yield "Reading the picture…"
    picture = read_image(path)
    if not models.is_loaded(model):
        yield f"Loading {model}…"
    predictor = models.predictor(model)
    yield "Finding faces…"
    (faces,) = predictor.detect([picture])
    yield f"Reading {_count(len(faces))}…"
    result = predictor.image(picture, source=Path(path).name, faces=faces)
    spec = predictor.model.config.input
    large = replace(spec, size=tuple(PORTRAIT_SIDE * n // max(spec.size) for n in spec.size))
    crops = predictor.crops(picture, result.faces)
    yield View(result, pieces.reduced(picture), crops, crop(picture, result.faces, large), model)


def explain(models: pieces.Models, view: View, n: int) -> Maps:
    """Grad-CAM of one face for the class that the whole model predicts.

    Raises:
        UserError: the model cannot be explained.
    """
    predictor = models.predictor(view.model)
    face_input = predictor.model.config.input.tensor(view.crops[n : n + 1]).to(predictor.device)
    return grad_cam(predictor.model, face_input, int(view.result.tasks["expression"].choice[n]))


def details(models: pieces.Models, view: View, n: int) -> str:
    """The readout of one face with its explanation, as HTML."""
    parts = [face.readout(view.result, n)]
    if "expression" in view.result.tasks:
        try:
            labels = view.result.tasks["expression"].labels
            parts.append(face.explanation(explain(models, view, n), labels, view.portraits[n]))
        except UserError as problem:
            parts.append(pieces.note("No explanation", str(problem)))
    return "".join([*parts, face.branches(view.result, n)])


class ImageTab:
    """The tab's components, and what happens when they are used."""

    def __init__(self, models: pieces.Models, model: gr.Dropdown) -> None:
        self.models = models
        self.view = gr.State(None, time_to_live=2 * KEPT_SECONDS)
        with gr.Row(equal_height=False, elem_classes="em-columns"):
            with gr.Column(scale=7, min_width=320, elem_classes="em-stage"):
                self._stage()
            with gr.Column(scale=5, min_width=320, elem_classes="em-readout"):
                self.message = gr.HTML(EMPTY, elem_id="em-message")
                self.faces = gr.Radio([], label="Face", visible=False, elem_id="em-faces")
                self.details = gr.HTML("", elem_id="em-details")
        self._events(model)

    def _stage(self) -> None:
        with gr.Column(elem_id="em-input") as self.input:
            self.picture = pieces.picture_input(
                label="Picture", sources=["upload", "webcam", "clipboard"], height=420, buttons=[],
                elem_id="em-picture", placeholder="Drop a photo here, or click to choose one",
            )  # fmt: skip
        self.hero = gr.Image(
            label="Click a face", interactive=False, visible=False, format="jpeg", buttons=["fullscreen"],
            elem_id="em-hero",
        )  # fmt: skip
        with gr.Row(elem_classes="em-actions", visible=False) as self.actions:
            self.again = gr.Button("Choose another picture", elem_id="em-again")
            self.files = [gr.DownloadButton(f"Save {kind}", elem_id=f"em-{kind.lower()}") for kind in _FILES]
        self.examples = pieces.example_gallery(EXAMPLE_ROWS, elem_id="em-examples")

    def _events(self, model: gr.Dropdown) -> None:
        outputs = [
            self.view, self.input, self.picture, self.hero, self.actions, *self.files, self.examples, self.message,
            self.faces, self.details,
        ]  # fmt: skip
        # One at a time: explanations listen to the network while it runs, and must not hear another session's face.
        work = {"outputs": outputs, "show_progress": "hidden", "api_visibility": "private", "concurrency_id": "model"}
        newest = work | {"trigger_mode": "always_last"}  # what is chosen meanwhile is not lost
        self.picture.upload(self.analyse, [self.picture, model], **newest)
        model.change(self.analyse, [self.picture, model], **newest)
        self.examples.click(self.example, model, **work)
        self.faces.input(self.choose, [self.view, self.faces], **newest)
        self.hero.select(self.click, self.view, **work)
        self.again.click(self.reset, None, **work | {"concurrency_id": "reset"})

    def analyse(self, path: str | None, model: str) -> Iterator[dict[Any, Any]]:
        """Run the model on a file and show what it found, or why not."""
        if path is None:
            yield {self.message: gr.skip()}  # one may be on its way
            return
        steps = look(self.models, path, model)
        shown = (self._shown(s) if isinstance(s, View) else self._say(pieces.busy(s)) for s in steps)
        yield from guarded(shown, self._failed)

    def example(self, model: str, event: gr.EventData) -> Iterator[dict[Any, Any]]:
        """Run the model on an example."""
        path = pieces.example(EXAMPLE_ROWS, event)
        yield {self.picture: path}
        yield from self.analyse(path, model)

    def choose(self, view: View | None, n: int) -> dict[Any, Any]:
        """Show the details of face `n`."""
        if view is None:
            return self._failed("this result has been deleted from the server; choose the picture again")
        # As an update, not a bare value: only then gradio remembers to delete the file that it makes of it.
        drawn = gr.Image(draw.overlay(view.picture, view.result, selected=n))
        return {self.hero: drawn, self.details: details(self.models, view, n)}

    def click(self, view: View | None, event: gr.SelectData) -> dict[Any, Any]:
        """Show the details of the face that was clicked in the picture."""
        if view is not None and not len(view.result):
            return {self.view: view}
        n = 0 if view is None else face_at(view.result, view.picture, *event.index)
        return {self.faces: n} | self.choose(view, n)

    def reset(self, message: str = EMPTY) -> dict[Any, Any]:
        """Back to the beginning."""
        return {
            self.view: None,
            self.input: gr.Column(visible=True),
            self.picture: None,
            self.hero: gr.Image(None, visible=False),
            self.actions: gr.Row(visible=False),
            **{file: gr.DownloadButton(value=None) for file in self.files},
            self.examples: gr.HTML(visible=True),
            **self._say(message),
            self.faces: gr.Radio(visible=False),
            self.details: "",
        }

    def _failed(self, problem: str) -> dict[Any, Any]:
        return self.reset(pieces.error(problem))

    def _say(self, message: str) -> dict[Any, Any]:
        return {self.message: gr.HTML(message, visible=bool(message))}

    def _shown(self, view: View) -> dict[Any, Any]:
        result = view.result
        count = len(result)
        paths = (pieces.download(name, content) for name, content in _saved(view))
        faces = pieces.choices(count, partial(face.title, result))
        names = "; ".join(face.title(result, n) for n in range(count))
        drawn = draw.overlay(view.picture, result, selected=0 if count > 1 else None)
        return {
            self.view: view,
            self.input: gr.Column(visible=False),
            self.hero: gr.Image(drawn, visible=True, alt_text=f"The picture with {_count(count)}: {names}"),
            self.actions: gr.Row(visible=True),
            **{file: gr.DownloadButton(value=path) for file, path in zip(self.files, paths)},
            self.examples: gr.HTML(visible=False),
            **self._say(_notes(result) if count else NO_FACE),
            self.faces: gr.Radio(faces, value=0, label=f"{_count(count)}, largest first", visible=count > 1),
            self.details: details(self.models, view, 0) if count else "",
        }


_FILES = ("JSON", "CSV", "PNG")


def _saved(view: View) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the downloads, in the order of `_FILES`."""
    stem = Path(view.result.source).stem or "picture"
    yield f"{stem}.json", view.result.to_json().encode()
    yield f"{stem}.csv", view.result.to_csv().encode()
    yield f"{stem}_faces.png", pieces.encoded(draw.overlay(view.picture, view.result), compress_level=2)


def _count(faces: int) -> str:
    return f"{faces or 'no'} face{'' if faces == 1 else 's'}"


def _notes(result: Result) -> str:
    return "".join(pieces.note(text) for text in result.notes)


def tab(models: pieces.Models, model: gr.Dropdown) -> None:
    """Build the tab's contents and its API function."""
    ImageTab(models, model)
    _endpoint(models)


def _endpoint(models: pieces.Models) -> None:
    """Offer the analysis as the API (and MCP) function `/analyze_image`."""

    def analyze_image(image: str, model: str = models.names()[0]) -> dict[str, Any]:
        """Find the faces in a picture and predict expression, valence, arousal and uncertainty of each.

        Args:
            image: the picture: JPEG, PNG, WebP, TIFF, ...
            model: name of a model that this page offers.

        Returns:
            The document described in docs/schema.md: "frames" has one entry, whose "faces" are sorted by size.
        """
        if not image:
            raise gr.Error("give a picture", print_exception=False)
        with answering():
            return models.predictor(model).image(read_image(image), source=Path(image).name).to_dict()

    with gr.Row(visible=False):
        inputs = [pieces.picture_input(label="image"), gr.Textbox(models.names()[0], label="model")]
        gr.Button().click(
            analyze_image, inputs, gr.JSON(label="result"), api_name="analyze_image", concurrency_id="model"
        )
