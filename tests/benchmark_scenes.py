"""Time per picture by number of people, published and small network: `python -m tests.benchmark_scenes`.

The whole path from pixels to people with emotions, without the mirrored pass. Weights are random, so the network's own
heatmap is replaced, after it was computed, by one with exactly as many peaks as there are to be people.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from emotion.models.benet import BENet, BENetConfig, benet, benet_small
from emotion.predict.scenes import ScenePredictor
from train.compose import LABELS

PEOPLE = (1, 5, 20, 50)
ROUNDS = 5
PICTURE = (512, 640)  # height, width


class Crowd(BENet):
    """A network that sees `people` people, on a grid, in whatever it is shown."""

    people = 1

    def forward(self, x: torch.Tensor, routes: None = None) -> dict[str, torch.Tensor]:
        """The outputs of `BENet.forward`, with another heatmap."""
        out = super().forward(x, routes)
        columns = int(np.ceil(np.sqrt(self.people)))
        for scale in (0, 1):
            heat = torch.full_like(out[f"heatmap{scale}"], -20.0)
            height, width = heat.shape[-2:]
            for k in range(self.people):
                row, column = divmod(k, columns)
                heat[..., int((row + 0.5) * height / columns), int((column + 0.5) * width / columns)] = 20.0
            out[f"heatmap{scale}"] = heat
            out[f"size{scale}"] = torch.full_like(out[f"size{scale}"], 10.0)
        return out


def times(config: BENetConfig) -> dict[int, float]:
    """Median milliseconds per picture by number of people; the counts take turns, so that a busy machine slows all."""
    torch.manual_seed(0)
    predictor = ScenePredictor(Crowd(config))
    picture = np.random.default_rng(0).integers(0, 256, (*PICTURE, 3), dtype=np.uint8)
    spent: dict[int, list[float]] = {n: [] for n in PEOPLE}
    for _ in range(ROUNDS + 1):
        for n in PEOPLE:
            predictor.model.people = n
            start = time.perf_counter()
            found = len(predictor.image(picture))
            spent[n].append(1000 * (time.perf_counter() - start))
            assert found == n, f"{found} people found, {n} expected"
    return {n: statistics.median(values[1:]) for n, values in spent.items()}


def main() -> None:
    """Print one line per network."""
    print(f"{torch.get_num_threads()} threads, {PICTURE[1]} x {PICTURE[0]} pixels, median of {ROUNDS}, ms by people")
    print("network  " + "".join(f"{n:>8}" for n in PEOPLE) + "   1 to 50")
    for name, config in (("full", benet()), ("small", benet_small(LABELS, ("valence", "arousal")))):
        ms = times(config)
        growth = ms[PEOPLE[-1]] / ms[PEOPLE[0]] - 1
        print(f"{name:9}" + "".join(f"{ms[n]:8.0f}" for n in PEOPLE) + f"   {100 * growth:+.1f} %", flush=True)


if __name__ == "__main__":
    main()
