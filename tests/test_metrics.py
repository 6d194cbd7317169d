"""Metrics: plain functions against scikit-learn and pycocotools, and the `evaluate` modules against the functions."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn import metrics as sk

from eval import emotic
from eval.metrics.abaw_mtl.abaw_mtl_core import abaw_mtl
from eval.metrics.action_units import action_units_core as units
from eval.metrics.audiovisual import audiovisual_core as audiovisual
from eval.metrics.calibration import calibration_core as calibration
from eval.metrics.ccc import ccc_core
from eval.metrics.detection_ap import detection_ap_core as detection
from eval.metrics.emotic_map import emotic_map_core as emotic_map
from eval.metrics.expression import expression_core as expression
from eval.metrics.risk_coverage import risk_coverage_core as risk

METRICS = Path(__file__).parents[1] / "eval" / "metrics"
NAMES = sorted(p.name for p in METRICS.iterdir() if (p / f"{p.name}_core.py").is_file())
TIGHT = {"rtol": 0, "atol": 1e-9}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# -- plain functions --------------------------------------------------------------------------------------------------


def test_expression_equals_sklearn(rng) -> None:
    wanted, said = rng.integers(0, 6, 200), rng.integers(0, 7, 200)  # class 6 never occurs, 7 classes exist
    found = expression.scores(expression.confusion(said, wanted, 8))
    np.testing.assert_allclose(found["accuracy"], sk.accuracy_score(wanted, said), **TIGHT)
    np.testing.assert_allclose(found["f1"], sk.f1_score(wanted, said, average="macro", zero_division=0), **TIGHT)
    np.testing.assert_allclose(
        found["balanced_accuracy"], sk.recall_score(wanted, said, average="macro", labels=range(6))
    )
    every = sk.f1_score(wanted, said, average=None, labels=range(8), zero_division=0)
    np.testing.assert_allclose(found["f1_per_class"], every, **TIGHT)
    fixed = expression.scores(expression.confusion(said, wanted, 8), fixed=True)
    np.testing.assert_allclose(fixed["f1"], every.mean(), **TIGHT)
    np.testing.assert_allclose(found["total"], 0.67 * found["f1"] + 0.33 * found["accuracy"], **TIGHT)


def test_expression_without_labels_and_outside_the_classes() -> None:
    empty = expression.scores(expression.confusion(np.array([1, 2]), np.array([-1, -1]), 3))
    assert np.isnan([empty["accuracy"], empty["f1"], empty["total"], empty["balanced_accuracy"]]).all()
    with pytest.raises(ValueError, match="outside 0 to 2"):
        expression.confusion(np.array([3]), np.array([0]), 3)
    with pytest.raises(ValueError, match="2 predictions for 1"):
        expression.confusion(np.array([0, 1]), np.array([0]), 3)


def test_ccc_variants(rng) -> None:
    x, y = rng.normal(size=60), rng.normal(size=60)
    mean, cov = (x.mean() - y.mean()) ** 2, np.cov(x, y)
    np.testing.assert_allclose(ccc_core.ccc(x, y, ddof=1), 2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + mean), **TIGHT)
    cov = np.cov(x, y, ddof=0)
    np.testing.assert_allclose(ccc_core.ccc(x, y), 2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + mean), **TIGHT)
    videos = np.repeat(["a", "b", "c"], 20)
    each = [ccc_core.ccc(x[videos == v], y[videos == v]) for v in "abc"]
    np.testing.assert_allclose(ccc_core.ccc_of_groups(x, y, videos), np.mean(each), **TIGHT)
    np.testing.assert_allclose(ccc_core.ccc_of_batches(x, y, 20), np.mean(each), **TIGHT)
    parts = sum(ccc_core.sums(x[videos == v], y[videos == v]) for v in "abc")
    np.testing.assert_allclose(ccc_core.ccc_from_sums(parts), ccc_core.ccc(x, y), **TIGHT)


@pytest.mark.parametrize("ddof", [0, 1])
def test_ccc_of_constants_nothing_and_gaps(ddof: int) -> None:
    y = np.array([0.1, 0.5, 0.3])
    assert ccc_core.ccc(np.full(3, 0.7), y, ddof) == 0 and ccc_core.ccc(y, np.full(3, 0.7), ddof) == 0
    assert np.isnan(ccc_core.ccc(np.zeros(0), np.zeros(0), ddof)) and np.isnan(
        ccc_core.ccc(y, np.full(3, np.nan), ddof)
    )
    assert ccc_core.ccc(np.array([*y, 9.0]), np.array([*y, np.nan]), ddof) == pytest.approx(1)
    assert np.isnan(ccc_core.ccc(np.array([np.nan, 0.2, 0.3]), y, ddof))
    assert np.isnan(ccc_core.ccc_of_groups(y, np.full(3, np.nan), np.arange(3)))
    with pytest.raises(ValueError, match="3 predictions for 2"):
        ccc_core.ccc(y, y[:2])


def test_action_units_equal_sklearn(rng) -> None:
    wanted, p = rng.integers(-1, 2, (300, 5)), rng.random((300, 5))
    wanted[:, 4] = np.where(wanted[:, 4] == 1, 0, wanted[:, 4])
    p[:, 4] = 0.1  # neither labelled nor predicted
    found = units.scores(units.counts(p >= 0.5, wanted))
    for k in range(5):
        known = wanted[:, k] >= 0
        f1 = sk.f1_score(wanted[known, k], p[known, k] >= 0.5, zero_division=0)
        np.testing.assert_allclose(found["f1_per_unit"][k], f1, **TIGHT)
    known = wanted >= 0
    np.testing.assert_allclose(found["accuracy"], sk.accuracy_score(wanted[known], (p >= 0.5)[known]), **TIGHT)
    np.testing.assert_allclose(found["total"], (found["f1"] + found["accuracy"]) / 2, **TIGHT)
    assert np.isnan(units.scores(units.counts(p >= 0.5, np.full_like(wanted, -1)))["total"])


def test_best_thresholds_are_the_best(rng) -> None:
    wanted, p = rng.integers(0, 2, (80, 3)), rng.random((80, 3)).round(2)
    wanted[:, 2] = 0
    found = units.best_thresholds(p, wanted)
    for k in range(2):
        f1 = {t: sk.f1_score(wanted[:, k], p[:, k] >= t) for t in np.unique(p[:, k])}
        assert f1[found[k]] == max(f1.values())
    assert found[2] == 0.5


def test_abaw_mtl_is_the_sum_of_its_parts(rng) -> None:
    va = rng.uniform(-1, 1, (2, 50, 2))
    va[1, :5] = -5  # the challenge's marker
    classes, flags = rng.integers(0, 8, (2, 50)), rng.integers(0, 2, (2, 50, 12))
    classes[1, :3], flags[1, 4] = -1, -1
    found = abaw_mtl(va, classes, flags)
    cccs = [ccc_core.ccc(va[0, 5:, k], va[1, 5:, k]) for k in range(2)]
    f1 = sk.f1_score(classes[1, 3:], classes[0, 3:], average="macro", labels=range(8), zero_division=0)
    rest = np.arange(50) != 4
    each = [sk.f1_score(flags[1, rest, k], flags[0, rest, k]) for k in range(12)]
    np.testing.assert_allclose(found["score"], np.mean(cccs) + f1 + np.mean(each), **TIGHT)
    assert np.isnan(abaw_mtl(va, np.full((2, 50), -1), flags)["score"])


def test_emotic_map_equals_sklearn(rng) -> None:
    labels, scores = rng.integers(0, 2, (90, 4)), rng.random((90, 4)).round(1)  # many ties
    labels[:, 3] = 0
    found = emotic_map.average_precision(labels, scores)
    wanted = [sk.average_precision_score(labels[:, k], scores[:, k]) for k in range(3)]
    np.testing.assert_allclose(found, [*wanted, 0], **TIGHT)
    assert emotic_map.average_precision(labels[:0], scores[:0]).tolist() == [0] * 4
    values = rng.random((5, 3))
    values[0, 1] = np.nan
    error = emotic_map.mean_absolute_error(values, np.zeros((5, 3)))
    np.testing.assert_allclose(error, np.abs(values[1:]).mean(axis=0), **TIGHT)


def scenes(rng: np.random.Generator, pictures: int) -> tuple[list, list]:
    found, truth = [], []
    for _ in range(pictures):
        corner = rng.uniform(0, 300, (rng.integers(0, 5), 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 200, corner.shape)], axis=1)
        near = boxes[rng.random(len(boxes)) < 0.8] + rng.normal(0, 6, 4)
        other = rng.uniform(0, 200, (2, 2))
        all_found = np.concatenate([near, np.concatenate([other, other + 40], axis=1)])
        truth.append({"boxes": boxes, "crowd": rng.random(len(boxes)) < 0.1})
        found.append({"boxes": all_found, "scores": rng.random(len(all_found))})
    return found, truth


def test_detection_equals_pycocotools(rng) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found, truth = scenes(rng, 40)

    def rows(pictures, **more) -> list[dict]:
        boxes = [(i, j, b) for i, p in enumerate(pictures) for j, b in enumerate(p["boxes"])]
        out = []
        for n, (i, j, (x0, y0, x1, y1)) in enumerate(boxes, start=1):
            box = [x0, y0, x1 - x0, y1 - y0]
            out.append({"id": n, "image_id": i, "category_id": 1, "bbox": box, "area": box[2] * box[3]})
            out[-1] |= {name: kind(pictures[i][key][j]) for name, (key, kind) in more.items()}
        return out

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(40)],
            "categories": [{"id": 1}],
            "annotations": rows(truth, iscrowd=("crowd", int)),
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(rows(found, score=("scores", float))), "bbox")
        judge.evaluate(), judge.accumulate(), judge.summarize()
    np.testing.assert_allclose(list(detection.detection_ap(found, truth).values()), judge.stats, **TIGHT)


def test_detection_of_nothing() -> None:
    nobody = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0)}
    assert set(detection.detection_ap([nobody], [nobody]).values()) == {-1.0}
    somebody = {"boxes": np.array([[0, 0, 50.0, 50]])}
    assert detection.detection_ap([nobody], [somebody])["AP"] == 0
    with pytest.raises(ValueError, match="predictions for 1 pictures"):
        detection.detection_ap([nobody], [])


def test_calibration_equals_sklearn_and_definition(rng) -> None:
    p = rng.dirichlet(np.ones(4), 400)
    wanted = rng.integers(0, 4, 400)
    found = calibration.of_classes(p, wanted)
    np.testing.assert_allclose(found["nll"], sk.log_loss(wanted, p), rtol=1e-5)
    np.testing.assert_allclose(found["brier"], ((p - np.eye(4)[wanted]) ** 2).sum(1).mean(), **TIGHT)
    sure, right = p.max(1), p.argmax(1) == wanted
    where = np.digitize(sure, np.linspace(0, 1, 11)[1:-1])
    gaps = [(np.mean(where == b), abs(sure[where == b].mean() - right[where == b].mean())) for b in np.unique(where)]
    np.testing.assert_allclose(found["ece"], sum(share * gap for share, gap in gaps), **TIGHT)
    np.testing.assert_allclose(found["ace"], np.mean([gap for _, gap in gaps]), **TIGHT)
    np.testing.assert_allclose(found["mce"], max(gap for _, gap in gaps), **TIGHT)
    y = rng.integers(0, 2, (400, 1))
    np.testing.assert_allclose(calibration.of_labels(p[:, :1], y)["brier"], sk.brier_score_loss(y, p[:, 0]), **TIGHT)
    assert all(np.isnan(v) for v in calibration.of_classes(p, np.full(400, -1)).values())


def test_risk_coverage(rng) -> None:
    errors = (rng.random(200) < 0.3).astype(float)
    uncertainty = (errors * 0.3 + rng.random(200)).round(1)  # ties
    found = risk.risk_coverage(uncertainty, errors)
    np.testing.assert_allclose(found["auroc"], sk.roc_auc_score(errors, uncertainty), **TIGHT)
    np.testing.assert_allclose(found["risk"][-1], errors.mean(), **TIGHT)
    order = rng.permutation(200)
    np.testing.assert_allclose(risk.risk_coverage(uncertainty[order], errors[order])["aurc"], found["aurc"], **TIGHT)
    assert risk.risk_coverage(errors, errors)["excess_aurc"] == 0
    assert risk.risk_coverage(np.zeros(4), np.array([0, 1, 0, 1]))["aurc"] == pytest.approx(0.5)
    assert np.isnan(risk.risk_coverage(np.zeros(2), np.full(2, np.nan))["aurc"])
    assert np.isnan(risk.risk_coverage(np.arange(2), np.zeros(2))["auroc"])
    with pytest.raises(ValueError, match="not a number"):
        risk.risk_coverage(np.array([np.nan]), np.array([1]))


def test_audiovisual_conditions(rng) -> None:
    logits, wanted = rng.normal(size=(60, 8)), rng.integers(0, 8, 60)
    conditions = np.repeat(["both", "audio", "video"], 20)
    found = audiovisual.audiovisual(logits, wanted, conditions)
    assert list(found) == ["both", "audio", "video"]
    for name, figures in found.items():
        z, y = logits[conditions == name], wanted[conditions == name]
        np.testing.assert_allclose(figures["accuracy"], sk.accuracy_score(y, z.argmax(1)), **TIGHT)
        np.testing.assert_allclose(figures["top5"], sk.top_k_accuracy_score(y, z, k=5, labels=range(8)), **TIGHT)
        np.testing.assert_allclose(figures["mean_recall"], sk.balanced_accuracy_score(y, z.argmax(1)), **TIGHT)
        softmax = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        np.testing.assert_allclose(figures["loss"], sk.log_loss(y, softmax, labels=range(8)), **TIGHT)
    assert audiovisual.audiovisual(logits[:, :3], wanted % 3)["both"]["top5"] == 1
    assert np.isnan(audiovisual.audiovisual(logits, np.full(60, -1))["both"]["accuracy"])


# -- `evaluate` modules ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`evaluate.load` by path, offline, with its caches in a temporary folder."""
    home = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("HF_HOME", "HF_METRICS_CACHE", "HF_MODULES_CACHE", "HF_EVALUATE_CACHE"):
            patch.setenv(variable, str(home))
        patch.setenv("HF_HUB_OFFLINE", "1")
        import evaluate

        patch.setattr(evaluate.config, "HF_MODULES_CACHE", home / "modules")
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", home / "metrics")
        patch.syspath_prepend(home / "modules")
        yield lambda name, config: evaluate.load(str(METRICS / name), config, cache_dir=str(home / "cache"))


