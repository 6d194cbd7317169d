"""What voice and face say together and alone, and which of them carried the decision, as HTML."""

from __future__ import annotations

from html import escape

import numpy as np

from emotion import draw
from emotion.draw import percent
from emotion.outputs import Result, Task
from emotion.predict.clips import MODALITIES
from emotion.ui import plots

LITTLE = 0.05  # of probability: leaving a modality out that changes less than this does not matter
MUCH = 0.25  # where leaving out either costs as much as this, neither alone would have done


def readout(result: Result) -> str:
    """The whole clip in one view: the mean over its moments, and what each modality did to it."""
    expression = mean(result.tasks["expression"])
    choice = int(expression.choice[0])
    label, value = expression.labels[choice], float(expression.values[0, choice])
    count = len(result)
    text = "One decision about the whole clip" if count == 1 else f"Mean of {count} moments, each 3.6 s long"
    parts = [f'<h2 class="em-big">{plots.swatch(label, f"{label} {percent(value)}")}</h2><p class="em-text">{text}</p>']
    if "contribution" in result.tasks:
        parts.append(_section("Voice or face", carried(result)))
        parts.append(_section("Together and alone", _table(result)))
    else:
        parts.append(plots.expression_bars(expression, 0))
    doubt = plots.uncertainty({"expression": expression}, 0)
    return "".join([*parts, _section("Uncertainty", doubt) if doubt else ""])


def mean(task: Task) -> Task:
    """The mean over all moments as a single row."""
    doubt = {kind: values.mean(axis=0, keepdims=True) for kind, values in task.uncertainty.items()}
    return Task(task.kind, task.labels, task.values.mean(axis=0, keepdims=True), task.bounds, uncertainty=doubt)


def alone(result: Result) -> dict[str, Task]:
    """What all that was there says, and each modality by itself, by their names for people."""
    names = {"together": "expression"} | {f"{name} alone": f"expression_{name}" for name in MODALITIES}
    return {title: result.tasks[name] for title, name in names.items() if name in result.tasks}


def carried(result: Result) -> str:
    """In words: what leaving voice or face out does to the decided class, and what attention says."""
    expression = mean(result.tasks["expression"])
    choice = int(expression.choice[0])
    label, whole = expression.labels[choice], float(expression.values[0, choice])
    # Without the voice there is the face alone, and the other way round.
    left = {
        name: float(mean(result.tasks[f"expression_{other}"]).values[0, choice])
        for name, other in zip(MODALITIES, reversed(MODALITIES))
    }
    falls = {name: whole - value for name, value in left.items()}
    carrier = max(falls, key=falls.get)
    other = next(name for name in MODALITIES if name != carrier)
    if min(falls.values()) >= MUCH:
        head = "It took both."
    else:
        head = f"The {carrier} carried it." if falls[carrier] >= LITTLE else "Either would do."
    texts = [f"without the {name} {_change(whole, left[name])}" for name in (carrier, other)]
    words = f"Probability of {escape(label)} {percent(whole)}; {', '.join(texts)}."
    attention = dict(zip(MODALITIES, mean(result.tasks["attention"]).values[0]))
    rows = [_row(f"{name} left out", falls[name], f"{100 * falls[name]:+.0f}".replace("-", "−")) for name in MODALITIES]
    rows += [_row(f"attention to {name}", float(value), f"{value:.2f}") for name, value in attention.items()]
    chosen = max(attention, key=attention.get)
    more = "Attention prefers moments of neither."
    if attention[chosen] - attention[_other(chosen)] >= LITTLE / 5:
        agrees = "too picks" if chosen == carrier else "picks, on the contrary,"
        more = f"Attention {agrees} single moments of the {chosen} more than of the {_other(chosen)}."
    return (
        f'<p class="em-text"><strong>{head}</strong> {words} {more}</p>'
        f'<div class="em-units">{plots.bar_rows(rows)}</div>'
        '<p class="em-text">Left out: by how many points of probability the decision loses. '
        "Attention: 0, all moments alike, to 1, a single moment.</p>"
    )


def _other(name: str) -> str:
    return next(other for other in MODALITIES if other != name)


def _change(before: float, after: float) -> str:
    verb = "stays at" if abs(after - before) < LITTLE / 5 else "falls to" if after < before else "rises to"
    return f"it {verb} {percent(after)}"


def _row(name: str, value: float, text: str) -> tuple[str, str, str]:
    return name, plots.bar(float(np.clip(value, 0, 1)), "var(--em-accent)"), text


def _table(result: Result) -> str:
    columns = {title: mean(task) for title, task in alone(result).items()}
    head = "".join(f'<th scope="col">{title}</th>' for title in ("expression", *columns))
    labels = result.tasks["expression"].labels
    body = "".join(
        f'<tr><th scope="row">{escape(label)}</th>{"".join(_cell(task, k) for task in columns.values())}</tr>'
        for k, label in enumerate(labels)
    )
    return f'<table class="em-table em-modalities"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(task: Task, k: int) -> str:
    value, winner = float(task.values[0, k]), k == task.choice[0]
    number = f"<strong>{percent(value)}</strong>" if winner else percent(value)
    return f"<td>{plots.bar(value, draw.colour(task.labels[k]), muted=not winner)}{number}</td>"


def _section(heading: str, body: str) -> str:
    return f'<section><h3 class="em-heading">{heading}</h3>{body}</section>'
