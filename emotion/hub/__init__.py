"""Checkpoints: a folder with config.json, model.safetensors and README.md, the same everywhere.

`find` says where a checkpoint lies, `load` builds the model from it (strictly), `save` writes one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from emotion import registry, remote
from emotion.errors import UserError, listed
from emotion.hub.limits import limited

SCHEMA = "emotion-checkpoint/1"
CONFIG, WEIGHTS, CARD = "config.json", registry.FILE, "README.md"


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
    if not isinstance(method, str) or method not in registry.METHODS:
        raise UserError(f"unknown method {method!r}; known: {', '.join(registry.METHODS)}")
    module, name = registry.METHODS[method].split(":")
    return getattr(importlib.import_module(module), name)


def bundled(name: str | Path) -> registry.Entry | None:
    """The registry entry called `name`, if its weights are part of this package."""
    entry = registry.entries().get(name) if isinstance(name, str) else None
    return entry if entry and entry.bundled else None


def find(name: str | Path, revision: str | None = None, **download: Any) -> Path:
    """The folder of a checkpoint: bundled, at a path, or downloaded from a Hub, whichever comes first.

    Args:
        name: registry name, path of a folder, `OWNER/NAME`, or `hf://OWNER/NAME@REVISION`. A registry name that is not
            bundled is looked for on the Hub only if EMOTION_HUB names the owner, or its entry pins a repository.
        revision: branch, tag or commit on the Hub; nothing else has one.
        download: options of `remote.fetch`.

    Raises:
        UserError: nothing is there, or not at a revision; says how to go on.
    """
    folder = Path(name) if (known := bundled(name)) is None else known.folder
    if (folder / CONFIG).is_file() or known is not None:
        if revision is not None:
            what = "part of this package" if known else "a folder on this machine"
            raise UserError(f"{name} is {what} and has no revision {revision!r}; only repositories on a Hub have some")
        return folder
    if folder.exists():
        raise UserError(
            f"{folder} is no checkpoint folder: it has no {CONFIG}. "
            "Original weights must be imported first: `python -m emotion import METHOD SOURCE -o FOLDER`."
        )
    place = remote.repo(name, revision) if isinstance(name, str) else None
    if place is None and (isinstance(name, Path) or "/" in name):
        raise UserError(f"no checkpoint folder at {name}")
    if place is None:
        entry = registry.get(name)
        place = remote.trusted(name, revision)
    if place is None:
        steps = f"  1. get the original weights: {entry.original}\n  2. {entry.import_command}"
        raise UserError(
            f"the weights of {name} are not part of this package:\n{steps}\nThen use the folder's path as name."
        )
    return remote.fetch(place, (CONFIG, WEIGHTS), (CARD,), **download)


def load(
    name: str | Path = registry.DEFAULT,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    **download: Any,
) -> nn.Module:
    """A model in evaluation mode, ready to use; `model.card` and `model.readme` tell where it comes from.

    Args:
        name: registry name, folder of a checkpoint, or its place on a Hub, as in `find`.
        device: where to put it.
        revision: branch, tag or commit on the Hub.
        download: options of `remote.fetch`: token, cache_dir, force_download, local_files_only.

    Raises:
        UserError: not found, damaged, of another schema or method, or tensors that do not fit.
    """
    folder = find(name, revision, **download)
    document = read_config(folder)
    model = build(document["method"], document["config"], where=folder / CONFIG)
    card = parse(Card, document["card"], f"{folder / CONFIG}, card")
    tensors, digest = read_weights(folder / WEIGHTS)
    entry = registry.entries().get(name) if isinstance(name, str) and folder != Path(name) else None
    expected = entry.sha256 if entry and entry.sha256 else card.sha256
    if expected and digest != expected:
        again = "get it again (if it is from a Hub, after `hf cache rm model/OWNER/NAME`)"
        problem = f"is not the file it should be (sha256 {digest}, expected {expected})"
        raise UserError(f"{folder / WEIGHTS} {problem}; {again}")
    fit(model, tensors, where=folder / WEIGHTS)
    model.card = dataclasses.replace(card, sha256=digest)
    model.measured = (model.card.metrics, fingerprint(model))
    with suppress(OSError):  # a model without its text is still a model
        model.readme = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"cannot use the device {device}: {str(error).splitlines()[0]}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder, checked for schema and fields.

    Raises:
        UserError: missing, not JSON, another schema, fields missing or unknown.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > remote.SMALL:
            raise ValueError(f"no configuration has more than {remote.SMALL / 1e6:.0f} MB")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema!r}, this version reads {SCHEMA!r}")
    fields = {"schema", "method", "config", "card"}
    if missing := fields - document.keys():
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}")
    if unknown := document.keys() - fields:
        raise UserError(f"{path} has unknown fields: {', '.join(sorted(unknown))}")
    return document


def build(method: str, config: dict[str, Any], where: Path | str = "config") -> nn.Module:
    """An untrained model from the plain form of its config.

    Raises:
        UserError: unknown method, unknown, missing or ill-typed fields, numbers that make no network or one larger than
            `limits` allow.
    """
    cls = model_class(method)
    parsed = parse(cls.Config, config, f"{where}, {method} config")
    if odd := _not_finite(dataclasses.asdict(parsed)):
        raise UserError(f"{where}: {method} config: not finite: {', '.join(odd)}")
    try:
        with limited():
            return cls(parsed)
    except Exception as error:  # layers meet senseless numbers with any exception type
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{where}: no {method} network can be built from this config: {reason}") from error


def parse(cls: type, fields: Any, where: str) -> Any:
    """A dataclass from its plain form (as read from JSON).

    Raises:
        UserError: unknown, missing or ill-typed fields.
    """
    try:
        parsed = TypeAdapter(cls).validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(p) for p in first["loc"])
        raise UserError(f"{where}: {f'field {field}: ' if field else ''}{first['msg']}") from error
    unknown = _unknown_keys(fields, dataclasses.asdict(parsed))
    if unknown:
        raise UserError(f"{where}: unknown fields: {', '.join(unknown)}")
    return parsed


def _not_finite(value: Any, name: str = "") -> list[str]:
    """Names of the numbers in plain fields that are NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        return [name]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return [x for key, v in inner for x in _not_finite(v, f"{name}.{key}" if name else str(key))]