def example(name: str) -> dict:
    return json.loads((METRICS / name / "example.json").read_text(encoding="utf-8"))


PLAIN = {
    "ccc": lambda i: {
        "ccc": ccc_core.ccc(i["predictions"], i["references"]),
        "ccc_per_group": ccc_core.ccc_of_groups(i["predictions"], i["references"], i["groups"]),
    },
    "expression": lambda i: expression.scores(expression.confusion(i["predictions"], i["references"], i["classes"])),
    "action_units": lambda i: units.scores(units.counts(np.array(i["predictions"]) >= 0.5, i["references"])),
    "abaw_mtl": lambda i: abaw_mtl(
        *[
            [np.array([frame[part] for frame in i[side]]) for side in ("predictions", "references")]
            for part in ("valence_arousal", "expression", "action_units")
        ],
        classes=i["classes"],
    ),
    "emotic_map": lambda i: emotic_map.emotic_map(i["references"], i["predictions"]),
    "detection_ap": lambda i: detection.detection_ap(i["predictions"], i["references"]),
    "calibration": lambda i: calibration.of_classes(i["predictions"], i["references"]),
    "risk_coverage": lambda i: {
        k: v for k, v in risk.risk_coverage(i["predictions"], i["references"]).items() if np.ndim(v) == 0
    },
    "audiovisual": lambda i: audiovisual.audiovisual(**{**i, "logits": i["predictions"]}),
}


