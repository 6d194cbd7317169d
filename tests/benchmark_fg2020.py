"""`python -m tests.benchmark_fg2020`: CPU time of FG-2020 networks on one thread, with random weights.

Times are of the processor, not of the clock, so that other work on the machine disturbs them little: median of rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from emotion.models.fg2020 import FG2020, STUDENTS, fg2020


def row(name: str, rounds: int, call: Callable[..., object], *given: object) -> None:
    """Print the median CPU time of a call."""
    call(*given)
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call(*given)
        times.append(time.process_time() - start)
    print(f"| {name} | {1000 * statistics.median(times):.1f} |", flush=True)


def network(members: tuple[str, ...] = ("teacher",), frames: int = 0, size: int = 112, shared: bool = False) -> FG2020:
    """An untrained network in the published size."""
    config = replace(fg2020(members=members, frames=frames, size=size), shared_cnn=shared)
    return FG2020(config).eval().to(memory_format=torch.channels_last)


def read(model: FG2020, faces: list[np.ndarray]) -> object:
    """Face pictures to decoded outputs."""
    embeddings = model.embed(model.config.input.tensor(faces))
    return model.decode(model.sequence(embeddings))


@torch.inference_mode()
def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 256, (112, 112, 3), dtype=np.uint8) for _ in range(32)]
    print("| what | ms |\n| --- | ---: |")
    model = network()
    tensor = model.config.input.tensor
    row("CNN 112, forward, 1 face", 15, model, tensor(faces[:1]))
    row("CNN 112, forward, 8 faces", 7, model, tensor(faces[:8]))
    row("CNN 112, 1 face picture to decoded outputs", 15, read, model, faces[:1])
    row("preparation of 1 face", 15, tensor, faces[:1])
    row("CNN 112, five students, forward, 1 face", 7, network(STUDENTS), tensor(faces[:1]))
    model = network(size=224)
    row("CNN 224, forward, 1 face", 9, model, model.config.input.tensor(faces[:1]))
    for name, members, shared in (("one network", ("teacher",), False), ("five students on one CNN", STUDENTS, True)):
        model = network(members, 32, shared=shared)
        window = tensor(faces)[None]
        row(f"CNN-RNN, {name}, 32 frames, forward", 5, model, window)
        row(f"CNN-RNN, {name}, 32 face pictures to decoded outputs", 5, read, model, faces)
        row(f"CNN-RNN, {name}, temporal heads alone", 15, model.read, model.embed(window[0])[:, None])


if __name__ == "__main__":
    main()
