"""The timeline under a player: expressions as areas, valence and arousal as lines, action units as rows; per face.

HTML and SVG without any library: it takes the page's colours, shows the values under the pointer, moves along with the
player, and a click, or the slider's keys, moves the player. Nothing here needs gradio.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emotion import draw
from emotion.draw import percent
from emotion.labels import ACTION_UNIT_NAMES
from emotion.outputs import Result, Task
from emotion.timeline import DRAWN, durations, smooth
from emotion.ui import plots

TASKS = ("expression", "valence_arousal", "action_units")  # that have a lane
COLUMNS = 500  # of a strip; more samples than that are averaged
STRIPS = 6  # faces shown: those seen longest
GAP = 1.0  # seconds without the face after which areas and lines are interrupted
PEAK = 0.5  # probability from which the highest moment of a class is marked
WIDTH, HEIGHT = 1000, 100  # of a strip's drawing, stretched to whatever room there is
SCRIPT = (Path(__file__).parent / "curves.js").read_text(encoding="utf-8")  # for `gr.HTML(js_on_load=...)`


def timeline(result: Result, length: float, player: str, names: Sequence[str] = ()) -> str:
    """Strips of all faces over a common time axis.

    Args:
        result: of a video; areas and lines are drawn smoothed, all numbers are as they are.
        length: seconds of the whole video.
        player: id of the element with the <video> that is moved.
        names: of the tracks 0, 1, ...; default "Face 0" and so on.
    """
    length = max(length, float(result.timestamps[-1]) if len(result.timestamps) else 0.0) or 1.0
    tracks = longest(result)
    drawn = smooth(result)
    titles = {track: names[track] if names else f"Face {track}" for track, _ in tracks}
    strips = "".join(_strip(result[rows], drawn[rows], titles[track], length) for track, rows in tracks[:STRIPS])
    more = len(tracks) - STRIPS
    note = f"Areas and lines are drawn smoothed (time constant {DRAWN:g} s); numbers are as they are."
    note += f" {more} more faces were seen for a shorter time; the tables have them." if more > 0 else ""
    return (
        f'<div class="em-time" data-player="{player}" data-length="{length:.3f}"><h3 class="em-heading">Over time</h3>'
        f'{_legend(result)}<div class="em-strips">{strips}<i class="em-now"></i><i class="em-hover"></i></div>'
        f'<input type="range" min="0" max="{length:.3f}" step="0.04" value="0" aria-label="Seconds of the player">'
        f'{_axis(length)}<p class="em-said"></p><p class="em-text">{note}</p></div>'
    )


def longest(result: Result) -> list[tuple[int, np.ndarray]]:
    """Every track's id and rows, the one seen in most frames first."""
    ids = result.faces.track_ids
    ids = np.zeros(len(result), np.int64) if ids is None else ids
    tracks = [(int(track), np.flatnonzero(ids == track)) for track in np.unique(ids)]
    return sorted(tracks, key=lambda t: (-len(t[1]), t[0]))


def _strip(one: Result, drawn: Result, name: str, length: float) -> str:
    times = one.timestamps[one.frame]
    expression, affect, units = one.tasks.get("expression"), *(drawn.tasks.get(t) for t in TASKS[1:])
    lanes, peaks, head = "", "", name
    if expression is not None:
        lasting = durations(one.timestamps)[one.frame]
        share = np.bincount(expression.choice, lasting, len(expression.labels)) / (lasting.sum() or 1)
        head += f": {expression.labels[share.argmax()]} {percent(float(share.max()))} of its time"
        lanes += _lane("em-areas", _areas(drawn.tasks["expression"], times, length), f"{head}, probabilities over time")
        peaks = "".join(_peaks(expression, times, length))
    if affect is not None:
        lanes += _lane("em-lines", _lines(affect, times, length), f"{name}, valence and arousal over time")
    lanes += "" if units is None else _unit_rows(units, times, length, name)
    data = escape(json.dumps(_samples(one, times), separators=(",", ":")))
    return (
        f'<section class="em-strip" data-name="{escape(name)}" data-samples="{data}"><h4>{escape(head)}</h4>'
        f'<div class="em-peaks">{peaks}</div>{lanes}</section>'
    )


def _lane(kind: str, drawing: str, alt: str) -> str:
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(alt)}"'
    return f'<div class="em-lane {kind}"><svg {box}>{drawing}</svg></div>'


