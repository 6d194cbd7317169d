"""From the originals' checkpoint files to ours. Pickles are read here only (in `files`), and never executed.

Every method has one file here with `read(source, **options) -> Imported`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emotion import hub
from emotion.errors import UserError
from emotion.hub import publishing
from emotion.importers.files import BROKEN_CONTENT

METHODS = ("esr", "fg2020", "avfusion", "efficientface", "benet", "emenet", "mobilefacenet", "marblenet")
COUNTERS = {"*.num_batches_tracked": "counts training steps, plays no part in prediction"}  # of any batch norm


@dataclass
class Imported:
    """What an original checkpoint turned into.

    Attributes:
        config: the method's config dataclass.
        tensors: state dict under our names.
        card: name, licence and origin.
        dropped: original tensor name -> why it is not needed.
        notes: decisions worth telling, for the model card.
    """

    config: Any
    tensors: dict[str, Tensor]
    card: hub.Card
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(method: str, source: str | Path, **options: Any) -> Imported:
    """Read an original checkpoint of `method` (file, folder or archive).

    Raises:
        UserError: unknown method, unreadable, incomplete or foreign files.
    """
    if method not in METHODS:
        raise UserError(f"no importer for {method!r}; there are: {', '.join(METHODS)}")
    source = Path(source)
    if not source.exists():
        raise UserError(f"{source} does not exist")
    reader = importlib.import_module(f"emotion.importers.{method}").read
    inspect.signature(reader).bind(
        source, **options
    )  # an option that there is not is the caller's fault, not the file's
    with _foreign(method, source):
        imported = reader(source, **options)
    imported.dropped |= COUNTERS
    return imported


@contextmanager
def _foreign(method: str, source: Path) -> Iterator[None]:
    """Readers tell networks by the shapes of tensors; what strange shapes make them raise becomes one message."""
    try:
        yield
    except UserError:
        raise
    except BROKEN_CONTENT as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{source} is no complete {method} checkpoint: its tensors' shapes belong to no such network "
            f"({type(error).__name__}: {reason}). Is it the original file?"
        ) from error


def convert(method: str, source: str | Path, folder: str | Path, **options: Any) -> Imported:
    """Import `source` and write it as a checkpoint folder; runs a forward pass as self-check first.

    Raises:
        UserError: as `read`, or tensors that do not fit the network, or one larger than `hub.limits` allow.
    """
    imported = read(method, source, **options)
    model = hub.build(method, asdict(imported.config), where=source).eval()
    hub.fit(model, imported.tensors, where=source)
    with torch.inference_mode():
        outputs = model(model.example())
    broken = [k for k, v in outputs.items() if isinstance(v, Tensor) and not torch.isfinite(v).all()]
    if broken:
        raise UserError(f"{source}: the imported model gives no finite {', '.join(broken)}; the file is damaged")
    imported.card = hub.save(model, method, folder, imported.card, model_card(method, imported))
    return imported


def model_card(method: str, imported: Imported) -> str:
    """README.md of an imported checkpoint."""
    card = imported.card
    lines = [
        f"# {card.name}",
        "",
        f"These weights were {card.source}.",
        "",
        f"- Licence of the weights: {card.licence} (commercial use: {'yes' if card.commercial else 'no'})",
        f"- Trained on: {', '.join(card.trained_on) or 'not stated'}",
        "- Figures: none measured here; see the paper.",
        *(f"- {note}" for note in imported.notes),
        *(f"- Not taken over: {name} ({why})" for name, why in imported.dropped.items()),
        "",
        publishing.LIMITS,
    ]
    return publishing.headed(publishing.front_matter(card, method), "\n".join(lines))
