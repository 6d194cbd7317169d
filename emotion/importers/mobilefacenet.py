"""The published 68-point face-alignment network, `mobilefacenet_model_best.pth.tar` (a plain PyTorch file)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from emotion import hub
from emotion.errors import UserError
from emotion.importers import Imported
from emotion.importers.files import choose, renamed, state_dict, without_counters
from emotion.models.mobilefacenet import STAGES, face_alignment

# Children of the original's trunk -> ours; residual stages had a container named "model".
CHILDREN = {
    "conv1": "conv1",
    "conv2_dw": "conv2_dw",
    **{f"{n}.model" if s.repeat else n: n if s.repeat else f"{n}.0" for n, s in STAGES.items()},
    "conv_6_sep": "conv_6_sep",
    "output_layer.conv_6_dw": "conv_6_dw",
}
HEAD = {"output_layer.linear": "alignment.0", "output_layer.bn": "alignment.1"}


def read(source: Path, name: str = "mobilefacenet.landmarks") -> Imported:
    """Read the file.

    Args:
        source: the file, or a folder or archive with it; a bare state dict is understood too.
        name: name of the checkpoint, `arch.tag`.

    Raises:
        UserError: unreadable, or not this network.
    """
    original = without_counters(state_dict(*choose(source, "mobilefacenet_model_best*", "*.pth.tar")))
    tensors = {f"backbone.{k}": v for k, v in rename(original, CHILDREN).items()} | rename(original, HEAD)
    if len(tensors) < len(original):
        known = {*CHILDREN, *HEAD}
        other = next(k for k in original if not any(k.startswith(f"{p}.") for p in known))
        raise UserError(f"{source} is no face-alignment MobileFaceNet: it holds {other!r}")
    card = hub.Card(
        name=name,
        licence="no licence stated with the weights; research use only",
        commercial=False,
        source=f"imported from {source.name}",
    )
    notes = ["Predicts 68 landmarks as x0, y0, x1, y1, ... in fractions of the crop's sides; expects RGB in [0, 1]."]
    return Imported(config=face_alignment(), tensors=tensors, card=card, notes=notes)


def rename(tensors: dict[str, Tensor], table: dict[str, str]) -> dict[str, Tensor]:
    """Tensors that lie below a key of `table`, moved to its value; all others are left out."""
    return {new: value for name, value in tensors.items() if (new := renamed(name, table))}
