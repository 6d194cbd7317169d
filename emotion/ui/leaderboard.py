"""The Leaderboard tab: measured results and published figures, told apart, one table per data set and protocol."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from emotion.ui import pieces, plots
from emotion.ui.work import answering
from eval import leaderboard as boards
from eval import plot, render
from eval.leaderboard import Row, Table
from eval.results import FOLDER, Figure
from eval.tracks import TRACKS

KINDS = ("all", "measured", "reported")
TIES = {
    True: '<abbr title="its interval overlaps that of the best measured row">≈</abbr>',
    None: '<abbr title="without intervals nobody can tell whether it is as good as the best measured row">?</abbr>',
}
# A click on a heading sorts by it; again: the other way round. Rows without a value stay at the end.
SORT = """element.addEventListener('click', e => {
    const button = e.target.closest('th button');
    if (!button) return;
    const th = button.parentElement, body = th.closest('table').tBodies[0];
    const up = th.getAttribute('aria-sort') === 'descending', k = th.cellIndex;
    for (const other of th.parentElement.children) other.removeAttribute('aria-sort');
    th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const key = row => row.cells[k].dataset.key ?? '';
    const order = (a, b) => {
        if (key(a) === '' || key(b) === '') return (key(a) === '') - (key(b) === '');
        const d = isNaN(key(a)) || isNaN(key(b)) ? key(b).localeCompare(key(a)) : key(b) - key(a);
        return up ? -d : d;
    };
    body.append(...[...body.rows].sort(order));
})"""


def board(track: str, kind: str = "all", words: str = "") -> str:
    """The tables of a track as HTML, with only the rows that are wanted.

    Args:
        track: key of `TRACKS`.
        kind: one of `KINDS`.
        words: every one of these must occur in the row's model, origin or note or in the table's title.
    """
    tables, problems = boards.tables_of([FOLDER])
    parts = []
    for table in (t for t in tables if t.track == track):
        rows = [row for row in table.rows if _wanted(table, row, kind, words)]
        if rows:
            drawings = ((plot.accuracy_against_speed(table, tables), _PARETO), (plot.risk_coverage(table), _RISK))
            parts.append(_table(table, rows) + "".join(_figure_of(*drawing) for drawing in drawings))
    if not parts:
        parts.append(pieces.note("No row is left.", "Show all kinds, or search for fewer words."))
    parts += [pieces.error(problem) for problem in problems]
    return f'<div class="em-board">{"".join(parts)}</div>'


_PARETO = "Dashed: the models that no other one beats in both figures. Only models measured on one machine are shown."
_RISK = "The error of the answers that a model is surest of. The lower on the left, the better it knows its errors."


def _figure_of(drawing: str, caption: str) -> str:
    return f'<figure class="em-scatter">{drawing}<figcaption>{caption}</figcaption></figure>' if drawing else ""


def _wanted(table: Table, row: Row, kind: str, words: str) -> bool:
    text = f"{table.title} {row.model} {row.origin} {row.note}".lower()
    return kind in ("all", _kind(row)) and all(word in text for word in words.lower().split())


def _kind(row: Row) -> str:
    return "measured" if row.measured else "reported"


def _table(table: Table, rows: list[Row]) -> str:
    figures = [(name.replace("_", " "), 170 if name == table.main else 150) for name in table.metrics]
    heads = [("#", 46), ("model", 260), *figures, ("source", 260)]
    up = "".join(
        f'<th scope="col" style="width:{w}px"><button type="button">{escape(h)}</button></th>' for h, w in heads
    )
    body = "".join(f"<tr>{_cells(table, row)}</tr>" for row in rows)
    width = sum(w for _, w in heads)
    title = escape(", ".join(part for part in (table.dataset, table.split, table.protocol) if part))
    return (
        f'<section><h3 class="em-heading">{title}</h3><div class="em-wide" tabindex="0" role="region" '
        f'aria-label="{title}"><table class="em-table" style="min-width:{width}px"><thead><tr>{up}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _cells(table: Table, row: Row) -> str:
    rank = table.rank(row)
    tie = TIES.get(table.tied(row), "") if table.track != "speed" else ""  # speed has medians only
    figures = (_figure(table, name, row.figures.get(name)) for name in table.metrics)
    return "".join([_cell(f"{rank or '–'}{tie}", rank), _model(row), *figures, _cell(_source(row), row.origin)])


def _model(row: Row) -> str:
    badge = f'<span class="em-badge em-{_kind(row)}">{_kind(row)}</span>'
    size = "" if row.parameters is None else f"{row.parameters / 1e6:.1f} M parameters"
    small = "".join(f'<small class="em-faint">{escape(text)}</small>' for text in (size, row.licence) if text)
    return f'<th scope="row" data-key="{escape(row.model)}">{escape(row.model)} {badge}{small}</th>'


def _cell(content: str, key: object) -> str:
    return f'<td data-key="{"" if key is None else escape(str(key))}">{content}</td>'


def _figure(table: Table, name: str, figure: Figure | None) -> str:
    """A number with its interval; the deciding one with a bar, where it is a share."""
    if figure is None:
        return _cell("", None)
    number, _, interval = render.figure(name, figure).partition(" ")
    text = f"<strong>{number}</strong>" if name == table.main else number
    if name == table.main and 0 <= figure.value <= 1:
        whisker = "" if figure.low is None else plots.whisker(figure.low, figure.high)
        text += plots.bar(figure.value, "var(--em-accent)", whisker)
    text += f'<small class="em-faint">{interval}</small>' if interval else ""
    return _cell(text, figure.value)


def _source(row: Row) -> str:
    note = f"<br>{escape(row.note)}" if row.note else ""
    again = f"<details><summary>measure it again</summary><code>{escape(row.command)}</code></details>"
    return escape(row.origin) + note + (again if row.command else "")


def tab(_: pieces.Models, __: gr.Dropdown) -> None:
    """Build the tab's contents and its API function."""
    tracks = [(TRACKS[name].title, name) for name in dict.fromkeys(t.track for t in boards.tables_of([FOLDER])[0])]
    with gr.Row(elem_id="em-board-filters", elem_classes="em-filters"):
        track = gr.Radio(tracks, value=tracks[0][1], label="What is predicted", elem_classes="em-chips")
        kind = gr.Radio(list(KINDS), value=KINDS[0], label="Rows", elem_classes="em-chips")
        words = gr.Textbox(label="Search", placeholder="model, data set, source", elem_id="em-board-search")
    shown = gr.HTML(board(tracks[0][1]), js_on_load=SORT, elem_id="em-board")
    gr.HTML(f'<p class="em-text">{escape(render.LEGEND)}</p>')
    filters = [track, kind, words]
    gr.on(
        [track.input, kind.input, words.input], board, filters, shown,
        trigger_mode="always_last", show_progress="hidden", api_visibility="private", concurrency_id="board",
    )  # fmt: skip
    gr.api(leaderboard, api_name="leaderboard")


def leaderboard(track: str = "expression") -> list[dict[str, Any]]:
    """Measured results and published figures of one track, best first within each data set and protocol.

    Args:
        track: expression, valence-arousal, action-units, audiovisual, scene, detection or speed.

    Returns:
        One object per row: track, dataset, split, protocol, rank, model, measured (else it is quoted), figures
        (each with value and, where measured, the 95 % interval low to high), origin, note and command.
    """
    if track not in TRACKS:
        raise gr.Error(f"no track {track!r}; there are: {', '.join(TRACKS)}", print_exception=False)
    with answering():
        tables, _ = boards.tables_of([FOLDER], track)
    return [
        {"track": t.track, "dataset": t.dataset, "split": t.split, "protocol": t.protocol, "rank": t.rank(row)}
        | {name: getattr(row, name) for name in ("model", "measured", "origin", "note", "command")}
        | {"figures": {name: vars(figure) for name, figure in row.figures.items()}}
        for t in tables
        for row in t.rows
    ]
