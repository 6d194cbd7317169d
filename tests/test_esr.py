"""The ESR network, its decoding and its maps: properties that hold for any weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from emotion import explain, exports, outputs
from emotion.errors import UserError
from emotion.media import sampling
from emotion.models import esr
from emotion.predict import FacePredictor

SMALL = esr.ESRConfig(
    input=esr.FaceInput(size=(24, 24), channels="rgb"),
    base=(esr.Block(8, kernel=5), esr.Block(8, pool=True)),
    branch=(esr.Block(8), esr.Block(16, padding=1)),
    branches=3,
    affect=True,
)


def network(config=SMALL, seed=0):
    """Random weights with effect: batch norms off their neutral values, logits of size one."""
    torch.manual_seed(seed)
    model = esr.ESR(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.1, 0.5)
    for branch in model.branches:
        nn.init.normal_(branch.fc.weight)
    return model.eval()


def faces(n, config=SMALL, seed=0):
    return torch.rand(n, config.input.depth, *config.input.size, generator=torch.Generator().manual_seed(seed))


def parameters(model):
    return sum(p.numel() for p in model.parameters())


# -- network ---------------------------------------------------------------------------------------------------------


def test_published_sizes():
    """Parameter counts measured on the original, and computed for the paper's other branching levels."""
    nine = esr.ESR(esr.esr9())
    assert parameters(nine) == 20_349_546
    assert (parameters(nine.base), parameters(nine.branches[0])) == (374_784, 2_219_418)
    assert parameters(esr.ESR(esr.esr9(affect=False))) == 20_349_384
    assert [parameters(esr.ESR(esr.esr4(n))) for n in (1, 2, 3, 4)] == [522_144, 466_272, 355_104, 243_936]
    assert parameters(esr.ESR(esr.esr4(branches=1))) == 131_208  # the paper's single network


def test_impossible_configs():
    for changes in (
        {"branches": 0},
        {"branch": ()},
        {"base": (esr.Block(0),)},
        {"decision": "x"},
        {"batchnorm": "x"},
        {"temperature": 0},
    ):
        with pytest.raises(ValueError):
            esr.replace(SMALL, **changes)
    with pytest.raises(ValueError, match="level"):
        esr.esr4(level=5)


def test_a_face_does_not_depend_on_its_batch_unless_asked_to():
    model, x = network(), faces(4)
    with torch.inference_mode():
        together, alone = model(x), model(x[:1])
        torch.testing.assert_close(together["expression"][:, :1], alone["expression"])
        model.with_batchnorm("batch")
        together, alone = model(x), model(x[:1])
    assert (together["expression"][:, :1] - alone["expression"]).abs().max() > 1e-2


def test_prediction_never_changes_the_network():
    for reading in ("running", "batch"):
        model = network().with_batchnorm(reading)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with torch.inference_mode():
            model(faces(3))
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_first_branches_alone():
    model, x = network(), faces(2)
    with torch.inference_mode():
        whole, part = model(x), model(x, active=2)
    assert part["expression"].shape == (2, 2, 8)
    for task in part:
        torch.testing.assert_close(part[task], whole[task][:2])


