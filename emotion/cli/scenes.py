"""The options of scene models, for every command that reads scenes."""

from __future__ import annotations

import argparse
from dataclasses import replace

from torch import nn

from emotion.errors import UserError
from emotion.models import benet_decode as decode
from emotion.predict.scenes import ScenePredictor

DECODING = {"person_threshold": "threshold", "people": "people", "window": "window"}  # option -> of `Decoding`
OPTIONS = ("flip", "size", "published", "threshold", *DECODING)


def given(args: argparse.Namespace) -> dict[str, object]:
    """Those options that were used, and their values."""
    values = {name: getattr(args, name, None) for name in OPTIONS}
    return {name: value for name, value in values.items() if value is not None and value is not False}


def refuse(args: argparse.Namespace) -> None:
    """For models that do not read scenes.

    Raises:
        UserError: an option was used that is for scenes.
    """
    if used := given(args):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in used)
        raise UserError(f"{names}: only for scene models (BENet), and {args.model} is none")


def predictor(args: argparse.Namespace, model: nn.Module | str) -> ScenePredictor:
    """What reads scenes as the options say.

    Raises:
        UserError: the checkpoint cannot be loaded or does not read scenes, or an option cannot have its value.
    """
    used = given(args)
    out = ScenePredictor(model, args.flip, args.size, device=args.device, threshold=used.get("threshold"))
    changes = {field: used[name] for name, field in DECODING.items() if name in used}
    if args.published:
        changes = {"people": decode.PUBLISHED.people, "published": True} | changes
    try:
        out.options = replace(out.options, **changes)
    except ValueError as error:
        raise UserError(str(error)) from error
    return out
