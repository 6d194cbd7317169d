"""Speed and size of models on this machine, one after the other in one process."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emotion import hub, media, registry
from emotion.cli.console import report, show, table
from emotion.errors import UserError
from emotion.hub.provenance import commit, machine, versions
from emotion.media.video import VideoWriter
from emotion.models import benet_decode as decode
from emotion.models.base import ClipInput, FaceInput, multiply_adds
from emotion.predict import FacePredictor
from emotion.predict.scenes import ScenePredictor
from eval.architectures import untrained
from eval.results import file_name, read_json, replace_file
from eval.speed import SpeedResult

BATCHES = (1, 8, 32)
CROWDS = (1, 5, 20)  # people in a photo
PHOTO, FILM = (1280, 960), (640, 480)
FRAMES, FPS = 16, 25  # of the film
FACE = Path(media.__file__).parents[1] / "ui" / "examples" / "synthetic.png"

KINDS = {FaceInput: "faces", ClipInput: "clips", decode.SceneInput: "scenes"}
Call = Callable[[], object]
Median = Callable[[Call], float]  # seconds of one call


def run(args: argparse.Namespace) -> int:
    """`bench`: one result file per model, and a table."""
    if args.clock == "cpu" and (args.device != "cpu" or torch.get_num_threads() > 1):
        raise UserError("processor time tells how long one thread takes; set OMP_NUM_THREADS=1 and use --device cpu")
    _check_device(args.device)
    names = args.models or list(registry.entries())
    rows = table("model", "weights", "parameters", "MACs", *_COLUMNS)
    failed, done = 0, {}
    for name in names:
        try:
            model, weights = _model(name, args.device)
            known = done.get(model.config)  # networks of one config cost the same
            found = measure(model, args.seconds, args.device, args.clock) if known is None else known
        except UserError as error:
            report(error)
            failed += 1
            continue
        done[model.config] = found
        found = dataclasses.replace(found, model=model.card.name if weights == "trained" else name, weights=weights)
        text = json.dumps(dataclasses.asdict(found), indent=1) + "\n"
        path = _path(args.out, found)
        replace_file(path, text.encode())
        cells = (f"{found.figures[key]:.4g}" if key in found.figures else "" for key in _COLUMNS.values())
        macs = f"{found.multiply_adds / 1e6:.0f} M"
        rows.add_row(found.model, weights, f"{found.parameters / 1e6:.2f} M", macs, *cells)
    show(rows, f"{machine()}, {torch.get_num_threads()} threads, {args.device}")
    return 2 if failed else 0


def _path(folder: Path, found: SpeedResult) -> Path:
    """The file of a result; a network of the same name and another size does not overwrite the first one's."""
    where = found.device, f"{found.threads}-threads"
    path = folder / f"{file_name(found.model, *where)}.json"
    with contextlib.suppress(UserError):
        if path.is_file() and read_json(path).get("parameters") != found.parameters:
            return folder / f"{file_name(f'{found.model}-{found.parameters}', *where)}.json"
    return path


_COLUMNS = {
    "ms, 1": "ms_1",
    "per s, 8": "images_per_second_8",
    "per s, 32": "images_per_second_32",
    "ms, photo of 1": "photo_1_ms",
    "of 5": "photo_5_ms",
    "of 20": "photo_20_ms",
    "video, fps": "video_fps",
    "peak MB": "peak_memory_mb",
}


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"cannot use the device {device}: {str(error).splitlines()[0]}") from error


def _model(name: str, device: str) -> tuple[nn.Module, str]:
    """A model with its weights, or a registered one whose weights are not here with random ones."""
    entry = registry.entries().get(name)
    if entry is not None and not entry.bundled and (model := untrained(name)) is not None:
        return model.to(device), "random"
    return hub.load(name, device), "trained"


