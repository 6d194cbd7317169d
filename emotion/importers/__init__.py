"""From the originals' checkpoint files to ours. Pickles are read here only (in `files`), and never executed.

Every method has one file here with `read(source, **options) -> Imported`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emotion import hub
from emotion.errors import UserError
from emotion.hub import publishing

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
    imported = importlib.import_module(f"emotion.importers.{method}").read(source, **options)
    imported.dropped |= COUNTERS
    return imported


def convert(method: str, source: str | Path, folder: str | Path, **options: Any) -> Imported:
    """Import `source` and write it as a checkpoint folder; runs a forward pass as self-check first.

    Raises:
        UserError: as `read`, or tensors that do not fit the network.
    """
    imported = read(method, source, **options)
    model = hub.model_class(method)(imported.config).eval()
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
