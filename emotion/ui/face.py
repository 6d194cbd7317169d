"""The readout of one face: bars, circumplex, uncertainty, what every branch says and where the model looked."""

from __future__ import annotations

import numpy as np

from emotion import draw
from emotion.draw import percent
from emotion.explain import Maps
from emotion.outputs import Result, Task
from emotion.ui import pieces, plots

FADE = "this.closest('.em-cam').style.setProperty('--em-alpha', this.value / 100)"


def title(result: Result, face: int) -> str:
    """One line for lists: "3 · happiness 93 %"."""
    task = result.tasks.get("expression")
    return str(face + 1) if task is None else f"{face + 1} · {_prediction(task, face)}"


def live(result: Result, face: int) -> str:
    """The short readout of a face of a stream: what changes from frame to frame, and nothing that takes time."""
    expression, affect, units = (result.tasks.get(t) for t in ("expression", "valence_arousal", "action_units"))
    parts = []
    if expression is not None:
        label = expression.labels[expression.choice[face]]
        parts.append(f'<h2 class="em-big">{plots.swatch(label, _prediction(expression, face))}</h2>')
        parts.append(plots.expression_bars(expression, face))
    if affect is not None:
        parts.append(_section("Valence and arousal", plots.circumplex(affect, face)))
    if units is not None:
        parts.append(_section("Action units", plots.action_units(units, face)))
    return "".join(parts)


def _prediction(task: Task, face: int) -> str:
    choice = int(task.choice[face])
    return f"{task.labels[choice]} {percent(float(task.values[face, choice]))}"


def readout(result: Result, face: int) -> str:
    """Everything predicted for a face, as HTML."""
    expression, affect, units = (result.tasks.get(t) for t in ("expression", "valence_arousal", "action_units"))
    where = f"Face {face + 1} of {len(result)}"
    parts = [f'<p class="em-text">{where}, detected with {percent(float(result.faces.scores[face]))} confidence</p>']
    if expression is not None:
        label = expression.labels[expression.choice[face]]
        parts.insert(0, f'<h2 class="em-big">{plots.swatch(label, _prediction(expression, face))}</h2>')
        parts.append(plots.expression_bars(expression, face) + _caption(expression))
    doubt = plots.uncertainty(result.tasks, face)
    pair = [
        _section("Valence and arousal", plots.circumplex(affect, face)) if affect is not None else "",
        _section("Uncertainty", doubt) if doubt else "",
    ]
    parts.append(f'<div class="em-pair">{"".join(pair)}</div>')
    if units is not None:
        parts.append(_section("Action units", plots.action_units(units, face)))
    return "".join(parts)


def branches(result: Result, face: int) -> str:
    """The branch table behind a disclosure, or nothing for a model without branches or with one."""
    task = result.tasks.get("expression")
    if task is None or task.members is None or len(task.members) < 2:
        return ""
    table = plots.branch_table(result.tasks, face)
    summary = f"What each of the {len(task.members)} branches says"
    return f'<details class="em-details"><summary>{summary}</summary>{table}</details>'


def explanation(maps: Maps, labels: tuple[str, ...], portrait: np.ndarray) -> str:
    """Grad-CAM of one face: the crop, the map over it with an opacity slider, the map alone, and every branch's map.

    Args:
        maps: of exactly one face.
        labels: the vocabulary of the classes explained.
        portrait: uint8 [S, S, 3], the region that the model saw.
    """
    label = labels[int(maps.classes[0, 0])]
    crop, heat = pieces.data_uri(portrait), _heat(maps.ensemble[0], portrait)
    main = [
        _figure("The face as the model sees it", "face", crop),
        _figure(f"Where the evidence for {label} lies, over the face", "blend", crop, heat),
        _figure(f"Map of the evidence for {label}", "map", heat),
    ]
    grid = [
        _figure(
            f"Branch {b + 1}: evidence for {label}",
            f"{b + 1} · {percent(float(p[0]))}",
            crop,
            _heat(m[0], portrait),
        )
        for b, (m, p) in enumerate(zip(maps.members, maps.probabilities))
    ]
    slider = f'<label>Opacity of the map <input type="range" min="0" max="100" value="55" oninput="{FADE}"></label>'
    colours = ",".join("rgb({},{},{})".format(*rgb) for rgb in draw.heat_colours(9))
    scale = f'<span class="em-scale">0 <i style="background:linear-gradient(90deg,{colours})"></i> 1</span>'
    return _section(
        "Where the model looked",
        f'<div class="em-cam"><p class="em-text">Grad-CAM: evidence for {plots.swatch(label)}</p>'
        f'<div class="em-cam-main">{"".join(main)}</div><div class="em-controls">{slider}{scale}</div>'
        + (f'<div class="em-cam-branches">{"".join(grid)}</div>' if len(grid) > 1 else "")
        + "</div>",
    )


def _heat(values: np.ndarray, portrait: np.ndarray) -> str:
    return pieces.data_uri(draw.heat(portrait, values, alpha=1, bar=False))


def _figure(alt: str, caption: str, below: str, above: str = "") -> str:
    over = f'<img class="em-map" src="{above}" alt="">' if above else ""
    layers = f'<div class="em-layers"><img src="{below}" alt="{alt}">{over}</div>'
    return f"<figure>{layers}<figcaption>{caption}</figcaption></figure>"


def _section(heading: str, body: str) -> str:
    return f'<section><h3 class="em-heading">{heading}</h3>{body}</section>'


def _caption(task: Task) -> str:
    if task.members is None or len(task.members) < 2:
        return ""
    text = f"Bar: mean of {len(task.members)} branches; whisker: from the lowest to the highest branch."
    return f'<p class="em-text">{text}</p>'
