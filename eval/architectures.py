"""Networks of registered models without their weights: what they cost does not depend on what they learned."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from emotion import hub, registry

SINGLES = ("teacher", *(f"student_{i}" for i in range(5)))  # of FG-2020: networks of one size


def untrained(name: str) -> nn.Module | None:
    """The registered model `name` with random weights, or None where it is not known how it is built."""
    build = _TABLE.get(name)
    if build is None:
        return None
    torch.manual_seed(0)
    return hub.model_class(registry.entries()[name].method)(build()).eval()


def _make(module: str, function: str, *arguments: Any, **options: Any) -> Callable[[], Any]:
    """A config; its module is imported when it is wanted."""
    return lambda: getattr(importlib.import_module(f"emotion.models.{module}"), function)(*arguments, **options)


def _fusion(fusion: str) -> Callable[[], Any]:
    def config() -> Any:
        from emotion.importers.avfusion import original_input
        from emotion.models.avfusion import AVFusionConfig

        return AVFusionConfig(input=original_input(), fusion=fusion, heads=1)

    return config


def _students(frames: int) -> Callable[[], Any]:
    def config() -> Any:
        from emotion.models import fg2020

        return fg2020.fg2020(members=fg2020.STUDENTS, frames=frames)

    return config


_TABLE: dict[str, Callable[[], Any]] = {
    "esr9.affectnet": _make("esr", "esr9"),
    "esr9_discrete.ferplus": _make("esr", "esr9", affect=False),
    "esr4.ckplus": _make("esr", "esr4"),
    "fg2020.students": _students(0),
    **{f"fg2020.{name}": _make("fg2020", "fg2020") for name in SINGLES},
    "fg2020_rnn.students": _students(32),
    **{f"fg2020_rnn.{name}": _make("fg2020", "fg2020", frames=32) for name in SINGLES},
    "efficientface.affectnet7": _make("efficientface", "EfficientFaceConfig"),
    **{f"avfusion_{fusion}.ravdess": _fusion(fusion) for fusion in ("lt", "it", "ia")},
    "benet_bu.emotic": _make("benet", "benet", "bu"),
    "benet_bu_det.emotic": _make("benet", "benet", "bu_det"),
    "benet_bu_det_pc.emotic": _make("benet", "benet", "bu_det_pc"),
    "benet_bu_det_pc_bg.emotic": _make("benet", "benet", "bu_det_pc_bg"),
    "benet_bu_det_pc_bg_ed.emotic_heco": _make("benet", "benet", "bu_det_pc_bg_ed"),
    "emenet_v.affwild2": _make("emenet", "emenet_v", members=5),
    "emenet_va.affwild2": _make("emenet", "emenet_va", members=5),
    "mobilefacenet.landmarks": _make("mobilefacenet", "face_alignment"),
    "marblenet.vad": _make("marblenet", "MarbleNetConfig"),
}
