"""The training loop and its parts: what learns, what is kept, what a kill costs, what a recipe may say."""

import csv
import json
import re

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Subset

from emotion import hub
from emotion.datasets import ferplus
from emotion.errors import UserError
from emotion.predict import FacePredictor
from train import __main__ as command
from train import esr, loop
from train import recipe as recipes
from train.augment import Augment, mixup
from train.data import FaceData, balance

TINY = {
    "method": "esr",
    "about": "a test",
    "name": "esr_tiny.ferplus",
    "data": {
        "train": [{"dataset": "ferplus", "split": "train", "protocol": "votes"}],
        "valid": [{"dataset": "ferplus", "split": "valid"}],
    },
    "model": {
        "input": {"size": [24, 24], "channels": "gray", "mean": [0.5], "std": [0.25]},
        "base": [{"out": 6, "pool": True}],
        "branch": [{"out": 8, "pool": True}, {"out": 8}],
        "branches": 2,
        "affect": True,
    },
    "settings": {"momentum": 0.9, "ema": 0.9},
    "batch": 4,
    "mixup": 0.2,
    "augment": {"flip": 0.5, "rotate": 10, "shift": 0.1, "scale": [0.9, 1.1], "jitter": 0.2, "erase": 0.3},
    "stages": [
        {"active": 1, "epochs": 3, "lr_base": 0.05, "lr_new": 0.05, "lr_old": 0.0},
        {"active": 2, "epochs": 2, "lr_base": 0.0, "lr_new": 0.05, "lr_old": 0.0, "at_least": 3},
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return ferplus.fake(tmp_path_factory.mktemp("ferplus"))


def recipe_file(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | changes))
    return str(path)


def trainee(folder, data, **changes):
    recipe = recipes.load(recipe_file(folder, **changes))
    return esr.build(recipe, {"ferplus": data}, None), recipe.settings


def weights(model):
    return torch.cat([v.flatten().float() for v in model.state_dict().values()])


def test_a_killed_run_ends_like_one_that_was_never_stopped(tmp_path, data):
    whole, settings = trainee(tmp_path, data)
    history = loop.fit(whole, tmp_path / "whole", settings)

    for stop in (2, 2):  # after two epochs of the first stage, after one of the second
        parts, _ = trainee(tmp_path, data)
        judge, calls = parts.evaluate, iter(range(stop))

        def killed(model, stage, judge=judge, calls=calls):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return judge(model, stage)

        parts.evaluate = killed
        with pytest.raises(KeyboardInterrupt):
            loop.fit(parts, tmp_path / "parts", settings)
    last, _ = trainee(tmp_path, data)
    resumed = loop.fit(last, tmp_path / "parts", settings)

    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in history]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in resumed] == strip
    assert torch.equal(weights(last.model), weights(whole.model))


def test_the_best_epoch_is_kept_and_logged(tmp_path, data):
    it, settings = trainee(tmp_path, data)
    scores, states = iter([0.1, 0.9, 0.3, 0.5, 0.5]), []

    def judge(model, stage):
        states.append(weights(model).clone())
        return {"score": next(scores)}

    it.evaluate = judge
    loop.fit(it, tmp_path / "run", settings)
    assert torch.equal(weights(it.model), states[4])  # the later of equals
    best = load_file(tmp_path / "run/best-0.safetensors")
    it.model.load_state_dict(best)
    assert torch.equal(weights(it.model), states[1])
    with (tmp_path / "run/log.csv").open() as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == [0.1, 0.9, 0.3, 0.5, 0.5]


def test_frozen_parts_stay_as_they_are(tmp_path, data):
    it, settings = trainee(tmp_path, data)
    loop.fit(it, tmp_path / "run", settings)
    first, second = (load_file(tmp_path / f"run/best-{k}.safetensors") for k in (0, 1))
    for name, before in first.items():
        learns = name.startswith("branches.1") and "affect" not in name
        assert torch.equal(before, second[name]) != learns, name  # batch-norm statistics too


