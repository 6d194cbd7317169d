"""Training ESRs: what each stage sees, what a recipe demands, cross-validation in which every face is tested once."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from emotion import hub
from emotion.datasets import affectnet, ckplus
from emotion.errors import UserError
from eval import __main__ as evaluation
from train import __main__ as command
from train import curves, esr, esr_folds
from train import recipe as recipes

TINY = {"input": {"size": [24, 24]}, "base": [{"out": 4, "pool": True}], "branch": [{"out": 6, "pool": True}]}


def small(name, **model):
    """A recipe of the project with a small network, shortened as for a smoke run."""
    recipe = command.smoke(recipes.load(name))
    recipe.rest["workers"] = 0
    recipe.rest["model"] = TINY | {"branches": recipe.rest["model"]["branches"]} | model
    return recipe


def subset(trainee, number):
    stage = trainee.stages()[number]
    trainee.begin(stage)
    return trainee.train


def test_affect_heads_see_every_quarter_alike(tmp_path):
    data = affectnet.fake(tmp_path / "data", per_class=6)
    recipe = small("esr-affectnet-affect", affect=True)
    for stage in recipe.rest["stages"]:
        stage["per_class"] = 4
    trainee = esr.assemble(recipe, *([affectnet.load(data, s)] for s in ("train", "valid")))
    seen = [subset(trainee, k) for k in (0, 1)]
    quarters = affectnet.quadrants(seen[0].dataset.targets["valence_arousal"].numpy())
    for part in seen:
        assert np.bincount(quarters[part.indices], minlength=4).max() <= 4 and (quarters[part.indices] >= 0).all()
    assert len(set(quarters[seen[0].indices])) == 4
    assert list(seen[0].indices) != list(seen[1].indices)  # every stage draws anew


def test_affect_stages_train_the_active_heads_alone(tmp_path):
    data = affectnet.fake(tmp_path / "data")
    recipe = small("esr-affectnet-affect", affect=True)
    trainee = esr.assemble(recipe, *([affectnet.load(data, s)] for s in ("train", "valid")))
    before = {k: v.clone() for k, v in trainee.model.state_dict().items()}
    command.loop.fit(trainee, tmp_path / "run", recipe.settings)
    changed = {k for k, v in trainee.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {f"branches.{b}.affect.{p}" for b in (0, 1) for p in ("weight", "bias")}


def test_branches_of_ck_leave_out_a_fold_each(tmp_path):
    data = {"ckplus": ckplus.fake(tmp_path / "data")}
    recipe = small("esr-ckplus")
    recipe.rest["stages"] = recipes.load("esr-ckplus").rest["stages"]
    recipe.rest["model"] |= {"labels": ckplus.CKPLUS, "input": {"size": [24, 24], "channels": "gray"}}
    trainee = esr.build(recipe, data, None)
    for k in range(4):
        faces = set(subset(trainee, k).dataset.parts[0].ids)
        assert faces == set(ckplus.load(data["ckplus"], "train", fold=0, leave_out=k + 1).ids)


@pytest.mark.parametrize("name", ["esr-ferplus", "esr-affectnet-affect"])
def test_fine_tuning_starts_from_something(name):
    with pytest.raises(UserError, match="--init CHECKPOINT"):
        esr.build(recipes.load(name), {}, None)


def test_sources_that_do_not_exist(tmp_path):
    recipe = small("esr-affectnet")
    recipe.rest["stages"][1]["sources"] = [2]
    data = affectnet.fake(tmp_path / "data")
    with pytest.raises(UserError, match="the recipe has 1"):
        esr.assemble(recipe, *([affectnet.load(data, s)] for s in ("train", "valid")))


def test_pictures_are_read_when_they_are_needed(tmp_path, monkeypatch):
    data = affectnet.fake(tmp_path / "data")
    opened = []
    open_picture = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *rest: (opened.append(path), open_picture(path, *rest))[1])
    trainee = esr.assemble(small("esr-affectnet"), *([affectnet.load(data, s)] for s in ("train", "valid")))
    trainee.batch = 4
    stage = trainee.stages()[0]
    trainee.begin(stage)
    assert not opened
    next(iter(trainee.batches(stage)))
    assert len(opened) == 4


def test_every_face_of_ck_is_tested_once(tmp_path, capsys):
    data = ckplus.fake(tmp_path / "data")
    recipe = small("esr-ckplus", labels=ckplus.CKPLUS, input={"size": [24, 24], "channels": "gray"})
    trials = [
        esr_folds.run_trial(esr_folds.trial(recipe, k), {"ckplus": data}, tmp_path / f"fold-{k}")
        for k in range(ckplus.FOLDS)
    ]
    everything = ckplus.load(data)
    assert sorted(i for t in trials for i in t.faces.ids) == sorted(everything.ids)
    for k, one in enumerate(trials):
        assert one.faces.ids == ckplus.load(data, "test", fold=k).ids
        assert hub.load(tmp_path / f"fold-{k}/esr4.ckplus").card.trained_on == ("ckplus",)
    esr_folds.keep(trials, recipe, tmp_path)
    pooled = sum(t.accuracy * len(t.faces) for t in trials) / len(everything)
    assert esr_folds.table(trials)[-1] == f"{len(everything)} faces: {pooled:.4f}"
    arguments = ["--dataset", "ckplus", "--data", str(data), "--out", str(tmp_path / "results")]
    one = ["run", "--model", str(tmp_path / "fold-3/esr4.ckplus"), "--split", "test", "--option", "fold=3", "--quiet"]
    assert evaluation.main([*one, *arguments]) == 0
    assert f"{trials[3].accuracy:.4f}" in capsys.readouterr().out  # the checkpoint that was kept is the one tested
    arguments += ["--split", "all"]
    assert evaluation.main(["score", "--predictions", str(tmp_path / "predictions.npz"), *arguments]) == 0
    assert f"{pooled:.4f}" in capsys.readouterr().out


def test_affectnet_is_evaluated_in_both_tasks(tmp_path, capsys):
    data = affectnet.fake(tmp_path / "data")
    recipe = small("esr-affectnet-affect", affect=True)
    trainee = esr.assemble(recipe, *([affectnet.load(data, s)] for s in ("train", "valid")))
    hub.save(trainee.model, "esr", tmp_path / "model", *esr.report(trainee, recipe, "command"))
    arguments = ["--dataset", "affectnet", "--data", str(data), "--split", "valid", "--out", str(tmp_path / "results")]
    assert evaluation.main(["run", "--model", str(tmp_path / "model"), *arguments, "--quiet"]) == 0
    said = capsys.readouterr().out
    measured = esr.affect_figures(
        esr.predict(trainee.model, trainee.valid)["valence_arousal"].mean(0).numpy(),
        trainee.valid.targets["valence_arousal"].numpy(),
    )
    assert all(name in said for name in ("accuracy", "recall", "ccc_valence", "rmse_arousal"))
    printed = float(re.search(r"rmse_valence +([0-9.]+)", said)[1])
    assert printed == pytest.approx(measured["rmse_valence"], abs=2e-4)


def test_curves_have_a_column_per_stage_and_a_line_per_figure():
    history = [
        {"stage": s, "epoch": e, "loss": 1.0, "seconds": 2} | ({"score": 0.5} if e else {})
        for s in "ab"
        for e in (0, 1)
    ]
    axes = curves.plot(history).axes
    assert [a.get_title() for a in axes] == ["a", "b", "", ""]
    assert [a.get_ylabel() for a in axes] == ["loss", "", "score", ""]
    assert [len(a.lines[0].get_xdata()) for a in axes] == [2, 2, 1, 1]


def test_a_temperature_is_fitted_on_one_half_and_told_of_the_other():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(8, (4000,), generator=generator)
    said = 2 * torch.nn.functional.one_hot(classes, 8) + torch.randn(3, 4000, 8, generator=generator)
    truth = torch.distributions.Categorical(logits=said.mean(0) / 0.5)
    torch.manual_seed(0)
    temperature, text = esr.calibrated(said.mean(0, keepdim=True), truth.sample().numpy())
    assert temperature == pytest.approx(0.5, rel=0.05)  # what the labels were drawn with
    before, after = (float(v) for v in re.findall(r"ECE ([0-9.]+),", text))
    assert after < 0.03 < before


def test_a_calibrated_checkpoint_carries_its_temperature(tmp_path):
    data = affectnet.fake(tmp_path / "data")
    recipe = small("esr-affectnet")
    recipe.rest["calibrate"] = True
    trainee = esr.assemble(recipe, *([affectnet.load(data, s)] for s in ("train", "valid")))
    card, text = esr.report(trainee, recipe, "command")
    hub.save(trainee.model, "esr", tmp_path / "out", card, text)
    assert hub.load(tmp_path / "out").config.temperature == trainee.model.config.temperature != 1
    assert f"temperature {trainee.model.config.temperature}, fitted" in text
