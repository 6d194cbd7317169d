"""EMENet against the original: decoding, uncertainty, windows, files, losses and metrics of fixtures/emenet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from emotion import faces, uncertainty
from emotion.datasets.affwild2 import keep_labelled
from emotion.datasets.affwild2_2020 import fill_gaps
from emotion.exports import abaw
from emotion.media import windowing
from emotion.models.base import FaceInput
from emotion.models.emenet import EMENet, EMENetConfig, Temperature, probabilities
from emotion.outputs import Faces
from eval.metrics.action_units import action_units_core
from eval.metrics.calibration import calibration_core
from eval.metrics.ccc import ccc_core
from eval.metrics.expression import expression_core
from tests.parity import common
from train import emenet_losses, soft_labels

OURS = {"EXPR": "expression", "AU": "action_units", "VA": "valence_arousal"}


def case(name):
    return common.case("emenet", name)


def expected_of(name):
    return common.load("emenet", case(name)["file"])


def member_logits(name):
    """Logits [members, frames, ...] per task, as the model gives them."""
    z = {OURS[t]: torch.from_numpy(common.make_input(spec)) for t, spec in case(name)["inputs"].items()}
    return z | {"valence_arousal": z["valence_arousal"].unflatten(-1, (2, -1))}


def flat(p):
    """Probabilities [M, N, ...] under the original's names, valence's bins before arousal's."""
    return {old: p[new].reshape(*p[new].shape[:2], -1) for old, new in OURS.items()}


@pytest.fixture(scope="module")
def decoder():
    return EMENet(EMENetConfig())


def test_probabilities_and_estimates(decoder):
    c, expected = case("probabilities"), expected_of("probabilities")
    z = {task: v[:1] for task, v in member_logits("probabilities").items()}
    hot = Temperature(expression=1.7, action_units=(0.6,), valence=1.5, arousal=0.8)
    for suffix, temperature in {"": Temperature(), "T": hot}.items():
        for old, p in flat(probabilities(z, temperature)).items():
            common.assert_close(p[0], expected[f"p{suffix}_{old}"], c, f"p{suffix}_{old}")
        tasks = EMENet(EMENetConfig(temperature=temperature)).decode(z)
        np.testing.assert_array_equal(tasks["expression"].choice, expected[f"est{suffix}_EXPR"])
        np.testing.assert_array_equal(present(tasks["action_units"]), expected[f"est{suffix}_AU"])
        common.assert_close(tasks["valence_arousal"].values, expected[f"est{suffix}_VA"], c, "values")


def present(task):
    return (task.values >= task.thresholds).astype(int)


def test_uncertainty_of_an_ensemble(decoder):
    c, expected = case("uncertainty_ensemble"), expected_of("uncertainty_ensemble")
    z = member_logits("uncertainty_ensemble")
    for old, p in flat(probabilities(z)).items():
        common.assert_close(p.mean(0), expected[f"mean_{old}"], c, f"mean_{old}")
    for old, task in zip(OURS, decoder.decode(z).values()):
        unsure = task.uncertainty
        for part in ("aleatoric", "epistemic"):
            common.assert_close(unsure[part], expected[f"{part}_{old}"], c, f"{part}_{old}")
        common.assert_close(unsure["total"], unsure["aleatoric"] + unsure["epistemic"], c, f"total_{old}")


def test_uncertainty_of_one_network(decoder):
    """The image script's values; the live demo's are a fault (entropy in nats divided by bits)."""
    c, expected = case("uncertainty_single"), expected_of("uncertainty_single")
    z = {task: v[:1, :1] for task, v in member_logits("uncertainty_single").items()}
    tasks = decoder.decode(z)
    for old, task in zip(OURS, tasks.values()):
        assert "epistemic" not in task.uncertainty
        unsure = task.uncertainty["aleatoric"][0]
        common.assert_close(unsure, expected[f"image_{old}"], c, f"image_{old}")
        common.assert_close(unsure * np.log(2), expected[f"demo_{old}"], c, f"demo_{old}")
    assert tasks["expression"].choice[0] == expected["est_EXPR"]
    np.testing.assert_array_equal(present(tasks["action_units"])[0], expected["est_AU"])
    common.assert_close(tasks["valence_arousal"].values[0], expected["est_VA"], c, "values")


