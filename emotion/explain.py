"""Where a model looked: Grad-CAM maps as arrays (Selvaraju et al., ICCV 2017, arXiv 1610.02391)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion.errors import UserError
from emotion.models.esr import normalise_maps

Classes = int | np.ndarray | Tensor | None


@dataclass(frozen=True)
class Maps:
    """Evidence maps of N faces.

    Attributes:
        ensemble: float32 [N, h, w] in [0, 1]: mean over the members' maps, each weighted by its member's probability
            of the class it explains, then stretched to [0, 1]. For clips, N counts their pictures, clip by clip.
        members: float32 [B, N, h, w] in [0, 1], one map per branch; B = 1 for a model without branches.
        classes: int64 [B, N], the class every map explains.
        probabilities: float32 [B, N], the member's probability of that class.
        logits: the model's raw outputs of the same pass, so that no second one is needed.

    A map without any evidence for its class is all zero.
    """

    ensemble: np.ndarray
    members: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    logits: dict[str, Tensor]


def grad_cam(model: nn.Module, x: Tensor | tuple[Tensor | None, ...], classes: Classes = None) -> Maps:
    """Grad-CAM of every branch or member for a batch of faces or clips, in one forward pass.

    Args:
        model: a model with "expression" logits [N, K] or [B, N, K] for N faces or clips, `decode`, and either
            `saliency(features, classes)`, the maps in closed form for the "features" that `forward(x, features=True)`
            adds to its outputs, or `cam_layers`: the modules, one per member or one for all, whose activations
            [N, C, h, w] (clips: [N T, C, h, w]) the logits are computed from; these maps take a backward pass from
            the logits to there.
        x: [N, C, H, W], or a named tuple of tensors, as the model's input description makes it.
        classes: what to explain: None (every branch explains the class it predicts, as in the original ESR), one
            class for all faces, or one per face or clip [N].

    Raises:
        UserError: the model cannot be explained, or a class is out of range.
    """
    explained = _closed_form if hasattr(model, "saliency") else _by_gradient
    with torch.inference_mode(False):
        logits, chosen, maps = explained(model, x, classes)
    with torch.no_grad():
        task = model.decode({"expression": logits["expression"]})["expression"]
        spoken = torch.as_tensor(task.values[None] if task.members is None else task.members, device=chosen.device)
        spoken = spoken.repeat_interleave(chosen.shape[1] // spoken.shape[1], dim=1)
        probability = spoken.gather(-1, chosen[..., None])[..., 0]
        ensemble = normalise_maps((maps * probability[..., None, None]).mean(0))
    return Maps(
        ensemble=_array(ensemble),
        members=_array(maps),
        classes=chosen.cpu().numpy(),
        probabilities=_array(probability),
        logits={k: v.detach() for k, v in logits.items()},
    )


@torch.no_grad()
def _closed_form(model: nn.Module, x: Tensor, classes: Classes) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    logits = dict(model(x, features=True))
    features = logits.pop("features")
    chosen = _classes(classes, logits["expression"])
    return logits, chosen, model.saliency(features, chosen)


@torch.enable_grad()
def _by_gradient(model: nn.Module, x: Any, classes: Classes) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Equations 1 and 2 of the paper for every member: logits, classes [B, N], maps [B, N, h, w]."""
    layers = getattr(model, "cam_layers", ())
    if not layers or "expression" not in model.labels:
        raise UserError(f"{type(model).__name__} cannot be explained: Grad-CAM needs a convolutional expression model")
    seen: dict[nn.Module, Tensor] = {}
    here = threading.get_ident()

    def cut(module: nn.Module, _: Any, out: Tensor) -> Tensor | None:
        """Follow gradients back to here and no further; what other threads run through the model passes untouched."""
        if threading.get_ident() != here:
            return None
        seen[module] = out.detach().requires_grad_()
        return seen[module]

    hooks = [layer.register_forward_hook(cut) for layer in layers]
    try:
        logits = model(_clone(x))  # tensors made in inference mode become usual ones
    finally:
        for hook in hooks:
            hook.remove()
    scores = _stacked(logits["expression"])
    if scores.ndim != 3:
        raise UserError("windows of frames cannot be explained; give single faces [N, C, H, W]")
    chosen = _classes(classes, scores)
    maps = []
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers have no backward pass in evaluation mode
        for b, member in enumerate(scores.gather(-1, chosen[..., None]).sum((1, 2))):
            activations = seen[layers[b % len(layers)]]
            (gradient,) = torch.autograd.grad(member, activations, retain_graph=True)
            maps.append((gradient.mean((-2, -1), keepdim=True) * activations).sum(1))
    found = normalise_maps(F.relu(torch.stack(maps))).detach()
    return logits, chosen.repeat_interleave(found.shape[1] // chosen.shape[1], dim=1), found


def _clone(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) else type(x)(*(None if part is None else part.clone() for part in x))


def _stacked(logits: Tensor) -> Tensor:
    """Logits as [B, N, K], B = 1 for a single network."""
    return logits if logits.ndim == 3 else logits[None]


def _classes(classes: Classes, logits: Tensor) -> Tensor:
    """The class to explain for every branch and face, int64 [B, N]."""
    if classes is None:
        return logits.argmax(-1)
    chosen = torch.as_tensor(classes, device=logits.device).long()
    if chosen.ndim > 1 or (chosen.ndim == 1 and len(chosen) != logits.shape[1]):
        raise UserError(f"give one class or one per face ({logits.shape[1]}), not {tuple(chosen.shape)}")
    if ((chosen < 0) | (chosen >= logits.shape[-1])).any():
        raise UserError(f"classes to explain must lie in 0 to {logits.shape[-1] - 1}")
    return chosen.expand(logits.shape[:2])


def _array(x: Tensor) -> np.ndarray:
    return x.detach().float().cpu().numpy()


def enlarge(saliency: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps [..., h, w] resized bilinearly to height and width `size`."""
    maps = torch.as_tensor(np.asarray(saliency, np.float32)).reshape(-1, 1, *np.shape(saliency)[-2:])
    large = F.interpolate(maps, size, mode="bilinear", align_corners=False)
    return large.numpy().reshape(*np.shape(saliency)[:-2], *size)


def jet(levels: np.ndarray) -> np.ndarray:
    """The rainbow that OpenCV and MATLAB call jet: uint8 levels [...] -> uint8 RGB [..., 3]."""
    x = np.arange(256)[:, None] / 255
    table = np.round(255 * np.clip(1.5 - np.abs(4 * x - [3, 2, 1]), 0, 1)).astype(np.uint8)
    return table[levels]


def jet_overlay(saliency: np.ndarray, picture: np.ndarray, strength: float = 0.35) -> np.ndarray:
    """The original ESR's overlay: jet colours of the map, blended evenly over the whole picture.

    Args:
        saliency: [h, w] in [0, 1].
        picture: uint8 [H, W, 3] RGB.
        strength: share of the colours, the rest is the picture.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    levels = np.clip(enlarge(saliency, picture.shape[:2]) * 255, 0, 255).astype(np.uint8)
    return np.round(strength * jet(levels) + (1 - strength) * picture).astype(np.uint8)
