"""Plots of one face as HTML and SVG: crisp at every size, in the page's light and dark colours, readable without sight.

Only the classes and variables of style.css are used; nothing here needs gradio.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from emotion import draw, figures
from emotion.draw import percent
from emotion.labels import ACTION_UNIT_NAMES
from emotion.outputs import Task

LEVELS = ((0.25, "Low"), (0.5, "Moderate"), (draw.UNCERTAIN, "High"), (np.inf, "Very high"))
SHOWN = tuple(draw.PALETTE)  # expressions from top to bottom
KINDS = {
    "aleatoric": "ambiguity that each branch sees in the face itself",
    "epistemic": "disagreement between the branches",
}


def signed(value: float) -> str:
    """Two digits with a sign and a real minus."""
    return f"{value:+.2f}".replace("-", "−")


def swatch(label: str, text: str = "") -> str:
    """The class's colour and, always, its word (or a longer text with it)."""
    return f'<span class="em-swatch" style="background:{draw.colour(label)}"></span>{escape(text or label)}'


def bar(value: float, rgb: str, extra: str = "", muted: bool = False) -> str:
    """A horizontal bar for a value in [0, 1]; the number must stand beside it."""
    fill = f'<i class="em-fill{" em-muted" if muted else ""}" style="width:{100 * value:.1f}%;background:{rgb}"></i>'
    return f'<span class="em-bar" aria-hidden="true">{fill}{extra}</span>'


def whisker(low: float, high: float) -> str:
    """A range in [0, 1] over a bar."""
    return f'<i class="em-whisker" style="left:{100 * low:.1f}%;width:{max(0.4, 100 * (high - low)):.1f}%"></i>'


def bar_rows(rows: Iterable[Sequence[str]]) -> str:
    """A list of label, bar and value, or of label and several bars and values, each as HTML."""
    items = []
    for label, *cells in rows:
        pairs = (f'{b}<span class="em-value">{value}</span>' for b, value in zip(cells[::2], cells[1::2]))
        items.append(f'<li><span class="em-label">{label}</span>{"".join(pairs)}</li>')
    return f'<ul class="em-rows">{"".join(items)}</ul>'


def expression_bars(task: Task, face: int) -> str:
    """Probability of every class, the same order for all models; the whisker spans the lowest to the highest branch."""
    rows = []
    for k in sorted(range(len(task.labels)), key=lambda k: [*SHOWN, task.labels[k]].index(task.labels[k])):
        label = task.labels[k]
        value, winner = float(task.values[face, k]), k == task.choice[face]
        spread = ""
        if task.members is not None and len(task.members) > 1:
            column = task.members[:, face, k]
            spread = whisker(float(column.min()), float(column.max()))
        name = f"<strong>{escape(label)}</strong>" if winner else escape(label)
        rows.append((name, bar(value, draw.colour(label), spread, muted=not winner), percent(value)))
    return bar_rows(rows)


def action_units(task: Task, face: int) -> str:
    """Every action unit with its name, bar, tick at its threshold, filled where present; and how uncertain that is."""
    rows, doubts = [], doubt_bars(task, face)
    for k, label in enumerate(task.labels):
        value = float(task.values[face, k])
        threshold = 0.5 if task.thresholds is None else float(task.thresholds[k])
        tick = f'<i class="em-tick" style="left:{100 * threshold:.1f}%"></i>'
        name = f"{escape(label)} {escape(ACTION_UNIT_NAMES.get(label, ''))}"
        name = f'<span title="{name}">{f"<strong>{name}</strong>" if value >= threshold else name}</span>'
        cells = (bar(value, "var(--em-accent)", tick, muted=value < threshold), percent(value))
        rows.append((name, *cells, *(doubts[k] if doubts else ())))
    if not doubts:
        return f'<div class="em-units">{bar_rows(rows)}</div>'
    head = f'<p class="em-legend"><span>left probability, right uncertainty</span>{_legend(task)}</p>'
    return f'<div class="em-units em-unsure">{head}{bar_rows(rows)}</div>'


def uncertainty(tasks: dict[str, Task], face: int) -> str:
    """How uncertain expression, valence and arousal are, in bars, and what that means in words; "" where unknown."""
    rows, legend, words = [], "", ""
    if (task := tasks.get("expression")) is not None:
        rows += [("expression", *cells) for cells in doubt_bars(task, face)]
        legend = _legend(task)
        if "total" in task.uncertainty:
            words = uncertainty_in_words({kind: float(v[face]) for kind, v in task.uncertainty.items()})
    if (task := tasks.get("valence_arousal")) is not None:
        rows += [(label, *cells) for label, cells in zip(task.labels, doubt_bars(task, face))]
    if not rows:
        return ""
    parts = [f'<p class="em-text">{words}</p>' if words else "", f'<p class="em-legend">{legend}</p>' if legend else ""]
    return "".join([*parts, bar_rows(rows)])


def doubt_bars(task: Task, face: int) -> list[tuple[str, str]]:
    """What `figures.uncertainty` gives, as a stacked bar and a number per label (one for a categorical task)."""
    parts = figures.uncertainty(task, face)
    out = []
    for values in zip(*parts.values()):
        start, fills = 0.0, []
        for kind, value in zip(parts, map(float, values)):
            width = f"left:{100 * min(start, 1.0):.1f}%;width:{100 * min(value, 1.0 - start):.1f}%"
            fills.append(f'<i class="em-fill em-{kind}" style="{width}"></i>')
            start += value
        said = ", ".join(f"{kind} {value:.2f}" for kind, value in zip(parts, values))
        stack = f'<span class="em-bar" role="img" aria-label="{said}" title="{said}">{"".join(fills)}</span>'
        out.append((stack, f"± {start:.2f}" if "deviation" in parts else f"{start:.2f}"))
    return out


