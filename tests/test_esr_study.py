"""The comparison of shared and separate networks: what is trained, what is resumed, what is reported."""

import dataclasses
import json

import numpy as np
import pytest

from emotion.datasets import ferplus
from train import esr_study as study
from train import recipe as recipes
from train.__main__ import smoke


@pytest.fixture(scope="module")
def recipe():
    short = smoke(recipes.load("esr-study"))
    blocks = {"base": [{"out": 4, "pool": True}, {"out": 6, "pool": True}], "branch": [{"out": 6}], "branches": 2}
    return dataclasses.replace(short, rest=short.rest | {"model": short.rest["model"] | blocks, "batch": 8})


def test_variants_have_the_same_layers(recipe):
    for name in study.VARIANTS:
        rest = study.variant(recipe, name).rest
        assert rest["model"]["branches"] * study.size(recipe, name) == (1 if name == "single" else 2)
        assert rest["stages"][-1]["active"] == rest["model"]["branches"]


def test_a_study_is_resumable_and_complete(recipe, tmp_path, monkeypatch):
    data = ferplus.fake(tmp_path / "data", per_class=3)
    lines = []
    found = study.study(recipe, data, tmp_path, 2, lines.append)
    assert len(lines) == 2 * len(study.VARIANTS)
    monkeypatch.setattr(study.loop, "fit", None)  # nothing is trained twice
    again = study.study(recipe, data, tmp_path, 2, lines.append)
    assert str(again["figures"]) == str(found["figures"])  # as text, because NaN is unequal to itself
    assert json.loads((tmp_path / "figures.json").read_text())["faces"] == found["faces"]
    cost = found["cost"]
    assert cost["single"]["parameters"] * 2 == cost["separate"]["parameters"] > cost["joint"]["parameters"]
    assert cost["single"]["multiply_adds"] * 2 == cost["separate"]["multiply_adds"] > cost["staged"]["multiply_adds"]
    for name, values in found["figures"].items():
        for figure, (value, low, high) in values.items():
            assert not (low > value or value > high), (name, figure)  # NaN where a resample has no error
    text = study.tables(found)
    assert text.count("\n|") >= 2 + 4 + 2 + 7 - 1


def test_judged_by_hand():
    logits = np.log(np.array([[[0.8, 0.2], [0.6, 0.4]], [[0.7, 0.3], [0.1, 0.9]]]))
    judged = study.judge(logits, np.array([0, 0]))
    figures = judged.figures(np.arange(2))
    assert figures["accuracy"] == 0.5 and figures["member_accuracy"] == 0.75
    assert figures["plurality_accuracy"] == 1.0  # a tie goes to the lower class
    assert figures["auroc_disagreement"] == 1.0  # the wrong face is the one that the members disagree about
    assert figures["nll"] == pytest.approx(-(np.log(0.75) + np.log(0.35)) / 2, abs=1e-6)
