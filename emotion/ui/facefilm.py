"""Pictures of one person's face, in order, as a film: read without looking for faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image
from torch import nn

from emotion import draw, media, timeline
from emotion.draw import film
from emotion.errors import UserError
from emotion.faces import cropped
from emotion.media.video import VideoWriter
from emotion.outputs import Faces, Result

RATE = 30.0  # pictures per second where nobody says how many
SIDE, ABOVE = 480, 40  # pixels of a face in the film, and above it for its label
MOST = 3000  # pictures that the page takes; the command line takes any number


def as_paths(component: gr.UploadButton | gr.File) -> Any:
    """The component, giving functions the paths of several uploaded files. Gradio's own way would leave an empty
    temporary file behind for every one of them."""
    component.preprocess = lambda payload: [file.path for file in payload.root] if payload else []
    return component


def read(files: Sequence[str], model: nn.Module, fps: float) -> Result:
    """What a model says of face pictures, in the order of `cropped.ordered`.

    Raises:
        UserError: none or too many, or as `cropped.analyze_crops`.
    """
    if not files:
        raise UserError("choose pictures of a face")
    if len(files) > MOST:
        raise UserError(
            f"{len(files)} pictures, and this page takes {MOST}; choose fewer, or use the command line: "
            "python -m emotion crops FOLDER -o OUT"
        )
    result = cropped.analyze_crops(cropped.ordered([Path(f) for f in files]), model, fps=fps)
    return replace(result, source="faces", faces=replace(result.faces, track_ids=np.ones(len(result), np.int64)))


def write(files: Sequence[str], result: Result, target: Path) -> None:
    """The pictures with what was read in them as an MP4 film, each as large as fits into a square.

    Raises:
        UserError: it cannot be written.
    """
    drawn = timeline.smooth(result)
    rate = 1 / float(result.timestamps[1]) if len(result.timestamps) > 1 else 1.0
    box = np.array([[0, ABOVE, SIDE, ABOVE + SIDE]], np.float32)
    whole, size = Faces(box, np.ones(1), track_ids=np.ones(1, np.int64)), (SIDE, ABOVE + SIDE)
    with VideoWriter(target, rate) as out:
        for file, seconds in zip(cropped.ordered([Path(f) for f in files]), result.timestamps):
            picture = Image.fromarray(media.read_image(file))
            scale = SIDE / max(picture.size)
            fitted = picture.resize([max(1, round(s * scale)) for s in picture.size], Image.Resampling.LANCZOS)
            canvas = Image.new("RGB", size)
            canvas.paste(fitted, ((SIDE - fitted.width) // 2, ABOVE + (SIDE - fitted.height) // 2))
            told = replace(film.at(drawn, float(seconds)), faces=whole, size=size)
            out.write(draw.overlay(np.asarray(canvas), told), float(seconds))
