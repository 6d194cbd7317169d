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
    """What one model costs on one machine; figures that make no sense for it are absent.

    Attributes:
        reads: what an input is; models of different inputs must not be compared.
        figures: "ms_1" (median milliseconds for one input: a face, a clip, or a picture of a scene),
            "images_per_second_8" and "_32" (inputs in batches), all of the network and its decoding alone, with inputs
            of its size already in memory; "photo_1_ms", "photo_5_ms", "photo_20_ms" (finding and reading everybody in
            a photo of 1280 x 960 with so many people); "video_fps" (frames per second of a film of 640 x 480 with one
            face, every frame searched and read, decoding included); "peak_memory_mb" (of the whole process meanwhile).
        clock: "wall", or "cpu": processor time of a single thread, which other programs on the machine hardly change.
        weights: "random" where the trained ones are not here; the time does not depend on them.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    model: str
    reads: Literal["faces", "clips", "scenes", "sound"]
    parameters: int
    multiply_adds: int
    figures: dict[str, FiniteFloat]
    machine: str
    device: str
    threads: int
    date: str
    commit: str
    versions: dict[str, str]
    weights: Literal["trained", "random"] = "trained"
    clock: Literal["wall", "cpu"] = "wall"
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