def test_another_seed_gives_another_model(tmp_path, data):
    runs = []
    for seed in (0, 1):
        it, settings = trainee(tmp_path, data, settings={"seed": seed}, stages=TINY["stages"][:1])
        loop.fit(it, tmp_path / str(seed), settings)
        runs.append(weights(it.model))
    assert not torch.equal(*runs)


def test_a_diverging_run_says_so(tmp_path, data):
    stage = TINY["stages"][0] | {"lr_base": 1e30, "lr_new": 1e30}
    it, settings = trainee(tmp_path, data, stages=[stage])
    with pytest.raises(UserError, match="lower the learning rate"):
        loop.fit(it, tmp_path / "run", settings)


def test_a_batch_larger_than_the_data_is_refused(tmp_path, data):
    subject, settings = trainee(tmp_path, data)
    few = DataLoader(Subset(range(10), range(3)), 4, drop_last=True)
    subject.batches = lambda stage: few
    with pytest.raises(UserError, match="3 training samples fill no batch"):
        loop.fit(subject, tmp_path / "run", settings)
    assert not [*(tmp_path / "run").glob("best*")]


def test_schedules():
    step, cosine = loop.Schedule("step", 0.5, 10), loop.Schedule("cosine", warmup=1.0)
    assert [step(e, 30) for e in (0, 9.9, 10, 29)] == [1, 1, 0.5, 0.25]
    assert cosine(0, 10) == 0 and cosine(10, 10) == pytest.approx(0)
    assert cosine(0.5, 10) == pytest.approx(0.5 * cosine(1, 10), rel=0.03)
    with pytest.raises(UserError, match="unknown schedule"):
        loop.Schedule("linear")(0, 1)


def test_the_command_trains_a_checkpoint_that_reads_faces(tmp_path, data, capsys):
    out = tmp_path / "run"
    assert command.main([recipe_file(tmp_path), "--data", str(data), "--out", str(out)]) == 0
    folder = out / TINY["name"]
    model = hub.load(folder)
    assert model.card.metrics["ferplus/valid/accuracy"] <= 1 and model.card.trained_on == ("ferplus",)
    text = (folder / "README.md").read_text()
    assert str(data) not in text and "--data DIR" in text and "| happiness |" in text
    face = ferplus.load(data, "valid").picture(0)
    tasks = FacePredictor(model).read(np.repeat(np.resize(face, (1, 24, 24, 1)), 3, axis=3))
    assert tasks["expression"].values.shape == (1, 8)
    # the figures on the card are those of the stored, half-precision weights
    test = FaceData([ferplus.load(data, "valid")], model.config.input, model.labels)
    choice = model.decode(esr.predict(model, test))["expression"].choice
    accuracy = (choice == test.targets["expression"].numpy().argmax(axis=1)).mean()
    assert model.card.metrics["ferplus/valid/accuracy"] == pytest.approx(accuracy, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "esp"}, "no training code"),
        ({"settings": {"momentun": 0.9}}, "unknown field momentun"),
        ({"settings": {"momentum": "much"}}, "momentum"),
        ({"settings": {"optimizer": "sgdd"}}, "unknown optimizer"),
        ({"augment": {"flip": 0.5, "flop": 1}}, "unknown field flop"),
        ({"stages": [TINY["stages"][0] | {"active": 3}]}, "the model has 2"),
        ({"stages": [TINY["stages"][0] | {"task": "affect"}]}, "no training sample is labelled for affect"),
        ({"model": {"preset": "esr8"}}, "unknown preset"),
        ({"model": TINY["model"] | {"width": 3}}, "unknown fields.*width"),
        ({"data": {"train": [{"split": "train"}], "valid": []}}, "needs dataset and split"),
        ({"data": TINY["data"] | {"valid": [{"dataset": "fer", "split": "valid"}]}}, "fer"),
    ],
)
def test_wrong_recipes_are_refused_by_name(tmp_path, data, capsys, changes, message):
    command_line = [recipe_file(tmp_path, **changes), "--data", f"ferplus={data}", "--out", str(tmp_path / "run")]
    assert command.main(command_line) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)