def _legend(task: Task) -> str:
    """What the parts of the bars are, where there are two."""
    kinds = KINDS if "epistemic" in task.uncertainty else {}
    return "".join(
        f'<span title="{text}"><i class="em-part em-{kind}"></i>{kind}</span>' for kind, text in kinds.items()
    )


def uncertainty_in_words(values: dict[str, float]) -> str:
    """One or two sentences about "total", "aleatoric" and "epistemic" uncertainty in [0, 1]."""
    level = next(word for limit, word in LEVELS if values["total"] < limit)
    if "epistemic" not in values or values["total"] < LEVELS[0][0]:
        return f"{level}: the prediction is clear-cut." if level == "Low" else f"{level}."
    if values["epistemic"] > values["aleatoric"]:
        return f"{level}, mostly because the branches disagree: the model knows too little about such faces."
    return f"{level}, mostly because the face itself can be read in several ways; the branches agree on that."


def circumplex(task: Task, face: int) -> str:
    """Valence (to the right) and arousal (up) as a point; the ellipse is one standard deviation."""
    valence, arousal = (float(v) for v in task.values[face])
    middle, radius = 130.0, 100.0
    words = (("tense", -1, 1), ("excited", 1, 1), ("gloomy", -1, -1), ("relaxed", 1, -1))
    labels = "".join(
        f'<text x="{middle + 56 * x}" y="{middle - 56 * y + 4}" class="em-faint">{word}</text>' for word, x, y in words
    )
    axes = (
        '<circle cx="130" cy="130" r="100" class="em-grid"/>'
        '<path d="M30 130H230M130 30V230" class="em-axis"/>'
        '<text x="130" y="20">arousal +1</text><text x="130" y="251">−1</text>'
        '<text x="270" y="122" class="em-end">valence</text><text x="270" y="144" class="em-end">+1</text>'
        '<text x="2" y="135" class="em-start">−1</text>'
    )
    x, y = middle + radius * valence, middle - radius * arousal
    point = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" class="em-point"/>'
    text = f"valence {signed(valence)}, arousal {signed(arousal)}"
    ellipse = ""
    covariance = _covariance(task, face)
    if covariance is not None:
        spread, angle = _ellipse(covariance)
        size = " ".join(f'{n}="{max(2.0, radius * s):.1f}"' for n, s in zip(("rx", "ry"), spread))
        ellipse = f'<ellipse {size} transform="translate({x:.1f} {y:.1f}) rotate({-angle:.1f})" class="em-spread"/>'
        deviation = np.sqrt(np.diag(covariance))
        text = f"valence {signed(valence)} ± {deviation[0]:.2f}, arousal {signed(arousal)} ± {deviation[1]:.2f}"
    svg = f'<svg viewBox="0 0 260 260" role="img" aria-label="{text}">{axes}{labels}{ellipse}{point}</svg>'
    return f'<figure class="em-circumplex">{svg}<figcaption>{text.replace(", ", "<br>")}</figcaption></figure>'


def _covariance(task: Task, face: int) -> np.ndarray | None:
    """Covariance [2, 2]: variances as the model tells them; what valence and arousal share, over the members alone."""
    if task.deviation is None:
        return None
    covariance = np.zeros((2, 2))
    if task.members is not None and len(task.members) > 1:
        covariance = np.cov(task.members[:, face].astype(np.float64), rowvar=False, bias=True)
    np.fill_diagonal(covariance, task.deviation[face].astype(np.float64) ** 2)
    return covariance


def _ellipse(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """Half axes (one standard deviation) and the first one's angle in degrees, counter-clockwise."""
    variances, vectors = np.linalg.eigh(covariance)
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    return np.sqrt(variances.clip(0))[::-1], angle


def branch_table(tasks: dict[str, Task], face: int) -> str:
    """What every branch says, and the ensemble last."""
    task, affect = tasks["expression"], tasks.get("valence_arousal")
    if task.members is None:
        return ""
    affect = affect if affect is not None and affect.members is not None else None
    heads = ["branch", "expression", "probability", *(("valence", "arousal") if affect else ())]
    body = "".join(
        _branch_row(str(b + 1), task.labels[row.argmax()], float(row.max()), affect and affect.members[b, face])
        for b, row in enumerate(task.members[:, face])
    )
    choice = int(task.choice[face])
    label, value = task.labels[choice], float(task.values[face, choice])
    foot = _branch_row("all", label, value, affect and affect.values[face])
    votes = ""
    if task.votes is not None:
        count = round(float(task.votes[face, choice]) * len(task.members))
        votes = f'<p class="em-text">{count} of {len(task.members)} branches say {escape(label)}.</p>'
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    table = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot>"
    return f'{votes}<table class="em-table">{table}</table>'


def _branch_row(name: str, label: str, value: float, affect: np.ndarray | None) -> str:
    numbers = [percent(value), *(signed(float(v)) for v in (affect if affect is not None else ()))]
    cells = "".join(f'<td class="em-number">{n}</td>' for n in numbers)
    return f'<tr><th scope="row">{name}</th><td>{swatch(label)}</td>{cells}</tr>'
