"""The Compare tab: several models read the same faces of a picture; where they agree and where they do not.

Scene models find people instead of faces: beside what is said of a face stands what they say of the person around it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emotion import draw
from emotion.draw import percent
from emotion.errors import UserError
from emotion.media import read_image
from emotion.outputs import Result
from emotion.ui import face, image, person, pieces, plots, scene
from emotion.ui.theme import KEPT_SECONDS
from emotion.ui.work import answering, guarded

EMPTY = pieces.note(
    "Choose a picture to begin.",
    "Its faces are found once, then every chosen model reads the same faces. Choose two models or more.",
)
WHICH = (
    "Models of faces read the same faces; a scene model's person is the one around the face. "
    "Models of voice and face need a clip: they have a tab of their own."
)
NO_PERSON = '<p class="em-text">No person found around this face.</p>'
MOST = 3  # emotions of a person in the overview
ALONE = pieces.note(
    "Only one model is offered here.",
    "Start the page with others: python app.py --model FOLDER. The Models tab says where to get them.",
)


@dataclass(frozen=True)
class Comparison:
    """What several models say of the same faces.

    Attributes:
        results: one per model, with the same faces in the same order.
        picture: uint8 [H, W, 3], the picture, reduced.
        people: what scene models say of everybody they find, and for every face the number of the person around it, or
            -1; by model.
    """

    results: tuple[Result, ...]
    picture: np.ndarray
    people: dict[str, tuple[Result, np.ndarray]] = field(default_factory=dict)

    def expressions(self, n: int) -> dict[str, str]:
        """What each model calls face `n`; models without expressions are left out."""
        tasks = {r.model: r.tasks["expression"] for r in self.results if "expression" in r.tasks}
        return {model: task.labels[task.choice[n]] for model, task in tasks.items()}

    def agree(self, n: int) -> bool:
        """Whether all models that name an expression name the same one."""
        return len(set(self.expressions(n).values())) <= 1

    @property
    def agreement(self) -> float | None:
        """Share of faces for which two models, drawn at random, name the same expression; None without such pairs."""
        pairs = [a == b for n in range(len(self.results[0])) for a, b in combinations(self.expressions(n).values(), 2)]
        return float(np.mean(pairs)) if pairs else None


def read(models: pieces.Models, path: str, names: Sequence[str]) -> Iterator[str | Comparison]:
    """Words about what is going on, and the comparison at the end.

    Raises:
        UserError: not a picture, no such model, or none that reads faces is chosen.
    """
    scenes = [name for name in names if name in models.names(scene.READS)]
    readers = [name for name in names if name not in scenes]
    if not readers:
        raise UserError("no model of faces is chosen; choose one, and another model to compare it with")
    yield "Finding faces…"
    picture, source = read_image(path), Path(path).name
    (faces,) = models.predictor(readers[0]).detect([picture])
    results, people = [], {}
    for name in readers:
        yield f"{name} reads {len(faces)} face{'' if len(faces) == 1 else 's'}…"
        results.append(models.predictor(name).image(picture, source=source, faces=faces))
    for name in scenes:
        yield f"{name} reads the scene…"
        found = models.predictor(name, scene.READS).image(picture, source=source)
        people[name] = found, around(faces.boxes, found.faces.boxes)
    yield Comparison(tuple(results), pieces.reduced(picture), people)


def around(faces: np.ndarray, people: np.ndarray) -> np.ndarray:
    """For every face [N, 4] the smallest of the people's boxes [P, 4] that its middle lies in, or -1: int64 [N]."""
    middle = ((faces[:, :2] + faces[:, 2:]) / 2)[:, None]
    areas = (people[:, 2:] - people[:, :2]).prod(axis=1)
    inside = ((people[:, :2] <= middle) & (middle <= people[:, 2:])).all(axis=-1)
    nobody = np.full((len(faces), 1), np.finfo(np.float32).max)
    choice = np.concatenate([np.where(inside, areas, np.inf), nobody], axis=1).argmin(axis=1)
    return np.where(choice < len(people), choice, -1)


def verdict(found: Comparison, n: int) -> str:
    """One sentence on face `n`."""
    said = found.expressions(n)
    if len(said) < 2:
        return ""
    count = Counter(said.values()).most_common()
    if len(count) == 1:
        return f"{'Both' if len(said) == 2 else f'All {len(said)}'} models say {count[0][0]}."
    return f"The models disagree: {', '.join(f'{label} ({n})' if len(said) > 2 else label for label, n in count)}."