def test_merged_predictions_and_files(decoder, tmp_path):
    c, expected = case("ensemble_merge"), expected_of("ensemble_merge")
    tasks = decoder.decode(member_logits("ensemble_merge"))
    np.testing.assert_array_equal(tasks["expression"].choice, expected["merged_EXPR"])
    np.testing.assert_array_equal(present(tasks["action_units"]), expected["merged_AU"])
    common.assert_close(tasks["valence_arousal"].values, expected["merged_VA"], c, "merged_VA")
    written = abaw.write(tmp_path, "clip", tasks, expected["frame_ids"])
    assert len(written) == 3 * (1 + len(tasks["expression"].members))
    for old, new in OURS.items():
        text = (tmp_path / "merged" / abaw.FOLDERS[new] / "clip.txt").read_text()
        assert text == str(expected[f"text_{old}"])


def test_windows():
    c, expected = case("windows"), expected_of("windows")
    for n in c["test_lengths"]:
        np.testing.assert_array_equal(windowing.inference_windows(n, 64, faithful=True), expected[f"test_{n}"], str(n))
        ours = windowing.inference_windows(n)
        np.testing.assert_array_equal(np.unique(ours), np.arange(n))
    for n, length, fps in c["train_cases"]:
        ours = windowing.training_windows(n, length, fps)
        np.testing.assert_array_equal(ours, expected[f"train_{n}_{length}_{fps}"], f"{n}_{length}_{fps}")


def test_sound_windows():
    c, expected = case("audio_windows"), expected_of("audio_windows")
    for i, video in enumerate(c["cases"]):
        frames = expected[f"ids_{i}"]
        starts = windowing.sound_windows(frames, video["fps"], video["samples"], "faithful")
        np.testing.assert_array_equal(starts, expected[f"start_{i}"], str(i))
        np.testing.assert_array_equal(windowing.sound_to_read(frames, video["fps"]), expected[f"read_{i}"], str(i))
        assert set(expected[f"length_{i}"]) == {windowing.SOUND_WINDOW}


def test_image_transform():
    """Pictures b and d were not made to be repeated: one kept its shape, the other was enlarged on the way."""
    c, expected = case("image_transform"), expected_of("image_transform")

    def levels(shape, offset, repeat=1):
        values = (common.array(shape, c["seed"] + offset) * 255).astype(np.uint8)
        return values.repeat(repeat, 0).repeat(repeat, 1)

    enlarged = Image.fromarray(levels([14, 14, 3], 3, 8)).resize((224, 224), Image.Resampling.BICUBIC)
    pictures = {
        "a": levels([224, 224, 3], 0),
        "b": levels([12, 9, 3], 1, 10),
        "c": levels([16, 16, 3], 2, 5),
        "d": np.asarray(enlarged),
    }
    for name, picture in pictures.items():
        height, width = picture.shape[:2]
        whole = Faces(np.array([[0, 0, width, height]]), np.ones(1))
        size = tuple(expected["b_shape"][1:]) if name == "b" else EMENetConfig().input.size
        x = FaceInput(size=size).tensor(faces.crop(picture, whole, FaceInput(size=size)))
        common.assert_close(x[0, 0, ::3, ::3], expected[name], c, name)
        assert faces.crop(picture, whole, EMENetConfig().input).shape == (1, 112, 112, 3)


def loss_inputs():
    """Logits, labels, teacher and weights as the case "losses" describes them."""
    c = case("losses")["inputs"]
    n, seed = c["N"], c["seed0"]

    def fill(shape, offset, low=0.0, high=1.0):
        return torch.from_numpy(common.array([n, *shape], seed + offset, low, high))

    sizes = {"action_units": 12, "expression": 7, "valence_arousal": 40, "landmarks": 136, "voice": 2}
    z = {task: fill([size], i, -3, 3) for i, (task, size) in enumerate(sizes.items())}
    teacher = {task: fill([sizes[task]], 20 + i, -3, 3) for i, task in enumerate(list(sizes)[:3])}
    for part in (z, teacher):
        part["valence_arousal"] = part["valence_arousal"].unflatten(-1, (2, -1))
    soft = {task: t.sigmoid() if task == "action_units" else t.softmax(-1) for task, t in teacher.items()}
    hard = {
        "action_units": (fill([12], 10) > 0.7).float(),
        "expression": (fill([], 11) * 7).long(),
        "valence_arousal": fill([2], 12, -1, 1),
        "landmarks": fill([136], 30),
        "voice": fill([2], 31, -3, 3),
    }
    return z, hard, soft, {"action_units": fill([12], 32), "expression": fill([], 33)}


