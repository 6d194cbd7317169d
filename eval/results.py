"""Results: one JSON file per model, data set and split, checked on reading. What a leaderboard is made of."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, FiniteFloat, TypeAdapter, ValidationError

from emotion.errors import UserError

SCHEMA = "emotion-result/1"
FOLDER = Path(__file__).parent / "results"
COVERAGES = [k / 20 for k in range(1, 21)]  # of `TaskResult.risk`

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Figure:
    """A value with its bootstrap 95 % interval, both None where it has none."""

    __pydantic_config__ = _STRICT
    value: FiniteFloat
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None


@dataclass(frozen=True)
class TaskResult:
    """What was measured for one task.

    Attributes:
        labels: the vocabulary that was scored.
        n: number of labelled samples (people, for scenes).
        metrics: name -> figure; one that is not a number (no labels) is absent.
        per_label: metric -> label -> value.
        calibration: name -> value; empty for continuous tasks.
        confusion: counts, references in rows; empty where there is none.
        risk: mean error of the surest 5, 10, ... 100 % of the answers (wrong classes, wrong action units, absolute
            errors of values); empty for models without uncertainty.
        notes: what the reader must know, in words.
    """

    __pydantic_config__ = _STRICT
    labels: tuple[str, ...]
    n: int
    metrics: dict[str, Figure]
    per_label: dict[str, dict[str, FiniteFloat]] = field(default_factory=dict)
    calibration: dict[str, FiniteFloat] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()
    risk: tuple[FiniteFloat, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """Who answered. `sha256` is of the weights; "" and None stand for unknown (predictions made elsewhere)."""

    __pydantic_config__ = _STRICT
    name: str
    sha256: str = ""
    parameters: int | None = None
    multiply_adds: int | None = None
    licence: str = ""
    weights: Literal["bundled", "to import", "own", "elsewhere"] = "elsewhere"


@dataclass(frozen=True)
class DataInfo:
    """What was asked: `fingerprint` is over sample ids and labels, `groups` counts videos or subjects."""

    __pydantic_config__ = _STRICT
    name: str
    split: str
    protocol: str
    fingerprint: str
    n: int
    groups: int | None = None


@dataclass(frozen=True)
class RunInfo:
    """How it was measured.

    Attributes:
        command: what reproduces it, folder names left out.
        predictions: file name beside the result, and `predictions_sha256` of it; "" where not kept.
        samples_per_second: of the whole run, pictures read included.
        replicates, seed, unit: of the bootstrap; whole "group"s or single "sample"s are drawn.
    """

    __pydantic_config__ = _STRICT
    command: str
    date: str
    commit: str
    versions: dict[str, str]
    machine: str
    device: str = ""
    samples_per_second: FiniteFloat | None = None
    predictions: str = ""
    predictions_sha256: str = ""
    replicates: int = 1000
    seed: int = 0
    unit: Literal["sample", "group"] = "sample"


@dataclass(frozen=True)
class Result:
    """One measured row; `tasks` maps "expression", "action_units", ... to what was measured."""

    __pydantic_config__ = _STRICT
    model: ModelInfo
    data: DataInfo
    tasks: dict[str, TaskResult]
    run: RunInfo
    schema: Literal["emotion-result/1"] = SCHEMA

    @property
    def name(self) -> str:
        """The file's name without extension."""
        return file_name(self.model.name, self.data.name, self.data.split)


_ADAPTER = TypeAdapter(Result)


def file_name(model: str, dataset: str, split: str) -> str:
    """`model--dataset--split`, with everything but letters, digits, dot, dash and underscore replaced."""
    return "--".join(re.sub(r"[^\w.-]+", "_", part).strip("_") for part in (Path(model).name, dataset, split))


def write(result: Result, path: Path) -> None:
    """Write the JSON file; it appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    text = json.dumps(dataclasses.asdict(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(path, text.encode())


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` so that the file appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def read(path: Path) -> Result:
    """A result file.

    Raises:
        UserError: unreadable, of another schema, or with fields that are unknown, missing or ill-typed.
    """
    document = read_json(path)
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema!r}, this version reads {SCHEMA!r}")
    return validated(_ADAPTER, document, path)


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        UserError: it cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def validated(adapter: TypeAdapter, document: Any, path: Path | str) -> Any:
    """`document` as the adapter's type.

    Raises:
        UserError: names the file and the field.
    """
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}, {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}") from error


def read_all(folders: Iterable[Path]) -> tuple[list[Result], list[str]]:
    """All results in some folders, and one message per file that is not one.

    Raises:
        UserError: a folder does not exist.
    """
    found, problems = [], []
    folders = list(folders)
    for folder in folders:
        if not folder.is_dir() and folder != FOLDER:
            raise UserError(f"there is no folder {folder}")
    for path in sorted(p for folder in folders for p in folder.glob("*.json")):
        try:
            found.append(read(path))
        except UserError as error:
            problems.append(str(error))
    return found, problems
