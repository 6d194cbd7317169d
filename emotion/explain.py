"""Where a model looked: Grad-CAM maps as arrays (Selvaraju et al., ICCV 2017, arXiv 1610.02391)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion.errors import UserError
from emotion.models.esr import normalise_maps


@dataclass(frozen=True)
class Maps:
    """Evidence maps of N faces.

    Attributes:
        ensemble: float32 [N, h, w] in [0, 1]: mean over the members' maps, each weighted by its member's probability
            of the class it explains, then stretched to [0, 1].
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


def grad_cam(model: nn.Module, x: Tensor, classes: int | np.ndarray | Tensor | None = None) -> Maps:
    """Grad-CAM of every branch for a batch of faces, in one forward pass.

    Args:
        model: a face model whose `forward(x, features=True)` adds "features" to its outputs: the activations
            [N, C, h, w] that its "expression" logits [N, K] are computed from, or [B, N, C, h, w] with logits
            [B, N, K] and a method `saliency(features, classes)` that gives the maps in closed form.
        x: [N, C, H, W], as the model's input description makes it.
        classes: what to explain: None (every branch explains the class it predicts, as in the original ESR), one
            class for all faces, or one per face [N].

    Raises:
        UserError: the model offers no features, or a class is out of range.
    """
    by_gradient = not hasattr(model, "saliency")
    with torch.inference_mode(False), torch.set_grad_enabled(by_gradient):
        if by_gradient:
            x = x.clone().detach().requires_grad_()  # the weights may be frozen
        logits = _forward(model, x)
        features = logits.pop("features")
        scores = logits["expression"]
        stacked = scores if scores.ndim == 3 else scores[None]
        chosen = _classes(classes, stacked)
        maps = _by_gradient(features, scores, chosen[0])[None] if by_gradient else model.saliency(features, chosen)
    with torch.no_grad():
        probability = stacked.detach().float().softmax(-1).gather(-1, chosen[..., None])[..., 0]
        ensemble = normalise_maps((maps * probability[..., None, None]).mean(0))
    return Maps(
        ensemble=_array(ensemble),
        members=_array(maps),
        classes=chosen.cpu().numpy(),
        probabilities=_array(probability),
        logits={k: v.detach() for k, v in logits.items()},
    )


def _forward(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    try:
        outputs = dict(model(x, features=True))
    except TypeError as error:
        raise UserError(f"{type(model).__name__} cannot be explained: its forward pass gives no features") from error
    if "expression" not in outputs or "features" not in outputs:
        raise UserError(f"{type(model).__name__} cannot be explained: it has no expression scores or no features")
    return outputs


def _classes(classes: int | np.ndarray | Tensor | None, logits: Tensor) -> Tensor:
    """The class to explain for every branch and face, int64 [B, N]."""
    if classes is None:
        return logits.argmax(-1)
    chosen = torch.as_tensor(classes, device=logits.device).long()
    if chosen.ndim > 1 or (chosen.ndim == 1 and len(chosen) != logits.shape[1]):
        raise UserError(f"give one class or one per face ({logits.shape[1]}), not {tuple(chosen.shape)}")
    if ((chosen < 0) | (chosen >= logits.shape[-1])).any():
        raise UserError(f"classes to explain must lie in 0 to {logits.shape[-1] - 1}")
    return chosen.expand(logits.shape[:2])


def _by_gradient(features: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
    """Equations 1 and 2 of the paper for [N, C, h, w] features and [N, K] logits; the faces must be independent."""
    score = logits.gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, features)
    weights = gradient.mean((-2, -1), keepdim=True)
    return normalise_maps(F.relu((weights * features).sum(1))).detach()


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
