"""NVIDIA NeMo's voice-activity file, `vad_marblenet.nemo`: a tar that holds `model_weights.ckpt`, a state dict."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from emotion import hub
from emotion.errors import UserError
from emotion.importers import Imported
from emotion.importers.files import choose, state_dict, without_counters
from emotion.importers.mobilefacenet import rename
from emotion.models.marblenet import BLOCKS, MFCC, MarbleNetConfig

PREPROCESSOR = "preprocessor.featurizer."
COMPUTED = {f"{PREPROCESSOR}*": "constants of the sound's front end, which are computed"}
# Constants of the original's front end -> ours, which are computed.
CONSTANTS = {"dct_mat": "dct", "MelSpectrogram.spectrogram.window": "window", "MelSpectrogram.mel_scale.fb": "filters"}


def children() -> dict[str, str]:
    """Children of the original's encoder -> ours: convolution, batch norm, ReLU and dropout are numbered through."""
    table = {}
    for b, block in enumerate(BLOCKS):
        old, new = f"encoder.encoder.{b}", f"blocks.{b}"
        for i in range(len(block.kernels)):
            convolutions = ("depthwise", "pointwise") if block.separable else ("pointwise",)
            first = i * (len(convolutions) + 3)
            for j, convolution in enumerate(convolutions):
                table[f"{old}.mconv.{first + j}.conv"] = f"{new}.layers.{i}.{convolution}"
            table[f"{old}.mconv.{first + len(convolutions)}"] = f"{new}.layers.{i}.bn"
        if block.residual:
            table[f"{old}.res.0.0.conv"] = f"{new}.shortcut.pointwise"
            table[f"{old}.res.0.1"] = f"{new}.shortcut.bn"
    return table


def split_constants(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors without those of the front end, and a note if one of these is not what we compute."""
    ours = dict(MFCC().named_buffers())
    learnt, notes = {}, []
    for name, value in tensors.items():
        if not name.startswith(PREPROCESSOR):
            learnt[name] = value
            continue
        computed = ours.get(CONSTANTS.get(name.removeprefix(PREPROCESSOR), ""))
        if computed is None or computed.shape != value.shape or not torch.allclose(computed, value, atol=1e-3):
            notes.append(f"The file's {name} differs from the standard front end, which is used all the same.")
    return learnt, notes


def read(source: Path, name: str = "marblenet.vad") -> Imported:
    """Read a `.nemo` file, or the `.ckpt` from it.

    Args:
        source: the file.
        name: name of the checkpoint, `arch.tag`.

    Raises:
        UserError: unreadable, incomplete, or not this network.
    """
    learnt, notes = split_constants(without_counters(state_dict(*choose(source, "model_weights.ckpt"))))
    tensors = {f"backbone.{k}": v for k, v in rename(learnt, children()).items()}
    tensors |= rename(learnt, {"decoder.decoder_layers.0": "classifier"})
    if len(tensors) < len(learnt):
        known = (*children(), "decoder.decoder_layers.0")
        other = next(k for k in learnt if not k.startswith(tuple(f"{p}." for p in known)))
        raise UserError(f"{source} is no MarbleNet 3x2x64: it holds {other!r}")
    card = hub.Card(
        name=name,
        licence="terms of NVIDIA NGC",
        commercial=False,
        source=f"imported from {source.name}",
    )
    return Imported(config=MarbleNetConfig(), tensors=tensors, card=card, dropped=dict(COMPUTED), notes=notes)
