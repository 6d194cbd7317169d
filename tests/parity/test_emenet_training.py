"""EMENet against the original: one backward pass of a teacher and of a student."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emotion import hub, importers
from emotion.importers import mobilefacenet as names
from emotion.models.emenet import EMENet
from emotion.models.mobilefacenet import MobileFaceNet
from tests.parity import common
from tests.parity.test_emenet import OURS, case, original_state
from train.emenet import Faces, Helpers, Options, student_loss, teacher_loss
from train.emenet_losses import AU_WEIGHTS, EXPRESSION_WEIGHTS, Balance

ORDER = ("EXPR", "AU", "VA", "FA")


@pytest.fixture
def networks(tmp_path):
    """Case -> the network in training mode as the original trains it, without dropout, and its landmark teacher."""

    def load(c):
        torch.save({"state_dict": original_state(c["variant"], tuple(c["scale"].items()))}, tmp_path / "net.pth")
        torch.save({"state_dict": original_state("fa")}, tmp_path / "fa.pth.tar")
        built = []
        for method, kind, file in (("emenet", EMENet, "net.pth"), ("mobilefacenet", MobileFaceNet, "fa.pth.tar")):
            imported = importers.read(method, tmp_path / file)
            built.append(kind(imported.config).eval())
            hub.fit(built[-1], imported.tensors)
        model, aligner = built
        model.with_time_axis("clips").train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = float(c["dropout"])
        return model, aligner

    return load


def fill(shape, seed, low=0.0, high=1.0):
    return torch.from_numpy(common.array(shape, seed, low, high))


def assert_step(c, model, loss, parts):
    expected = common.load("emenet", c["file"])
    loss.backward()
    found = [*(parts[OURS[t]].item() for t in ORDER), loss.item()]
    common.assert_close(np.array(found, np.float32), expected["losses"], c, "losses")
    table = {f"backbone.{old}": f"members.0.backbone.{new}" for old, new in names.CHILDREN.items()}
    table |= {f"tmodels.{i}": f"members.0.heads.{OURS[t]}" for i, t in enumerate(ORDER)}
    parameters = dict(model.named_parameters())
    renamed = [next(iter(names.rename({name: None}, table))) for name in c["watched"]]
    norms = [parameters[name].grad.norm().item() for name in renamed]
    common.assert_close(np.array(norms, np.float32), expected["grad_norm"], c, "gradients")
    mean = model.members[0].backbone.conv1.bn.running_mean
    common.assert_close(mean, expected["bn_mean"], c, "running mean")


def test_teacher_step(networks):
    c = case("step_teacher")
    seed, (model, aligner) = c["seed0"], networks(c)
    labels = {
        "expression": torch.eye(7)[(fill([3, 2], seed + 10) * 7).long()],
        "action_units": (fill([3, 2, 12], seed + 11) > 0.6).float(),
        "valence_arousal": fill([3, 2, 2], seed + 12, -1, 1),
    }
    batches = {
        task: (Faces(fill([3, 2, 3, 112, 112], seed + i)), y.flatten(0, 1))
        for i, (task, y) in enumerate(labels.items())
    }
    options = Options(expression_weights=EXPRESSION_WEIGHTS, action_unit_weights=AU_WEIGHTS)
    weights = Balance(tuple(model.config.outputs)).weights
    assert_step(c, model, *teacher_loss(model, batches, Helpers(landmarks=aligner), options, weights))


def test_student_step(networks):
    c = case("step_student")
    seed, (model, aligner) = c["seed0"], networks(c)
    logits = {}
    for i, (task, size) in enumerate({"action_units": 12, "expression": 7, "valence_arousal": 40}.items()):
        logits[task] = fill([3, 2, size], seed + 20 + i, -3, 3).flatten(0, 1)
    soft = {
        "expression": logits["expression"].softmax(-1),
        "action_units": logits["action_units"].sigmoid(),
        "valence_arousal": logits["valence_arousal"].unflatten(-1, (2, 20)).softmax(-1),
    }
    faces = Faces(fill([3, 2, 3, 112, 112], seed + 5))
    weights = Balance(tuple(model.config.outputs)).weights
    assert_step(c, model, *student_loss(model, faces, soft, Helpers(landmarks=aligner), Options(), weights))
