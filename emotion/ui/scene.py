"""The Scene tab: a whole picture in, every person with his or her emotions, and where in the picture they are seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emotion import draw
from emotion.draw import scene_maps
from emotion.media import read_image
from emotion.outputs import Result
from emotion.predict.scenes import SceneMaps, thresholded
from emotion.ui import person, pieces
from emotion.ui.theme import KEPT_SECONDS
from emotion.ui.work import answering, guarded

READS = "SceneInput"
# File, caption, what is to be seen, licence; sources in examples/LICENSES.md.
EXAMPLE_ROWS = (
    ("tennis.jpg", "Tennis", "Children with rackets in a row", "CC BY 2.0"),
    ("ribbon.jpg", "Ribbon", "People at the opening of a building", "CC BY 2.0"),
    ("office.jpg", "Office", "Man at a desk", "CC BY 2.0"),
    ("laughing.jpg", "Laughing", "Bearded man looking up and laughing", "CC BY-SA 2.0"),
    ("conference_1927.jpg", "Group, 1927", "Group photograph of a conference with 29 people", "public domain"),
)
EMPTY = pieces.note(
    "Choose a picture to begin.",
    "Every person in it gets a box and the model's emotions, read where he or she stands in the emotion maps. "
    "Then click a person, or choose a number, for the details; click a map to lay it over the picture.",
)
NOBODY = pieces.note(
    "No person found in this picture.", "The maps below the picture show how close the model came to seeing one."
)
NO_MODEL = pieces.note(
    "There is no scene model on this page.",
    "Start it with --model FOLDER, the folder of a BENet checkpoint.",
)
FILES = ("JSON", "CSV", "PNG", "Maps")


@dataclass(frozen=True)
class View:
    """What one session looks at: the prediction with the thresholds that are chosen and as it was, the picture
    (reduced), its maps, and the name of the model."""

    result: Result
    calibrated: Result
    picture: np.ndarray
    maps: SceneMaps
    model: str


def look(models: pieces.Models, path: str, model: str, threshold: float | None = None) -> Iterator[str | View]:
    """Analyse a file: words about what is going on, and the view at the end.

    Args:
        models, path, model: the page's models, the picture, and which model reads it.
        threshold: one for all emotions; None: as calibrated.

    Raises:
        UserError: not a picture, or no such model.
    """
    yield "Reading the picture…"
    picture = read_image(path)
    if not models.is_loaded(model):
        yield f"Loading {model}…"
    predictor = models.predictor(model, READS)
    yield "Finding people and their emotions…"
    result, maps = predictor.image_and_maps(picture, source=Path(path).name)
    yield View(thresholded(result, threshold), result, pieces.reduced(picture), maps, model)


class SceneTab:
    """The tab's components, and what happens when they are used."""

    def __init__(self, models: pieces.Models) -> None:
        self.models, names = models, models.names(READS)
        self.view = gr.State(None, time_to_live=2 * KEPT_SECONDS)
        with gr.Row(elem_classes="em-filters"):
            self.model = gr.Dropdown(names, value=names[0], label="Scene model", elem_id="em-scene-model")
        with gr.Row(equal_height=False, elem_classes="em-columns"):
            with gr.Column(scale=7, min_width=320, elem_classes="em-stage"):
                self._stage()
            with gr.Column(scale=5, min_width=320, elem_classes="em-readout"):
                self.message = gr.HTML(EMPTY, elem_id="em-scene-message")
                self.people = gr.Radio(
                    [], label="Person", visible=False, elem_id="em-scene-people", elem_classes="em-chips"
                )
                self.calibrated = gr.Checkbox(
                    True, label="Thresholds as calibrated, one per emotion", visible=False,
                    elem_id="em-scene-calibrated",
                )  # fmt: skip
                self.threshold = gr.Slider(
                    0, 1, 0.5, step=0.01, label="Threshold for all emotions", visible=False,
                    elem_id="em-scene-threshold",
                )  # fmt: skip
                self.details = gr.HTML("", elem_id="em-scene-details")
                self.shown = gr.Dropdown(
                    [], multiselect=True, label="Emotions to show", visible=False, elem_id="em-scene-emotions"
                )
        self._events()

    def _stage(self) -> None:
        with gr.Column(elem_id="em-scene-input") as self.input:
            self.picture = pieces.picture_input(
                label="Picture", sources=["upload", "webcam", "clipboard"], height=420, buttons=[],
                elem_id="em-scene-picture", placeholder="Drop a photo here, or click to choose one",
            )  # fmt: skip
        with gr.Row(elem_classes="em-actions", visible=False) as self.actions:  # not below the maps, which are many
            self.again = gr.Button("Choose another picture", elem_id="em-scene-again")
            self.files = [gr.DownloadButton(f"Save {kind}", elem_id=f"em-scene-{kind.lower()}") for kind in FILES]
        self.hero = gr.HTML("", visible=False, js_on_load=person.ON_CLICK, elem_id="em-scene")
        self.examples = pieces.example_gallery(EXAMPLE_ROWS, elem_id="em-scene-examples")

    def _events(self) -> None:
        outputs = [
            self.view, self.input, self.picture, self.hero, self.actions, *self.files, self.examples, self.message,
            self.people, self.details, self.shown, self.calibrated, self.threshold,
        ]  # fmt: skip
        limits = [self.calibrated, self.threshold]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        work = quiet | {"outputs": outputs, "concurrency_id": "model"}
        newest = {"trigger_mode": "always_last"}  # what is chosen meanwhile is not lost
        self.picture.upload(self.analyse, [self.picture, self.model, *limits], **work, **newest)
        self.model.change(self.analyse, [self.picture, self.model, *limits], **work, **newest)
        self.examples.click(self.example, [self.model, *limits], **work)
        self.again.click(self.reset, None, **quiet, outputs=outputs)
        some = quiet | {"outputs": [self.people, self.details, self.message]}
        chosen = self.people.input(self.choose, [self.view, self.people, self.shown], **some, **newest)
        clicked = self.hero.click(self.click, [self.view, self.shown], **some)
        judged = [
            limit.input(self.judge, [self.view, self.people, self.shown, *limits], outputs, **quiet, **newest)
            for limit in limits
        ]
        for event in (chosen, clicked, *judged):
            event.then(None, self.people, js=person.EMPHASISE)
        redrawn = [self.hero, self.details]
        self.shown.input(self.redraw, [self.view, self.people, self.shown], redrawn, **quiet, **newest).then(
            None, self.people, js=person.EMPHASISE
        )

    def analyse(
        self, path: str | None, model: str, calibrated: bool = True, threshold: float = 0.5
    ) -> Iterator[dict[Any, Any]]:
        """Run the model on a file and show what it found, or why not."""
        if path is None:
            yield {self.message: gr.skip()}  # one may be on its way
            return
        steps = look(self.models, path, model, None if calibrated else threshold)
        shown = (self._shown(s) if isinstance(s, View) else self._say(pieces.busy(s)) for s in steps)
        yield from guarded(shown, self._failed)

    def example(self, model: str, calibrated: bool, threshold: float, event: gr.EventData) -> Iterator[dict[Any, Any]]:
        """Run the model on an example."""
        path = pieces.example(EXAMPLE_ROWS, event)
        yield {self.picture: path}
        yield from self.analyse(path, model, calibrated, threshold)

    def judge(
        self, view: View | None, n: int | None, shown: list[str], calibrated: bool, threshold: float
    ) -> dict[Any, Any]:
        """Another threshold: what counts as present changes in readout, titles and files."""
        slider = {self.threshold: gr.Slider(visible=not calibrated)}
        if view is None:
            return slider
        view = replace(view, result=thresholded(view.calibrated, None if calibrated else threshold))
        titles = pieces.choices(len(view.result), partial(person.title, view.result))
        details = {} if n is None else {self.details: person.readout(view.result, n, shown)}
        # Without the last file, the maps: they know no thresholds, and take long.
        return slider | details | {self.view: view, self.people: gr.Radio(titles)} | self._files(view, FILES[:-1])

    def choose(self, view: View | None, n: int | None, shown: list[str]) -> dict[Any, Any]:
        """Show the details of person `n`."""
        if view is None:
            return self._say(pieces.error("this result has been deleted from the server; choose the picture again"))
        if n is None or not 0 <= n < len(view.result):
            return {self.people: gr.skip()}
        return {self.details: person.readout(view.result, n, shown)}

    def click(self, view: View | None, shown: list[str], event: gr.EventData) -> dict[Any, Any]:
        """Show the details of the person who was clicked in the picture."""
        n = int(event.person)
        return {self.people: n} | self.choose(view, n, shown)

    def redraw(self, view: View | None, n: int | None, shown: list[str]) -> tuple[Any, Any]:
        """Show the chosen emotions only."""
        if view is None:
            return gr.skip(), gr.skip()
        details = "" if n is None else person.readout(view.result, n, shown)
        return person.stage(view.picture, view.result, view.maps, shown), details

    def reset(self, message: str = EMPTY) -> dict[Any, Any]:
        """Back to the beginning."""
        return {
            self.view: None,
            self.input: gr.Column(visible=True),
            self.picture: None,
            self.hero: gr.HTML("", visible=False),
            self.actions: gr.Row(visible=False),
            **{file: gr.DownloadButton(value=None) for file in self.files},
            self.examples: gr.HTML(visible=True),
            **self._say(message),
            self.people: gr.Radio(value=None, visible=False),
            self.details: "",
            **{part: gr.update(visible=False) for part in (self.shown, self.calibrated, self.threshold)},
        }

    def _failed(self, problem: str) -> dict[Any, Any]:
        return self.reset(pieces.error(problem))

    def _files(self, view: View, kinds: Sequence[str] = FILES) -> dict[Any, Any]:
        made = zip(self.files[: len(kinds)], _saved(view))
        return {button: gr.DownloadButton(value=pieces.download(*file)) for button, file in made}

    def _say(self, message: str) -> dict[Any, Any]:
        return {self.message: gr.HTML(message, visible=bool(message))}

    def _shown(self, view: View) -> dict[Any, Any]:
        result, shown = view.result, list(view.maps.labels)
        people = pieces.choices(len(result), partial(person.title, result))
        first = 0 if people else None
        label = f"{person.count(len(people))}, the most certain first"
        return {
            self.view: view,
            self.input: gr.Column(visible=False),
            self.hero: gr.HTML(person.stage(view.picture, result, view.maps, shown), visible=True),
            self.actions: gr.Row(visible=True),
            **self._files(view),
            self.examples: gr.HTML(visible=False),
            **self._say("" if people else NOBODY),
            self.people: gr.Radio(people, value=first, label=label, visible=len(people) > 1),
            self.details: person.readout(result, 0, shown) if people else "",
            self.shown: gr.Dropdown(shown, value=shown, visible=True),
            self.calibrated: gr.Checkbox(visible=bool(people)),
            self.threshold: gr.Slider(visible=bool(people) and view.result is not view.calibrated),
        }


