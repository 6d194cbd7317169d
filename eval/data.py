"""Data sets as the commands want them: by name, with a reader's own options, checked."""

from __future__ import annotations

import argparse
import ast
import inspect
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from emotion import datasets
from emotion.datasets import Samples
from emotion.errors import UserError
from eval.results import DataInfo


def load(name: str, root: Path, split: str, options: list[str]) -> Any:
    """The samples (or scenes) of one split.

    Args:
        name: of a reader.
        root: the data set's folder.
        split: as the reader calls it.
        options: "NAME=VALUE", further arguments of the reader.

    Raises:
        UserError: unknown data set, option or split, or a folder that does not hold it.
    """
    reader = datasets.reader(name)
    if not root.is_dir():
        raise UserError(
            f"no folder {root}; `python -m eval datasets {name}` says where to get {name} and what it holds"
        )
    return reader.load(root, split, **_options(name, reader.load, options))


def _options(name: str, load: Any, options: list[str]) -> dict[str, Any]:
    bound = getattr(load, "keywords", {})  # of a partial
    known = [k for k in list(inspect.signature(load).parameters)[2:] if k not in bound]
    types, out = typing.get_type_hints(getattr(load, "func", load)), {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key not in known:
            raise UserError(
                f"{name} has no option {option!r}; give NAME=VALUE with {', '.join(known) or 'none at all'}"
            )
        try:
            out[key] = TypeAdapter(types[key]).validate_python(value)
        except ValidationError as error:
            raise UserError(f"option {option}: {error.errors()[0]['msg']}") from error
    return out


def is_scenes(loaded: Any, args: argparse.Namespace) -> bool:
    """Whether a reader gave scenes, not samples (faces or clips).

    Raises:
        UserError: it gave nothing, or what only scenes have is asked of samples.
    """
    if not len(loaded):
        raise UserError(f"{args.dataset} {args.split} in {args.data} is empty")
    asked = [option for option in ("published", "heads", "scores") if getattr(args, option, None)]
    if isinstance(loaded, Samples) and asked:
        raise UserError(f"--{asked[0]} is for scenes; {args.dataset} holds faces")
    return not isinstance(loaded, Samples)


def info(samples: Samples) -> DataInfo:
    """What was asked."""
    groups = None if samples.groups is None else len(set(samples.groups.tolist()))
    n = len(samples)
    return DataInfo(samples.dataset, samples.split, samples.protocol, samples.fingerprint, n, groups)


def known() -> dict[str, dict[str, str]]:
    """Where every data set comes from and under what terms: name -> "where", "terms", "splits"."""
    return yaml.safe_load((Path(__file__).parent / "datasets.yaml").read_text(encoding="utf-8"))


def summary(name: str) -> str:
    """The first line that a reader says about its data set; read without importing it, which may take seconds."""
    source = Path(datasets.__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
