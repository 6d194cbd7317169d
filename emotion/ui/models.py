"""The Models tab: what every known model predicts, where its weights are, their licence, and how good they are."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from emotion import hub, registry
from emotion.ui.pieces import Models

METRICS = 6  # shown at once
COPY = (
    "element.addEventListener('click', e => { const b = e.target.closest('button[data-copy]'); if (!b) return;"
    "navigator.clipboard.writeText(b.dataset.copy).then(() => { b.textContent = 'Copied'; }); })"
)


def tab(models: Models, _: gr.Dropdown) -> None:
    """Build the tab's contents: one card per model, those that can be used at once first."""
    folders = [_folder_card(name, place) for name, place in models.places.items() if name not in registry.entries()]
    known = registry.entries().values()
    ready = [_card(entry, models.places[entry.name]) for entry in known if entry.name in models.places]
    others = [_card(entry, None) for entry in known if entry.name not in models.places]
    sections = _section("Ready to use", [*folders, *ready]) + _section("With weights that you bring", others)
    gr.HTML(sections, js_on_load=COPY, elem_id="em-models")


def _section(heading: str, cards: list[str]) -> str:
    return f'<h2 class="em-heading">{heading}</h2><div class="em-cards">{"".join(cards)}</div>' if cards else ""


def _card(entry: registry.Entry, place: str | Path | None) -> str:
    folder = hub.find(place) if place is not None else None
    rows = {
        "predicts": _words(entry.tasks),
        "trained on": escape(", ".join(entry.trained_on)),
        "licence": _licence(entry.licence, entry.commercial),
        "size": _size(folder),
        "weights": "part of this package" if entry.bundled else _original(entry),
        "to use it": "" if entry.bundled or not entry.import_command else _code(entry.import_command),
        "measured": _metrics(folder),
        "reported": escape(entry.reported),
    }
    copy = f'<button class="em-button" data-copy="{escape(entry.citation)}">Copy citation</button>'
    return _html(entry.name, entry.summary, rows, copy)


def _folder_card(name: str, place: str | Path) -> str:
    card = hub.read_config(hub.find(place))["card"]
    rows = {
        "trained on": escape(", ".join(card.get("trained_on", ()))),
        "licence": _licence(card["licence"], card["commercial"]),
        "size": _size(hub.find(place)),
        "weights": escape(card.get("source", "")),
        "measured": _metrics(hub.find(place)),
    }
    return _html(name, "Checkpoint folder given when this page was started", rows)


def _html(name: str, summary: str, rows: dict[str, str], extra: str = "") -> str:
    body = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in rows.items() if text)
    head = f'<h3>{escape(name)}</h3><p class="em-text">{escape(summary)}</p>'
    return f'<article class="em-card">{head}<dl>{body}</dl>{extra}</article>'


def _words(tasks: tuple[str, ...]) -> str:
    return escape(", ".join(t.replace("_", " ") for t in tasks))


def _licence(licence: str, commercial: bool) -> str:
    return f"{escape(licence)} ({'commercial use allowed' if commercial else 'no commercial use'})"


def _size(folder: Path | None) -> str:
    weights = None if folder is None else folder / hub.WEIGHTS
    return "" if weights is None or not weights.is_file() else f"{weights.stat().st_size / 1e6:.1f} MB"


def _original(entry: registry.Entry) -> str:
    text = escape(entry.original)
    if not entry.original.startswith("https://"):
        return text
    return f'<a href="{text}" target="_blank" rel="noopener noreferrer">{text.removeprefix("https://")}</a>'


def _code(command: str) -> str:
    return f"<code>{escape(command)}</code>"


def _metrics(folder: Path | None) -> str:
    metrics: dict[str, Any] = {} if folder is None else hub.read_config(folder)["card"].get("metrics", {})
    lines = [f"{escape(name)}: {value:.3f}" for name, value in metrics.items()]
    more = "<br>".join(lines[METRICS:])
    rest = f"<details><summary>{len(lines) - METRICS} more</summary>{more}</details>" if more else ""
    return "<br>".join(lines[:METRICS]) + rest
