"""EfficientFace checkpoints of the authors: `EfficientFace_Trained_on_AffectNet7.pth.tar` (a plain torch file)."""

from __future__ import annotations

from pathlib import Path

from emotion import hub
from emotion.errors import UserError
from emotion.importers import Imported
from emotion.importers.files import choose, renamed, state_dict, without_counters
from emotion.models.efficientface import EfficientFaceConfig

_MODULATOR = {
    "channel_att.gate_c.gate_c_fc_0": "channel.0",
    "channel_att.gate_c.gate_c_bn_1": "channel.1",
    "channel_att.gate_c.gate_c_fc_final": "channel.3",
    "spatial_att.gate_s.gate_s_conv_reduce0": "spatial.0",
    "spatial_att.gate_s.gate_s_bn_reduce0": "spatial.1",
    "spatial_att.gate_s.gate_s_conv_di_0": "spatial.3",
    "spatial_att.gate_s.gate_s_bn_di_0": "spatial.4",
    "spatial_att.gate_s.gate_s_conv_di_1": "spatial.6",
    "spatial_att.gate_s.gate_s_bn_di_1": "spatial.7",
    "spatial_att.gate_s.gate_s_conv_final": "spatial.9",
}
_LAYER = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4}  # place in a quarter's sequence
BACKBONE = {  # the originals' prefix -> ours
    "conv1": "stem",
    "conv5": "top",
    **{name: name for name in ("stage2", "stage3", "stage4")},
    **{f"modulator.{old}": f"modulator.{new}" for old, new in _MODULATOR.items()},
    **{
        f"local.{kind[:-1]}{quarter + 1}_{kind[-1]}": f"local.quarters.{quarter}.{place}"
        for quarter in range(4)
        for kind, place in _LAYER.items()
    },
}


def read(source: Path, name: str = "efficientface.affectnet7") -> Imported:
    """Read the authors' file.

    Raises:
        UserError: unreadable, foreign, or with classes that are not seven expressions.
    """
    config = EfficientFaceConfig()
    state = without_counters(state_dict(*choose(source, "EfficientFace_Trained_on_AffectNet7*", "*.pth*")))
    classes = len(state.get("fc.weight", ()))
    if classes != len(config.labels):
        raise UserError(
            f"{source} classifies {classes} classes, not {len(config.labels)} expressions; "
            "the file to import is EfficientFace_Trained_on_AffectNet7.pth.tar"
        )
    prefixes = {old: f"backbone.{new}" for old, new in BACKBONE.items()}
    card = hub.Card(
        name=name,
        licence="weights trained on AffectNet, non-commercial research use",
        commercial=False,
        trained_on=("AffectNet",),
        source=f"imported from {source.name}",
    )
    notes = ["The file does not say the order of its classes; AffectNet's own order without contempt is assumed."]
    return Imported(config, {renamed(k, prefixes) or k: v for k, v in state.items()}, card, notes=notes)