def overview(found: Comparison) -> str:
    """All faces in a table, with the models side by side, as HTML."""
    agreement = found.agreement
    parts = []
    if agreement is not None:
        text = f"Two models name the same expression for {percent(agreement)} of the faces"
        parts.append(f'<p class="em-text">{text}; faces on which they differ are marked ≠.</p>')
    heads = ["face", *(r.model for r in found.results), *found.people]
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    rows = []
    for n in range(len(found.results[0])):
        said = [*(_short(result, n) for result in found.results), *(_present(*p, n) for p in found.people.values())]
        cells = "".join(f"<td>{text}</td>" for text in said)
        rows.append(f'<tr><th scope="row">{n + 1}{"" if found.agree(n) else " ≠"}</th>{cells}</tr>')
    table = f'<table class="em-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'{"".join(parts)}<div class="em-wide" tabindex="0" role="region" aria-label="All faces">{table}</div>'


def _short(result: Result, n: int) -> str:
    if (task := result.tasks.get("expression")) is not None:
        choice = int(task.choice[n])
        return plots.swatch(task.labels[choice], f"{task.labels[choice]} {percent(float(task.values[n, choice]))}")
    affect = result.tasks.get("valence_arousal")
    return "" if affect is None else ", ".join(plots.signed(float(v)) for v in affect.values[n])


def _present(people: Result, around_faces: np.ndarray, n: int) -> str:
    """The emotions of the person around face `n` that are farthest above their thresholds."""
    if around_faces[n] < 0:
        return "nobody"
    names = draw.present(people.tasks["emotions"][[around_faces[n]]])[0]
    return escape(", ".join(names[:MOST])) or "none"


def columns(found: Comparison, n: int) -> str:
    """What every model says of face `n`, side by side, as HTML."""
    cards = "".join(
        f'<article class="em-card"><h3>{escape(result.model)}</h3>{face.live(result, n)}{_notes(result)}</article>'
        for result in found.results
    )
    for model, (people, around_faces) in found.people.items():
        labels = people.tasks["emotions"].labels
        who = around_faces[n]
        text = NO_PERSON if who < 0 else person.readout(people, who, labels)
        cards += f'<article class="em-card"><h3>{escape(model)}</h3>{text}</article>'
    said = verdict(found, n)
    return (
        f'<h2 class="em-big">Face {n + 1}{". " if said else ""}{escape(said)}</h2><div class="em-cards">{cards}</div>'
    )


def _notes(result: Result) -> str:
    return "".join(f'<p class="em-text">{escape(note)}</p>' for note in result.notes)


