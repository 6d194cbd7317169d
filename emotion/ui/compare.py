"""The Compare tab: several models read the same faces of a picture; where they agree and where they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from emotion.ui import face, image, pieces, plots
from emotion.ui.theme import KEPT_SECONDS
from emotion.ui.work import answering, guarded

EMPTY = pieces.note(
    "Choose a picture to begin.",
    "Its faces are found once, then every chosen model reads the same faces. Choose two models or more.",
)
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
    """

    results: tuple[Result, ...]
    picture: np.ndarray

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
        UserError: not a picture, no such model, or none is chosen.
    """
    if not names:
        raise UserError("no model is chosen; choose two or more")
    yield "Finding faces…"
    picture = read_image(path)
    (faces,) = models.predictor(names[0]).detect([picture])
    results = []
    for name in names:
        yield f"{name} reads {len(faces)} face{'' if len(faces) == 1 else 's'}…"
        results.append(models.predictor(name).image(picture, source=Path(path).name, faces=faces))
    yield Comparison(tuple(results), pieces.reduced(picture))


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
    heads = ["face", *(r.model for r in found.results)]
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    rows = []
    for n in range(len(found.results[0])):
        cells = "".join(f"<td>{_short(result, n)}</td>" for result in found.results)
        rows.append(f'<tr><th scope="row">{n + 1}{"" if found.agree(n) else " ≠"}</th>{cells}</tr>')
    table = f'<table class="em-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'{"".join(parts)}<div class="em-wide" tabindex="0" role="region" aria-label="All faces">{table}</div>'


def _short(result: Result, n: int) -> str:
    if (task := result.tasks.get("expression")) is not None:
        choice = int(task.choice[n])
        return plots.swatch(task.labels[choice], f"{task.labels[choice]} {percent(float(task.values[n, choice]))}")
    affect = result.tasks.get("valence_arousal")
    return "" if affect is None else ", ".join(plots.signed(float(v)) for v in affect.values[n])


def columns(found: Comparison, n: int) -> str:
    """What every model says of face `n`, side by side, as HTML."""
    cards = "".join(
        f'<article class="em-card"><h3>{escape(result.model)}</h3>{face.live(result, n)}</article>'
        for result in found.results
    )
    said = verdict(found, n)
    return (
        f'<h2 class="em-big">Face {n + 1}{". " if said else ""}{escape(said)}</h2><div class="em-cards">{cards}</div>'
    )


class CompareTab:
    """The tab's components, and what happens when they are used."""

    def __init__(self, models: pieces.Models) -> None:
        self.models, names = models, models.names()
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
                    names, value=names[:3], label="Models", elem_classes="em-chips", elem_id="em-compare-models"
                )
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
            **self._say(image.NO_FACE if not count else alone if len(found.results) < 2 else ""),
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
            names: models that this page offers; all of them unless given.

        Returns:
            "agreement": share of equal expressions over all faces and pairs of models (null without any);
            "expressions": per face an object of model and expression; "results": one document per model, as
            described in docs/schema.md, with the same faces in the same order.
        """
        if not image:
            raise gr.Error("give a picture", print_exception=False)
        with answering():
            *_, found = read(models, image, names or models.names())
        return {
            "agreement": found.agreement,
            "expressions": [found.expressions(n) for n in range(len(found.results[0]))],
            "results": [result.to_dict() for result in found.results],
        }

    with gr.Row(visible=False):
        inputs = [pieces.picture_input(label="image"), gr.CheckboxGroup(models.names(), label="names")]
        gr.Button().click(compare, inputs, gr.JSON(label="result"), api_name="compare", concurrency_id="compare")