def _runs(times: np.ndarray, length: float, *columns: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Uninterrupted stretches: x in the drawing [n], and the columns [n, ...], averaged where samples are too many."""
    for rows in np.split(np.arange(len(times)), np.flatnonzero(np.diff(times) > GAP) + 1):
        bins = np.unique((times[rows] / length * COLUMNS).astype(int), return_inverse=True)[1]
        count = np.bincount(bins)

        def mean(values: np.ndarray, bins: np.ndarray = bins, count: np.ndarray = count) -> np.ndarray:
            out = np.zeros((len(count), *values.shape[1:]))
            np.add.at(out, bins, values)
            return out / count.reshape(-1, *[1] * (values.ndim - 1))

        x = mean(times[rows]) / length * WIDTH
        means = [mean(column[rows]) for column in columns]
        if len(x) == 1:  # a single sample would have no width
            x, means = np.array([x[0] - 1, x[0] + 1]), [np.repeat(m, 2, axis=0) for m in means]
        yield x, *means


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))


def _areas(task: Task, times: np.ndarray, length: float) -> str:
    """Probabilities stacked in vocabulary order; the dashed line is the uncertainty."""
    total = task.uncertainty.get("total", np.full(len(times), np.nan))
    parts = []
    for x, values, doubt in _runs(times, length, task.values, total):
        tops = HEIGHT * (1 - np.cumsum(values, axis=1))
        floor = np.full(len(x), float(HEIGHT))
        for k, label in enumerate(task.labels):
            outline = _points(np.concatenate([x, x[::-1]]), np.concatenate([tops[:, k], floor[::-1]]))
            parts.append(f'<polygon points="{outline}" fill="{draw.colour(label)}"/>')
            floor = tops[:, k]
        if np.isfinite(doubt).all():
            parts.append(f'<polyline points="{_points(x, HEIGHT * (1 - doubt))}" class="em-doubt"/>')
    return "".join(parts)


def _lines(task: Task, times: np.ndarray, length: float) -> str:
    """Valence and arousal in [-1, 1] with a band of one standard deviation to both sides."""
    deviation = np.zeros_like(task.values) if task.deviation is None else task.deviation
    parts = [f'<path d="M0 {HEIGHT / 2}H{WIDTH}" class="em-zero"/>']
    for x, values, band in _runs(times, length, task.values, deviation):
        y, half = HEIGHT / 2 * (1 - values), HEIGHT / 2 * band
        for k, name in enumerate(task.labels):
            if half[:, k].any():
                outline = _points(
                    np.concatenate([x, x[::-1]]), np.concatenate([y[:, k] - half[:, k], (y[:, k] + half[:, k])[::-1]])
                )
                parts.append(f'<polygon points="{outline}" class="em-band em-{name}"/>')
            parts.append(f'<polyline points="{_points(x, y[:, k])}" class="em-line em-{name}"/>')
    return "".join(parts)


def _unit_rows(task: Task, times: np.ndarray, length: float, name: str) -> str:
    """A row per action unit, the stronger in colour the likelier: a mask of [units, COLUMNS] pixels over the colour."""
    mask = np.zeros((len(task.labels), COLUMNS), np.uint8)
    for x, values in _runs(times, length, task.values):
        columns = np.arange(*np.clip([x[0], x[-1] + WIDTH / COLUMNS], 0, WIDTH) * COLUMNS // WIDTH, dtype=int)
        at = np.searchsorted((x[1:] + x[:-1]) / 2, (columns + 0.5) * WIDTH / COLUMNS)  # the nearest sample
        mask[:, columns] = (255 * values[at].T).round()
    out = io.BytesIO()
    Image.merge("LA", [Image.new("L", mask.shape[::-1]), Image.fromarray(mask)]).save(out, "PNG")
    picture = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    labels = "".join(f'<span title="{escape(ACTION_UNIT_NAMES.get(a, a))}">{escape(a)}</span>' for a in task.labels)
    return (
        f'<div class="em-lane em-unit-rows" role="img" aria-label="{escape(name)}, action units over time">'
        f'<i style="mask-image:url({picture})"></i>{labels}</div>'
    )


def _peaks(task: Task, times: np.ndarray, length: float) -> Iterator[str]:
    """A button where each class, but for neutral, has its highest probability."""
    for k, label in enumerate(task.labels):
        best = int(task.values[:, k].argmax())
        value, second = float(task.values[best, k]), float(times[best])
        if label != "neutral" and value >= PEAK:
            text = f"{label} {percent(value)} at {second:.1f} s"
            style = f"left:{100 * second / length:.2f}%;background:{draw.colour(label)}"
            names = f'title="{text}" aria-label="{text}"'
            yield f'<button type="button" data-at="{second:.3f}" style="{style}" {names}></button>'


def _samples(one: Result, times: np.ndarray) -> list[list[Any]]:
    """Per sample its second and what is said of it."""
    expression, affect, units = (one.tasks.get(task) for task in TASKS)
    deviation = None if affect is None else affect.deviation
    rows = []
    for i, second in enumerate(times):
        words = []
        if expression is not None:
            choice = int(expression.choice[i])
            words.append(f"{expression.labels[choice]} {percent(float(expression.values[i, choice]))}")
        if affect is not None:
            for k, name in enumerate(affect.labels):
                more = "" if deviation is None else f" ± {deviation[i, k]:.2f}"
                words.append(f"{name} {plots.signed(float(affect.values[i, k]))}{more}")
        if units is not None:
            words.append(" ".join(draw.present(units[[i]])[0]) or "no action unit")
        rows.append([round(float(second), 3), ", ".join(words)])
    return rows


def _legend(result: Result) -> str:
    items = []
    if (task := result.tasks.get("expression")) is not None:
        items += [plots.swatch(label) for label in task.labels]
        items += ['<i class="em-key em-doubt"></i>uncertainty'] if "total" in task.uncertainty else []
    if (task := result.tasks.get("valence_arousal")) is not None:
        items += [f'<i class="em-key em-{name}"></i>{name}' for name in task.labels]
    if "action_units" in result.tasks:
        items.append('<i class="em-key em-unit"></i>action units, probability 0 to 1')
    return f'<p class="em-legend">{"".join(f"<span>{item}</span>" for item in items)}</p>'


def _axis(length: float) -> str:
    step = next(s for s in (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 3600) if length / s <= 10 or s == 3600)
    ticks = np.arange(0, length * 1.0001, step)
    marks = "".join(f'<span style="left:{100 * t / length:.2f}%">{clock(t)}</span>' for t in ticks)
    return f'<div class="em-ticks" aria-hidden="true">{marks}</div>'


def clock(seconds: float) -> str:
    """ "2.5 s" below a minute, "3:07" from then on."""
    return f"{seconds:g} s" if seconds < 60 else f"{int(seconds // 60)}:{int(seconds % 60):02}"
