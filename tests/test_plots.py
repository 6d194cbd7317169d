"""Plots of one face: the numbers that are drawn."""

import re

import numpy as np
import pytest
import torch

from emotion.cli import analyze
from emotion.models.base import FaceInput
from emotion.models.emenet import EMENet, EMENetConfig, probabilities
from emotion.outputs import Faces, Result, Task
from emotion.ui import curves, face, plots

LABELS = ("neutral", "happiness", "surprise")


def expression(members):
    members = np.asarray(members, np.float32)[:, None]
    return Task("categorical", LABELS, members.mean(0), members=members, votes=np.array([[0, 1, 0]], np.float32))


def test_percent_and_signed_numbers_are_readable():
    assert [plots.percent(v) for v in (0, 0.001, 0.125, 1)] == ["0 %", "<1 %", "12 %", "100 %"]
    assert [plots.signed(v) for v in (0.314, -0.5)] == ["+0.31", "−0.50"]


def test_bars_are_in_order_with_the_range_of_the_branches():
    bars = plots.expression_bars(expression([[0.2, 0.7, 0.1], [0.4, 0.5, 0.1]]), 0)
    assert re.findall(r"neutral|happiness|surprise", bars) == list(LABELS)
    assert "<strong>happiness</strong>" in bars and bars.count("em-muted") == 2
    left, width = map(float, re.findall(r"em-whisker\" style=\"left:([\d.]+)%;width:([\d.]+)%", bars)[1])
    assert (left, left + width) == pytest.approx((50, 70), abs=0.2)
    assert re.findall(r"em-value\">(.*?)<", bars) == ["30 %", "60 %", "10 %"]


def test_bars_of_all_models_are_in_one_order():
    task = Task("categorical", ("surprise", "else", "calm", "neutral"), np.full((1, 4), 0.25, np.float32))
    found = re.findall(r"neutral|calm|surprise|else", plots.expression_bars(task, 0))
    assert found == ["neutral", "surprise", "calm", "else"]


def test_the_ellipse_has_the_spread_and_direction_of_the_branches():
    members = np.array([[-0.2, -0.2], [0.2, 0.2]], np.float32)[:, None] + [0.5, -0.25]
    task = Task("continuous", ("valence", "arousal"), members.mean(0), (-1, 1), members=members)
    svg = plots.circumplex(task, 0)
    assert 'cx="180.0" cy="155.0"' in svg  # 0.5 to the right, 0.25 down
    rx, ry = (float(re.search(rf'{n}="([\d.]+)"', svg)[1]) for n in ("rx", "ry"))
    assert rx == pytest.approx(100 * 0.2 * np.sqrt(2), abs=0.1) and ry == 2.0
    angle = float(re.search(r"rotate\((-?[\d.]+)\)", svg)[1])
    assert angle % 180 == pytest.approx(135)  # up to the right, y pointing down
    assert "valence +0.50 ± 0.20, arousal −0.25 ± 0.20" in svg


@pytest.mark.parametrize("members", [1, 3])
def test_what_stands_behind_plus_minus_is_a_standard_deviation_and_never_an_entropy(members):
    torch.manual_seed(members)
    model = EMENet(EMENetConfig(FaceInput((32, 32)), hidden=8))
    logits = {"valence_arousal": torch.full((members, 1, 2, 20), -9.0), "expression": torch.randn(members, 1, 7)}
    logits["valence_arousal"][..., 5] = logits["valence_arousal"][..., 6] = 0  # two neighbours: little spread
    logits["valence_arousal"][0, :, 1, 19] = 0  # far away: much
    task = model.decode(logits)["valence_arousal"]
    p = probabilities(logits)["valence_arousal"].mean(0)[0]
    centres = np.linspace(-1, 1, 20)
    deviation = [float(np.sqrt(row @ centres**2 - (row @ centres) ** 2)) for row in p]
    said = [f"± {d:.2f}" for d in deviation]
    assert np.abs(task.uncertainty["total"][0] - deviation).min() > 0.05, "the test could not tell them apart"

    assert re.findall(r"± [\d.]+", plots.circumplex(task, 0).split("figcaption")[0]) == said
    assert [cells[0][6:] for _, cells in analyze._columns("valence_arousal", task)] == said
    seen = Faces(np.array([[0, 0, 9, 9]]), np.ones(1), track_ids=np.zeros(1, int))
    film = Result("m", (9, 9), np.zeros(1), np.zeros(1, int), seen, {"valence_arousal": task})
    assert re.findall(r"± [\d.]+", str(curves._samples(film, np.zeros(1)))) == said