@pytest.mark.parametrize("name", NAMES)
def test_module_equals_function(name: str, load) -> None:
    given = example(name)
    columns = {k: v for k, v in given["inputs"].items() if isinstance(v, list)}
    options = {k: v for k, v in given["inputs"].items() if k not in columns}
    metric = load(name, given["config"])
    half = len(columns["predictions"]) // 2
    for part in (slice(0, half), slice(half, None)):  # as a distributed evaluation would
        if batch := columns["predictions"][part]:
            assert len(batch)
            metric.add_batch(**{k: v[part] for k, v in columns.items()})
    found = metric.compute(**options)
    if name == "audiovisual":
        given["inputs"].pop("predictions_", None)
        expected = audiovisual.audiovisual(columns["predictions"], columns["references"], columns["conditions"])
        for condition, figures in expected.items():
            assert found[condition] == pytest.approx(figures, abs=1e-12)
        return
    for key, value in PLAIN[name](given["inputs"]).items():
        np.testing.assert_allclose(found[key], value, **TIGHT, err_msg=key)


def test_emotions_of_detected_people(load, rng) -> None:
    found, truth = scenes(rng, 12)
    for given, wanted in zip(found, truth):
        n, m = len(given["boxes"]), len(wanted["boxes"])
        given |= {"emotions": rng.random((n, 3)), "at_centres": rng.random((m, 3))}
        wanted |= {"labels": rng.integers(0, 2, (m, 3))}
        del wanted["crowd"]
    picture = np.repeat(np.arange(12), [len(t["boxes"]) for t in truth])
    whole = emotic.Truth(
        picture, np.concatenate([t["boxes"] for t in truth]), np.concatenate([t["labels"] for t in truth]), None, 12
    )
    outputs = emotic.Outputs(found, {"bu": np.concatenate([f["at_centres"] for f in found])})
    for mode in ("corrected", "published"):
        metric = load("detection_ap", "emotions")
        for part in (slice(0, 5), slice(5, 12)):
            lists = [[{k: np.asarray(v).tolist() for k, v in p.items()} for p in side[part]] for side in (found, truth)]
            metric.add_batch(predictions=lists[0], references=lists[1])
        values = metric.compute(mode=mode)
        expected = emotic.evaluate(whole, outputs, mode)
        for name in ("all_dets", "only_det", "mixed"):
            np.testing.assert_allclose(values[name], expected["emotion"][f"bu_cat_{name}"] / 100, **TIGHT)
        assert values["AP"] == pytest.approx(expected["detection"]["AP"], abs=1e-12)


