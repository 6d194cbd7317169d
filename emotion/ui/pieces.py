"""What several tabs share: the models of this page, the picture input, messages and downloads."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from emotion import hub, registry
from emotion.errors import UserError
from emotion.predict import FacePredictor

WORKING_SIDE = 1600  # pixels, longer side of the picture that a session keeps and looks at


class Models:
    """The models this page offers: bundled ones and given folders. Each is loaded on first use and shared by all."""

    def __init__(self, folders: Sequence[str | Path] = ()) -> None:
        self.places: dict[str, str | Path] = {}
        for folder in map(Path, folders):
            document = hub.read_config(hub.find(folder))
            self.places[document["card"]["name"]] = folder
        for name, entry in registry.entries().items():
            if entry.bundled and (entry.folder / hub.CONFIG).is_file():
                self.places.setdefault(name, name)
        if not self.places:
            raise UserError("there is no model to show; give a checkpoint folder with --model FOLDER")
        self._loaded: dict[str, FacePredictor] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """What can be chosen; the first is the default."""
        return list(self.places)

    def is_loaded(self, name: str) -> bool:
        """Whether `predictor` answers at once."""
        return name in self._loaded

    def predictor(self, name: str) -> FacePredictor:
        """The predictor with this model.

        Raises:
            UserError: no such model here, or its checkpoint is damaged.
        """
        if name not in self.places:
            raise UserError(f"this page has no model {name!r}; it has: {', '.join(self.names)}")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = FacePredictor(hub.load(self.places[name]))
            return self._loaded[name]


def picture_input(**options: Any) -> gr.Image:
    """An image input that hands over the file as it was uploaded; reading it, and saying what is wrong, is ours.

    Hide and show it through its parent: an update of its properties makes gradio build a plain gr.Image instead.
    """
    component = gr.Image(type="filepath", **options)
    component.preprocess = lambda upload: None if upload is None else upload.path
    return component


def note(title: str, text: str = "") -> str:
    """A calm message in the place of a result."""
    return _message("em-note", "status", f"<p><strong>{escape(title)}</strong></p>", text)


def busy(text: str) -> str:
    """What is happening now."""
    return _message("em-note", "status", f'<p class="em-busy">{escape(text)}</p>')


def error(text: str) -> str:
    """What is wrong and what to do, in the place where the result would be."""
    return _message("em-note em-error", "alert", f"<p><strong>This did not work:</strong> {escape(text)}</p>")


def _message(classes: str, role: str, head: str, text: str = "") -> str:
    body = f'<p class="em-text">{escape(text)}</p>' if text else ""
    return f'<div class="{classes}" role="{role}">{head}{body}</div>'


def reduced(picture: np.ndarray, side: int = WORKING_SIDE) -> np.ndarray:
    """The picture with its longer side at most `side`, uint8 [H, W, 3]."""
    height, width = picture.shape[:2]
    if max(height, width) <= side:
        return picture
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0))


def encoded(picture: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """An image file's bytes."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind, **options)
    return out.getvalue()


def data_uri(picture: np.ndarray) -> str:
    """A small picture for an <img> inside a page."""
    return f"data:image/jpeg;base64,{base64.b64encode(encoded(picture, 'JPEG', quality=88)).decode()}"


def download(name: str, content: bytes) -> str:
    """Put a file where the page can serve it until the cache is cleared; returns its path."""
    return save_bytes_to_cache(content, name, get_upload_folder())