def _saved(view: View) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the downloads, in the order of `FILES`."""
    stem = Path(view.result.source).stem or "picture"
    yield f"{stem}.json", view.result.to_json().encode()
    yield f"{stem}.csv", view.result.to_csv().encode()
    yield f"{stem}_people.png", pieces.encoded(draw.overlay(view.picture, view.result), compress_level=2)
    yield f"{stem}_maps.png", pieces.encoded(scene_maps.sheet(view.picture, view.maps), compress_level=2)


def tab(models: pieces.Models, _: gr.Dropdown) -> gr.Dropdown | None:
    """Build the tab's contents and its API function; returns its chooser of models."""
    if not models.names(READS):
        gr.HTML(NO_MODEL)
        return None
    built = SceneTab(models)
    _endpoint(models)
    return built.model


def _endpoint(models: pieces.Models) -> None:
    """Offer the analysis as the API (and MCP) function `/analyze_scene`."""

    def analyze_scene(image: str, model: str = models.names(READS)[0], threshold: float = 0.0) -> dict[str, Any]:
        """Find the people in a picture and predict the emotions of each.

        Args:
            image: the picture: JPEG, PNG, WebP, TIFF, ...
            model: name of a scene model that this page offers.
            threshold: from which probability on every emotion counts as present; 0 for the model's own thresholds.

        Returns:
            The document described in docs/schema.md: "frames" has one entry, whose "faces" are the people, the most
            certain first, with their boxes.
        """
        if not image:
            raise gr.Error("give a picture", print_exception=False)
        with answering():
            result = models.predictor(model, READS).image(read_image(image), source=Path(image).name)
            return thresholded(result, threshold or None).to_dict()

    with gr.Row(visible=False):
        inputs = [
            pieces.picture_input(label="image"),
            gr.Textbox(models.names(READS)[0], label="model"),
            gr.Number(0.0, label="threshold", minimum=0, maximum=1),
        ]
        gr.Button().click(
            analyze_scene, inputs, gr.JSON(label="result"), api_name="analyze_scene", concurrency_id="model"
        )
