"""Which models exist: a table of entries, read from registry.yaml. An entry is data, `arch.tag` its name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import yaml

from emotion.errors import UserError

DEFAULT = "esr_compact.ferplus"
WEIGHTS = Path(__file__).parent / "weights"
FILE = "model.safetensors"

# Method -> "module:class"; imported only when one of its models is needed.
METHODS = {
    "esr": "emotion.models.esr:ESR",
    "avfusion": "emotion.models.avfusion:AVFusion",
    "efficientface": "emotion.models.efficientface:EfficientFace",
    "fg2020": "emotion.models.fg2020:FG2020",
    "benet": "emotion.models.benet:BENet",
    "emenet": "emotion.models.emenet:EMENet",
    "mobilefacenet": "emotion.models.mobilefacenet:MobileFaceNet",
    "marblenet": "emotion.models.marblenet:MarbleNet",
}


@dataclass(frozen=True)
class Entry:
    """One known checkpoint.

    Attributes:
        name: `arch.tag`.
        method: key of `METHODS`.
        summary: one line for people.
        tasks: what it predicts.
        trained_on: data sets.
        licence: SPDX id or a short phrase; `commercial`: whether commercial use is allowed.
        input: what the network sees or hears, in words.
        labels: names of what it predicts, per task, in the order of its outputs; none for landmarks.
        bundled: whether the folder `emotion/weights/<name>` is part of the package.
        repo: where a Hub has it, OWNER/NAME, at the commit `revision`; empty, and then never looked for, unless that
            repository is this project's own.
        file: of the weights, in the folder or repository.
        sha256, size: of that file (size in bytes), where the weights are known; the first pins what is loaded by name.
        original: where the original's weights are, for people; `import_command` turns them into a checkpoint.
        citation: the paper.
        parameters: of the network, all members together.
        reported: published figures, in words, with their source.
    """

    name: str
    method: str
    summary: str
    tasks: tuple[str, ...]
    trained_on: tuple[str, ...]
    licence: str
    commercial: bool
    citation: str
    parameters: int = 0
    input: str = ""
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    bundled: bool = False
    repo: str = ""
    revision: str = ""
    file: str = FILE
    sha256: str = ""
    size: int = 0
    original: str = ""
    import_command: str = ""
    reported: str = ""

    @property
    def folder(self) -> Path:
        """Where a bundled checkpoint lies."""
        return WEIGHTS / self.name


@lru_cache(maxsize=1)
def entries() -> dict[str, Entry]:
    """All entries by name, in the order of the file."""
    table = yaml.safe_load((Path(__file__).parent / "registry.yaml").read_text(encoding="utf-8"))
    out = {}
    for name, row in table.items():
        row = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        row["labels"] = {task: tuple(names) for task, names in row.get("labels", {}).items()}
        out[name] = Entry(name=name, **row)
    return out


def get(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        UserError: no such entry; names the nearest ones.
    """
    if name not in entries():
        near = difflib.get_close_matches(name, entries(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `python -m emotion models` lists them"
        raise UserError(f"no model is called {name!r}{hint}")
    return entries()[name]
