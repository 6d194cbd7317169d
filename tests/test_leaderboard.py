"""The leaderboard: published figures with sources, measured rows apart, the same content in every format."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import inspect
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from emotion import datasets, registry
from emotion.errors import UserError
from eval import __main__ as eval_command
from eval import cards, leaderboard, plot, render, results, tracks
from eval.__main__ import main
from eval.results import DataInfo, Figure, ModelInfo, Result, RunInfo, TaskResult
from eval.speed import SpeedResult

ROOT = Path(__file__).parents[1]
DATA = "ferplus", "test"
PROTOCOL = "majority, votes of label.csv"


def result(model: str, value: float, low: float, high: float, **data: str) -> Result:
    about = {"name": "ferplus", "split": "test", "protocol": PROTOCOL, "fingerprint": "f", "n": 9} | data
    task = TaskResult(("neutral",), 9, {"accuracy": Figure(value, low, high)})
    run = RunInfo("command", "2026-01-01", "abc", {}, "machine")
    return Result(ModelInfo(model, parameters=1_000_000), DataInfo(**about), {"expression": task}, run)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for row in (result("ours", 0.9, 0.88, 0.92), result("close", 0.87, 0.85, 0.89), result("far", 0.5, 0.4, 0.6)):
        results.write(row, tmp_path / f"{row.name}.json")
    results.write(result("ours", 0.7, 0.6, 0.8, split="valid"), tmp_path / "valid.json")
    return tmp_path


def table_of(folder: Path) -> leaderboard.Table:
    found, problems = leaderboard.tables_of([folder], "expression")
    assert not problems
    (table,) = (t for t in found if (t.dataset, t.split, t.protocol) == ("ferplus", "test", PROTOCOL))
    return table


def test_same_protocol_shares_a_table_and_kinds_are_marked(folder: Path) -> None:
    table = table_of(folder)
    kinds = {row.model: row.measured for row in table.rows}
    assert kinds["ours"] and kinds["close"] and not kinds["ESR-9"]
    values = [row.figures["accuracy"].value for row in table.rows]
    assert values == sorted(values, reverse=True) and table.rows[0].model == "ours"
    assert {row.model for row in table.rows if table.tied(row)} == {"close"}


def test_another_split_is_another_table(folder: Path) -> None:
    found, _ = leaderboard.tables_of([folder], "expression")
    (table,) = (t for t in found if (t.dataset, t.split) == ("ferplus", "valid"))
    assert [row.model for row in table.rows] == ["ours"]


def test_every_reported_row_has_a_source_and_figures_in_range() -> None:
    tables = leaderboard.reported()
    keys = [(t.track, t.dataset, t.split, t.protocol) for t in tables]
    assert len(keys) == len(set(keys))
    for table in tables:
        assert len({row.model for row in table.rows}) == len(table.rows)
        for row in table.rows:
            assert row.origin and not row.measured and row.figures, row
            assert all(0 <= f.value <= 1 for f in row.figures.values()), row
            assert all(0 <= v <= 1 for column in row.per_label.values() for v in column.values()), row


def test_reported_totals_follow_from_their_parts() -> None:
    """Totals printed by the sources agree with the formulas (one table only to 0.006): no figure was mistyped."""
    for table in leaderboard.reported():
        for row in table.rows:
            f = {name: figure.value for name, figure in row.figures.items()}
            if {"total", "f1", "accuracy"} <= f.keys() and "user" not in row.model:
                f1 = 0.5 if table.track == "action-units" else 0.67
                assert f["total"] == pytest.approx(f1 * f["f1"] + (1 - f1) * f["accuracy"], abs=6e-3), row.model
            if {"ccc", "ccc_valence", "ccc_arousal"} <= f.keys():
                assert f["ccc"] == pytest.approx((f["ccc_valence"] + f["ccc_arousal"]) / 2, abs=2e-3), row.model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"track": "smell"}, "no track 'smell'"),
        ({"main": "aroma"}, "no track 'expression' with the figure 'aroma'"),
        ({"rows": [{"model": "a", "accuracy": 1}], "source": ""}, "needs model, source and figures"),
        ({"rows": [{"model": "a", "aroma": 1}]}, "wrong: \\['aroma'\\]"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_damaged_reported_file(change: dict, message: str, tmp_path: Path) -> None:
    good = yaml.safe_load(leaderboard.REPORTED.read_text(encoding="utf-8"))[0]
    path = tmp_path / "reported.yaml"
    path.write_text(yaml.safe_dump([good | change]), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        leaderboard.reported(path)


def test_broken_results_are_named_and_strict_fails(folder: Path, capsys) -> None:
    (folder / "broken.json").write_text("{", encoding="utf-8")
    arguments = ["leaderboard", "--track", "expression", "--results", str(folder)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "left out: cannot read" in captured.err and "broken.json" in captured.err and "ours" in captured.out
    assert main([*arguments, "--strict"]) == 2


def test_formats_agree(folder: Path) -> None:
    assert tuple(render.FORMATS) == tracks.FORMATS
    tables, _ = leaderboard.tables_of([folder], "expression")
    rows = sum(len(t.rows) for t in tables)
    document = json.loads(render.as_json(tables))
    assert sum(len(t["rows"]) for t in document) == rows
    lines = list(csv.DictReader(io.StringIO(render.as_csv(tables))))
    assert len(lines) == sum(len(row.figures) for t in tables for row in t.rows)
    assert {line["kind"] for line in lines} == {"measured", "reported"}
    markdown = render.as_markdown(tables)
    assert len(re.findall(r"^\| [\d–]", markdown, re.M)) == rows
    text = render.as_table(tables)
    assert "0.9000 [0.8800, 0.9200]" in text and "1.00 M" in text and "≈" in text


def test_unknown_protocols_have_no_order(folder: Path) -> None:
    tables, _ = leaderboard.tables_of([folder])
    unranked = [t for t in tables if not t.ranked]
    assert unranked and all(t.rank(row) is None for t in unranked for row in t.rows)
    for table in unranked:
        assert [r.model for r in table.rows] == sorted(r.model for r in table.rows)
    table = table_of(folder)
    assert [table.rank(row) for row in table.rows] == list(range(1, 1 + len(table.rows)))


def test_other_samples_under_the_same_words_are_another_table(folder: Path) -> None:
    results.write(result("elsewhere", 0.99, 0.98, 1.0, fingerprint="0123456789"), folder / "elsewhere.json")
    found, _ = leaderboard.tables_of([folder], "expression")
    titles = {t.title: [r.model for r in t.rows if r.measured] for t in found if (t.dataset, t.split) == DATA}
    assert [t for t, models in titles.items() if models == ["elsewhere"] and t.endswith("samples 01234567")]
    assert [t for t, models in titles.items() if models == ["ours", "close", "far"] and t.endswith("samples f")]


def test_every_reported_row_says_how_to_measure_it() -> None:
    parser, commands = eval_command._parser(), set()
    for table in leaderboard.reported():
        for row in table.rows:
            commands.add(row.command)
            assert row.command or table.dataset == "cmu-mosei" or not table.ranked or "split" in table.protocol or (
                "reselected" in table.split or "7 classes" in table.protocol
            ), (table.title, row.model)  # fmt: skip
    for command in sorted(c for c in commands if c.startswith("python -m eval ")):
        words = command.replace("FOLD", "0").split()[3:]
        args = parser.parse_args(words)
        known = [*inspect.signature(datasets.reader(args.dataset).load).parameters]
        assert all(option.split("=")[0] in known for option in args.option), command
        if args.command == "run":
            assert args.model.rstrip("/") in registry.entries(), command


def test_risk_is_drawn_against_coverage(folder: Path) -> None:
    given = result("doubtful", 0.9, 0.8, 0.95)
    task = dataclasses.replace(given.tasks["expression"], risk=tuple(k / 200 for k in range(1, 21)))
    task = dataclasses.replace(task, calibration={"aurc": 0.05}, per_label={"recall": {"neutral": 0.25}})
    results.write(dataclasses.replace(given, tasks={"expression": task}), folder / "doubtful.json")
    table = table_of(folder)
    drawing = plot.risk_coverage(table)
    assert "doubtful: error 0.1000 of all answers, 0.0500 of the surest half" in drawing
    assert drawing.count("<polyline") == 1 and "aurc" in table.metrics and table.lower("aurc")
    assert drawing in render.as_html([table]) and "0.250" in render._per_label(table)


class Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.links += [v for k, v in attributes if k in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_one_accessible_file(folder: Path) -> None:
    evil = dataclasses.replace(result("<script>alert(1)</script>", 0.6, 0.5, 0.7))
    results.write(evil, folder / "evil.json")
    tables, _ = leaderboard.tables_of([folder])
    text = render.as_html(tables)
    page = Page()
    page.feed(text)
    assert not page.open and not page.links and "{{" not in text
    assert page.seen["h2"] == len(tables) <= page.seen["table"] and page.seen["script"] == 1
    assert '<html lang="en">' in text and 'scope="col"' in text and 'scope="row"' in text


def test_accuracy_is_drawn_against_speed(folder: Path) -> None:
    (folder / "speed").mkdir()
    for model, ms in (("ours", 4.0), ("far", 40.0)):
        found = SpeedResult(model, "faces", 10, 20, {"ms_1": ms}, "machine", "cpu", 1, "2026-01-01", "abc", {})
        text = json.dumps(dataclasses.asdict(found))
        (folder / "speed" / f"{model}.json").write_text(text, encoding="utf-8")
    tables, problems = leaderboard.tables_of([folder])
    (drawing,) = (d for d in re.findall(r"<svg.*?</svg>", render.as_html(tables), re.S) if "milliseconds" in d)
    assert not problems and drawing.count("<circle") == 2
    assert "ours: 4 milliseconds each, accuracy 0.9000" in drawing
    assert [row.model for t in tables if t.track == "speed" for row in t.rows] == ["ours", "far"]


def test_written_to_a_folder(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["leaderboard", "--format", "html", "--out", str(tmp_path / "site")]) == 0
    assert (tmp_path / "site" / "leaderboard.html").is_file()
    assert str(tmp_path / "site") in capsys.readouterr().out


def test_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from eval.__main__ import main; main(['leaderboard']); "
        "print([m for m in ('torch', 'numpy', 'gradio') if m in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]" and "ESR-9" in run.stdout


def test_committed_results_are_sound() -> None:
    found, problems = results.read_all([results.FOLDER])
    assert not problems
    for row in found:
        assert row.model.sha256 and row.data.fingerprint and "/" not in row.run.command


def test_the_bundled_card_says_what_the_results_say(capsys) -> None:
    name = registry.DEFAULT
    assert main(["card", name, "--read"]) == 0
    assert "Facial expression recognition" in capsys.readouterr().out
    card = cards.read(registry.entries()[name].folder / "README.md")
    found, _ = results.read_all([results.FOLDER])
    mine = [r for r in found if r.model.sha256 == registry.entries()[name].sha256]
    assert mine
    for row in mine:
        for task, measured in row.tasks.items():
            for metric, figure in measured.metrics.items():
                key = (cards.TASKS[task][1], row.data.name, row.data.split, row.data.protocol, metric)
                assert card[key] == pytest.approx(figure.value, abs=1e-6)


def test_card_round_trip(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\n---\n# Model\n\nText --- with dashes.\n", encoding="utf-8")
    cards.write(card, [result("ours", 0.9, 0.8, 0.95), result("ours", 0.7, 0.6, 0.8, split="valid")])
    found = cards.read(card)
    name = cards.TASKS["expression"][1]
    of = {split: (name, "ferplus", split, PROTOCOL, "accuracy") for split in ("test", "valid")}
    assert found == {of["test"]: 0.9, of["valid"]: 0.7}
    text = card.read_text(encoding="utf-8")
    assert text.endswith("# Model\n\nText --- with dashes.\n") and "license: mit" in text
    cards.write(card, [result("ours", 0.5, 0.4, 0.6)])
    assert list(cards.read(card).values()) == [0.5]
    card.write_text("# Model\n", encoding="utf-8")
    with pytest.raises(UserError, match="no model-index"):
        cards.read(card)


def test_protocols_of_one_split_stay_apart_in_a_card(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# Model\n", encoding="utf-8")
    given = {PROTOCOL: 0.9, "voices without faces": 0.4}
    cards.write(card, [result("ours", value, 0.1, 0.95, protocol=protocol) for protocol, value in given.items()])
    assert {key[3]: value for key, value in cards.read(card).items()} == given
    head = yaml.safe_load(card.read_text(encoding="utf-8").split("---\n")[1])
    assert {row["dataset"]["config"] for row in head["model-index"][0]["results"]} == set(given)
    for row in (r for model in head["model-index"] for r in model["results"]):
        del row["dataset"]["config"]  # as cards were written before
    card.write_text(f"---\n{yaml.safe_dump(head)}---\n# Model\n", encoding="utf-8")
    assert {key[3]: value for key, value in cards.read(card).items()} == given
    card.write_text("---\n- a list\n---\n# Model\n", encoding="utf-8")
    with pytest.raises(UserError, match="no table of fields"):
        cards.write(card, [result("ours", 0.9, 0.8, 0.95)])


def test_a_bundled_card_keeps_every_figure() -> None:
    """Figures of one split under two protocols are two."""
    name = "avfusion_it.ravdess_ferplus"
    card = cards.read(registry.entries()[name].folder / "README.md")
    mine = [r for r in results.read_all([results.FOLDER])[0] if r.model.sha256 == registry.entries()[name].sha256]
    assert len(mine) > 1 and len(card) == sum(len(task.metrics) for r in mine for task in r.tasks.values())


def test_rows_of_registered_models_say_what_the_registry_says() -> None:
    rows = [row for table in leaderboard.tables_of([results.FOLDER])[0] for row in table.rows]
    known = [row for row in rows if row.checkpoint in registry.entries()]
    assert {row.measured for row in known} == {True, False}
    for row in known:
        entry = registry.entries()[row.checkpoint]
        assert row.licence and row.parameters and row.weights, row.model
        assert row.measured or row.licence == entry.licence, row.model
        assert (row.weights == "bundled") == entry.bundled
    weights = {row.checkpoint: row.weights for row in known}
    assert weights["esr9.affectnet"] == "to import" and weights["esr4.ckplus"] == "not published"
    assert "esr4_level4.ckplus" in weights
    lines = list(csv.DictReader(io.StringIO(render.as_csv(leaderboard.reported()))))
    assert {line["licence"] for line in lines if line["model"] == "ESR-9"} >= {registry.get("esr9.affectnet").licence}


def test_without_intervals_nobody_can_tell_a_tie(folder: Path) -> None:
    for name, value in (("best", 0.95), ("near", 0.949)):
        given = result(name, value, 0.0, 1.0)
        task = dataclasses.replace(given.tasks["expression"], metrics={"accuracy": Figure(value)})
        results.write(dataclasses.replace(given, tasks={"expression": task}), folder / f"{name}.json")
    table = table_of(folder)
    assert {row.model: table.tied(row) for row in table.rows if row.measured} == {
        "best": False, "near": None, "ours": None, "close": None, "far": None,
    }  # fmt: skip
    assert render.cells(table, table.rows[1])[0] == "2?" and render.cells(table, table.rows[0])[0] == "1"
