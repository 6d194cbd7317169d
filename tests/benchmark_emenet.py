"""`python -m tests.benchmark_emenet`: size and CPU time of EMENet's published networks, one thread, random weights."""

from __future__ import annotations

import statistics
import time

import torch

from emotion.models.base import multiply_adds
from emotion.models.emenet import EMENet, EMENetConfig

ROUNDS = 5


def milliseconds(model: EMENet, frames: int) -> float:
    """Processor time of one clip of so many frames, the median of `ROUNDS`; sound is silence."""
    x = torch.rand(1, frames, *model.example().shape[-3:])
    times = []
    for _ in range(1 + ROUNDS):
        start = time.process_time()
        model(x)
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times[1:])


@torch.inference_mode()
def main() -> None:
    """Print a table as Markdown."""
    torch.set_num_threads(1)
    print("| network | parameters | multiply-adds | one frame, ms | 64 frames, ms |\n|---|---:|---:|---:|---:|")
    for name, changes in {
        "V": {},
        "V, landmark head": {"landmarks": 68},
        "VA": {"sound": True},
        "VA, landmark and voice heads": {"sound": True, "landmarks": 68, "voice": True},
    }.items():
        model = EMENet(EMENetConfig(members=1, **changes)).eval()
        size, cost = sum(p.numel() for p in model.parameters()), multiply_adds(model) / 1e6
        print(f"| {name} | {size:,} | {cost:.1f} M | {milliseconds(model, 1):.0f} | {milliseconds(model, 64):.0f} |")


if __name__ == "__main__":
    main()
