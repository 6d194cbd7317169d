"""EMENet's training: clips, teachers, students, soft labels, calibration."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import adjust_brightness, adjust_contrast, adjust_saturation

from emotion import hub
from emotion.datasets import affwild2, ferplus
from emotion.errors import UserError
from emotion.labels import FERPLUS
from emotion.models import emenet
from emotion.models.base import FaceInput
from emotion.models.marblenet import VOICE, MarbleNet, MarbleNetConfig
from emotion.models.mobilefacenet import MobileFaceNet, MobileFaceNetConfig
from emotion.outputs import Task
from train import calibrate, loop, soft_labels
from train import recipe as recipes
from train.__main__ import main
from train.augment import Augment, recolour
from train.emenet import build
from train.emenet_data import LongBatches
from train.emenet_losses import Balance, bin_loss, ccc_loss, hard_loss
from train.fg2020_data import TaskBatches

RECIPE = """
method: emenet
about: test
name: emenet_v.test
data:
  train:
    - {{dataset: affwild2, split: train, task: expression}}
    - {{dataset: affwild2, split: train, task: valence_arousal}}
  valid:
    - {{dataset: affwild2, split: valid, task: expression}}
    - {{dataset: affwild2, split: valid, task: valence_arousal}}
model: {{input: {{size: [32, 32]}}, action_units: [], members: 2, sound: {sound}}}
settings: {{seed: 0, optimizer: adamw}}
batch: 2
frames: 4
calibrate: [expression, action_units, valence_arousal]
distill: {distill}
augment: {{jitter: 0.3, flip: 0.5}}
stages:
  - {{member: 0, epochs: 1}}
  - {{member: 1, epochs: 1}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return affwild2.fake(tmp_path_factory.mktemp("affwild2"), frames=(12, 16))


def write(folder, sound=False, distill=False):
    path = folder / f"{'student' if distill else 'teacher'}.yaml"
    path.write_text(RECIPE.format(sound=str(sound).lower(), distill=str(distill).lower()))
    return path


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert main([str(write(folder)), "--data", str(data), "--out", str(folder / "teacher")]) == 0
    return folder / "teacher" / "emenet_v.test"


def test_teachers_then_students(teacher, data, tmp_path):
    recipe = write(tmp_path, distill=True)
    with pytest.raises(UserError, match="need one teacher"):
        build(recipes.load(str(recipe)), {"affwild2": data}, None)
    assert main([str(recipe), "--data", str(data), "--out", str(tmp_path / "s"), "--teacher", str(teacher)]) == 0
    assert "--data DIR --teacher CHECKPOINT`" in (tmp_path / "s" / "emenet_v.test" / "README.md").read_text()
    student, first = hub.load(tmp_path / "s" / "emenet_v.test"), hub.load(teacher)
    assert student.config.members == first.config.members == 2
    assert student.config.temperature != emenet.Temperature()
    assert any(k.endswith("expression_nll") for k in student.card.metrics)
    trunk, path = first.members[0].backbone.conv1.conv.weight, str(teacher)
    begun = build(recipes.load(str(write(tmp_path))), {"affwild2": data}, path).model
    assert all(torch.equal(m.backbone.conv1.conv.weight, trunk) for m in begun.members)
    begun = build(recipes.load(str(recipe)), {"affwild2": data}, path, path).model
    assert all(torch.equal(m.backbone.conv1.conv.weight, trunk) for m in begun.members)
    a, b = (m.members[0].state_dict() for m in (student, first))
    assert all(not torch.equal(a[k], b[k]) for k in ("backbone.conv1.conv.weight", "heads.expression.decoder.weight"))


def test_teachers_are_asked_for_where_there_are_students_and_only_there(teacher, data, tmp_path, capsys):
    for distill, given, message in (
        (True, [], "--teacher CHECKPOINT"),
        (False, ["--teacher", "x"], "from labels alone"),
    ):
        recipe = write(tmp_path, distill=distill)
        assert main([str(recipe), "--data", str(data), "--out", str(tmp_path / "out"), *given]) == 2
        assert message in capsys.readouterr().err
    hub.save(MobileFaceNet(MobileFaceNetConfig()), "mobilefacenet", tmp_path / "face", hub.Card("a.b", "MIT", True), "")
    student = recipes.load(str(write(tmp_path, distill=True)))
    for wrong, message in (
        (tmp_path / "face", "not from MobileFaceNet"),
        (tmp_path / "no.npz", "no file of soft labels"),
    ):
        with pytest.raises(UserError, match=message):
            build(student, {"affwild2": data}, None, str(wrong))


def test_soft_labels_by_command_teach_as_their_ensemble_does(teacher, data, tmp_path, capsys):
    path, file = write(tmp_path, distill=True), tmp_path / "soft.npz"
    command = [str(teacher), "--data", str(data), "--recipe", str(path)]
    assert soft_labels.main([*command, "-o", str(file)]) == 0
    assert capsys.readouterr().out.split() == [
        str(file),
        *(str(tmp_path / f"soft_affinity.{e}") for e in ("csv", "svg")),
    ]
    recipe, folders = recipes.load(str(path)), {"affwild2": data}
    train = build(recipe, folders, None, str(file)).train
    with np.load(file) as stored:
        assert stored["valence_arousal"].shape == (2, len(train.ids), 2, 20), "every member's logits"
    asked = build(recipe, folders, None, str(teacher)).train.soft
    for task, p in train.soft.items():
        torch.testing.assert_close(p, asked[task], atol=2e-3, rtol=0)
    with (tmp_path / "soft_affinity.csv").open() as table:
        (_, *names), *rows = csv.reader(table)
    assert names[:2] == ["neutral", "anger"] and names[7] == "valence -1.00" and names[-1] == "arousal +1.00"
    assert [row[0] for row in rows] == names
    p = np.concatenate([asked[t].flatten(1) for t in ("expression", "valence_arousal")], axis=1)
    np.testing.assert_allclose(np.array([row[1:] for row in rows], float), soft_labels.affinity(p), atol=2e-3)

    assert soft_labels.main([*command, "-o", str(tmp_path / "soft.csv")]) == 2
    assert "written as .npz" in capsys.readouterr().err
    answers = soft_labels.load(file)
    soft_labels.save(file, replace(answers, names=("elsewhere", *answers.names[1:])))
    with pytest.raises(UserError, match="has not seen 1 of the students' pictures"):
        build(recipe, folders, None, str(file))


def test_auxiliary_heads_are_judged_by_their_teachers(data, tmp_path):
    path = write(tmp_path, sound=True)
    path.write_text(path.read_text().replace("sound: true", "sound: true, voice: true, landmarks: 5"))
    face = MobileFaceNet(MobileFaceNetConfig(input=FaceInput(size=(32, 32)), labels=(), landmarks=5)).eval()
    voice = MarbleNet(MarbleNetConfig()).eval()
    for kind, network in (("mobilefacenet", face), ("marblenet", voice)):
        hub.save(network, kind, tmp_path / kind, hub.Card(f"{kind}.test", "MIT", True), "")
    given = f"{tmp_path / 'mobilefacenet'},{tmp_path / 'marblenet'}"
    trainee = build(recipes.load(str(path)), {"affwild2": data}, given)
    truth, rows = trainee.truth(torch.device("cpu")), [0, len(trainee.valid.ids) - 1]
    x, _ = trainee.valid.inputs(rows)
    with torch.inference_mode():
        np.testing.assert_allclose(truth["landmarks"][rows], face(x)["landmarks"], atol=1e-5)
    assert truth["voice"].shape == (len(trainee.valid.ids), 2)
    found = trainee.evaluate(trainee.model, trainee.stages()[1])
    said = soft_labels.collect(trainee.model, trainee.valid, 1)["landmarks"][0]
    assert found["landmarks_l1"] == pytest.approx(np.abs(said.numpy() - truth["landmarks"]).mean(), rel=1e-4)

    speech = np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 3.0]])
    heard = Task("categorical", VOICE, np.array([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9]]))
    assert calibrate.figures({"voice": heard}, {"voice": speech})["voice_auroc"] == 0.5
    assert "voice_auroc" not in calibrate.figures({"voice": heard}, {"voice": speech[1:].repeat(2, 0)[:3]})
    trainee.balance = trainee._start_weights()
    for _ in range(4):  # nothing improves after the first epoch
        trainee._weigh({"expression_total": 1.0, "landmarks_l1": 0.1, "voice_auroc": 0.5})
    assert trainee.balance.waiting == {"expression": 3, "landmarks": 3, "voice": 3}