def test_every_parameter_learns():
    model = network().train()
    out = model(faces(4))
    sum(v.square().sum() for v in out.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        if not name.endswith("conv.bias"):  # batch norm subtracts what a bias in front of it adds
            assert parameter.grad.abs().max() > 0, name


# -- decoding --------------------------------------------------------------------------------------------------------


def test_decoded_values_keep_their_promises():
    model = network()
    with torch.inference_mode():
        tasks = model.decode(model(faces(5)))
    expression, affect = tasks["expression"], tasks["valence_arousal"]
    np.testing.assert_allclose(expression.values.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(expression.votes.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(expression.members.mean(0), expression.values, rtol=1e-5)
    u = expression.uncertainty
    np.testing.assert_allclose(u["total"], u["aleatoric"] + u["epistemic"], atol=1e-6)
    assert all(v.min() >= 0 and v.max() <= 1 for v in u.values())
    assert np.abs(affect.values).max() <= 1 and (affect.uncertainty["epistemic"] >= 0).all()
    assert model.labels.keys() == tasks.keys()


def test_temperature_changes_how_sure_and_nothing_else():
    torch.manual_seed(0)
    logits = {"expression": torch.randn(4, 50, 8)}
    plain, sharp = (esr.ESR(esr.replace(SMALL, temperature=t)).decode(logits)["expression"] for t in (1.0, 0.5))
    np.testing.assert_allclose(plain.members, logits["expression"].softmax(-1), atol=1e-6)
    np.testing.assert_allclose(sharp.members, (2 * logits["expression"]).softmax(-1), atol=1e-6)
    assert (sharp.members.argmax(-1) == plain.members.argmax(-1)).all() and (sharp.votes == plain.votes).all()
    assert (sharp.uncertainty["aleatoric"] < plain.uncertainty["aleatoric"]).all()


def test_plurality_and_mean_can_differ_and_ties_go_to_the_lowest_class():
    logits = torch.zeros(3, 2, 8)
    logits[0, 0, 5], logits[1, 0, 5], logits[2, 0, 1] = 0.1, 0.1, 9.0  # two weak votes against one strong
    logits[0, 1, 7], logits[1, 1, 4], logits[2, 1, 6] = 1.0, 1.0, 1.0  # a tie of three
    choice = {d: network(esr.replace(SMALL, decision=d)).decode({"expression": logits}) for d in ("plurality", "mean")}
    assert choice["plurality"]["expression"].choice.tolist() == [5, 4]
    assert choice["mean"]["expression"].choice.tolist()[0] == 1


def test_agreeing_branches_have_no_epistemic_uncertainty():
    logits = torch.randn(1, 4, 8).expand(3, 4, 8)
    task = network().decode({"expression": logits})["expression"]
    np.testing.assert_allclose(task.uncertainty["epistemic"], 0, atol=1e-6)


def test_a_model_without_affect_heads_offers_none():
    model = network(esr.replace(SMALL, affect=False))
    with torch.inference_mode():
        out = model(faces(1))
    assert set(out) == set(model.labels) == set(model.decode(out)) == {"expression"}


# -- maps ------------------------------------------------------------------------------------------------------------


class OneBranch(nn.Module):
    """One branch of an ESR without the closed form, so that the maps come from gradients."""

    def __init__(self, model, index):
        super().__init__()
        self.model, self.index, self.labels = model, index, model.labels
        self.cam_layers = [model.branches[index].blocks[-1]]

    def forward(self, x):
        return {"expression": self.model(x)["expression"][self.index]}

    def decode(self, logits):
        return self.model.decode({"expression": logits["expression"][None]})


@pytest.mark.parametrize("classes", [None, 3, [0, 7, 2, 2]])
def test_closed_form_equals_gradients(classes):
    model, x = network(), faces(4)
    maps = explain.grad_cam(model, x, classes)
    for index in range(3):
        by_gradient = explain.grad_cam(OneBranch(model, index), x, classes)
        np.testing.assert_allclose(maps.members[index], by_gradient.members[0], atol=2e-5)
        assert (maps.classes[index] == by_gradient.classes[0]).all()
        np.testing.assert_allclose(by_gradient.members[0], by_gradient.ensemble, atol=2e-5)


def test_maps_of_a_batch_are_those_of_its_faces():
    model, x = network(), faces(3)
    together = explain.grad_cam(model, x)
    for i in range(3):
        alone = explain.grad_cam(model, x[i : i + 1])
        np.testing.assert_allclose(together.members[:, i], alone.members[:, 0], atol=1e-4)
        np.testing.assert_allclose(together.ensemble[i], alone.ensemble[0], atol=1e-4)


def test_maps_need_one_forward_pass_and_return_its_logits(monkeypatch):
    model, x = network(), faces(2)
    with torch.inference_mode():
        expected = model(x)["expression"]
    calls, real = [], esr.ESR.forward
    monkeypatch.setattr(esr.ESR, "forward", lambda self, *a, **k: calls.append(1) or real(self, *a, **k))
    maps = explain.grad_cam(model, x)
    assert len(calls) == 1
    torch.testing.assert_close(maps.logits["expression"], expected)
    assert (maps.classes == expected.argmax(-1).numpy()).all()


def test_the_ensemble_map_weighs_branches_by_their_probability():
    maps = explain.grad_cam(network(), faces(2), classes=1)
    mean = (maps.members * maps.probabilities[..., None, None]).sum(0)
    low, high = mean.min((1, 2), keepdims=True), mean.max((1, 2), keepdims=True)
    np.testing.assert_allclose(maps.ensemble, (mean - low) / (high - low), atol=1e-5)
    assert maps.ensemble.max() <= 1 and maps.ensemble.min() == 0


def test_a_class_without_evidence_has_an_empty_map():
    model = network()
    for branch in model.branches:
        branch.fc.weight.data[2] = -branch.fc.weight.data[2].abs()  # features are never negative
    maps = explain.grad_cam(model, faces(2), classes=2)
    assert (maps.members == 0).all() and (maps.ensemble == 0).all()


def test_maps_work_where_gradients_are_switched_off():
    model, x = network(), faces(2)
    frozen = OneBranch(model, 0).requires_grad_(False)
    expected = explain.grad_cam(OneBranch(model, 0), x).members
    with torch.inference_mode():
        inside = explain.grad_cam(frozen, x * 1).members
    np.testing.assert_allclose(inside, expected, atol=1e-6)


@pytest.mark.parametrize("classes", [8, -1, [1, 2, 3]])
def test_bad_classes_to_explain(classes):
    with pytest.raises(UserError, match="class"):
        explain.grad_cam(network(), faces(2), classes)


def test_models_that_cannot_be_explained():
    plain = OneBranch(network(), 0)
    plain.cam_layers = []
    with pytest.raises(UserError, match="cannot be explained"):
        explain.grad_cam(plain, faces(1))
    speechless = OneBranch(network(), 0)
    speechless.labels = {"valence_arousal": ("valence", "arousal")}
    with pytest.raises(UserError, match="cannot be explained"):
        explain.grad_cam(speechless, faces(1))


def test_overlay_blends_the_whole_picture():
    picture = np.full((30, 20, 3), 100, np.uint8)
    cold = explain.jet_overlay(np.zeros((3, 3)), picture)
    hot = explain.jet_overlay(np.ones((3, 3)), picture)
    assert cold.shape == picture.shape and (cold == [65, 65, 110]).all()  # 0.35 of dark blue (0, 0, 128)
    assert np.abs(hot.astype(int) - [110, 65, 65]).max() <= 2  # levels are truncated: 254 or 255
    assert (explain.jet_overlay(np.ones((3, 3)), picture, strength=0) == picture).all()


# -- the original's table and frame rules ----------------------------------------------------------------------------


def result(tasks, boxes, frame):
    return outputs.Result(
        model="esr.test",
        size=(100, 100),
        timestamps=np.array([0.0, 0.5, 1.0]),
        frame=np.array(frame),
        faces=outputs.Faces(boxes, np.ones(len(boxes))),
        tasks=tasks,
    )


def test_table_of_a_result_has_the_biggest_face_of_every_frame():
    model = network(esr.esr9())
    with torch.inference_mode():
        logits = model(faces(3, model.config))
    boxes = np.array([[0, 0, 10, 10], [0, 0, 50, 50], [5, 5, 9, 9]])
    text = exports.esr_csv(result(model.decode(logits), boxes, [0, 0, 2]))
    lines = text.splitlines()
    assert len(lines[0].split(",")) == 31 and len(lines) == 4
    assert lines[2] == "0.5" + ",None" * 30
    for line, face in ((lines[1], 1), (lines[3], 2)):
        cells = line.split(",")
        raw = logits["valence_arousal"][:, face].numpy()
        names = [exports.ESR_NAMES[model.config.labels[k]] for k in logits["expression"][:, face].argmax(-1)]
        assert cells[4::3] == names
        np.testing.assert_allclose(np.array(cells[6::3], float), raw[:, 0], rtol=1e-6)
        np.testing.assert_allclose(np.array(cells[5::3], float), ((raw[:, 1] + 1) / 2).clip(0, 1), rtol=1e-6)
        assert float(cells[3]) == pytest.approx(raw[:, 0].mean(), rel=1e-5)


def test_table_refuses_expressions_that_the_original_has_no_name_for():
    model = network(esr.replace(SMALL, affect=True, labels=tuple("abcdefgh")))
    with torch.inference_mode():
        tasks = model.decode(model(faces(1, model.config)))
    with pytest.raises(UserError, match=r"no name for .*a, b"):
        exports.esr_csv(result(tasks, np.array([[0, 0, 1, 1]]), [0]))


def test_with_the_batch_reading_a_face_does_not_depend_on_the_others():
    model = network(esr.replace(SMALL, batchnorm="batch"))
    predictor = FacePredictor(model, detector=lambda pictures: [])
    crops = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    together, alone = predictor.read(crops), predictor.read(crops[1:2])
    for name in alone:
        np.testing.assert_array_equal(together[name].values[1:2], alone[name].values)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_of_damaged_weights_are_no_answer(value):
    model = network(SMALL)
    with torch.inference_mode():
        logits = model(faces(2))
        logits["expression"][0, 0, 0] = value
    with pytest.raises(UserError, match="checkpoint is damaged"):
        model.decode(logits)


def test_table_needs_branches_with_affect():
    model = network(esr.replace(SMALL, affect=False))
    with torch.inference_mode():
        tasks = model.decode(model(faces(1)))
    with pytest.raises(UserError, match="no ESR table"):
        exports.esr_csv(result(tasks, np.array([[0, 0, 1, 1]]), [0]))


@pytest.mark.parametrize("per_30", [0, -1, 31])
def test_frames_per_30_out_of_range(per_30):
    with pytest.raises(UserError, match="1 to 30"):
        sampling.original_frames(100, per_30)


def test_true_rate_sampling():
    def times(fps, seconds=2.0, start=0.0):
        return [round(start + i / fps, 6) for i in range(int(seconds * fps))]

    assert list(sampling.at_rate(times(30), 5)) == [0, 6, 12, 18, 24, 30, 36, 42, 48, 54]
    assert list(sampling.at_rate(times(30, start=3.7), 10)) == list(range(0, 60, 3))
    assert list(sampling.at_rate(times(10), 25)) == list(range(20))  # never a frame twice
    assert len(list(sampling.at_rate(times(29.97, 10), 5))) == 50
    assert list(sampling.at_rate([0.0, 0.1, 2.0, 2.05, 2.6], 2)) == [0, 2, 4]  # a pause is not made up for
    assert list(sampling.at_rate([], 5)) == []
    with pytest.raises(UserError, match="positive"):
        list(sampling.at_rate([0.0], 0))
