"""Speed and size of models on this machine, one after the other in one process."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from emotion import hub, registry
from emotion.cli.console import report, show, table
from emotion.errors import UserError
from emotion.models.base import multiply_adds
from emotion.provenance import commit, machine, versions
from eval.results import file_name, replace_file
from eval.runner import check
from eval.speed import SpeedResult

BATCHES = (1, 8, 32)


def run(args: argparse.Namespace) -> int:
    """`bench`: one result file per model that reads single faces, and a table."""
    names = args.models or [name for name, entry in registry.entries().items() if entry.bundled]
    rows = table("model", "parameters", "MACs", "ms, 1 face", "faces/s, 8", "faces/s, 32", "peak memory")
    failed = 0
    for name in names:
        try:
            found = measure(name, args.seconds)
        except UserError as error:
            report(error)
            failed += 1
            continue
        text = json.dumps(dataclasses.asdict(found), indent=1) + "\n"
        replace_file(
            args.out / f"{file_name(found.model, found.device, f'{found.threads}-threads')}.json", text.encode()
        )
        f = found.figures
        rows.add_row(
            found.model,
            f"{found.parameters / 1e6:.2f} M",
            f"{found.multiply_adds / 1e6:.0f} M",
            f"{f['ms_1']:.1f}",
            f"{f['images_per_second_8']:.0f}",
            f"{f['images_per_second_32']:.0f}",
            f"{f['peak_memory_mb']:.0f} MB",
        )
    show(rows, f"{machine()}, {torch.get_num_threads()} threads")
    return 2 if failed else 0


def measure(name: str | Path, seconds: float) -> SpeedResult:
    """Network and decoding of face crops that are in memory; the median of as many calls as fit into `seconds`.

    Raises:
        UserError: the model cannot be loaded or does not read single faces.
    """
    model = hub.load(name)
    check(model)
    size = model.config.input.size
    times = {n: _median(_call(model, np.zeros((n, *size, 3), np.uint8)), seconds) for n in BATCHES}
    figures = {"ms_1": 1000 * times[1]} | {f"images_per_second_{n}": n / times[n] for n in BATCHES[1:]}
    return SpeedResult(
        model=model.card.name,
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=multiply_adds(model),
        figures={k: round(v, 3) for k, v in figures.items()} | {"peak_memory_mb": round(_peak_memory(), 1)},
        machine=machine(),
        device="cpu",
        threads=torch.get_num_threads(),
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        commit=commit(),
        versions=versions(),
    )


def _call(model: nn.Module, crops: np.ndarray) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return model.decode(model(model.config.input.tensor(crops)))

    return call


def _median(call: Callable[[], object], seconds: float) -> float:
    """Median seconds of one call, after one that does not count; at least three are made."""
    call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def _peak_memory() -> float:
    """Largest memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