def test_tasks_start_with_the_weights_of_the_recipe(data, tmp_path):
    path = write(tmp_path)
    text = path.read_text()
    path.write_text(text + "task_weights: {expression: 3}\n")
    trainee = build(recipes.load(str(path)), {"affwild2": data}, None)
    trainee.balance.factors["expression"] = 9.0
    trainee.begin(trainee.stages()[0])
    assert trainee.balance.weights == {"expression": 0.75, "valence_arousal": 0.25}
    for wrong, message in (("{landmarks: 1}", "has no landmarks"), ("{expression: -1}", "below 0")):
        path.write_text(text + f"task_weights: {wrong}\n")
        with pytest.raises(UserError, match=message):
            build(recipes.load(str(path)), {"affwild2": data}, None)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_colours_vary_as_in_the_paper(order):
    x = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    factors = torch.tensor([[1.3, 0.7, 1.2], [0.8, 1.3, 0.7]])
    ours = recolour(x, factors, torch.tensor([order, order]))
    for face, factor, got in zip(x, factors.tolist(), ours):
        wanted = face / 255
        for kind in order:
            wanted = (adjust_brightness, adjust_contrast, adjust_saturation)[kind](wanted, factor[kind])
        torch.testing.assert_close(got, wanted * 255, atol=0.2, rtol=0)


