"""Speed results: one JSON file per model and machine, checked on reading."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, FiniteFloat, TypeAdapter

from emotion.errors import UserError
from eval.results import read_json, validated

SCHEMA = "emotion-speed/1"


@dataclass(frozen=True)
class SpeedResult:
    """What one model costs on one machine.

    Attributes:
        figures: "ms_1" (median milliseconds for one picture), "images_per_second_8" and "_32" (batches),
            "peak_memory_mb" (of the process); pictures are crops of the network's size, already in memory.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    model: str
    parameters: int
    multiply_adds: int
    figures: dict[str, FiniteFloat]
    machine: str
    device: str
    threads: int
    date: str
    commit: str
    versions: dict[str, str]
    schema: Literal["emotion-speed/1"] = SCHEMA


_ADAPTER = TypeAdapter(SpeedResult)


def read_speed(folders: Iterable[Path]) -> tuple[list[SpeedResult], list[str]]:
    """All speed results in the sub-folders `speed` of some folders, and one message per file that is not one."""
    found, problems = [], []
    for path in sorted(p for folder in folders for p in (folder / "speed").glob("*.json")):
        try:
            found.append(validated(_ADAPTER, read_json(path), path))
        except UserError as error:
            problems.append(str(error))
    return found, problems