def test_wrong_data_arguments(tmp_path, capsys):
    assert command.main(["nothing"]) == 2
    assert command.main([recipe_file(tmp_path)]) == 2
    assert command.main([recipe_file(tmp_path), "--data", "raf=x"]) == 2
    assert command.main(["--list"]) == 0
    out = capsys.readouterr()
    assert "there are: " in out.err and "--data ferplus=FOLDER" in out.err and "does not use 'raf'" in out.err
    assert all(name in out.out for name in recipes.names())


def test_starting_from_another_checkpoint(tmp_path, data):
    first, _ = trainee(tmp_path, data, settings={"seed": 5})
    hub.save(first.model, "esr", tmp_path / "first", hub.Card("x.y", "MIT", True), "")
    plain = TINY["model"] | {"affect": False}
    recipe = recipes.load(recipe_file(tmp_path, model=plain))
    second = esr.build(recipe, {"ferplus": data}, str(tmp_path / "first"))
    assert torch.equal(second.model.branches[1].fc.weight, first.model.branches[1].fc.weight)
    wide = TINY["model"] | {"base": [{"out": 7, "pool": True}]}
    with pytest.raises(UserError, match="cannot start from this checkpoint"):
        esr.build(recipes.load(recipe_file(tmp_path, model=wide)), {"ferplus": data}, str(tmp_path / "first"))


@pytest.mark.parametrize("name", ["esr-compact"])
def test_smoke(name, tmp_path):
    assert command.main([name, "--smoke", "--out", str(tmp_path / "run")]) == 0
    progress = json.loads((tmp_path / "run/progress.json").read_text())
    assert len(progress["history"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in recipes.names() if n != "esr-compact"])
def test_smoke_of_every_recipe(name, tmp_path):
    assert command.main([name, "--smoke", "--out", str(tmp_path / "run")]) == 0


# -- augmentation and sampling ---------------------------------------------------------------------------------------


def pictures(n, size, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 1, size, size), dtype=np.uint8))


def test_no_strength_changes_nothing():
    x = pictures(4, 17, 0)
    assert torch.allclose(Augment()(x), x.float(), atol=1e-3)


@given(st.integers(1, 5), st.integers(8, 40), st.floats(0, 90), st.floats(0, 0.5), st.floats(0, 1), st.integers(0, 99))
def test_augmented_faces_keep_shape_and_range(n, size, rotate, shift, strength, seed):
    augment = Augment(0.5, rotate, shift, (0.7, 1.4), strength, strength)
    torch.manual_seed(seed)
    out = augment(pictures(n, size, seed))
    torch.manual_seed(seed)
    again = augment(pictures(n, size, seed))
    assert out.shape == (n, 1, size, size) and out.min() >= 0 and out.max() <= 255.001
    assert torch.equal(out, again)


def test_a_flip_is_a_mirror():
    x = pictures(3, 20, 1)
    assert torch.allclose(Augment(flip=1.0)(x), x.float().flip(3), atol=1e-3)


@given(st.integers(2, 9), st.floats(0.05, 5), st.integers(0, 99))
def test_mixup_blends_pictures_and_labels_alike(n, alpha, seed):
    torch.manual_seed(seed)
    labels = torch.eye(n)
    x, y = mixup(labels.clone(), labels, alpha)  # pictures that are their own labels
    assert torch.allclose(x, y) and torch.allclose(y.sum(1), torch.ones(n), atol=1e-5)
    assert torch.equal(mixup(x, y, 0.0)[1], y)


@given(st.lists(st.integers(-1, 4), max_size=60), st.integers(0, 20), st.integers(0, 10), st.integers(0, 9))
def test_balance_bounds_every_class(classes, least, most, seed):
    classes = np.array(classes, dtype=int)
    index = balance(classes, least, most, np.random.default_rng(seed))
    assert (np.diff(index) >= 0).all()
    for c in np.unique(classes[classes >= 0]):
        before, after = (classes == c).sum(), (classes[index] == c).sum()
        assert after == min(max(before, least), most or max(before, least))
        assert len(set(index[classes[index] == c])) == min(before, after)  # nothing is repeated before all are used
    assert not len(index) or classes[index].min() >= 0