def test_error_of_continuous_dimensions(load) -> None:
    metric = load("emotic_map", "vad")
    metric.add_batch(predictions=[[0.2, 0.4, 0.6]], references=[[0.1, 0.4, 0.9]])
    metric.add_batch(predictions=[[0.5, 0.5, 0.5]], references=[[0.1, float("nan"), 0.9]])
    found = metric.compute()
    assert found["VAD errors"] == pytest.approx([0.1, 0, 0.3]) and found["VAD error"] == pytest.approx(0.4 / 3)


@pytest.mark.parametrize(
    "measure",
    [
        lambda nan: emotic_map.average_precision(np.ones((1, 1)), nan),
        lambda nan: calibration.reliability(nan, np.ones((1, 1))),
        lambda nan: audiovisual.top_k(nan, np.zeros(1, int)),
        lambda nan: expression.confusion(nan, np.zeros(1, int), 1),
        lambda nan: risk.risk_coverage(nan[0], np.zeros(1)),
        lambda nan: detection.detection_ap(
            [{"boxes": np.ones((1, 4)), "scores": nan[0]}], [{"boxes": np.zeros((0, 4))}]
        ),
    ],
)
def test_predictions_that_are_not_numbers_are_refused(measure) -> None:
    with pytest.raises(ValueError, match="not a number"):
        measure(np.full((1, 1), np.nan))


def test_module_of_nothing_is_nan(load) -> None:
    metric = load("ccc", "default")
    metric.add_batch(predictions=[0.1, 0.2], references=[float("nan")] * 2)
    assert np.isnan(metric.compute()["ccc"])


@pytest.mark.parametrize("name", NAMES)
def test_ready_for_a_space(name: str) -> None:
    folder = METRICS / name
    assert {p.name for p in folder.iterdir()} >= {
        "README.md",
        "app.py",
        "requirements.txt",
        "example.json",
        f"{name}.py",
    }
    front = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front["sdk"] == "gradio" and {"evaluate", "metric"} <= set(front["tags"]) and front["app_file"] == "app.py"
    assert len(front["short_description"]) <= 60
    script = (folder / f"{name}.py").read_text(encoding="utf-8")
    cores = {p.stem for p in folder.glob("*_core.py")}
    assert cores == set(re.findall(r"^from \.(\w+) import", script, re.M)), "the loader copies what the script imports"
    for core in cores:
        outside = re.findall(r"^(?:from|import) (\w+)", (folder / f"{core}.py").read_text(encoding="utf-8"), re.M)
        assert set(outside) <= {"__future__", "numpy", "collections", "dataclasses"}
