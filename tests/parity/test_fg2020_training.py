"""FG-2020's balancing, losses and training steps against values measured on the original."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.parity import common
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
    np.testing.assert_array_equal(sampling.thin(np.array(row["labels"])), row["kept_indices"])