def test_losses_against_labels():
    c, expected = case("losses"), expected_of("losses")
    z, hard, _, _ = loss_inputs()
    loss = emenet_losses.hard_loss
    found = {
        "au_bce": loss("action_units", z["action_units"], hard["action_units"], emenet_losses.AU_WEIGHTS),
        "expr_ce": loss("expression", z["expression"], hard["expression"], emenet_losses.EXPRESSION_WEIGHTS),
        "va_ccc": loss("valence_arousal", z["valence_arousal"], hard["valence_arousal"]),
        "va_cce": loss("valence_arousal", z["valence_arousal"], hard["valence_arousal"], affect="cce"),
        "fa_l1": loss("landmarks", z["landmarks"], hard["landmarks"]),
        "vad_teacher_kld": loss("voice", z["voice"], hard["voice"]),
    }
    values = emenet_losses.expected(z["valence_arousal"])
    found["va_ccc_valence"] = emenet_losses.ccc_loss(values, hard["valence_arousal"])[0]
    for name, value in found.items():
        common.assert_close(value, expected[name], c, name)


def test_losses_of_distillation():
    c, expected = case("losses"), expected_of("losses")
    z, hard, soft, weights = loss_inputs()
    for old, task in {"au": "action_units", "expr": "expression", "va": "valence_arousal"}.items():
        for t in (1, 2):
            value = emenet_losses.soft_loss(task, z[task], soft[task], float(t))
            common.assert_close(value, expected[f"kd_{old}_T{t}"], c, f"kd_{old}_T{t}")
        if task in weights:
            value = emenet_losses.soft_loss(task, z[task], soft[task], 1.0, weights[task])
            common.assert_close(value, expected[f"kd_{old}_weighted"], c, f"kd_{old}_weighted")
    voice = emenet_losses.soft_loss("voice", z["voice"], hard["voice"].softmax(-1))
    common.assert_close(voice, expected["vad_student"], c, "vad_student")


def test_task_weights():
    c, expected = case("task_weights"), expected_of("task_weights")
    names = ("AU", "EXPR", "VA", "FA")
    balance = emenet_losses.Balance(names)
    for epoch, waited in enumerate(c["epochs_without_improvement"]):
        balance.wait(waited)
        common.assert_close([balance.factors[n] for n in names], expected["weights"][epoch], c, f"epoch {epoch}")
        common.assert_close([balance.weights[n] for n in names], expected["normalised"][epoch], c, f"epoch {epoch}")


def metric_inputs():
    """Logits and probabilities [N, ...] of the case "metrics", which calibration and temperature share."""
    c = case("metrics")["inputs"]
    sizes = {"action_units": 12, "expression": 7, "valence_arousal": 40}
    z = {
        task: torch.from_numpy(common.array([1, c["N"], size], c["seed0"] + 10 + i, -3, 3))
        for i, (task, size) in enumerate(sizes.items())
    }
    z["valence_arousal"] = z["valence_arousal"].unflatten(-1, (2, -1))
    return {t: v[0].double().numpy() for t, v in z.items()}, {t: p[0] for t, p in probabilities(z).items()}


def bits(packed, rows=400):
    return np.unpackbits(packed)[: rows * 12].reshape(rows, 12)