def test_values_without_a_spread_are_shown_without_one():
    task = Task("continuous", ("valence", "arousal"), np.zeros((1, 2)), (-1, 1))
    assert "±" not in plots.circumplex(task, 0) and "em-spread" not in plots.circumplex(task, 0)
    assert [cells for _, cells in analyze._columns("valence_arousal", task)] == [["+0.00"], ["+0.00"]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"total": 0.1, "aleatoric": 0.1, "epistemic": 0.0}, "Low: the prediction is clear-cut."),
        ({"total": 0.6, "aleatoric": 0.1, "epistemic": 0.5}, "High, mostly because the branches disagree"),
        ({"total": 0.9, "aleatoric": 0.8, "epistemic": 0.1}, "Very high, mostly because the face itself"),
        ({"total": 0.4}, "Moderate."),
    ],
)
def test_uncertainty_is_put_into_words(values, words):
    assert plots.uncertainty_in_words(values).startswith(words)


def test_branch_table_has_a_row_per_branch_and_the_ensemble():
    table = plots.branch_table({"expression": expression([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])}, 0)
    assert table.count('<th scope="row">') == 4
    assert re.findall(r"></span>(\w+)", table) == ["happiness", "neutral", "happiness", "happiness"]
    assert "3 of 3 branches say happiness." in table


@pytest.mark.parametrize("members", [1, 3])
def test_one_network_has_no_branch_table(members):
    task = expression(np.full((members, 3), 1 / 3))
    seen = Faces(np.array([[0, 0, 9, 9]]), np.ones(1))
    result = Result("m", (9, 9), np.zeros(1), np.zeros(1, int), seen, {"expression": task})
    assert (f"each of the {members} branches" in face.branches(result, 0)) == (members > 1)


def test_action_units_are_filled_from_their_threshold_on():
    task = Task("multilabel", ("AU1", "AU12"), np.array([[0.4, 0.6]]), thresholds=np.array([0.3, 0.7]))
    bars = plots.action_units(task, 0)
    assert "<strong>AU1 inner brow raiser</strong>" in bars and "<strong>AU12" not in bars
    assert "left:30.0%" in bars and "left:70.0%" in bars


def test_every_task_shows_how_uncertain_it_is_as_the_figure_does():
    torch.manual_seed(0)
    model = EMENet(EMENetConfig(FaceInput((32, 32)), hidden=8))
    shapes = {"expression": (7,), "action_units": (12,), "valence_arousal": (2, 20)}
    for members in (1, 3):
        tasks = model.decode({task: 2 * torch.randn(members, 2, *shape) for task, shape in shapes.items()})
        seen = Faces(np.tile([0, 0, 9, 9], (2, 1)), np.ones(2))
        shown = face.readout(Result("m", (9, 9), np.zeros(1), np.zeros(2, int), seen, tasks), 1)
        for task in tasks.values():
            total = np.atleast_1d(task.uncertainty["total"][1])
            assert [text for _, text in plots.doubt_bars(task, 1)] == [f"{u:.2f}" for u in total]
            for stack, _ in plots.doubt_bars(task, 1):
                assert stack in shown and stack.count("em-fill") == (1 if members == 1 else 2)
        first = plots.doubt_bars(tasks["action_units"], 1)[0][0]
        widths = [float(w) / 100 for w in re.findall(r"width:([\d.]+)%", first)]
        parts = ("total",) if members == 1 else ("aleatoric", "epistemic")
        assert widths == pytest.approx([tasks["action_units"].uncertainty[p][1, 0] for p in parts], abs=0.001)
        assert ("em-epistemic" in shown) == (members > 1)


def test_a_standard_deviation_is_not_stacked_and_has_another_sign_than_an_entropy():
    doubt = {"total": np.full((1, 2), 0.5), "aleatoric": np.full((1, 2), 0.4), "epistemic": np.full((1, 2), 0.3)}
    task = Task("continuous", ("valence", "arousal"), np.zeros((1, 2)), (-1, 1), uncertainty=doubt)
    ((stack, text), _) = plots.doubt_bars(task, 0)
    assert text == "± 0.50" and stack.count("em-fill") == 1 and "width:50.0%" in stack
    assert plots.doubt_bars(Task("multilabel", ("AU1",), np.zeros((1, 1))), 0) == []
    assert plots.uncertainty({}, 0) == ""
