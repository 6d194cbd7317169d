"""Drawings of the leaderboard as SVG: no library, no script, readable by screen readers."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from typing import NamedTuple

from eval.leaderboard import Row, Table
from eval.results import COVERAGES

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 250, 12, 44
LONGEST = 28  # letters of a name that fit beside the axes
CURVES = 8  # drawn at most, of the best rows
DASHES = ("", "6 3", "2 3", "9 3 2 3")  # lines differ in more than colour
COLOURS = ("var(--accent)", "var(--second)")

Limits = tuple[float, float]
Place = Callable[[float, float], tuple[float, float]]


def drawings(table: Table, tables: list[Table]) -> str:
    """Every drawing of a table, one after the other, as wide as it is; "" where there is nothing to draw."""
    parts = (accuracy_against_speed(table, tables), risk_coverage(table))
    return "".join(f'<div class="scroll" tabindex="0" role="group">{part}</div>' for part in parts if part)


def accuracy_against_speed(table: Table, tables: list[Table]) -> str:
    """Rows whose network's speed was measured, all on one machine, or "" where these are fewer than two.

    Reported rows are hollow. Of several machines, the one that most of the models were measured on is taken.
    """
    rows = [row for row in table.rows if row.checkpoint and table.main in row.figures]
    best: list[Point] = []
    for speeds in (t for t in tables if t.track == "speed" and table.track != "speed"):
        times = {r.model: r.figures[speeds.main].value for r in speeds.rows if speeds.main in r.figures}
        points = [
            Point(row.model, times[row.checkpoint], row.figures[table.main].value, row.measured)
            for row in rows
            if row.checkpoint in times
        ]
        best = max(best, points, key=len)
    return _scatter(best, "milliseconds each", table.main) if len(best) > 1 else ""


class Point(NamedTuple):
    """A model in a drawing of what it gives against what it costs."""

    name: str
    cost: float
    gain: float
    measured: bool


def risk_coverage(table: Table) -> str:
    """Error of the surest answers of the rows with an uncertainty, or "" without any."""
    rows = [row for row in table.rows if row.risk][:CURVES]
    if not rows:
        return ""
    high = _limits([0.0, *(r for row in rows for r in row.risk)])[1]
    place = _place((0, 1), (0, high))
    parts = _axes(place, (0, 1), (0, high), lambda x: f"{x:.0%}", "answers kept, the surest first →, their error ↑")
    taken: list[float] = []
    for k, row in enumerate(rows):
        style = f'stroke="{COLOURS[k % 2]}" stroke-dasharray="{DASHES[k // 2 % 4]}"'
        points = " ".join("{:.1f},{:.1f}".format(*place(c, r)) for c, r in zip(COVERAGES, row.risk))
        parts.append(f'<polyline points="{points}" fill="none" stroke-width="2" {style}/>')
        x, y = place(1, row.risk[-1])
        while any(abs(y - other) < 14 for other in taken):  # names must not lie on each other
            y += 14
        taken.append(y)
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{_short(row.model)}</text>')
    return _svg(parts, "Risk against coverage. " + "; ".join(map(_risk_in_words, rows)))


def _risk_in_words(row: Row) -> str:
    half = row.risk[COVERAGES.index(0.5)]
    return f"{row.model}: error {row.risk[-1]:.4f} of all answers, {half:.4f} of the surest half"


def _short(name: str) -> str:
    """A name that fits into the picture; the whole one is in the description."""
    return html.escape(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…")


def _scatter(points: list[Point], across: str, up: str) -> str:
    """Points with their names, and the line of those that no other beats; the horizontal axis is logarithmic."""
    xs, ys = [math.log10(p.cost) for p in points], [p.gain for p in points]
    limits = _limits(xs), _limits(ys)
    place = _place(*limits)
    parts = _axes(place, *limits, lambda x: f"{10**x:.3g}", f"{across} →, {up} ↑ (hollow: reported)")
    front = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in pareto(xs, ys))
    parts.append(f'<polyline points="{front}" fill="none" stroke="var(--accent)" stroke-dasharray="4 4"/>')
    for point, x, y in sorted(zip(points, xs, ys), key=lambda p: -p[2]):
        at_x, at_y = place(x, y)
        fill = "var(--accent)" if point.measured else "var(--page, transparent)"
        parts.append(f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="4" fill="{fill}" stroke="var(--accent)"/>')
        parts.append(f'<text x="{at_x + 8:.1f}" y="{at_y + 4:.1f}">{_short(point.name)}</text>')
    kinds = {True: "", False: " (reported)"}
    words = (f"{p.name}: {p.cost:.3g} {across}, {up} {p.gain:.4f}{kinds[p.measured]}" for p in points)
    return _svg(parts, "; ".join(words))


def pareto(costs: list[float], gains: list[float]) -> list[tuple[float, float]]:
    """The points that no other one beats in both cost (less is better) and gain, the cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(zip(costs, gains), key=lambda p: (p[0], -p[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def _place(across: Limits, up: Limits) -> Place:
    """Values -> pixels."""

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - across[0]) / (across[1] - across[0]) * (WIDTH - LEFT - RIGHT)
        return LEFT + right, HEIGHT - BOTTOM - (y - up[0]) / (up[1] - up[0]) * (HEIGHT - TOP - BOTTOM)

    return place


def _axes(place: Place, across: Limits, up: Limits, tick: Callable[[float], str], title: str) -> list[str]:
    """Two axes with five ticks each."""
    floor = HEIGHT - BOTTOM
    parts = [f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="var(--line)"/>']
    for k in range(5):
        x, y = (low + k / 4 * (high - low) for low, high in (across, up))
        at_x, at_y = place(x, y)
        parts.append(f'<text class="tick" x="{at_x:.0f}" y="{floor + 18}" text-anchor="middle">{tick(x)}</text>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at_y + 4:.0f}" text-anchor="end">{y:.3f}</text>')
    parts.append(f'<text class="tick" x="{LEFT}" y="{HEIGHT - 6}">{html.escape(title)}</text>')
    return parts


def _svg(parts: list[str], words: str) -> str:
    label = html.escape(words, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _limits(values: list[float]) -> Limits:
    """A range around the values with some room, never empty."""
    low, high = min(values), max(values)
    room = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room
