"""`python -m emotion prepare`: films of speaking people become a folder of sounds and face crops, resumable."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from rich.progress import track

from emotion import hub
from emotion.cli.console import show
from emotion.datasets import clips, ravdess
from emotion.errors import UserError
from emotion.faces import MTCNN
from emotion.importers.avfusion import original_input
from emotion.models.base import ClipInput


def run(args: argparse.Namespace) -> int:
    """The command; prints what each clip lacks. The exit code is 2 when no clip could be used."""
    found = ravdess.recordings(args.source) if args.set == "ravdess" else clips.recordings(args.source)
    config = original_input() if args.model is None else _input(args.model)
    done = clips.prepare(found, args.output, config, MTCNN(threshold=0.7, longest_side=None), _progress)
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


def _progress(items: Iterable[Any]) -> Iterable[Any]:
    return track(items, description="clips", transient=True)
