"""Accuracy against speed as an SVG drawing: no library, no script, readable by screen readers."""

from __future__ import annotations

import html
import math

from eval.leaderboard import Table

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 12, 44


def accuracy_against_speed(table: Table, tables: list[Table]) -> str:
    """The measured rows of a table whose speed was measured too, or "" where these are fewer than two models."""
    times = {
        r.model: r.figures["ms_1"].value for t in tables if t.track == "speed" for r in t.rows if "ms_1" in r.figures
    }
    points = [
        (row.model, times[row.model], row.figures[table.main].value)
        for row in table.rows
        if table.track != "speed" and row.measured and row.model in times and table.main in row.figures
    ]
    return _scatter(points, "milliseconds per face", table.main) if len(points) > 1 else ""


def _scatter(points: list[tuple[str, float, float]], across: str, up: str) -> str:
    """Points with their names; the horizontal axis is logarithmic."""
    xs, ys = [math.log10(x) for _, x, _ in points], [y for *_, y in points]
    low_x, high_x = _limits(xs)
    low_y, high_y = _limits(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        return LEFT + right, HEIGHT - BOTTOM - (y - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    floor = HEIGHT - BOTTOM
    parts = [f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="var(--line)"/>']
    for k in range(5):
        x, y = low_x + k / 4 * (high_x - low_x), low_y + k / 4 * (high_y - low_y)
        at_x, at_y = place(x, y)
        parts.append(f'<text class="tick" x="{at_x:.0f}" y="{floor + 18}" text-anchor="middle">{10**x:.3g}</text>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at_y + 4:.0f}" text-anchor="end">{y:.3f}</text>')
    parts.append(f'<text class="tick" x="{LEFT}" y="{HEIGHT - 6}">{html.escape(across)} →, {html.escape(up)} ↑</text>')
    for (name, *_), x, y in zip(points, xs, ys):
        at_x, at_y = place(x, y)
        parts.append(f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="4" fill="var(--accent)"/>')
        parts.append(f'<text x="{at_x + 8:.1f}" y="{at_y + 4:.1f}">{html.escape(name)}</text>')
    words = "; ".join(f"{name}: {x:.3g} {across}, {up} {y:.4f}" for name, x, y in points)
    label = html.escape(words, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _limits(values: list[float]) -> tuple[float, float]:
    """A range around the values with some room, never empty."""
    low, high = min(values), max(values)
    room = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room
