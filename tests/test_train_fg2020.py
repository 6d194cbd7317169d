"""FG-2020's training on synthetic data: teacher, students, sequences, balancing, and what must not happen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from emotion import datasets, hub, merging
from emotion.errors import UserError
from emotion.models.fg2020 import FG2020
from tests.tiny import tiny_fg2020 as small
from train import fg2020 as training
from train import fg2020_losses as losses
from train import recipe as recipes
from train import sampling, thresholds
from train.__main__ import main
from train.fg2020_data import TaskBatches, Units, place

SOURCES = {
    "expression": [("affwild2_2020", "train", {"task": "expression"}), ("expw", "all", {})],
    "action_units": [("affwild2_2020", "train", {"task": "action_units"}), ("disfa", "valid", {})],
    "valence_arousal": [("affwild2_2020", "train", {"task": "valence_arousal"}), ("afewva", "all", {})],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    names = ("affwild2_2020", "disfa", "expw", "afewva")
    return {name: datasets.reader(name).fake(root / name) for name in names}


@pytest.fixture(scope="module")
def parts(folders: dict[str, Path]) -> list[datasets.Samples]:
    rows = [row for rows in SOURCES.values() for row in rows]
    return [datasets.reader(name).load(folders[name], split, **options) for name, split, options in rows]


def trainee(parts: list[datasets.Samples], model: FG2020, **options: object) -> training.FG2020Trainee:
    teacher = options.pop("teacher", None)
    phases = [training.Phase(member=i, epochs=1, lr=1e-3) for i in range(len(model.config.members))]
    videos = parts if not model.config.frames else [p for p in parts if p.dataset == "affwild2_2020"]
    return training.FG2020Trainee(model, videos, videos, phases, training.Options(batch=4, **options), teacher)


def one_step(made: training.FG2020Trainee, index: int = 0) -> torch.Tensor:
    stage = made.stages()[index]
    made.begin(stage)
    batch = next(iter(made.batches(stage)))
    loss = made.loss(made.model, batch, stage)
    loss.backward()
    return loss


def test_steps_hold_one_batch_per_task(parts: list[datasets.Samples]) -> None:
    made = trainee(parts, small())
    loader = made.batches(made.stages()[0])
    faces, targets = next(iter(loader))
    assert faces.shape == (12, 3, 32, 32)
    assert faces.dtype == torch.uint8
    for i, task in enumerate(made.model.config.tasks):
        mine = torch.zeros(12, dtype=bool)
        mine[4 * i : 4 * i + 4] = True
        assert torch.equal(targets[task].isfinite().any(1), mine)
    assert len(loader) == min(len(made.train.labelled(t)) for t in made.model.config.tasks) // 4


@pytest.mark.parametrize("options", [{}, {"mixed": True}, {"balance": True}, {"crops": "once"}])
def test_teacher_step(parts: list[datasets.Samples], options: dict) -> None:
    made = trainee(parts, small(), **options)
    assert one_step(made).isfinite()
    assert all(p.grad is not None for p in made.model.parameters())


def test_student_step_leaves_teacher_and_others_alone(parts: list[datasets.Samples]) -> None:
    teacher, students = small(), small(("student_0", "student_1"))
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    other = {k: v.clone() for k, v in students.cnns[0].state_dict().items()}
    made = trainee(parts, students, teacher=teacher)
    assert one_step(made, index=1).isfinite()
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in students.cnns[0].parameters())
    assert all(torch.equal(v, other[k]) for k, v in students.cnns[0].state_dict().items())
    assert all(p.grad is not None for p in students.cnns[1].parameters())


def test_frozen_cnn_does_not_drift(parts: list[datasets.Samples]) -> None:
    model = small(frames=4)
    before = {k: v.clone() for k, v in model.cnns.state_dict().items()}
    made = trainee(parts, model, frozen=True)
    assert one_step(made).isfinite()
    assert all(torch.equal(v, before[k]) for k, v in model.cnns.state_dict().items())
    assert all(p.grad is None for p in model.cnns.parameters())
    assert all(p.grad is not None for p in model.temporal.parameters())


def test_windows_stay_within_videos(parts: list[datasets.Samples]) -> None:
    model = small(frames=4)
    made = trainee(parts, model)
    groups = np.concatenate([p.groups for p in made.parts])
    datasets_of = np.repeat(np.arange(len(made.parts)), [len(p) for p in made.parts])
    for unit in made.train.units:
        assert len({(groups[i], datasets_of[i]) for i in unit}) == 1
        assert (np.diff(unit) >= 0).all()
    faces, targets = made.train.__getitems__([0, 1])
    assert faces.shape == (8, 3, 32, 32)
    assert len(targets["expression"]) == 8
    with pytest.raises(UserError, match="windows of frames mix classes"):
        trainee(parts, model, balance=True).batches(made.stages()[0])


def test_prediction_order_is_that_of_the_truth(parts: list[datasets.Samples]) -> None:
    """Scores computed through `predict` equal those of every picture on its own."""
    model = small().eval()
    data = Units(parts[:2], model.config.input, model.labels)
    logits = training.predict(model, data, batch=7)
    i = len(parts[0]) + 3
    with torch.inference_mode():
        alone = model(model.config.input.tensor([parts[1].picture(3)]))
    torch.testing.assert_close(logits["expression"][:, i], alone["expression"][:, 0], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(data.truth()["expression"][i], parts[1].targets["expression"][3])
    assert set(data.truth()) == {"expression"}


def test_figures_of_perfect_and_constant_predictions() -> None:
    model = small()
    expression = torch.eye(7)[[0, 3, 6, 6]]
    affect = torch.full((1, 4, 2, 5), -30.0)
    for row, (v, a) in enumerate([(0, 2), (1, 2), (2, 2), (4, 2)]):
        affect[0, row, 0, v] = affect[0, row, 1, a] = 30
    units = torch.tensor([[0, 1, 0, 1, 0, 1, 0, 1.0]] * 2 + [[1, 0, 1, 0, 1, 0, 1, 0.0]] * 2)
    logits = {"expression": 30 * expression[None], "action_units": 60 * units[None] - 30, "valence_arousal": affect}
    truth = {"expression": expression.numpy(), "action_units": units.numpy()}
    truth["valence_arousal"] = np.array([[-1, -1], [-0.5, 0], [0, 0.5], [1, 1]], np.float32)
    got = training.figures(model.decode(logits), truth)
    assert got["expression_f1"] == got["action_units_f1"] == 1
    assert got["ccc_valence"] == pytest.approx(1)
    assert got["ccc_arousal"] == 0
    assert got["score"] == pytest.approx(3)


def test_masks_leave_missing_labels_out() -> None:
    """A row without labels changes only the distillation; without a teacher it changes nothing."""
    torch.manual_seed(0)
    z = {"expression": torch.randn(3, 7), "action_units": torch.randn(3, 8), "valence_arousal": torch.randn(3, 2, 20)}
    y = {"expression": torch.eye(7)[:3], "action_units": torch.ones(3, 8), "valence_arousal": torch.rand(3, 2)}
    for task in y:
        y[task][2] = torch.nan
    weights = losses.Weights()
    both = losses.teacher_loss(z, y, weights)
    labelled = losses.teacher_loss({t: v[:2] for t, v in z.items()}, {t: v[:2] for t, v in y.items()}, weights)
    torch.testing.assert_close(both, labelled)
    soft = {t: torch.randn_like(v) for t, v in z.items()}
    got = losses.student_losses(z, soft, y, weights)
    own, distance = losses.supervised(z, y, weights), losses.distillation(z, soft, 1.5)
    wanted = (0.4 * distance["expression"][:2].sum() + distance["expression"][2]) / 3 + 0.6 * 2 / 3 * own["expression"]
    torch.testing.assert_close(got["expression"], wanted)
    with pytest.raises(UserError, match="no label of any task"):
        losses.teacher_loss(z, {t: v * torch.nan for t, v in y.items()}, weights)


def test_constant_batches_have_finite_gradients() -> None:
    z = torch.zeros(4, 2, 20, requires_grad=True)
    targets = {"valence_arousal": torch.zeros(4, 2)}
    parts = losses.supervised({"valence_arousal": z}, targets, losses.Weights())
    sum(parts.values()).backward()
    assert z.grad.isfinite().all()


def test_task_batches_end_with_the_shortest_task() -> None:
    made = TaskBatches([np.arange(10), np.arange(100, 125)], 4)
    torch.manual_seed(0)
    steps = list(made)
    assert len(steps) == len(made) == 2
    assert all(len([i for i in s if i < 100]) == 4 and len([i for i in s if i >= 100]) == 4 for s in steps)
    drawn = [i for s in steps for i in s]
    assert len(set(drawn)) == len(drawn)
    weighted = TaskBatches([np.arange(1000)], 1000, [np.array([1.0] * 500 + [0.0] * 500)])
    assert max(next(iter(weighted))) < 500


def test_place() -> None:
    image = np.arange(10 * 12 * 3).reshape(10, 12, 3)
    np.testing.assert_array_equal(place(image, (4, 5), 0, 0, False), image[:4, :5])
    np.testing.assert_array_equal(place(image, (4, 5), 0.999, 0.999, True), image[5:9, 6:11][:, ::-1])


@pytest.mark.parametrize("balanced", [np.zeros((6, 3)), np.full((6, 3), np.nan), np.eye(3)])
def test_ml_ros_has_nothing_to_do(balanced: np.ndarray) -> None:
    assert sampling.ml_ros(balanced).sum() == 0


def test_ml_ros_skips_labels_without_positives() -> None:
    labels = np.zeros((100, 3))
    labels[:60, 0] = labels[:5, 1] = 1
    clones = sampling.ml_ros(labels)
    assert clones[:5].sum() == clones.sum() > 0
    weights = sampling.multilabel_weights(labels)
    assert weights.min() == 1


@pytest.mark.parametrize("dataset", ["expw", "disfa", "afewva"])
def test_balance_command(
    dataset: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.png"
    assert main(["balance", dataset, str(folders[dataset]), "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert "labelled samples" in printed
    assert "before" in printed
    assert plot.stat().st_size > 1000
    assert main(["balance", dataset, str(tmp_path / "nowhere")]) == 2
    assert "error:" in capsys.readouterr().err


def test_balance_refuses_before_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    for option, expected in (
        (["--plot", str(tmp_path / "out.foo")], "one of these endings"),
        (["--plot", str(tmp_path / "file" / "out.png")], "cannot make the folder"),
        (["--set", "task=["], "NAME=VALUE"),
        (["--set", "task"], "NAME=VALUE"),
    ):
        assert main(["balance", "disfa", str(tmp_path / "nowhere"), *option]) == 2
        assert expected in capsys.readouterr().err


def test_thresholds_of_a_checkpoint(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is stored decides as `merging.search_thresholds` says."""
    hub.save(
        small(("student_0", "student_1")), "fg2020", tmp_path / "a", hub.Card("tiny.students", "MIT", True), "card"
    )
    data = ["--data", str(folders["affwild2_2020"])]
    assert thresholds.main([str(tmp_path / "a"), *data, "-o", str(tmp_path / "b")]) == 0
    assert "AU25" in capsys.readouterr().out
    model = hub.load(tmp_path / "b")
    samples = datasets.reader("affwild2_2020").load(folders["affwild2_2020"], "valid", "action_units")
    units = model.decode(training.predict(model, Units([samples], model.config.input, model.labels)))["action_units"]
    found = merging.search_thresholds(units.values, samples.targets["action_units"])
    np.testing.assert_array_equal(units.values >= units.thresholds, units.values >= found)
    assert thresholds.main([str(tmp_path / "a"), "--data", str(folders["expw"]), "--dataset", "expw", "--split", "all",
                            "-o", str(tmp_path / "c")]) == 2  # fmt: skip
    assert "no action units" in capsys.readouterr().err


