"""What a video says in total, as HTML: time per expression, mean valence and arousal, the strongest moments."""

from __future__ import annotations

from html import escape
from typing import Any

from emotion import draw
from emotion.draw import percent
from emotion.ui import plots
from emotion.ui.curves import PEAK, clock

SEEK = """element.addEventListener('click', e => {
    const at = e.target.closest('button[data-at]');
    const video = at && document.querySelector('#' + at.closest('[data-player]').dataset.player + ' video');
    if (video) video.currentTime = +at.dataset.at;
})"""


def summary(document: dict[str, Any], player: str) -> str:
    """The readout of `timeline.summary`'s document; its moments move the <video> in the element called `player`."""
    everyone, tracks = document["everyone"], document["tracks"]
    faces = f"{len(tracks)} face{'' if len(tracks) == 1 else 's'}" if tracks else "No face found"
    empty = document["frames_without_face"]
    text = f"{clock(round(document['seconds'], 1))}, {document['frames']} frames read"
    text += f", {empty} of them without a face" if empty and tracks else ""
    parts = [f'<h2 class="em-big">{faces}</h2><p class="em-text">{text}</p>']
    if (expression := everyone.get("expression")) is not None:
        parts.append(_section("Share of time", _shares(expression["share"])))
        parts.append(_section("Strongest moments", _peaks(expression["peaks"])))
    if tracks:
        parts.append(_section("Faces", _faces(tracks)))
    if (units := everyone.get("action_units")) is not None:
        parts.append(_section("Action units, share of time", _shares(units["share"])))
    return f'<div class="em-summary" data-player="{player}">{"".join(parts)}</div>'


def _section(heading: str, body: str) -> str:
    return f'<section><h3 class="em-heading">{heading}</h3>{body}</section>' if body else ""


def _shares(share: dict[str, float]) -> str:
    top = max(share.values())
    return plots.bar_rows(
        (escape(label), plots.bar(value, draw.colour(label), muted=value < top), percent(value))
        for label, value in share.items()
    )


def _peaks(peaks: dict[str, dict[str, float]]) -> str:
    """Moments at which a class, but for neutral, was likely; each moves the player there."""
    strong = sorted(
        ((p["timestamp"], label, p["value"]) for label, p in peaks.items() if p["value"] >= PEAK and label != "neutral")
    )
    items = "".join(
        f'<li><button type="button" class="em-button" data-at="{at:.3f}">{clock(round(at, 1))}</button> '
        f"{plots.swatch(label, f'{label} {percent(value)}')}</li>"
        for at, label, value in strong
    )
    return f'<ul class="em-moments">{items}</ul>' if items else ""


def _faces(tracks: list[dict[str, Any]]) -> str:
    affect = any("valence_arousal" in track for track in tracks)
    heads = ["face", "seen", "mostly", *(("valence", "arousal") if affect else ())]
    rows = []
    for track in tracks:
        seen = f"{track['first']:.1f}–{track['last']:.1f} s"
        share = track.get("expression", {}).get("share", {})
        mostly = plots.swatch(max(share, key=share.get)) if share else ""
        means = track.get("valence_arousal", {}).get("mean", {})
        numbers = "".join(f'<td class="em-number">{plots.signed(value)}</td>' for value in means.values())
        rows.append(f'<tr><th scope="row">{track["track"]}</th><td>{seen}</td><td>{mostly}</td>{numbers}</tr>')
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    return f'<table class="em-table em-means"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
