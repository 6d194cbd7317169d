"""`python -m tests.benchmark_gradcam`: what ESR-9's nine Grad-CAM maps cost beside a plain forward pass.

Random weights, full size, one face, one thread. The original's way is written after its description: for every branch
the base and the branch are run again, the score of the branch's class is followed backwards, and the feature maps are
weighted and added one by one. All ways take turns, so that the load of the machine meets them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from emotion.explain import grad_cam
from emotion.models.esr import ESR, esr9

ROUNDS = 15


def original_maps(model: ESR, x: Tensor) -> np.ndarray:
    """One backward pass per branch: maps [B, h, w] of one face."""
    maps = []
    for branch in model.branches:
        features = branch.features(model.base(x))
        logits, _ = branch.head(features)
        (gradient,) = torch.autograd.grad(logits[0, logits.argmax()], features)
        weights = gradient.mean((2, 3))[0]
        found = torch.zeros(features.shape[2:])
        for k, weight in enumerate(weights):
            found += weight * features[0, k].detach()
        found = found.relu() - found.relu().min()
        maps.append((found / found.max().clamp_min(1e-12)).numpy())
    return np.stack(maps)


def medians(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median processor seconds of every way, taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            taken[name].append(time.process_time() - start)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def main() -> None:
    """Time all ways and compare their maps."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = ESR(esr9()).eval().to(memory_format=torch.channels_last)
    x = torch.rand_like(model.example()).contiguous(memory_format=torch.channels_last)

    def plain() -> dict[str, Tensor]:
        with torch.inference_mode():
            return model(x)

    difference = np.abs(original_maps(model, x) - grad_cam(model, x).members[:, 0]).max()
    ways = {"plain": plain, "maps": lambda: grad_cam(model, x), "plain again": plain}
    found = medians(ways, ROUNDS) | medians({"original": lambda: original_maps(model, x)}, 3)
    base = (found["plain"] + found["plain again"]) / 2
    print(f"largest difference of the maps: {difference:.1e}")
    print(f"plain forward {1000 * base:.1f} ms; with itself {100 * (found['plain again'] / found['plain'] - 1):+.1f} %")
    print(f"forward and nine maps {1000 * found['maps']:.1f} ms ({100 * (found['maps'] / base - 1):+.1f} %)")
    print(f"the original's way {1000 * found['original']:.1f} ms ({found['original'] / base:.1f} x)")


if __name__ == "__main__":
    main()