def test_students_need_a_teacher(folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = recipes.load(str(recipe_file(tmp_path, "fg2020-students")))
    with pytest.raises(UserError, match="need one teacher"):
        training.build(recipe, folders, None)


def recipe_file(folder: Path, name: str, **changes: object) -> Path:
    """A shipped recipe with a tiny network, its data reduced to what the synthetic copies hold."""
    shipped = Path(training.__file__).parent / "recipes" / f"{name}.yaml"
    table = yaml.safe_load(shipped.read_text())
    table["model"] |= {"backbone": "test_resnet", "size": 32, "embedding": 8, "bins": 5}
    table |= {"batch": 8, **changes}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(table))
    return path


def test_recipes_from_teacher_to_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teacher, students of it, and a CNN-RNN on its frozen features, by the command line."""
    monkeypatch.chdir(tmp_path)
    teacher = recipe_file(tmp_path, "fg2020-teacher")
    assert main([str(teacher), "--smoke", "--out", "t"]) == 0
    students = recipe_file(tmp_path, "fg2020-students")
    assert main([str(students), "--smoke", "--out", "u"]) == 0  # of an untrained teacher
    assert main([str(students), "--smoke", "--out", "s", "--teacher", "t/fg2020.teacher"]) == 0
    ensemble = hub.load("s/fg2020.students")
    assert len(ensemble.cnns) == 5
    assert any("ccc_valence" in k for k in ensemble.card.metrics)
    with torch.inference_mode():
        assert len(ensemble.decode(ensemble(ensemble.example()))["action_units"].members) == 5
    sequence = recipe_file(tmp_path, "fg2020-rnn")
    assert main([str(sequence), "--smoke", "--out", "r", "--init", "t/fg2020.teacher"]) == 0
    made, start = hub.load("r/fg2020_rnn.teacher"), hub.load("t/fg2020.teacher")
    for name, value in made.cnns[0].backbone.state_dict().items():
        torch.testing.assert_close(value, start.cnns[0].backbone.state_dict()[name])
