"""A scene as HTML: the picture with its people and a map over it, thumbnails of all maps, the readout of one person."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Collection
from dataclasses import replace
from html import escape

import numpy as np
from PIL import Image

from emotion import draw
from emotion.draw import percent
from emotion.draw.scene_maps import grey
from emotion.outputs import Result, Task
from emotion.predict.scenes import SceneMaps
from emotion.ui import pieces, plots

# How EMOTIC's categories feel to the person who has them; continuous values have their own place.
GROUPS = {
    "Pleasant": (
        "Affection", "Confidence", "Engagement", "Esteem", "Excitement", "Happiness", "Peace", "Pleasure", "Sympathy",
    ),
    "Unpleasant": (
        "Anger", "Annoyance", "Aversion", "Disapproval", "Disgust", "Disquietment", "Embarrassment", "Fatigue", "Fear",
        "Pain", "Sadness", "Suffering",
    ),
    "Neither": ("Anticipation", "Disconnection", "Doubt/Confusion", "Sensitivity", "Surprise", "Yearning"),
}  # fmt: skip
PEOPLE = "People"  # the map of their centres
LAYER_SIDE, THUMBNAIL_SIDE, STAGE_SIDE = 480, 200, 1200  # pixels, longer side

# Clicks of the stage: on a person (told to the server) and on a map's thumbnail (blended here, nothing is sent).
ON_CLICK = """element.addEventListener('click', e => {
    const person = e.target.closest('[data-person]'), map = e.target.closest('button[data-map]');
    if (person) trigger('click', { person: Number(person.dataset.person) });
    if (!map) return;
    const shown = map.getAttribute('aria-pressed') === 'true';
    for (const other of element.querySelectorAll('button[data-map]')) other.setAttribute('aria-pressed', 'false');
    map.setAttribute('aria-pressed', String(!shown));
    const layer = element.querySelector('.em-map');
    layer.hidden = shown;
    if (!shown) layer.src = map.dataset.map;
})"""
# The person in a list, emphasised in the picture; titles there follow those of the readout.
EMPHASISE = """(n) => {
    const stage = document.querySelector('#em-scene .em-people');
    if (!stage) return;
    stage.classList.toggle('em-chosen', n !== null);
    const readout = document.querySelector('#em-scene-details [data-titles]');
    const titles = readout ? JSON.parse(readout.dataset.titles) : [];
    for (const g of stage.children) {
        const person = Number(g.dataset.person);
        g.classList.toggle('em-selected', person === n);
        if (titles[person]) g.querySelector('title').textContent = titles[person];
    }
}"""


def title(result: Result, n: int) -> str:
    """One line for lists: "3 · Happiness 83 %", the emotion farthest above its threshold."""
    task = result.tasks["emotions"]
    names = draw.present(task[[n]])[0]
    if not names:
        return str(n + 1)
    return f"{n + 1} · {names[0]} {percent(float(task.values[n, task.labels.index(names[0])]))}"


def stage(picture: np.ndarray, result: Result, maps: SceneMaps, shown: Collection[str]) -> str:
    """The picture with boxes, a map over it whose opacity a slider sets, and the thumbnails of maps.

    Args:
        picture: uint8 [H, W, 3].
        result: its people.
        maps: of the same picture.
        shown: which maps have a thumbnail.
    """
    base = pieces.data_uri(pieces.reduced(picture, STAGE_SIDE))
    alt = f"The picture with {count(len(result))}"
    layers = (
        f'<div class="em-scene-layers"><img src="{base}" alt="{alt}"><img class="em-map" alt="" hidden>'
        f"{_people(result)}</div>"
    )
    slider = f'<label>Opacity of the map <input type="range" min="0" max="100" value="70" oninput="{_FADE}"></label>'
    colours = ",".join("rgb({},{},{})".format(*rgb) for rgb in draw.heat_colours(9))
    scale = f'<span class="em-scale">0 <i style="background:linear-gradient(90deg,{colours})"></i> 1</span>'
    named = [(PEOPLE, maps.heatmap)] if maps.heatmap is not None else []
    named += [(name, values) for name, values in zip(maps.labels, maps.maps) if name in shown]
    thumbnails = "".join(_thumbnail(name, values) for name, values in named)
    return (
        f'<div class="em-scene-stage">{layers}<div class="em-controls">{slider}{scale}</div>'
        f'<div class="em-maps" role="group" aria-label="Maps">{thumbnails}</div></div>'
    )


_FADE = "this.closest('.em-scene-stage').style.setProperty('--em-alpha', this.value / 100)"


def count(people: int) -> str:
    """ "no person", "1 person", "7 people"."""
    return {0: "no person", 1: "1 person"}.get(people, f"{people} people")


def _people(result: Result) -> str:
    """Boxes and numbers as SVG over the picture; large people first, so that small ones stay in reach of a click."""
    width, height = result.size
    points = max(width, height) / 46
    shapes = []
    for n in np.argsort(-result.faces.areas, kind="stable"):
        x0, y0, x1, y1 = (float(v) for v in result.faces.boxes[n])
        name = escape(title(result, int(n)))
        shapes.append(
            f'<g data-person="{n}"><title>{name}</title>'
            f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" rx="{points / 3:.1f}"/>'
            f'<text x="{x0 + points / 3:.1f}" y="{y0 + points:.1f}" font-size="{points:.1f}">{n + 1}</text></g>'
        )
    return f'<svg class="em-people" viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(shapes)}</svg>'


def _thumbnail(name: str, values: np.ndarray) -> str:
    """A button with the grey map and its range; the coloured layer travels with it."""
    small = pieces.data_uri(grey(_fit(values, THUMBNAIL_SIDE)))
    low, high = float(values.min()), float(values.max())
    return (
        f'<button type="button" aria-pressed="false" data-map="{_layer(values)}" title="Show or hide over the picture">'
        f'<img src="{small}" alt="Map of {escape(name)}">{escape(name)}<small>{low:.2f} to {high:.2f}</small></button>'
    )


def _fit(values: np.ndarray, side: int) -> np.ndarray:
    height, width = values.shape
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)


def _layer(values: np.ndarray) -> str:
    """A map in colours, the more transparent the smaller its values, for an <img> over the picture."""
    levels = (_fit(values, LAYER_SIDE) * 255).round().astype(np.uint8)
    pixels = np.concatenate([draw.heat_colours()[levels], levels[..., None]], axis=2)
    out = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(out, "WEBP", quality=70, method=2)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def readout(result: Result, n: int, shown: Collection[str]) -> str:
    """Everything predicted for a person, as HTML.

    Args:
        result: of the picture.
        n: which person.
        shown: which emotions.
    """
    task = result.tasks["emotions"]
    names = [name for name in draw.present(task[[n]])[0] if name in shown]
    head = ", ".join(names) or "No emotion above its threshold"
    where = f"Person {n + 1} of {len(result)}, detected with {percent(float(result.faces.scores[n]))} confidence"
    titles = escape(json.dumps([title(result, k) for k in range(len(result))]))
    parts = [f'<h2 class="em-big" data-titles="{titles}">{escape(head)}</h2><p class="em-text">{where}</p>']
    parts += [
        f'<section><h3 class="em-heading">{group}</h3>{bars}</section>'
        for group, labels in GROUPS.items()
        if (bars := _emotions(task, n, [label for label in task.labels if label in labels and label in shown]))
    ]
    parts.append('<p class="em-text">The tick is the emotion\'s threshold: from there on it counts as present.</p>')
    if "vad" in result.tasks:
        parts.append(
            f'<section><h3 class="em-heading">Valence and arousal</h3>{_affect(result.tasks["vad"], n)}</section>'
        )
    return "".join(parts)


def _emotions(task: Task, n: int, labels: list[str]) -> str:
    limits = np.broadcast_to(0.5 if task.thresholds is None else task.thresholds, len(task.labels))
    rows = []
    for label in labels:
        k = task.labels.index(label)
        value, limit = float(task.values[n, k]), float(limits[k])
        tick = f'<i class="em-tick" style="left:{100 * limit:.1f}%"></i>'
        name = f"<strong>{escape(label)}</strong>" if value >= limit else escape(label)
        name = f'<span title="threshold {percent(limit)}">{name}</span>'
        rows.append((name, plots.bar(value, "var(--em-accent)", tick, muted=value < limit), percent(value)))
    return f'<div class="em-emotions">{plots.bar_rows(rows)}</div>' if rows else ""


def _affect(task: Task, n: int) -> str:
    """Circumplex of valence and arousal (stored in [0, 1]), and dominance as a bar."""
    axes = ("valence", "arousal")
    parts = []
    if set(axes) <= set(task.labels):
        columns = [task.labels.index(axis) for axis in axes]
        signed = replace(task, labels=axes, values=2 * task.values[:, columns] - 1, uncertainty={}, members=None)
        parts.append(plots.circumplex(signed, n))
    rest = [(k, label) for k, label in enumerate(task.labels) if label not in axes or not parts]
    values = [(label, float(task.values[n, k])) for k, label in rest]
    return "".join(parts) + plots.bar_rows((label, plots.bar(v, "var(--em-accent)"), f"{v:.2f}") for label, v in values)
