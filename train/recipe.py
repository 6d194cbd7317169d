"""Recipes: YAML files that say what to train on what and how; no code in them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from emotion import datasets
from emotion.datasets import Samples
from emotion.errors import UserError
from train.loop import Settings

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Source:
    """One data set of a recipe.

    Attributes:
        dataset, split: which reader, which split.
        first: only so many samples, 0 for all.
        options: the reader's own.
    """

    dataset: str
    split: str
    first: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A training run as data.

    Attributes:
        method: names the file `train/<method>.py` that builds the trainee.
        about: one line.
        name: `arch.tag` of the checkpoint that comes out.
        data: role ("train", "valid", ...) -> sources.
        settings: optimisation, see `train.loop.Settings`.
        licence, commercial: of the weights that come out.
        rest: everything else, for the method.
    """

    method: str
    about: str
    name: str
    data: dict[str, list[Source]]
    settings: Settings
    licence: str
    commercial: bool
    rest: dict[str, Any]


def names() -> list[str]:
    """All recipes that come with the project."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def load(name: str) -> Recipe:
    """A recipe by name, or by the path of a YAML file of your own.

    Raises:
        UserError: not found, not YAML, fields missing or of the wrong type.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no recipe {name!r}; there are: {', '.join(names())}")
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {error}") from error
    missing = {"method", "about", "name", "data"} - set(table if isinstance(table, dict) else ())
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}")
    return Recipe(
        method=table.pop("method"),
        about=table.pop("about"),
        name=table.pop("name"),
        data={role: [_source(row, path) for row in rows] for role, rows in table.pop("data").items()},
        settings=parse(Settings, table.pop("settings", {}), f"{path}: settings"),
        licence=table.pop("licence", "research only: ask the owners of the training data"),
        commercial=table.pop("commercial", False),
        rest=table,
    )


def _source(row: dict[str, Any], path: Path) -> Source:
    if not isinstance(row, dict) or not {"dataset", "split"} <= row.keys():
        raise UserError(f"{path}: every data source needs dataset and split, found {row}")
    options = {k: v for k, v in row.items() if k not in ("dataset", "split", "first")}
    return Source(row["dataset"], row["split"], row.get("first", 0), options)


def parse(cls: Any, value: Any, where: str) -> Any:
    """`value` (plain data) as an object of dataclass `cls`.

    Raises:
        UserError: a field is unknown, missing or of the wrong type.
    """
    unknown = set(value) - set(getattr(cls, "__dataclass_fields__", value))
    if unknown:
        raise UserError(f"{where}: unknown field {', '.join(sorted(unknown))}")
    try:
        return TypeAdapter(cls).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def samples(recipe: Recipe, role: str, folders: dict[str, Path]) -> list[Samples]:
    """The data of one role.

    Raises:
        UserError: a data set's folder was not given, or its reader complains.
    """
    out = []
    for source in recipe.data.get(role, []):
        if source.dataset not in folders:
            raise UserError(f"recipe needs the data set {source.dataset}: add --data {source.dataset}=FOLDER")
        found = datasets.reader(source.dataset).load(folders[source.dataset], source.split, **source.options)
        out.append(found.subset(slice(source.first)) if source.first else found)
    return out


def data_folders(recipe: Recipe, given: list[str]) -> dict[str, Path]:
    """`--data` arguments (`FOLDER`, or `NAME=FOLDER` where a recipe needs several sets) as a table.

    Raises:
        UserError: a bare folder although several sets are needed, or a name the recipe does not use.
    """
    needed = sorted({s.dataset for sources in recipe.data.values() for s in sources})
    out = {}
    for text in given:
        name, _, folder = text.partition("=") if "=" in text else ("", "", text)
        if not name and len(needed) > 1:
            raise UserError(f"this recipe needs {', '.join(needed)}: write --data NAME=FOLDER for each")
        if name and name not in needed:
            raise UserError(f"this recipe does not use {name!r}; it needs {', '.join(needed)}")
        out[name or needed[0]] = Path(folder)
    return out


def fake_folders(recipe: Recipe, parent: str | Path | None = None) -> dict[str, Path]:
    """Synthetic copies of every data set the recipe needs, in a fresh folder."""
    root = Path(parent or tempfile.mkdtemp(prefix="emotion-fake-"))
    needed = {s.dataset for sources in recipe.data.values() for s in sources}
    return {name: datasets.reader(name).fake(root / name) for name in sorted(needed)}