def test_a_clip_can_be_varied_as_a_whole():
    torch.manual_seed(0)
    face = torch.randint(0, 256, (1, 3, 16, 16)).float()
    how = Augment(0.5, 10, 0.1, (0.9, 1.1), 0.3, 0.5, saturation=0.3)
    for clips in (True, False):
        varied = replace(how, clips=clips)(face.expand(12, -1, -1, -1), frames=3).unflatten(0, (4, 3))
        same = [torch.equal(a, b) for clip in varied for a, b in itertools.pairwise(clip)]
        assert all(same) if clips else not any(same)
        assert not torch.equal(varied[0], varied[1])


def test_one_stage_trains_one_member_and_soft_labels_are_the_mean(teacher, data, tmp_path):
    recipe = recipes.load(str(write(tmp_path, distill=True)))
    trainee = build(recipe, {"affwild2": data}, None, str(teacher))
    stage = trainee.stages()[1]
    trainee.begin(stage)
    batch = next(iter(trainee.batches(stage)))
    trainee.loss(trainee.model, batch, stage).backward()
    assert all(p.grad is None for p in trainee.model.members[0].parameters())
    assert all(p.grad is not None for p in trainee.model.members[1].parameters())

    model = hub.load(teacher)
    logits = soft_labels.collect(model, trainee.train)
    p = model.decode(logits)["expression"].values
    np.testing.assert_allclose(trainee.train.soft["expression"], p, atol=1e-5)
    film = trainee.train.films[1]
    faces = np.stack([trainee.train.picture(i) for i in film])
    with torch.inference_mode():
        alone = model.sequence(model.embed(model.config.input.tensor(faces)))
    torch.testing.assert_close(logits["expression"][:, film], alone["expression"], rtol=1e-4, atol=1e-5)


