"""Grad-CAM of every expression model that reads single faces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from emotion import explain
from emotion.errors import UserError
from emotion.models import efficientface, emenet, fg2020, mobilefacenet
from emotion.models.base import FaceInput

SMALL = FaceInput(size=(64, 64))
MODELS = {
    "efficientface": lambda: efficientface.EfficientFace(efficientface.EfficientFaceConfig(SMALL)),
    "mobilefacenet": lambda: mobilefacenet.MobileFaceNet(mobilefacenet.MobileFaceNetConfig(SMALL)),
    "emenet": lambda: emenet.EMENet(emenet.EMENetConfig(SMALL, members=2)),
    "fg2020": lambda: fg2020.FG2020(fg2020.FG2020Config(SMALL, members=("a", "b"))),
}


def network(name):
    """Random weights with effect: batch norms and last layers off their starting values."""
    torch.manual_seed(0)
    model = MODELS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_maps_of_every_method(name):
    model = network(name)
    x = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        logits = model(x)["expression"]
    members = len(logits) if logits.ndim == 3 else 1
    maps = explain.grad_cam(model, x, classes=[0, 3, 6])
    assert maps.members.shape[:2] == (members, 3) and maps.ensemble.shape == maps.members.shape[1:]
    assert maps.members.min() >= 0 and maps.members.max() <= 1
    assert (maps.classes == [0, 3, 6]).all()
    torch.testing.assert_close(maps.logits["expression"], logits, atol=1e-4, rtol=1e-4)
    alone = explain.grad_cam(model, x[1:2], classes=3)
    np.testing.assert_allclose(alone.members[:, 0], maps.members[:, 1], atol=1e-3)
    every = np.stack([explain.grad_cam(model, x[:1], c).members[:, 0] for c in range(7)])
    assert every.any(axis=(0, 2, 3)).all()  # every member has evidence for some class
    assert all(p.grad is None for p in model.parameters())  # explaining leaves nothing behind
    assert not any(m._forward_hooks for m in model.modules())


def test_gradients_give_the_closed_form_of_pooling_and_a_linear_layer():
    """With average pooling and one linear layer the map is the class's weights applied to the feature maps."""
    model, x = network("efficientface"), torch.rand(2, 3, 64, 64)
    stored = []
    hook = model.backbone.top.register_forward_hook(lambda _, __, out: stored.append(out))
    with torch.inference_mode():
        model(x)
    hook.remove()
    expected = torch.relu(torch.einsum("c,nchw->nhw", model.fc.weight[4], stored[0]))
    expected = expected / expected.amax((1, 2), keepdim=True).clamp_min(1e-12)
    maps = explain.grad_cam(model, x, classes=4).members[0]
    low = expected.amin((1, 2), keepdim=True)
    np.testing.assert_allclose(maps, ((expected - low) / (1 - low)).detach(), atol=1e-4)


def test_models_of_windows_are_not_explained():
    model = fg2020.FG2020(fg2020.FG2020Config(SMALL, frames=4)).eval()
    with pytest.raises(UserError, match="cannot be explained"):
        explain.grad_cam(model, torch.rand(1, 4, 3, 64, 64))