def measure(model: nn.Module, seconds: float, device: str = "cpu", clock: str = "wall") -> SpeedResult:
    """Medians of as many calls as fit into `seconds` per figure, after one that does not count; see `SpeedResult`."""
    _forget_peak()
    median = partial(_median, seconds=seconds, clock=time.process_time if clock == "cpu" else time.perf_counter)
    figures = _network(model, median, device)
    spec = getattr(model.config, "input", None)
    if isinstance(spec, FaceInput):
        figures |= _faces(FacePredictor(model, device=device), median)
    elif isinstance(spec, decode.SceneInput):
        options = decode.Decoding(people=CROWDS[-1])  # maps of random weights are full of people
        predictor = ScenePredictor(model, options=options, device=device)
        figures |= {f"photo_{n}_ms": 1000 * median(_of(predictor.image, photo(n))) for n in CROWDS}
    figures["peak_memory_mb"] = _peak_memory()
    return SpeedResult(
        model=getattr(getattr(model, "card", None), "name", ""),
        reads=KINDS.get(type(spec), "sound"),
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=multiply_adds(model.cpu()),
        figures={k: round(v, 3) for k, v in figures.items()},
        machine=machine(),
        device=device,
        clock=clock,
        threads=torch.get_num_threads(),
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        commit=commit(),
        versions=versions(),
    )


def _network(model: nn.Module, median: Median, device: str) -> dict[str, float]:
    """The network, and decoding where that needs nothing but what the network gives."""
    decodes = not isinstance(getattr(model.config, "input", None), decode.SceneInput)
    times = {}
    for n in BATCHES:
        batch = _batch(model, n, device)

        def call(batch: Any = batch) -> None:
            with torch.inference_mode():
                out = model(batch)
                if decodes:
                    model.decode(out)
            if device.startswith("cuda"):
                torch.cuda.synchronize()

        times[n] = median(call)
    return {"ms_1": 1000 * times[1]} | {f"images_per_second_{n}": n / times[n] for n in BATCHES[1:]}


def _batch(model: nn.Module, n: int, device: str) -> Any:
    """`n` inputs: black faces, or copies of the model's example."""
    spec, example = getattr(model.config, "input", None), model.example()
    if isinstance(spec, FaceInput):
        return spec.tensor(np.zeros((n, *spec.size, 3), np.uint8)).to(device)
    single = torch.is_tensor(example)

    def repeated(x: Any) -> Any:
        return None if x is None else x.expand(n, *x.shape[1:]).contiguous().to(device)

    return repeated(example) if single else type(example)(*map(repeated, example))


def _faces(predictor: FacePredictor, median: Median) -> dict[str, float]:
    """Whole photos and a film: finding faces included."""
    figures = {f"photo_{n}_ms": 1000 * median(_of(predictor.image, photo(n))) for n in CROWDS}
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        with VideoWriter(film, FPS) as writer:
            for k in range(FRAMES):
                writer.write(photo(1, FILM), k / FPS)
        figures["video_fps"] = FRAMES / median(lambda: predictor.video(film, rate="all"))
    return figures


def photo(people: int, size: tuple[int, int] = PHOTO) -> np.ndarray:
    """A picture uint8 [H, W, 3] with so many equal faces, side by side on grey.

    Raises:
        ValueError: they do not fit in.
    """
    tile, (width, height) = media.read_image(FACE), size
    picture = np.full((height, width, 3), 128, np.uint8)
    columns = width // tile.shape[1]
    if people > columns * (height // tile.shape[0]):
        raise ValueError(f"{people} faces of {tile.shape[1]} x {tile.shape[0]} do not fit into {width} x {height}")
    for k in range(people):
        y, x = k // columns * tile.shape[0], k % columns * tile.shape[1]
        picture[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return picture


def _of(function: Callable[[np.ndarray], object], picture: np.ndarray) -> Call:
    return lambda: function(picture)


def _median(call: Call, seconds: float, clock: Callable[[], float]) -> float:
    """Median seconds of one call after one that does not count: of three at least, or of one that takes too long."""
    call()
    taken: list[float] = []
    end = clock() + seconds
    while not taken or clock() < end or (len(taken) < 3 and taken[0] < seconds):
        start = clock()
        call()
        taken.append(clock() - start)
    return float(np.median(taken))


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _forget_peak() -> None:
    """Let the peak of memory start anew, where the system can (Linux); elsewhere it is that of all models so far."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def _peak_memory() -> float:
    """Largest memory of this process since `_forget_peak`, in MB."""
    try:
        line = next(row for row in _STATUS.read_text().splitlines() if row.startswith("VmHWM"))
        return float(line.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1e6 if sys.platform == "darwin" else 1e3)
