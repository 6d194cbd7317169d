"""How large a network may become whose config somebody else wrote."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

PARAMETERS = 200_000_000  # 800 MB; the largest network of the registry has 123 million
TENSORS = 10_000  # of them; the largest ensemble has 2,000


@contextmanager
def limited() -> Iterator[None]:
    """Within the block, building a larger network ends in a ValueError.

    Layers announce a tensor when it has an address but no values yet, so that the one that is refused costs no memory.
    """
    builder, parameters, tensors = threading.get_ident(), 0, 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal parameters, tensors
        if parameter is None or threading.get_ident() != builder:
            return
        parameters, tensors = parameters + parameter.numel(), tensors + 1
        if parameters > PARAMETERS or tensors > TENSORS:
            raise ValueError(f"it would have more than {PARAMETERS:,} parameters or {TENSORS:,} tensors")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
