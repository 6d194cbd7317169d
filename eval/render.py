"""Tables of the leaderboard as text, Markdown, CSV, JSON and one self-contained HTML page."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable
from importlib.resources import files

from rich.console import Console

from emotion.cli.console import table as rich_table
from eval.leaderboard import Row, Table
from eval.plot import drawings
from eval.results import Figure

TITLE = "Emotion recognition leaderboard"
LEGEND = (
    "Measured rows can be recomputed here; reported ones are quoted from their source and were not checked. "
    "Square brackets: bootstrap 95 % interval, whole videos or subjects drawn where frames depend on each other. "
    "≈: the interval overlaps that of the best measured row; ?: without intervals nobody can tell. –: no rank, because "
    "the deciding figure is missing or the rows' protocols are unknown. Tables of different protocols must not be "
    "compared."
)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) <= 3 else f"{value:.1f}"


def figure(metric: str, value: Figure | None) -> str:
    """A figure with its interval."""
    if value is None:
        return ""
    text = _number(value.value)
    if value.low is None:
        return text
    return f"{text} [{_number(value.low)}, {_number(value.high)}]"


def header(table: Table) -> list[str]:
    """Column titles; arrows say whether more or less is better."""
    metrics = [f"{m.replace('_', ' ')} {'↓' if table.lower(m) else '↑'}" for m in table.metrics]
    return ["#", "model", "kind", *metrics, *(title for title, _ in _more(table)), "origin", "note"]


def cells(table: Table, row: Row) -> list[str]:
    """One line in the order of `header`."""
    rank = table.rank(row) or "–"
    mark = {True: "≈", None: "?"}.get(table.tied(row), "") if table.track != "speed" else ""  # medians only
    more = [show(row) for _, show in _more(table)]
    numbers = [figure(m, row.figures.get(m)) for m in table.metrics]
    return [
        f"{rank}{mark}",
        row.model,
        "measured" if row.measured else "reported",
        *numbers,
        *more,
        row.origin,
        row.note,
    ]


def _more(table: Table) -> list[tuple[str, Callable[[Row], str]]]:
    """Columns about the models, only where any row fills them."""
    columns: dict[str, Callable[[Row], str]] = {
        "parameters": lambda r: "" if r.parameters is None else f"{r.parameters / 1e6:.2f} M",
        "MACs": lambda r: "" if r.multiply_adds is None else f"{r.multiply_adds / 1e6:.0f} M",
        "images/s": lambda r: "" if r.speed is None else f"{r.speed:.0f}",
        "licence": lambda r: r.licence,
        "weights": lambda r: r.weights,
    }
    return [(title, show) for title, show in columns.items() if any(show(row) for row in table.rows)]


def as_table(tables: list[Table]) -> str:
    """Plain text, as wide as it needs to be."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=240, markup=False, highlight=False, emoji=False, color_system=None)
    for table in tables:
        grid = rich_table(*header(table))
        for row in table.rows:
            grid.add_row(*cells(table, row))
        console.print(table.title)
        console.print(grid)
        console.print()
    console.print(LEGEND, soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def as_markdown(tables: list[Table]) -> str:
    """Markdown that a README can take as it is."""
    lines = []
    for table in tables:
        head = header(table)
        lines += [f"### {table.title}", "", _pipes(head), "|" + "---|" * len(head)]
        lines += [_pipes(cells(table, row)) for row in table.rows]
        lines.append("")
    return "\n".join([*lines, LEGEND])


def _pipes(parts: list[str]) -> str:
    return "| " + " | ".join(p.replace("|", "\\|") for p in parts) + " |"


def as_csv(tables: list[Table]) -> str:
    """One line per figure: easy to filter, whatever columns a table has."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = ("track", "dataset", "split", "protocol", "rank", "model", "kind", "metric", "value", "low", "high")
    more = ("parameters", "multiply_adds", "licence", "weights", "origin", "note", "command")
    writer.writerow((*columns, *more))
    for table in tables:
        for row in table.rows:
            kind = "measured" if row.measured else "reported"
            for metric in table.metrics:
                if (f := row.figures.get(metric)) is not None:
                    about = (table.track, table.dataset, table.split, table.protocol, table.rank(row), row.model, kind)
                    writer.writerow((*about, metric, f.value, f.low, f.high, *(getattr(row, name) for name in more)))
    return buffer.getvalue().rstrip("\n")


def as_json(tables: list[Table]) -> str:
    """Everything, for programs."""
    document = [
        {
            "track": t.track,
            "dataset": t.dataset,
            "split": t.split,
            "protocol": t.protocol,
            "main": t.main,
            "ranked": t.ranked,
            "rows": [
                {
                    **{k: v for k, v in vars(row).items() if k != "figures"},
                    "rank": t.rank(row),
                    "tied_with_best": t.tied(row),
                    "figures": {k: vars(f) for k, f in row.figures.items()},
                }
                for row in t.rows
            ],
        }
        for t in tables
    ]
    return json.dumps(document, indent=1, ensure_ascii=False)


def as_html(tables: list[Table]) -> str:
    """One page without anything to fetch: tables sort by a click or the keyboard, and work without scripts."""
    page = files("eval").joinpath("leaderboard.html").read_text(encoding="utf-8")
    body = "\n".join(_section(table, tables) for table in tables)
    return page.replace("{{title}}", TITLE).replace("{{legend}}", html.escape(LEGEND)).replace("{{tables}}", body)


def _section(table: Table, tables: list[Table]) -> str:
    titles = header(table)
    head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in titles)
    rows = []
    for row in table.rows:
        first, model, *rest = (html.escape(c) for c in cells(table, row))
        tail = "".join(
            f'<td class="text">{cell}</td>' if title in _TEXTS else f"<td>{_two_lines(cell)}</td>"
            for title, cell in zip(titles[2:], rest)
        )
        kind = "measured" if row.measured else "reported"
        rows.append(f'<tr class="{kind}"><td>{first}</td><th scope="row">{model}</th>{tail}</tr>')
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    more = _per_label(table) + _commands(table) + drawings(table, tables)
    return f"<section>{_scrolling(2, table.title, body)}{more}</section>"


_TEXTS = ("licence", "origin", "note")  # columns whose cells may have several lines


def _two_lines(cell: str) -> str:
    """An interval goes below its figure."""
    value, bracket, interval = cell.partition(" [")
    return f"{value} <small>[{interval}</small>" if bracket else cell


def _scrolling(level: int, title: str, body: str) -> str:
    """A table below its heading, in a region that scrolls by itself, also by keyboard."""
    name = re.sub(r"\W+", "-", title)
    by = f'aria-labelledby="{name}"'
    return (
        f'<h{level} id="{name}">{html.escape(title)}</h{level}>'
        f'<div class="scroll" tabindex="0" role="region" {by}><table {by}>{body}</table></div>'
    )


def _per_label(table: Table) -> str:
    """Figures by label, folded away; one table per kind of figure."""
    parts = []
    for metric in dict.fromkeys(name for row in table.rows for name in row.per_label):
        rows = [row for row in table.rows if metric in row.per_label]
        labels = list(dict.fromkeys(label for row in rows for label in row.per_label[metric]))
        head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in ("model", *labels))
        body = ""
        for row in rows:
            values = (row.per_label[metric].get(label) for label in labels)
            tail = "".join(f"<td>{'' if v is None else f'{v:.3f}'}</td>" for v in values)
            body += f'<tr><th scope="row">{html.escape(row.model)}</th>{tail}</tr>'
        parts.append((metric, f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"))
    tables = (_scrolling(3, f"{metric.replace('_', ' ')}: {table.title}", body) for metric, body in parts)
    return f"<details><summary>By label</summary>{''.join(tables)}</details>" if parts else ""


def _commands(table: Table) -> str:
    """What measures every row, folded away."""
    of: dict[str, list[str]] = {}
    for row in table.rows:
        if row.command:
            of.setdefault(row.command, []).append(row.model)
    items = (f"<li><code>{html.escape(c)}</code> {html.escape(', '.join(models))}</li>" for c, models in of.items())
    return f"<details><summary>Measure it yourself</summary><ul>{''.join(items)}</ul></details>" if of else ""


FORMATS = {"table": as_table, "md": as_markdown, "csv": as_csv, "json": as_json, "html": as_html}
