"""`python -m tests.benchmark_members [--device cuda]`: EMENet's members one after another, or as one batched network.

Five members of the published size with random weights read the same faces: each on its own, or stacked, where
`torch.vmap` runs them together (convolutions become grouped ones). Both must give the same features. Times alternate;
on a processor they are of one thread, not of the clock, so that other work on the machine disturbs them little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from emotion.models.emenet import EMENet, EMENetConfig

ROUNDS = 5


def stacked(members: nn.ModuleList) -> Callable[[Tensor], Tensor]:
    """The members' face networks as one: faces [N, C, H, W] -> features [M, N, F]."""
    tensors = stack_module_state([m.backbone for m in members])  # once, not per call
    shape = deepcopy(members[0].backbone).to("meta")

    def features(x: Tensor) -> Tensor:
        return torch.vmap(lambda one: functional_call(shape, one, (x,)))(tensors)

    return features


def seconds(call: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Time of one call."""
    clock = time.perf_counter if x.is_cuda else time.thread_time
    start = clock()
    call(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


@torch.inference_mode()
def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark_members", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = EMENet(EMENetConfig(members=5)).eval().to(device)
    together = stacked(model.members)
    print("| faces | in turn, ms | stacked, ms | ratio | largest relative difference |\n|---:|---:|---:|---:|---:|")
    for n in (1, 8):
        x = torch.rand(n, 3, 112, 112, device=device)
        loop, batched = model.embed(x), together(x)
        difference = ((loop - batched).abs().max() / loop.abs().max()).item()
        times = [(seconds(model.embed, x), seconds(together, x)) for _ in range(ROUNDS)]
        a, b = (1000 * statistics.median(column) for column in zip(*times))
        ratio = statistics.median(late / early for early, late in times)
        print(f"| {n} | {a:.1f} | {b:.1f} | {ratio:.2f} | {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
