"""What several tabs share: the models of this page, file inputs, examples, messages and downloads."""

from __future__ import annotations

import base64
import importlib
import io
import threading
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, get_type_hints

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from emotion import hub, registry
from emotion.errors import UserError
from emotion.media import read_image

WORKING_SIDE = 1600  # pixels, longer side of the picture that a session keeps and looks at
TITLED = 8  # faces or people whose list says more than their numbers
EXAMPLES = Path(__file__).parent / "examples"
CHOOSE_EXAMPLE = (
    "element.addEventListener('click', e => { const b = e.target.closest('button[data-file]');"
    "if (b) trigger('click', { file: b.dataset.file }); })"
)
# What a model reads, by the type of its config's `input` -> the class that runs such models.
PREDICTORS = {
    "FaceInput": "emotion.predict:FacePredictor",
    "SceneInput": "emotion.predict.scenes:ScenePredictor",
    "ClipInput": "emotion.predict.clips:ClipPredictor",
}


class Models:
    """The models this page offers: given ones (folders, or names on a Hub, fetched now) and bundled ones.

    Each is loaded on first use and shared by all.
    """

    def __init__(self, given: Sequence[str | Path] = ()) -> None:
        self.places: dict[str, str | Path] = {}
        for place in given:
            folder = hub.find(place)
            name = hub.read_config(folder)["card"]["name"]
            self.places[str(place) if hub.bundled(name) else name] = folder  # none may pose as part of this package
        for name, entry in registry.entries().items():
            if entry.bundled and (entry.folder / hub.CONFIG).is_file():
                self.places.setdefault(name, name)
        self._reads = {name: _reads(hub.find(place)) for name, place in self.places.items()}
        if not self.names():
            raise UserError("there is no model to show; give a checkpoint with --model FOLDER or OWNER/NAME")
        self._loaded: dict[str, Any] = {}
        self._lock = threading.Lock()

    def names(self, reads: str = "FaceInput") -> list[str]:
        """The models that read such an input (a key of `PREDICTORS`), to choose from; the first is the default."""
        return [name for name in self.places if self._reads[name] == reads]

    def is_loaded(self, name: str) -> bool:
        """Whether `predictor` answers at once."""
        return name in self._loaded

    def predictor(self, name: str, reads: str = "FaceInput") -> Any:
        """What runs this model, an object of the class that `PREDICTORS` names.

        Raises:
            UserError: no such model here, or its checkpoint is damaged.
        """
        if name not in self.names(reads):
            raise UserError(f"this page has no model {name!r}; it has: {', '.join(self.names(reads)) or 'none'}")
        with self._lock:
            if name not in self._loaded:
                module, cls = PREDICTORS[reads].split(":")
                self._loaded[name] = getattr(importlib.import_module(module), cls)(hub.load(self.places[name]))
            return self._loaded[name]


def _reads(folder: Path) -> str:
    """The type of a checkpoint's input, by name."""
    return get_type_hints(hub.model_class(hub.read_config(folder)["method"]).Config).get("input", object).__name__


def example_gallery(rows: Sequence[tuple[str, str, str, str]], **options: Any) -> gr.HTML:
    """Buttons that run an example; its `click` event carries the name as `event.file`.

    Args:
        rows: file in `EXAMPLES`, caption, what is to be seen, licence. The picture is the file, or for other media a
            JPEG picture beside it with ".jpg" appended.
        options: of `gr.HTML`.
    """
    buttons = []
    for file, caption, alt, licence in rows:
        poster = EXAMPLES / f"{file}.jpg"
        picture = data_uri(reduced(read_image(poster if poster.is_file() else EXAMPLES / file), 240))
        text = f'<img src="{picture}" alt="{escape(alt)}">{escape(caption)}<small>{escape(licence)}</small>'
        buttons.append(f'<button type="button" data-file="{file}">{text}</button>')
    body = f'<p class="em-text">Or try an example:</p><div class="em-examples">{"".join(buttons)}</div>'
    return gr.HTML(body, js_on_load=CHOOSE_EXAMPLE, elem_classes="em-gallery", **options)


def example(rows: Sequence[tuple[str, str, str, str]], event: gr.EventData) -> str:
    """Path of the example that was clicked; only names in `rows` are understood."""
    names = [row[0] for row in rows]
    return str(EXAMPLES / names[names.index(event.file)])


def choices(count: int, title: Callable[[int], str]) -> list[tuple[str, int]]:
    """Everybody in a picture, to choose from: titles, or only numbers where these would fill the screen."""
    return [(title(n) if count <= TITLED else str(n + 1), n) for n in range(count)]


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


def busy(text: str, share: float | None = None) -> str:
    """What is happening now, and how much of it is done (0 to 1), where that is known."""
    bar = "" if share is None else f'<progress value="{share:.3f}" aria-label="Progress"></progress>'
    return _message("em-note", "status", f'<p class="em-busy">{escape(text)}</p>{bar}')


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
