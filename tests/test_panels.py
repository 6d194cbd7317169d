"""Drawings beside films: one size for all frames, every member's row, curves that reach back; plots over time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from emotion.draw import PALETTE, film, panels
from emotion.errors import UserError
from emotion.outputs import Result, Task
from tests.test_timeline import made


def spoken(members: int, choices: list[int]) -> Result:
    """One second of one face whose members choose these classes; valence 0.5, arousal 0.2."""
    labels = tuple(PALETTE)[:8]
    result = made([(i, 1, 0.5) for i in range(10)], [i / 10 for i in range(10)])
    values = np.tile(np.eye(8)[choices][:, None], (1, 10, 1))
    expression = Task("categorical", labels, values.mean(0), members=values)
    affect = Task("continuous", ("valence", "arousal"), np.tile([0.5, 0.2], (10, 1)), bounds=(-1, 1))
    return replace(result, tasks={"expression": expression, "valence_arousal": affect})


def has(picture: np.ndarray, colour: str) -> np.ndarray:
    """Where a picture has a colour."""
    return (picture == ImageColor.getrgb(colour)).all(axis=-1)


@pytest.mark.parametrize(("members", "height"), [(4, 288), (9, 720), (25, 480)])
def test_a_panel_has_a_row_for_every_member(members: int, height: int) -> None:
    choices = [k % 3 + 1 for k in range(members)]
    result, panel = spoken(members, choices), panels.Details()
    first = panel(film.at(result, 0.0), height)
    assert first.shape[0] == height and first.shape[1] % 2 == 0
    labels = result.tasks["expression"].labels
    swatches = has(first[:, : first.shape[1] // 4], PALETTE[labels[choices[1]]]).any(axis=1)
    starts = np.count_nonzero(np.diff(swatches.astype(int)) == 1)
    assert starts == choices.count(choices[1]) + (result.tasks["expression"].choice[0] == choices[1])
    empty = panel(film.at(result[:0], 0.5), height)
    assert empty.shape == first.shape and not has(empty, PALETTE[labels[choices[1]]]).any()


def test_the_curve_moves_on_and_stops_without_a_face() -> None:
    result, panel = spoken(3, [1, 1, 1]), panels.Details()

    def columns(picture: np.ndarray) -> np.ndarray:
        return np.flatnonzero(has(picture[-100:], panels.ACTIVE).any(axis=0))

    for seconds in np.arange(0, 1, 0.1):
        last = panel(film.at(result, seconds), 500)
    now = columns(last)
    assert now.max() > last.shape[1] - 20 and 20 < np.ptp(now) < 60  # one of ten seconds
    later = columns(panel(film.at(result[:0], 5.0), 500))
    assert later.max() < now.max() - 150 and np.ptp(later) == pytest.approx(np.ptp(now), abs=2)
    assert not len(columns(panel(film.at(result[:0], 20.0), 500)))


def test_a_picture_and_a_single_network_have_no_curve_and_one_row() -> None:
    result = spoken(1, [2])
    result = replace(film.at(result, 0.0), faces=replace(result.faces[:1], track_ids=None))
    picture = panels.Details()(result, 400)
    swatches = has(picture[:, :100], PALETTE[result.tasks["expression"].labels[2]]).any(axis=1)
    assert np.count_nonzero(np.diff(swatches.astype(int)) == 1) == 1
    assert not has(picture[-100:], panels.ACTIVE).any()


def test_curves_over_time(tmp_path: Path) -> None:
    rows = [(f, t, 0.3 + 0.4 * (t % 2)) for f in range(6) for t in range(1, 9) if f < 7 - t // 2]
    for name, result in {
        "many": made(rows, [i / 2 for i in range(6)]),
        "none": made(rows, [i / 2 for i in range(6)])[:0],
    }.items():
        panels.curves(result, tmp_path / f"{name}.png")
    many, none = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("many", "none"))
    assert many.shape[0] > 3 * none.shape[0] and many.shape[1] == none.shape[1]
    assert has(many, panels.PLEASANT).sum() > 500 and not has(none, panels.PLEASANT).any()
    with pytest.raises(UserError, match="cannot write"):
        panels.curves(made(rows, [i / 2 for i in range(6)]), tmp_path / "missing" / "x.png")