def test_a_hearing_teacher_learns_from_sound(data, tmp_path):
    recipe = recipes.load(str(write(tmp_path, sound=True)))
    trainee = build(recipe, {"affwild2": data}, None)
    stage = trainee.stages()[0]
    trainee.begin(stage)
    batch = next(iter(trainee.batches(stage)))
    assert batch[1]["sound"].shape == (2 * 2 * 4, 10080) and batch[1]["sound"].abs().max() > 0.1
    trainee.loss(trainee.model, batch, stage).backward()
    assert trainee.model.members[0].audio.blocks[0].layers[0].depthwise.weight.grad.abs().sum() > 0
    assert trainee.evaluate(trainee.model, stage)["score"] > -1


def test_recipes_are_complete():
    for name in (n for n in recipes.names() if n.startswith("emenet")):
        recipe = recipes.load(name)
        hub.build(recipe.method, recipe.rest["model"])
        assert bool(recipe.rest.get("distill")) == name.endswith("student")
        if "open" not in name:
            assert recipe.rest["augment"] == {"jitter": 0.3, "saturation": 0.3, "flip": 0.5}


def test_a_resumed_training_weighs_the_tasks_as_before(data, tmp_path, monkeypatch):
    """Expression improves in every epoch, affect in none; the run is stopped before its last epoch."""
    path = write(tmp_path)
    path.write_text(path.read_text().replace("frames: 4", "frames: 4\nbalance: true"))
    recipe, calls = recipes.load(str(path)), itertools.count()
    monkeypatch.setattr(loop, "_run_epoch", lambda *_: 0.0)
    monkeypatch.setattr(soft_labels, "collect", lambda *_: {})
    monkeypatch.setattr(emenet.EMENet, "decode", lambda *_: {})
    figures = {"score": 0.0, "valence_arousal_total": 0.5}
    monkeypatch.setattr(calibrate, "figures", lambda *_: figures | {"expression_total": float(next(calls) % 4)})

    def train(folder, epochs):
        trainee = build(recipe, {"affwild2": data}, None)
        trainee.phases = [replace(trainee.phases[0], epochs=epochs)]
        rows = loop.fit(trainee, tmp_path / folder, recipe.settings)
        return [row["weight_valence_arousal"] for row in rows]

    whole = train("whole", 4)
    assert whole == pytest.approx([0.5, 0.5, 0.5, np.log2(3) / (1 + np.log2(3))])
    train("parts", 3)
    assert train("parts", 4) == whole


def test_balance_raises_only_what_stands_still():
    balance = Balance(("expression", "valence_arousal", "landmarks"))
    for expression, affect in ((0.1, 0.3), (0.2, 0.3), (0.3, 0.2), (0.4, 0.1)):
        balance.update({"expression": expression, "valence_arousal": affect})
    assert balance.factors == {"expression": 1.0, "valence_arousal": pytest.approx(np.log2(3)), "landmarks": 1.0}
    assert sum(balance.weights.values()) == pytest.approx(1)


def test_affect_losses_at_their_best_and_worst():
    y = torch.tensor([[-1.0, 0.5], [0.2, 1.0], [1.0, -0.4]])
    assert ccc_loss(y, y).max() < 1e-6 and ccc_loss(-y, y).min() > 0.9
    cells = torch.full((3, 2, 20), -100.0)
    for i, row in enumerate(y):
        for k, v in enumerate(row):
            cells[i, k, min(int((v + 1) * 10), 19)] = 100.0
    assert bin_loss(cells, y) < 1e-6


def test_temperatures_undo_overconfidence():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 2000, 7, generator=generator) * 2
    y = torch.multinomial(z[0].softmax(-1), 1, generator=generator)[:, 0]
    truth = {"expression": np.eye(7)[y.numpy()]}
    found = calibrate.fit({"expression": z * 3}, truth)
    assert found.expression == pytest.approx(3, rel=0.1)
    first, second = calibrate.halves(11)
    assert len(first) == 5 and sorted([*first, *second]) == list(range(11))


