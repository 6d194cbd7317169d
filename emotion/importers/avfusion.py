"""The authors' fusion checkpoints: `lt_1head_moddrop_2.pth` and its kin, or any file that their training writes."""

from __future__ import annotations

from pathlib import Path

from emotion import hub
from emotion import labels as vocab
from emotion.errors import UserError
from emotion.importers import Imported
from emotion.importers.efficientface import BACKBONE
from emotion.importers.files import choose, renamed, state_dict, without_counters
from emotion.models.avfusion import AVFusionConfig
from emotion.models.base import AudioInput, ClipInput, FaceInput

MARKS = {"av.norm1_q.weight": "lt", "av1.norm1_q.weight": "it", "av1.q.weight": "ia"}  # tensors only one fusion has
LAYERS = 5  # per convolution in a temporal stage of ours: convolution, norm, ReLU, maximum, dropout
_BLOCK = {
    "norm1_k": "norm_keys",
    "norm1_q": "norm_queries",
    "norm2": "norm",
    "attn": "attention",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}


def read(
    source: Path,
    heads: int = 1,
    frames: int = 15,
    labels: tuple[str, ...] = vocab.RAVDESS,
    name: str | None = None,
) -> Imported:
    """Read a fusion checkpoint; which fusion it is follows from its tensors.

    Args:
        source: the file, or a folder or archive with one such file.
        heads: attention heads it was trained with; the weights do not tell.
        frames: pictures per clip it was trained with.
        labels: its classes, in order.
        name: of the new checkpoint.

    Raises:
        UserError: unreadable, of another method, or with another number of classes.
    """
    state = without_counters(state_dict(*choose(source, "*_best*.pth", "*.pth")))
    fusion = next((fusion for mark, fusion in MARKS.items() if mark in state), None)
    if fusion is None or "classifier_1.0.weight" not in state:
        raise UserError(f"{source} is no audiovisual fusion checkpoint: it has no attention between modalities")
    classes = len(state["classifier_1.0.weight"])
    if classes != len(labels):
        raise UserError(f"{source} has {classes} classes; name them in order (option labels), not {len(labels)}")
    try:
        config = AVFusionConfig(input=original_input(frames), fusion=fusion, heads=heads, labels=labels)
    except ValueError as error:
        raise UserError(str(error)) from error
    card = hub.Card(
        name=name or f"avfusion_{fusion}.ravdess",
        licence="trained on RAVDESS (CC BY-NC-SA 4.0): no commercial use",
        commercial=False,
        trained_on=("RAVDESS",),
        source=f"imported from {source.name}",
    )
    notes = [
        f"{heads} attention head(s) and {frames} pictures per clip, as told at import; the weights do not say.",
        "Face crops enter as BGR, sound as resampled and stored in 16 bits, as in the original's training.",
        "The class scores of single modalities (`audio.head`, `visual.head`) were never trained.",
    ]
    return Imported(config, {renamed(k, PREFIXES) or k: v for k, v in state.items()}, card, notes=notes)


def original_input(frames: int = 15) -> ClipInput:
    """What the originals' networks were fed with."""
    return ClipInput(
        visual=FaceInput(size=(224, 224), channels="bgr", antialias=False),
        audio=AudioInput(resampler="kaiser", quantise=True),
        frames=frames,
        timing="index",
    )


def _prefixes() -> dict[str, str]:
    table = {f"visual_model.{old}": f"backbone.{new}" for old, new in BACKBONE.items()}
    for theirs, ours in (("audio_model", "audio"), ("visual_model", "visual")):
        for i in range(4):
            stage, place = 1 + i // 2, i % 2 * LAYERS
            table |= {f"{theirs}.conv1d_{i}.{k}": f"{ours}.stage{stage}.{place + k}" for k in (0, 1)}
        table[f"{theirs}.classifier_1.0"] = f"{ours}.head"
    for theirs, ours in (("av", "read_visual"), ("va", "read_audio")):
        for at in (theirs, f"{theirs}1"):
            table |= {at: ours} | {f"{at}.{old}": f"{ours}.{new}" for old, new in _BLOCK.items()}
    return table | {"classifier_1.0": "fc"}


PREFIXES = _prefixes()