def test_metrics():
    c, expected = case("metrics"), expected_of("metrics")
    rows = c["inputs"]["N"]
    matrix = expression_core.confusion(expected["in_expr_p"], expected["in_expr_y"], 7)
    expression = expression_core.scores(matrix)
    common.assert_close([expression[k] for k in ("f1", "accuracy", "total")], expected["expr"], c, "expr")
    said, there = bits(expected["in_au_p"], rows), bits(expected["in_au_y"], rows)
    units = action_units_core.scores(action_units_core.counts(said, there))
    common.assert_close([units[k] for k in ("f1", "accuracy", "total")], expected["au"], c, "au")
    common.assert_close(units["f1_per_unit"], expected["au_f1"], c, "au_f1")
    va = [ccc_core.ccc(expected["in_va_p"][:, k], expected["in_va_y"][:, k]) for k in range(2)]
    common.assert_close([*va, sum(va)], expected["va"], c, "va")

    _, p = metric_inputs()
    nll = calibration_core.nll_labels(p["action_units"], there).mean(0)
    common.assert_close(nll, expected["nll_au"], c, "nll_au")
    nll = calibration_core.nll_classes(p["expression"], expected["in_expr_y"]).mean()
    common.assert_close(nll, expected["nll_expr"], c, "nll_expr")
    nll = calibration_core.nll_bins(p["valence_arousal"], expected["in_va_e"])
    common.assert_close(nll.mean(0), expected["nll_va"], c, "nll_va")
    common.assert_close(nll[: len(expected["nll_va_rows"])], expected["nll_va_rows"], c, "nll_va_rows")
    values = EMENet(EMENetConfig()).decode({"valence_arousal": torch.log(torch.from_numpy(p["valence_arousal"]))[None]})
    error = values["valence_arousal"].values - expected["in_va_e"]
    common.assert_close(np.sqrt((error**2).mean(0)), expected["rmse"], c, "rmse")


def test_calibration():
    c, expected = case("calibration"), expected_of("calibration")
    _, p = metric_inputs()
    pairs = {
        "expr": calibration_core.top_class(p["expression"], expected["in_expr_y"]),
        "au": (p["action_units"], bits(expected["in_au_y"])),
    }
    for name, (confidences, correct) in pairs.items():
        found = calibration_core.calibration(confidences, correct)
        for kind in ("ece", "ace", "mce"):
            common.assert_close(found[kind], expected[f"{name}_{kind}"], c, f"{name}_{kind}")
        table = calibration_core.reliability(confidences, correct)
        common.assert_close(table["accuracy"], expected[f"{name}_bin_accuracy"], c, name)
        common.assert_close(table["confidence"], expected[f"{name}_bin_confidence"], c, name)
        fine = calibration_core.calibration(confidences, correct, bins=15)["ece"]
        common.assert_close(fine, expected[f"{name}_ece15"], c, f"{name}_ece15")


def test_temperature():
    c, expected = case("temperature"), expected_of("temperature")
    labels = expected_of("calibration")
    z, _ = metric_inputs()
    truth = labels["in_expr_y"]
    t = calibration_core.fit_temperature(z["expression"], truth)
    common.assert_close(t, expected["expr_T"], c, "expr_T")
    there = bits(labels["in_au_y"])
    found = [calibration_core.fit_temperature(z["action_units"][:, k], there[:, k]) for k in range(12)]
    common.assert_close(found, expected["au_T"], c, "au_T")
    for name, divisor in {"before": 1.0, "after": t}.items():
        p = torch.from_numpy(z["expression"] / divisor).softmax(-1).numpy()
        nll = calibration_core.nll_classes(p, truth).mean()
        common.assert_close(nll, expected[f"expr_nll_{name}"], c, f"expr_nll_{name}")


def test_class_affinity():
    c, expected = case("affinity"), expected_of("affinity")
    _, p = metric_inputs()
    columns = [p["expression"], p["action_units"], p["valence_arousal"].reshape(len(p["expression"]), -1)]
    ours = soft_labels.affinity(np.concatenate(columns, axis=1)[:, ::6])
    common.assert_close(ours, expected["matrix"], c, "affinity")


def test_members_that_agree_have_no_epistemic_uncertainty():
    p = np.random.default_rng(0).dirichlet(np.ones(7), 200)
    unsure = uncertainty.categorical(np.stack([p] * 5))
    assert (unsure["epistemic"] >= 0).all() and unsure["epistemic"].max() < 1e-6


def test_frame_lists():
    c, expected = case("frame_lists"), expected_of("frame_lists")
    for i, length in enumerate(c["lengths"]):
        present = (expected[f"present_{i}"] + 1).tolist()
        np.testing.assert_array_equal(np.array(fill_gaps(present, length)) - 1, expected[f"result_{i}"], str(i))
    rows = np.array([[0, 1], [-1, 0], [1, 1], [0, 0], [1, 0], [-5, -5], [1, 1]])  # as "what" says
    frames = np.array([0, 1, 3, 4, 6])
    for name, marker in {"au": -1, "va": -5}.items():
        kept = keep_labelled(rows, frames, marker)
        np.testing.assert_array_equal(kept, expected[f"keep_{name}_ids"])
        np.testing.assert_array_equal(rows[kept], expected[f"keep_{name}_labels"])