def _unknown_keys(given: Any, known: Any, prefix: str = "") -> list[str]:
    if isinstance(given, dict) and isinstance(known, dict):
        extra = [prefix + k for k in given if k not in known]
        return extra + [x for k in given if k in known for x in _unknown_keys(given[k], known[k], f"{prefix}{k}.")]
    if isinstance(given, (list, tuple)) and isinstance(known, (list, tuple)):
        return [x for g, k in zip(given, known) for x in _unknown_keys(g, k, prefix)]
    return []


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors of a safetensors file, half precision widened to float32, and the file's SHA-256 (read once).

    Raises:
        UserError: missing, truncated or not a safetensors file.
    """
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {path}: {error}; is the file complete?") from error
    widened = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    return widened, hashlib.sha256(content).hexdigest()


def fit(model: nn.Module, tensors: dict[str, Tensor], where: Path | str = "state dict") -> None:
    """Put `tensors` into `model`; every tensor must be there, fit and be finite, and no variance negative.

    Raises:
        UserError: names missing, unexpected, misshapen, non-finite or negative tensors.
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
        "negative": sorted(k for k, v in given.items() if k.endswith("running_var") and (v < 0).any()),
    }
    bad = [f"{len(v)} tensors {k}: {listed(v)}" for k, v in problems.items() if v]
    if bad:
        raise UserError(f"{where} does not fit the model: " + "; ".join(bad))
    model.load_state_dict(given, strict=False)


def fingerprint(model: nn.Module) -> tuple[float, ...]:
    """One number per tensor of a network; other weights give others."""
    return tuple(float(t.detach().cpu().double().norm()) for t in model.state_dict().values())


def save(model: nn.Module, method: str, folder: str | Path, card: Card, readme: str, half: bool = False) -> Card:
    """Write a checkpoint folder; it appears whole or not at all.

    Args:
        model: the network; its `config` must be a dataclass of plain values.
        method: key of `registry.METHODS`.
        folder: created; a checkpoint of ours that lies there is replaced, other files beside it are left alone.
        card: what the checkpoint says about itself.
        readme: the model card's text.
        half: store floating-point tensors in 16 bits (those that would overflow stay as they are).

    Returns:
        The card with the weights' sha256.

    Raises:
        UserError: something else lies there, or it cannot be written.
    """
    folder = Path(folder).absolute()
    _check_free(folder)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if "num_batches" not in k}
    if half:
        tensors = {k: _narrow(v) for k, v in tensors.items()}
    weights = safetensors.torch.save(tensors)
    card = dataclasses.replace(card, sha256=hashlib.sha256(weights).hexdigest())
    document = {
        "schema": SCHEMA,
        "method": method,
        "config": dataclasses.asdict(model.config),
        "card": dataclasses.asdict(card),
    }
    config = json.dumps(document, indent=1, ensure_ascii=False)
    partial = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / WEIGHTS).write_bytes(weights)
        (partial / CARD).write_text(readme, encoding="utf-8")
        (partial / CONFIG).write_text(config, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)  # without it nobody takes the folder for a checkpoint
        for file in (WEIGHTS, CARD, CONFIG):
            (partial / file).replace(folder / file)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return card


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a new or empty folder")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            read_config(folder)
        except UserError as error:
            raise UserError(f"{folder} holds other files and no checkpoint; choose a new or empty folder") from error


def _narrow(x: Tensor) -> Tensor:
    half = x.half()
    return half if x.is_floating_point() and torch.isfinite(half).all() else x
