"""ZeroGPU Spaces lend a GPU for the length of a call. Anywhere else nothing here has an effect.

Import this before torch: the package `spaces` must come first.
"""

from __future__ import annotations

import functools
import os
from typing import Any

try:
    from spaces import GPU  # a folder called `spaces` can be imported too, but holds no GPU
except ImportError:
    GPU = None


def lend(predictor: type, method: str, seconds: int = 30) -> None:
    """Let a predictor's method run on the GPU that is lent for each call, where the Space has ZeroGPU hardware.

    Args:
        predictor: class whose objects have a `model` and a `device`.
        method: name of the method.
        seconds: the longest that one call may take; the visitor's quota is charged by it.
    """
    if GPU is None or not os.environ.get("SPACES_ZERO_GPU"):
        return
    plain = getattr(predictor, method)

    @functools.wraps(plain)
    def lent(self: Any, *args: Any, **options: Any) -> Any:
        self.model.to("cuda")
        self.device = "cuda"
        return plain(self, *args, **options)

    setattr(predictor, method, GPU(duration=seconds)(lent))
