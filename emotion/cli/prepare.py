"""`python -m emotion prepare`: the faces (and sounds) of data sets, cut out once; a stopped run goes on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from emotion import hub
from emotion.cli.console import show
from emotion.datasets import Prepared, Samples, affectnet, affectnet_layouts, ckplus, clips, ravdess
from emotion.errors import UserError
from emotion.faces import MTCNN, detector
from emotion.importers.avfusion import original_input
from emotion.models.base import ClipInput, FaceInput

BY_TIME = ClipInput(visual=FaceInput(size=(224, 224)))  # faces and sound of the same seconds, as recipes have it


def run(args: argparse.Namespace) -> int:
    """The command; prints what was left out and why. The exit code is 2 when nothing could be used."""
    return {"affectnet": _affectnet, "ckplus": _ckplus}.get(args.set, _films)(args)


def _films(args: argparse.Namespace) -> int:
    found = ravdess.recordings(args.source) if args.set == "ravdess" else clips.recordings(args.source)
    config = _input(args.model) if args.model is not None else original_input() if args.set == "ravdess" else BY_TIME
    find = MTCNN(threshold=0.7, longest_side=None)
    done = clips.prepare(found, args.output, config, find, partial(_progress, "clips"))
    usable = [p for p in done if p.sound or p.faces]
    show(
        *(f"- {p.recording.clip}: {p.problem}" for p in done if p.problem),
        f"{len(usable)} of {len(done)} clips prepared: {sum(bool(p.sound) for p in done)} with sound, "
        f"{sum(bool(p.faces) for p in done)} with a face; written to {args.output}",
    )
    return 0 if usable else 2


def _input(name: str) -> ClipInput:
    config = hub.load(name).config
    if not isinstance(getattr(config, "input", None), ClipInput):
        raise UserError(f"{name} does not read clips of voice and face")
    return config.input


def _affectnet(args: argparse.Namespace) -> int:
    there = affectnet_layouts.splits(args.source)
    wanted = args.split or there
    codes = [
        _told(
            affectnet.prepare(args.source, args.output, split, progress=partial(_progress, split)),
            partial(affectnet.load, args.output, split),
            args.output,
        )
        for split in wanted
    ]
    return max(codes)


def _ckplus(args: argparse.Namespace) -> int:
    done = ckplus.prepare(args.source, args.output, detector(args.detector), partial(_progress, "sequences"))
    return _told(done, partial(ckplus.load, args.output), args.output)


def _told(done: Prepared, load: Callable[[], Samples], out: Path) -> int:
    """Print what was prepared, as the reader finds it; the exit code."""
    show(*(f"- {problem}" for problem in done.problems))
    if not done.faces:
        show(f"nothing could be used; nothing written to {out}")
        return 2
    samples = load()
    counts = np.bincount(samples.classes(), minlength=len(samples.labels["expression"]))
    classes = ", ".join(f"{name} {n}" for name, n in zip(samples.labels["expression"], counts))
    show(f"{samples.dataset} {samples.split}: {len(samples)} faces in {out} ({classes})")
    return 0


def _progress(what: str, items: Iterable[Any]) -> Iterable[Any]:
    return track(items, description=what, transient=True)
