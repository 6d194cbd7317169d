"""FG-2020's balancing, losses and training steps against values measured on the original."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from tests.parity import common
from train import fg2020_losses as losses
from train import sampling

SAMPLERS = common.load("fg2020", "samplers.json")
ARRAYS = common.load("fg2020", "samplers.npz")
CASE = common.case("fg2020", "samplers")


@pytest.mark.parametrize("row", SAMPLERS["ml_ros"], ids=lambda row: f"{row['labels']}_seed{row['numpy_seed']}")
def test_ml_ros(row: dict) -> None:
    labels = ARRAYS[row["labels"]]
    ratios, mean = sampling.imbalance(labels)
    common.assert_close(ratios, row["IRLbl"], CASE, "IRLbl")
    common.assert_close(mean, row["MeanIR"], CASE, "MeanIR")
    clones = sampling.ml_ros(labels, row["numpy_seed"], limit=row["max_clones"] / row["N"])
    np.testing.assert_array_equal(clones, ARRAYS[f"{row['labels']}_clones_seed{row['numpy_seed']}"])
    multiplier = sampling.clone_weights(clones, original=True)
    np.testing.assert_array_equal(multiplier, ARRAYS[f"{row['labels']}_multiplier_seed{row['numpy_seed']}"])
    assert clones.sum() == row["clones"]
    positives = labels.sum(axis=0) + clones @ labels
    np.testing.assert_array_equal(positives, row["positives_with_clones"])
    common.assert_close(sampling.imbalance(positives)[0], row["IRLbl_with_clones"], CASE, "IRLbl with clones")
    common.assert_close(labels.mean(axis=0), row["positive_rate_before"], CASE, "rate before")
    common.assert_close(multiplier @ labels / multiplier.sum(), row["expected_positive_rate_after"], CASE, "rate after")


def test_ml_ros_options() -> None:
    """The set's own MeanIR as threshold; another limit and chunk, which the array's name states."""
    row = SAMPLERS["ml_ros_with_dataset_MeanIR"]
    labels = ARRAYS[row["labels"]]
    multiplier = sampling.clone_weights(sampling.ml_ros(labels, row["numpy_seed"], threshold=0), original=True)
    np.testing.assert_array_equal(multiplier, ARRAYS[f"{row['labels']}_multiplier_meanir_seed{row['numpy_seed']}"])
    assert multiplier.sum() == row["sum_of_multipliers"]
    named = [re.fullmatch(r"(\w+)_multiplier_(\d+)pct_(\d+)_seed(\d+)", name) for name in ARRAYS]
    (name, (labels, percent, chunk, seed)) = next((m[0], m.groups()) for m in named if m)
    clones = sampling.ml_ros(ARRAYS[labels], int(seed), limit=int(percent) / 100, chunk=int(chunk))
    np.testing.assert_array_equal(sampling.clone_weights(clones, original=True), ARRAYS[name])


def test_ml_ros_statistics() -> None:
    """The published draws are of some seeds: the mean over ours lies within four standard errors of theirs."""
    row = SAMPLERS["ml_ros_statistics"]
    labels = ARRAYS[row["labels"]]
    weights = [sampling.clone_weights(sampling.ml_ros(labels, s), original=True) for s in range(row["runs"])]
    rates = np.mean([w @ labels / w.sum() for w in weights], axis=0)
    error = np.array(row["std"]) * np.sqrt(2 / row["runs"])
    assert (np.abs(rates - row["mean_expected_positive_rate"]) <= 4 * error).all()


def test_single_label_and_grid_weights() -> None:
    classes = ARRAYS["expr_labels"]
    common.assert_close(sampling.class_weights(classes), ARRAYS["expr_weights"], CASE, "expression")
    assert np.bincount(classes.astype(int)).tolist() == SAMPLERS["expr"]["class_counts"]
    assert sampling.class_weights(classes).sum() == pytest.approx(SAMPLERS["expr"]["sum_of_weights"])
    weights = sampling.grid_weights(ARRAYS["va_labels"])
    common.assert_close(weights, ARRAYS["va_weights"], CASE, "valence and arousal")
    assert len(np.unique(sampling.grid_cells(ARRAYS["va_labels"]))) == SAMPLERS["va"]["nonempty_cells"]
    assert weights.sum() == pytest.approx(SAMPLERS["va"]["sum_of_weights"])


def test_thinning() -> None:
    row = common.load("fg2020", "datasets.json")["expr_undersampling"]
    np.testing.assert_array_equal(sampling.thin(row["labels"], sampling.THINNING), row["kept_indices"])


TASK = {"EXPR": "expression", "AU": "action_units", "VA": "valence_arousal"}


def one_hot(classes: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(classes), 7).float()


def bins(logits: np.ndarray) -> torch.Tensor:
    """[..., 40] -> [..., 2, 20]."""
    return torch.from_numpy(logits).unflatten(-1, (2, -1))


def test_loss_values() -> None:
    case, expected = common.case("fg2020", "losses"), common.load("fg2020", "losses.json")["values"]
    a = {k: torch.from_numpy(v) for k, v in common.load("fg2020", "losses_inputs.npz").items()}
    z = {"expression": a["x_expr"], "action_units": a["x_au"], "valence_arousal": a["x_va"].unflatten(-1, (2, -1))}
    y = {"expression": one_hot(a["y_expr"].numpy()), "action_units": a["y_au"], "valence_arousal": a["y_va"]}
    teacher = {"expression": a["teacher_expr"], "action_units": a["teacher_au"]}
    teacher["valence_arousal"] = a["teacher_va"].unflatten(-1, (2, -1))

    def own(**options: object) -> dict[str, torch.Tensor]:
        return losses.supervised(z, y, losses.Weights(**options))

    def soft(temperature: float) -> dict[str, torch.Tensor]:
        return {k: v.mean() for k, v in losses.distillation(z, teacher, temperature).items()}

    valence = z["valence_arousal"][:, 0]
    expectation = valence.softmax(-1) @ torch.linspace(-1, 1, 20)
    got = {
        "AU_BCE": own()["action_units"],
        "AU_Focal": own(action_unit_loss="focal")["action_units"],
        "AU_distill": soft(1.0)["action_units"],
        "EXPR_CE": own()["expression"],
        "EXPR_Focal": own(expression_loss="focal")["expression"],
        "EXPR_distill_T1.5": soft(1.5)["expression"],
        "EXPR_distill_T4": soft(4.0)["expression"],
        "VA_CCC_CE_valence": own()["valence"],
        "VA_CCC_CE_arousal": own()["arousal"],
        "VA_CCC_CE_valence_lambda_ccc_0.5": own(ccc=0.5)["valence"],
        "VA_distill_valence": soft(1.5)["valence"],
        "VA_distill_arousal": soft(1.5)["arousal"],
        "CCC_only_valence": 1 - losses.concordance(expectation, a["y_va"][:, 0]),
        "CE_only_valence": own(ccc=0.0)["valence"],
        # without bins, the first output itself is the valence, clipped to its range
        "CCC_continuous": 1 - losses.concordance(a["x_va"][:, 0].clamp(-1, 1), a["y_va"][:, 0]),
        "CCC_constant_target": 1 - losses.concordance(expectation, torch.full_like(expectation, 0.3)),
        "CCC_batch_of_one": 1 - losses.concordance(expectation[:1], a["y_va"][:1, 0]),
    }
    for name, value in got.items():  # no number in the original: no concordance here, so a loss of 1
        common.assert_close(value, 1.0 if expected[name] is None else expected[name], case, name)
    assert set(expected) == set(got)


def test_digitize() -> None:
    row = common.load("fg2020", "losses.json")["digitize"]
    classes = losses.affect_classes(torch.tensor(row["values_float32"], dtype=torch.float32))
    assert classes.tolist() == row["class"]
    assert losses.affect_classes(torch.tensor([-1.5])).tolist() == [0]


@pytest.mark.parametrize("name", ["train_step", "train_step_seq"])
@pytest.mark.parametrize("step", ["teacher_step", "student_step", "student_step_lambda0.7_T3"])
def test_train_step(name: str, step: str) -> None:
    case = common.case("fg2020", name)
    kind = "frame_model" if name == "train_step" else "sequence_model"
    table = common.load("fg2020", "train_step.json")[kind]
    if step not in table:
        pytest.skip(f"no {step} for the {kind}")
    a = common.load("fg2020", f"{name}.npz")
    options = re.fullmatch(r"student_step_lambda([\d.]+)_T([\d.]+)", step)
    weights = losses.Weights(teacher=float(options[1]), temperature=float(options[2])) if options else losses.Weights()
    y = {"EXPR": one_hot(a["y_expr"]), "AU": torch.from_numpy(a["y_au"]), "VA": torch.from_numpy(a["y_va"])}
    logits: dict[tuple[str, str], torch.Tensor] = {}
    total, logged = 0.0, dict.fromkeys(losses.PARTS, 0.0)
    for given in TASK:  # one batch and one forward pass per task
        for task in TASK:
            z = a[f"student_{given}_{task}"]
            logits[given, task] = (bins(z) if task == "VA" else torch.from_numpy(z)).requires_grad_()
        z = {TASK[t]: logits[given, t] for t in TASK}
        targets = {TASK[given]: y[given]}
        if step == "teacher_step":
            total = total + losses.teacher_loss(z, targets, weights)
            parts = losses.supervised(z, targets, weights)
        else:
            soft = {t: a[f"teacher_{given}_{t}"] for t in TASK}
            soft = {TASK[t]: bins(v) if t == "VA" else torch.from_numpy(v) for t, v in soft.items()}
            parts = {k: v / 3 for k, v in losses.student_losses(z, soft, targets, weights).items()}
            total = total + sum(parts.values())
        for part, value in parts.items():
            logged[part] += value.item()
    names = dict(zip(losses.PARTS, ("loss_EXPR", "loss_AU", "loss_valence", "loss_arousal")))
    for part, key in names.items():
        common.assert_close(logged[part], table[step][key], case, key)
    common.assert_close(total, table[step]["loss"], case, "loss")
    if options:
        return
    total.backward()
    for (given, task), z in logits.items():
        gradient = torch.zeros_like(z) if z.grad is None else z.grad
        wanted = a[f"{step.removesuffix('_step')}_grad_{given}_{task}"]
        common.assert_close(gradient.flatten(-2) if task == "VA" else gradient, wanted, case, f"{given} {task}")