def test_calibrated_bins_of_valence_and_arousal_stay_as_they_are():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 3000, 2, 20, generator=generator) * 2
    z -= (torch.arange(20) - 9.5).square() / 8  # distributions with one hill, as of networks
    at = torch.multinomial(z[0].softmax(-1).flatten(0, 1), 1, generator=generator).reshape(3000, 2)
    y = (torch.linspace(-1, 1, 20)[at] + (torch.rand(3000, 2, generator=generator) - 0.5) * 2 / 19).numpy()
    y[:5] = np.nan
    for sharper in (1, 3):
        found = calibrate.fit({"valence_arousal": z * sharper}, {"valence_arousal": y})
        assert [found.valence, found.arousal] == pytest.approx([sharper] * 2, rel=0.1)


@pytest.mark.parametrize(("affect", "fits"), [("ccc + cce", True), ("cccc", False), ("ccc+", False)])
def test_losses_on_affect_are_checked_before_training(affect, fits, data, tmp_path):
    recipe = recipes.load(str(write(tmp_path)))
    recipe = replace(recipe, rest=recipe.rest | {"affect": affect})
    if fits:
        trainee = build(recipe, {"affwild2": data}, None)
        assert hard_loss("valence_arousal", torch.zeros(3, 2, 20), torch.rand(3, 2), affect=trainee.options.affect) > 0
    else:
        with pytest.raises(UserError, match=r"affect: unknown loss .*; write ccc, cce or ccc\+cce"):
            build(recipe, {"affwild2": data}, None)


def test_pictures_without_clips_cannot_be_windows(data, tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("affwild2, split: train, task: expression", "ferplus, split: train"))
    path.write_text(
        path.read_text().replace("action_units: []", f"action_units: [], expressions: [{', '.join(FERPLUS)}]")
    )
    recipe = recipes.load(str(path))
    with pytest.raises(UserError, match="frames: 1"):
        build(recipe, {"affwild2": data, "ferplus": ferplus.fake(tmp_path / "ferplus")}, None)


def test_input_of_other_size_is_given_to_the_teacher(teacher, data, tmp_path):
    path = write(tmp_path, distill=True)
    path.write_text(path.read_text().replace("[32, 32]", "[48, 48]"))
    trainee = build(recipes.load(str(path)), {"affwild2": data}, None, str(teacher))
    assert trainee.train.spec.size == (48, 48)
    assert trainee.train.seen_as(FaceInput(size=(32, 32))).picture(0).shape == (32, 32, 3)


def test_an_epoch_ends_with_the_shortest_or_the_longest_task():
    pools = [np.arange(10), np.arange(100, 103)]
    assert len(TaskBatches(pools, 2)) == 1 and len(LongBatches(pools, 2)) == 5
    steps = np.array(list(LongBatches(pools, 2)))
    assert sorted(steps[:, :2].ravel()) == list(range(10))
    assert set(np.bincount(steps[:, 2:].ravel())[100:]) <= {3, 4}, "the short task starts over evenly"


def test_open_teachers_learn_single_pictures_with_incomplete_labels(tmp_path):
    recipe = recipes.load("emenet-open-teacher")
    trainee = build(recipe, recipes.fake_folders(recipe, tmp_path), None)
    stage = trainee.stages()[0]
    trainee.begin(stage)
    faces, targets = next(iter(trainee.batches(stage)))
    assert faces.shape[1:] == (1, *trainee.model.config.input.size) and len(faces) == sum(trainee.sizes)
    assert targets["valence_arousal"][trainee.sizes[0] :].isfinite().all(), "the second task's batch has its labels"
    trainee.loss(trainee.model, (faces, targets), stage).backward()
    assert "ccc_valence" in trainee.evaluate(trainee.model, stage)
