"""Checkpoints: a folder with config.json, model.safetensors and README.md, the same everywhere.

`find` says where a checkpoint lies, `load` builds the model from it (strictly), `save` writes one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from emotion import registry
from emotion.errors import UserError

SCHEMA = "emotion-checkpoint/1"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


@dataclasses.dataclass(frozen=True)
class Card:
    """What a checkpoint says about itself, beside its weights (stored in config.json).

    Attributes:
        name: `arch.tag`.
        licence: SPDX id or a short phrase; `commercial`: whether commercial use is allowed.
        trained_on: data sets.
        metrics: measured figures, "data set/split/metric" -> value.
        source: where the weights come from ("trained by this project", "imported from ...").
        sha256: of model.safetensors as read or written.
    """

    name: str
    licence: str
    commercial: bool
    trained_on: tuple[str, ...] = ()
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    source: str = ""
    sha256: str = ""


def model_class(method: str) -> type[nn.Module]:
    """The network class of a method.

    Raises:
        UserError: unknown method.
    """
    if method not in registry.METHODS:
        raise UserError(f"unknown method {method!r}; known: {', '.join(registry.METHODS)}")
    module, name = registry.METHODS[method].split(":")
    return getattr(importlib.import_module(module), name)


def find(name: str | Path) -> Path:
    """The folder of a checkpoint: a path, or the name of a bundled registry entry.

    Raises:
        UserError: nothing is there; says how to go on.
    """
    folder = Path(name)
    if (folder / CONFIG).is_file():
        return folder
    if folder.exists():
        raise UserError(f"{folder} is no checkpoint folder: it has no {CONFIG}")
    if isinstance(name, Path) or "/" in name:
        raise UserError(f"no checkpoint folder at {name}")
    entry = registry.get(name)
    if entry.bundled:
        return entry.folder
    steps = f"  1. get the original weights: {entry.original}\n  2. {entry.import_command}"
    raise UserError(
        f"the weights of {name} are not part of this package:\n{steps}\nThen use the folder's path as name."
    )


def load(name: str | Path = registry.DEFAULT, device: str | torch.device = "cpu") -> nn.Module:
    """A model in evaluation mode, ready to use; `model.card` tells where it comes from.

    Args:
        name: registry name or folder of a checkpoint.
        device: where to put it.

    Raises:
        UserError: not found, damaged, of another schema or method, or tensors that do not fit.
    """
    folder = find(name)
    document = read_config(folder)
    model = build(document["method"], document["config"], where=folder / CONFIG)
    card = Card(**{**document["card"], "trained_on": tuple(document["card"].get("trained_on", ()))})
    digest = file_sha256(folder / WEIGHTS)
    expected = registry.entries()[name].sha256 if str(name) in registry.entries() else card.sha256
    if expected and digest != expected:
        raise UserError(f"{folder / WEIGHTS} is not the file it should be (sha256 {digest}, expected {expected})")
    fit(model, read_tensors(folder / WEIGHTS), where=folder / WEIGHTS)
    model.card = dataclasses.replace(card, sha256=digest)
    return model.to(device).eval()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder, checked for schema and fields.

    Raises:
        UserError: missing, not JSON, another schema, or fields missing.
    """
    path = folder / CONFIG
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema!r}, this version reads {SCHEMA!r}")
    missing = {"method", "config", "card"} - document.keys()
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}")
    return document


def build(method: str, config: dict[str, Any], where: Path | str = "config") -> nn.Module:
    """An untrained model from the plain form of its config.

    Raises:
        UserError: unknown method, unknown, missing or ill-typed fields.
    """
    cls = model_class(method)
    try:
        parsed = TypeAdapter(cls.Config).validate_python(config)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(p) for p in first["loc"])
        raise UserError(f"{where}: field {field or '?'} of the {method} config: {first['msg']}") from error
    unknown = _unknown_keys(config, dataclasses.asdict(parsed))
    if unknown:
        raise UserError(f"{where}: unknown fields in the {method} config: {', '.join(unknown)}")
    return cls(parsed)


def _unknown_keys(given: Any, known: Any, prefix: str = "") -> list[str]:
    if isinstance(given, dict) and isinstance(known, dict):
        extra = [prefix + k for k in given if k not in known]
        return extra + [x for k in given if k in known for x in _unknown_keys(given[k], known[k], f"{prefix}{k}.")]
    if isinstance(given, (list, tuple)) and isinstance(known, (list, tuple)):
        return [x for g, k in zip(given, known) for x in _unknown_keys(g, k, prefix)]
    return []


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, half precision widened to float32.

    Raises:
        UserError: missing, truncated or not a safetensors file.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}; is the file complete?") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def fit(model: nn.Module, tensors: dict[str, Tensor], where: Path | str = "state dict") -> None:
    """Put `tensors` into `model`; every tensor must be there, fit and be finite.

    Raises:
        UserError: names missing, unexpected, misshapen or non-finite tensors.
    """
    wanted = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    shapes = [
        f"{k} is {tuple(given[k].shape)}, expected {tuple(wanted[k].shape)}"
        for k in wanted.keys() & given.keys()
        if given[k].shape != wanted[k].shape
    ]
    problems = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "of another shape": sorted(shapes),
        "not finite": sorted(k for k, v in given.items() if not torch.isfinite(v).all()),
    }
    bad = [f"{len(v)} tensors {k}: {', '.join(v[:4])}{' ...' if len(v) > 4 else ''}" for k, v in problems.items() if v]
    if bad:
        raise UserError(f"{where} does not fit the model: " + "; ".join(bad))
    model.load_state_dict(given, strict=False)


def save(model: nn.Module, method: str, folder: str | Path, card: Card, readme: str, half: bool = False) -> Card:
    """Write a checkpoint folder; it appears whole or not at all.

    Args:
        model: the network; its `config` must be a dataclass of plain values.
        method: key of `registry.METHODS`.
        folder: created; an existing checkpoint there is replaced.
        card: what the checkpoint says about itself.
        readme: the model card's text.
        half: store floating-point tensors in 16 bits.

    Returns:
        The card with the weights' sha256.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise UserError(f"{folder} exists and is no checkpoint; choose an empty or new folder")
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if "num_batches" not in k}
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    save_file(tensors, partial / WEIGHTS)
    card = dataclasses.replace(card, sha256=file_sha256(partial / WEIGHTS))
    document = {
        "schema": SCHEMA,
        "method": method,
        "config": dataclasses.asdict(model.config),
        "card": dataclasses.asdict(card),
    }
    (partial / CONFIG).write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    (partial / CARD).write_text(readme, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return card


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hex digits.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
