"""BENet's training against its original: targets, losses, masking of people, augmentation, one optimisation step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emotion.models import benet_decode as decode
from emotion.models.benet import BENet
from tests.parity import common
from tests.parity.benet_network import METHOD, network
from train import benet_augment as augment
from train import benet_data as data
from train import benet_losses as losses

PEOPLE = 15  # rows of the original's target arrays


def _labels(recipe: dict, above: float) -> np.ndarray:
    return (common.make_input(recipe) > above).astype(np.float32)


def _threshold(text: str) -> float:
    return float(text.split(">")[1].split(";")[0])


@pytest.mark.parametrize("case", common.params(METHOD, kind="targets"))
def test_targets(case: dict) -> None:
    expected = common.load(METHOD, case["file"])
    boxes, r = np.array(case["boxes_x1y1x2y2_on_the_map"]), case["resolution"]
    n = len(boxes)
    cells = losses.centres(boxes)
    common.assert_close(losses.heatmap(cells, r, case["sigma"]), expected["hm"], case, "heatmap")
    sizes = (boxes[:, 2:] - boxes[:, :2])[:, ::-1]
    place = cells[:, 1] * r + cells[:, 0]
    common.assert_close(sizes, expected["hw"][:n, :, 0], case, "sizes")
    np.testing.assert_array_equal(np.stack([place, place + r * r], 1), expected["hw"][:n, :, 1])
    assert expected["hw"][:n, :, 2].all() and not expected["hw"][n:, :, 2].any()
    labels = _labels(case["labels"]["recipe"], _threshold(case["labels"]["then"]))
    np.testing.assert_array_equal(place[:, None] + r * r * np.arange(labels.shape[1]), expected["cat_index"][:n])
    np.testing.assert_array_equal(labels, expected["cat_value"][:n])
    common.assert_close(common.make_input(case["vad"]), expected["cont_value"][:n], case, "vad")


@pytest.mark.parametrize("case", common.params(METHOD, kind="losses"))
def test_losses(case: dict) -> None:
    expected = common.load(METHOD, case["file"])
    given = {k: torch.from_numpy(common.make_input(v)) for k, v in case["predictions"].items()}
    r, n = case["resolution"], len(case["boxes"])
    above = _threshold(case["labels"]["then"])
    cells, sizes = torch.zeros(n, PEOPLE, 2, dtype=torch.long), torch.zeros(n, PEOPLE, 2)
    labels, vad = torch.zeros(n, PEOPLE, 26), torch.full((n, PEOPLE, 3), float("nan"))
    present, target = torch.zeros(n, PEOPLE, dtype=torch.bool), torch.zeros(n, r, r)
    for i, boxes in enumerate(case["boxes"]):
        boxes = np.array(boxes, float).reshape(-1, 4)
        at, p = losses.centres(boxes), len(boxes)
        target[i] = torch.from_numpy(losses.heatmap(at, r, case["sigma"]))
        cells[i, :p], present[i, :p] = torch.from_numpy(at), True
        sizes[i, :p] = torch.from_numpy((boxes[:, 2:] - boxes[:, :2])[:, ::-1].copy())
        labels[i, :p] = torch.from_numpy(_labels(case["labels"]["recipes"][i], above))[:p]
        vad[i, :p] = torch.from_numpy(common.make_input(case["vad"][i]))[:p]
    common.assert_close(target, expected["hm_target"], case, "heatmap target")
    focal = losses.heatmap_focal(given["hm_logits"][:, 0], target)
    common.assert_close(focal, expected["heatmap_focal"], case, "heatmap")
    some = present.any(1)
    size = losses.size_l1(losses.at_cells(given["hw"], cells), sizes, present)[some]
    common.assert_close(size, expected["size_l1"], case, "size")
    emotion = losses.emotion_focal(losses.at_cells(given["cat_logits"], cells), labels)
    common.assert_close(losses.people_mean(emotion, present), expected["bu_cat_focal"], case, "emotions")
    for name, values in (("bu_vad_mse", vad), ("bu_vad_mse_nan_person", vad.clone())):
        if name.endswith("nan_person"):
            values[2, 1] = float("nan")
        error, complete = losses.affect_error(losses.at_cells(given["vad_logits"], cells), values)
        common.assert_close(losses.people_mean(error, present & complete), expected[name], case, name)
    vector = (given["vector_labels"] > _threshold(case["predictions"]["vector_labels"]["then"])).float()
    common.assert_close(
        losses.emotion_focal(given["vector_logits"], vector).mean(), expected["vector_focal"], case, "vector"
    )
    none = given["vector_logits_no_positive"]
    value = losses.emotion_focal(none, torch.zeros_like(none)).mean()
    common.assert_close(value, expected["vector_focal_no_positive"], case, "vector without a label")


NAMES = {"Det": "det", "RandomMaskSubject": "bu", "ExtractSubject": "pc", "MaskAllSubjects": "bg"}


def test_masking_and_choice_of_heads() -> None:
    case = common.case(METHOD, "pretransforms")
    rows = common.load(METHOD, case["file"])
    for row in rows:
        boxes, (height, width) = np.array(row["boxes"], float), row["image_hw"]
        kept = data.kept_people(boxes, row["order"], row["coins"])
        assert boxes[kept].astype(int).tolist() == row["kept_boxes"]
        picture = np.full((height, width, 3), 255, np.uint8)
        gone = np.array(sorted(set(row["order"]) - set(kept)), int)
        for who, count in ((gone, row["masked_pixels"]), (np.arange(len(boxes)), row["all_masked_pixels"])):
            assert (data.blacked_out(picture, boxes[who]) == 0).all(axis=2).sum() == count
        share, covered = data.crowding(boxes, (width, height))
        common.assert_close(share, row["sum_of_areas_over_image"], case)
        common.assert_close(covered, row["overlap_of_main"], case)
        four = dict.fromkeys(("det", "bu", "pc", "bg"), 0.25)
        three = {"bu": 0.33, "pc": 0.33, "det": 0.34}
        for weights, key in ((four, "weights_4_heads"), (three, "weights_bu_pc_det")):
            expected = {NAMES[k]: v for k, v in row[key].items()}
            found = data.head_weights(weights, boxes, (width, height))
            assert found.keys() == expected.keys()
            for head, value in expected.items():
                common.assert_close(found[head], value, case, head)


def test_geometric_augmentation() -> None:
    case = common.case(METHOD, "augment")
    fixture, arrays = common.load(METHOD, case["json"]), common.load(METHOD, case["file"])
    how = augment.Variation(scale=tuple(fixture["scale"]), rotate=fixture["max_rotation"])
    boxes, image = np.array(fixture["boxes_in"], float), arrays["image"]
    size = (image.shape[1], image.shape[0])
    for k, row in enumerate(fixture["cases"]):
        draws = row["draws"]
        pair = tuple(draws["perspective_pairs"])
        d = augment.Draw(draws["scale"], draws["rotation"], draws["dx"], draws["dy"], pair, row["flip"])
        longer = row["head"] == "pc"
        m = augment.matrix(d, size, fixture["input_size"], longer, how)
        out = augment.warp(image, m, fixture["input_size"], row["flip"])[::3, ::5]
        assert np.abs(out.astype(int) - arrays[f"out{k}"]).max() <= 1
        for r in fixture["output_size"]:
            at = augment.matrix(d, size, r, longer, how)
            moved = augment.move_boxes(boxes, at, r, row["flip"], published=True)
            common.assert_close(moved, row[f"boxes{r}"], case, f"case {k}, {r}")


def test_photometric_augmentation() -> None:
    case = common.case(METHOD, "photometric")
    expected = common.load(METHOD, case["file"])
    x = torch.from_numpy(common.make_input(case["input"]))
    jittered = augment.jitter(x, case["brightness"], case["contrast"], case["saturation"], case["hue"])
    common.assert_close(jittered[:, ::3, ::3], expected["jittered"], case, "jittered")
    common.assert_close(augment.blur(jittered, case["blur_sigma"])[:, ::3, ::3], expected["blurred"], case, "blurred")


# -- one step of training ----------------------------------------------------------------------------------------------

HEADS = {"context": "bg"}
# Their name of a part, with its index: EMOTIC's scales, then HECO's.
PARTS = {
    "hm": ("heatmap0", "heatmap1"),
    "hw": ("size0", "size1"),
    "bu_cat": ("bu0", "bu1", "bu0_extra", "bu1_extra"),
    "pc_cat": ("pc", "pc_extra"),
    "context_cat": ("bg", "bg_extra"),
}
GROUPS = {
    "conv1": "backbone.conv1.",
    "stage2": "backbone.stage2.",
    "stage4": "backbone.stage4.",
    "bu_deconv_layers": ("bu.up.", "bu.high.0.", "bu.high.1.", "bu.high.2."),
    "hm_final_layers": ("heatmap.low.", "heatmap.high.3."),
    "hw_final_layers": ("size.low.", "size.high.3."),
    "pc_incre_modules": "pc.increase.",
    "classifier": "bg.classifier.",
    "bu_mixed": "extra.bu",
    "pc_mixed": "extra.pc.",
}


def _batch(fixture: dict, model: BENet) -> dict:
    rows = []
    for row in fixture["batch"]:
        labels = (common.make_input(row["labels"]) > _threshold(row["labels"]["then"])).astype(np.float32)
        labels[:, 0] = 1
        boxes, head = np.array(row["boxes32"]), HEADS.get(row["head"], row["head"])
        if head == "bg":
            labels = labels.max(axis=0, keepdims=True)
        if head in ("pc", "bg"):
            boxes, labels = boxes[:1], labels[:1]
        n = len(boxes)
        rows.append(
            {
                "image": torch.from_numpy(common.make_input(row["image"]) * row["image"]["times"]),
                "head": head,
                "second": bool(row["heco"]),
                "labels": labels,
                "affect": np.zeros((n, 0)),
                "known": np.ones(n, bool),
                "boxes0": boxes,
                "boxes1": 2 * boxes,
            }
        )
    config = model.config
    assert fixture["output_size"] == [fixture["input_size"] // 4, fixture["input_size"] // 2]
    return data.Collate(replace(config, input=decode.SceneInput(size=fixture["input_size"])))(rows)


@pytest.mark.parametrize("mode", ["asis", "fixed"])
@pytest.mark.parametrize("case", common.params(METHOD, kind="train_step"))
def test_train_step(case: dict, mode: str) -> None:
    fixture = common.load(METHOD, case["file"])
    expected = fixture["expected"][mode]
    model = network(fixture).train()
    batch = _batch(fixture, model)
    optimizer = torch.optim.Adam(model.parameters(), fixture["learning_rate"])
    tolerances = {"parts": case, "parts_after": {"rtol": case["rtol_after_step"], "atol": case["atol"]}}
    for step, (key, total) in enumerate((("parts", "total"), ("parts_after", "total_after_one_adam_step"))):
        with torch.set_grad_enabled(step == 0):
            found = losses.parts(model, model(batch["images"], batch["routes"]), batch, published=mode == "asis")
            loss = sum(found.values())
        common.assert_close(loss, expected[total], tolerances[key], total)
        for name, value in expected[key].items():
            part, index = name[:-1].split("[")
            common.assert_close(found[PARTS[part][int(index)]], value, tolerances[key], f"{key} {name}")
        if step == 0:
            loss.backward()
            _check_gradients(model, expected, case)
            optimizer.step()
    state = {k: v.double().sum() for k, v in model.backbone.state_dict().items()}
    for name, value in expected["sum_of_running_stats_after_two_forwards"].items():
        common.assert_close(state[name], value, {"rtol": case["rtol_after_step"], "atol": 0.01}, name)


def _check_gradients(model: BENet, expected: dict, case: dict) -> None:
    named = dict(model.named_parameters())
    for group, value in expected["grad_norm"].items():
        gradients = [p.grad for k, p in named.items() if k.startswith(GROUPS[group]) and p.grad is not None]
        norm = torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt() if gradients else 0.0
        common.assert_close(norm, value, {"rtol": 0.01, "atol": case["atol"]}, f"gradient of {group}")
    ours = {"context_mixed": "extra.bg.", "pc_mixed": "extra.pc.", "fusion_mixed": "extra.fusion.", "fusion": "fusion."}
    still = tuple(ours[name] for name in expected["without_gradient"])
    without = {k for k, p in named.items() if p.grad is None}
    assert without == {k for k in named if k.startswith(still)}
