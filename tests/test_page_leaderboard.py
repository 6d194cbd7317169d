"""The Leaderboard tab in a real browser, and its API."""

import pytest

pytest.importorskip("gradio")
from gradio_client import Client
from gradio_client.exceptions import AppError

from emotion.ui import leaderboard
from eval.leaderboard import Row, Table
from eval.plot import pareto
from eval.results import Figure
from tests import browser as web

MEASURED = Row(
    "ours <b>", True, {"accuracy": Figure(0.7, 0.65, 0.75)}, "2030, commit abc", command="python -m eval run"
)
QUOTED = [Row(f"paper {n}", False, {"accuracy": Figure(0.1 * n)}, f"table {n}", note="as stated") for n in (8, 6)]


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """One table whatever has been measured on this machine."""
    rows = [QUOTED[0], MEASURED, QUOTED[1]]
    table = Table("expression", "faces", "test", "8 classes", "accuracy", rows)
    other = Table("action-units", "videos", "valid", "", "f1", [Row("other", False, {"f1": Figure(0.5)}, "somewhere")])

    def stored(folders, track=None):
        return [t for t in (table, other) if track in (None, t.track)], ["broken.json is damaged"]

    monkeypatch.setattr(leaderboard.boards, "tables_of", stored)


def test_rows_are_filtered_searched_and_sorted(tmp_path):
    problems = []
    with web.served([web.random_model(tmp_path / "model")]) as address, web.chromium() as browser:
        page = web.open_page(browser, address, problems, "?tab=leaderboard")
        rows = page.locator("#em-board tbody tr")
        assert [rows.nth(i).locator("th").inner_text().split(" rep")[0] for i in range(3)] == [
            "paper 8", "ours <b> measured", "paper 6",
        ]  # fmt: skip
        assert "[0.6500, 0.7500]" in rows.nth(1).inner_text()
        page.click("#em-board summary")
        assert page.locator("#em-board code").inner_text() == MEASURED.command
        page.click("#em-board th button:text('accuracy')")
        page.click("#em-board th button:text('accuracy')")
        assert rows.first.inner_text().startswith("3")
        assert page.locator("#em-board th[aria-sort=ascending]").count() == 1
        page.click("#em-board-filters label:has-text('measured')")
        page.wait_for_function("document.querySelectorAll('#em-board tbody tr').length === 1")
        page.click("#em-board-filters label:has-text('all')")
        page.locator("#em-board-search").locator("input, textarea").press_sequentially("stated 6")
        page.wait_for_selector("#em-board tbody tr:only-child:has-text('paper 6')")
        for _ in "stated 6":
            page.keyboard.press("Backspace")
        page.click("#em-board-filters label:has-text('Action units')")
        page.wait_for_selector("#em-board h3:has-text('videos, valid')")
        assert "broken.json" in page.inner_text("#em-board .em-error")
        found = Client(address, verbose=False).predict("expression", api_name="/leaderboard")
        assert [(r["rank"], r["model"], r["measured"]) for r in found][1] == (2, "ours <b>", True)
        assert found[1]["figures"]["accuracy"] == {"value": 0.7, "low": 0.65, "high": 0.75}
        with pytest.raises(AppError, match="no track 'x'"):
            Client(address, verbose=False).predict("x", api_name="/leaderboard")
    assert problems == []


def test_the_front_holds_what_nothing_beats():
    assert pareto([3, 1, 2, 1], [0.9, 0.5, 0.4, 0.6]) == [(1, 0.6), (3, 0.9)]
