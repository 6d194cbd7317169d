"""Grad-CAM of every expression model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from emotion import explain, registry
from emotion.errors import UserError
from emotion.models import avfusion, efficientface, emenet, esr, fg2020, mobilefacenet
from emotion.models.base import ClipInput, FaceInput, VectorInput

SMALL = FaceInput(size=(64, 64))
STUDENTS = ("a", "b")
MODELS = {
    "esr": lambda: esr.ESR(replace(esr.esr9(branches=2), input=SMALL)),
    "efficientface": lambda: efficientface.EfficientFace(efficientface.EfficientFaceConfig(SMALL)),
    "mobilefacenet": lambda: mobilefacenet.MobileFaceNet(mobilefacenet.MobileFaceNetConfig(SMALL)),
    "emenet": lambda: emenet.EMENet(emenet.EMENetConfig(SMALL, members=2)),
    "emenet with sound": lambda: emenet.EMENet(emenet.EMENetConfig(SMALL, members=2, sound=True)),
    "fg2020": lambda: fg2020.FG2020(fg2020.FG2020Config(SMALL, members=STUDENTS)),
    "fg2020 of windows": lambda: fg2020.FG2020(fg2020.FG2020Config(SMALL, members=STUDENTS, frames=4)),
    "fg2020 with one CNN": lambda: fg2020.FG2020(
        fg2020.FG2020Config(SMALL, members=STUDENTS, frames=4, shared_cnn=True)
    ),
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


@pytest.mark.parametrize("fusion", ["lt", "it", "ia"])
def test_clips_have_a_map_per_picture(fusion):
    torch.manual_seed(0)
    config = avfusion.AVFusionConfig(ClipInput(visual=SMALL, frames=3), fusion=fusion)
    model = avfusion.AVFusion(config).eval()
    clips = avfusion.Clips(*(torch.rand(2, *part.shape[1:]) for part in model.example()[:2]))
    maps = explain.grad_cam(model, clips, classes=[1, 5])
    assert maps.members.shape[:2] == (1, 6) and maps.ensemble.shape[0] == 6
    assert maps.classes.tolist() == [[1, 1, 1, 5, 5, 5]]
    every = np.stack([explain.grad_cam(model, clips, c).members[0] for c in range(8)])
    assert every.any(axis=(0, 2, 3)).all()  # every picture has evidence for some class
    second = explain.grad_cam(model, avfusion.Clips(*(part[1:] for part in clips[:2])), classes=5)
    np.testing.assert_allclose(second.members, maps.members[:, 3:], atol=1e-3)
    with pytest.raises(UserError, match="cannot be explained"):
        numbers = ClipInput(visual=VectorInput(("a", "b")), frames=3)
        explain.grad_cam(avfusion.AVFusion(avfusion.AVFusionConfig(numbers)), clips)


def test_every_expression_model_of_the_registry_can_be_explained():
    methods = {entry.method for entry in registry.entries().values() if "expression" in entry.tasks}
    assert methods <= {name.split()[0] for name in MODELS} | {"avfusion"}


def test_windows_are_explained_face_by_face():
    model = network("fg2020 of windows")
    with pytest.raises(UserError, match="single faces"):
        explain.grad_cam(model, torch.rand(1, 4, 3, 64, 64))
