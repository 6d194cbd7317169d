"""ZeroGPU Spaces lend a GPU for the length of a call. Anywhere else nothing here has an effect.

Import this before torch: the package `spaces` must come first.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

try:
    from spaces import GPU  # a folder called `spaces` can be imported too, but holds no GPU
except ImportError:
    GPU = None


def lend(predictor: type, *methods: str, seconds: int = 30) -> None:
    """Let a predictor's methods run on the GPU that is lent for each call, where the Space has ZeroGPU hardware.

    A call runs in a process of its own, so what it changes on the predictor is gone afterwards: between calls the model
    stays where it was. Arguments and results must be picklable, which callbacks are not: films run on the CPU.

    Args:
        predictor: class whose objects have a `model` and a `device`.
        methods: names of its methods.
        seconds: the longest that one call may take; the visitor's quota is charged by it.
    """
    if GPU is not None and os.environ.get("SPACES_ZERO_GPU"):
        for method in methods:
            setattr(predictor, method, GPU(duration=seconds)(_on_gpu(getattr(predictor, method))))


def _on_gpu(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def lent(self: Any, *args: Any, **options: Any) -> Any:
        self.model.to("cuda")
        self.device = "cuda"
        return plain(self, *args, **options)

    return lent