class CompareTab:
    """The tab's components, and what happens when they are used."""

    def __init__(self, models: pieces.Models) -> None:
        self.models, names = models, [*models.names(), *models.names(scene.READS)]
        self.found = gr.State(None, time_to_live=2 * KEPT_SECONDS)
        with gr.Row(equal_height=False, elem_classes="em-columns"):
            with gr.Column(scale=7, min_width=320, elem_classes="em-stage em-loose"):
                with gr.Column() as self.input:
                    self.picture = pieces.picture_input(
                        label="Picture", sources=["upload", "webcam", "clipboard"], height=380, buttons=[],
                        elem_id="em-compare-picture", placeholder="Drop a photo here, or click to choose one",
                    )  # fmt: skip
                self.hero = gr.Image(
                    label="Click a face", interactive=False, visible=False, format="jpeg", buttons=["fullscreen"],
                    elem_id="em-compare-hero",
                )  # fmt: skip
                with gr.Row(elem_classes="em-actions", visible=False) as self.actions:
                    self.again = gr.Button("Choose another picture", elem_id="em-compare-again")
                self.examples = pieces.example_gallery(image.EXAMPLE_ROWS, elem_id="em-compare-examples")
            with gr.Column(scale=5, min_width=320, elem_classes="em-readout"):
                self.names = gr.CheckboxGroup(
                    names, value=models.names()[:3], label="Models", info=WHICH, elem_classes="em-chips",
                    elem_id="em-compare-models",
                )  # fmt: skip
                self.message = gr.HTML(EMPTY if len(names) > 1 else ALONE, elem_id="em-compare-message")
                self.faces = gr.Radio([], label="Face", visible=False, elem_classes="em-chips em-many")
                self.table = gr.HTML("", elem_id="em-compare-table")
        self.details = gr.HTML("", elem_id="em-compare-details")
        self._events()

    def _events(self) -> None:
        outputs = [
            self.found, self.input, self.picture, self.hero, self.actions, self.examples, self.message, self.faces,
            self.table, self.details,
        ]  # fmt: skip
        work = {"outputs": outputs, "show_progress": "hidden", "api_visibility": "private", "concurrency_id": "compare"}
        newest = work | {"trigger_mode": "always_last"}  # what is chosen meanwhile is not lost
        self.picture.upload(self.analyse, [self.picture, self.names], **newest)
        self.names.input(self.analyse, [self.picture, self.names], **newest)
        self.examples.click(self.example, self.names, **work)
        self.faces.input(self.choose, [self.found, self.faces], **newest)
        self.hero.select(self.click, self.found, **work)
        self.again.click(self.reset, None, **work | {"concurrency_id": "reset"})

    def analyse(self, path: str | None, names: list[str]) -> Iterator[dict[Any, Any]]:
        """Let the models read a file and show what they say, or why not."""
        if path is None:
            yield {self.message: gr.skip()}  # one may be on its way
            return
        steps = read(self.models, path, names)
        shown = (self._shown(s) if isinstance(s, Comparison) else self._say(pieces.busy(s)) for s in steps)
        yield from guarded(shown, lambda problem: self._cleared(pieces.error(problem)))

    def example(self, names: list[str], event: gr.EventData) -> Iterator[dict[Any, Any]]:
        """Let the models read an example."""
        path = pieces.example(image.EXAMPLE_ROWS, event)
        yield {self.picture: path}
        yield from self.analyse(path, names)

    def choose(self, found: Comparison | None, n: int) -> dict[Any, Any]:
        """Show the models' readings of face `n`."""
        if found is None:
            return self._cleared(pieces.error("this result has been deleted from the server; choose the picture again"))
        return {self.hero: gr.Image(_drawn(found, n)), self.details: columns(found, n)}

    def click(self, found: Comparison | None, event: gr.SelectData) -> dict[Any, Any]:
        """Show the readings of the face that was clicked in the picture."""
        if found is not None and not len(found.results[0]):
            return {self.found: found}
        n = 0 if found is None else image.face_at(found.results[0], found.picture, *event.index)
        return {self.faces: n} | self.choose(found, n)

    def _shown(self, found: Comparison) -> dict[Any, Any]:
        count = len(found.results[0])
        alone = pieces.note("One model is chosen.", "Choose another one to compare it with.")
        return {
            self.found: found,
            self.input: gr.Column(visible=False),
            self.hero: gr.Image(_drawn(found, 0 if count else None), visible=True),
            self.actions: gr.Row(visible=True),
            self.examples: gr.HTML(visible=False),
            **self._say(image.NO_FACE if not count else alone if len(found.results) + len(found.people) < 2 else ""),
            self.faces: gr.Radio([(str(n + 1), n) for n in range(count)], value=0, visible=count > 1),
            self.table: overview(found) if count else "",
            self.details: columns(found, 0) if count else "",
        }

    def _cleared(self, message: str) -> dict[Any, Any]:
        return {
            self.found: None, self.faces: gr.Radio(visible=False), self.table: "", self.details: "",
            **self._say(message),
        }  # fmt: skip

    def reset(self, message: str = EMPTY) -> dict[Any, Any]:
        """Back to the beginning."""
        return self._cleared(message) | {
            self.input: gr.Column(visible=True),
            self.picture: None,
            self.hero: gr.Image(None, visible=False),
            self.actions: gr.Row(visible=False),
            self.examples: gr.HTML(visible=True),
        }

    def _say(self, message: str) -> dict[Any, Any]:
        return {self.message: gr.HTML(message, visible=bool(message))}


def _drawn(found: Comparison, selected: int | None) -> np.ndarray:
    """The picture with numbered boxes, which say nothing of any model."""
    return draw.overlay(found.picture, replace(found.results[0], tasks={}), selected=selected)


def tab(models: pieces.Models, _: gr.Dropdown) -> None:
    """Build the tab's contents and its API function."""
    CompareTab(models)
    _endpoint(models)


def _endpoint(models: pieces.Models) -> None:
    """Offer the comparison as the API (and MCP) function `/compare`."""

    def compare(image: str, names: list[str] | None = None) -> dict[str, Any]:
        """Let several models read the same faces of a picture.

        Args:
            image: the picture: JPEG, PNG, WebP, TIFF, ...
            names: models of faces and of scenes that this page offers; all models of faces unless given.

        Returns:
            "agreement": share of equal expressions over all faces and pairs of models (null without any);
            "expressions": per face an object of model and expression; "results": one document per model, as
            described in docs/schema.md, with the same faces in the same order; "people": per scene model its document,
            and "around": for every face the number of the person around it, from 0 (null for nobody).
        """
        if not image:
            raise gr.Error("give a picture", print_exception=False)
        with answering():
            *_, found = read(models, image, names or models.names())
        return {
            "agreement": found.agreement,
            "expressions": [found.expressions(n) for n in range(len(found.results[0]))],
            "results": [result.to_dict() for result in found.results],
            "people": {
                name: people.to_dict() | {"around": [int(k) if k >= 0 else None for k in rows]}
                for name, (people, rows) in found.people.items()
            },
        }

    with gr.Row(visible=False):
        names = [*models.names(), *models.names(scene.READS)]
        inputs = [pieces.picture_input(label="image"), gr.CheckboxGroup(names, label="names")]
        gr.Button().click(compare, inputs, gr.JSON(label="result"), api_name="compare", concurrency_id="compare")
