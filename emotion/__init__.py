"""Emotion recognition: five published systems behind one interface.

>>> import emotion
>>> emotion.analyze("photo.jpg").to_csv("photo.csv")
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_LAZY = {"analyze": "emotion.predict", "load": "emotion.hub", "models": "emotion.registry"}


def __getattr__(name: str) -> Any:
    """`analyze`, `load` and `models` are imported when first used: `import emotion` stays fast."""
    if name not in _LAZY:
        raise AttributeError(f"module 'emotion' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), "entries" if name == "models" else name)
