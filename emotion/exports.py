"""Formats of the original frameworks, for tools that read them. Our own formats are methods of `outputs.Result`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from emotion.errors import UserError
from emotion.outputs import Result

# Names the original ESR writes, by canonical name.
ESR_NAMES = {
    "neutral": "Neutral", "happiness": "Happy", "sadness": "Sad", "surprise": "Surprise", "fear": "Fear",
    "disgust": "Disgust", "anger": "Anger", "contempt": "Contempt",
}  # fmt: skip


def esr_csv(result: Result) -> str:
    """A result in the original ESR's table: one line per frame, of the biggest face; `None` where there is no face.

    Valences are those of the result, limited to [-1, 1]; the original does not limit them.

    Raises:
        UserError: the model is no ensemble with valence and arousal.
    """
    expression, affect = result.tasks.get("expression"), result.tasks.get("valence_arousal")
    if expression is None or affect is None or expression.members is None or affect.members is None:
        raise UserError(f"{result.model} has no branches with expression and valence/arousal: no ESR table possible")
    classes = np.concatenate([expression.members.argmax(-1).T, expression.choice[:, None]], axis=1)
    values = affect.members.transpose(1, 0, 2).copy()
    values[..., 1] = np.clip((values[..., 1] + 1) / 2, 0, 1)
    values = np.concatenate([values, values.mean(axis=1, keepdims=True)], axis=1)
    rows = []
    for f, time in enumerate(result.timestamps):
        faces = np.flatnonzero(result.frame == f)
        biggest = faces[result.faces.areas[faces].argmax()] if len(faces) else None
        rows.append((float(time), None if biggest is None else (classes[biggest], values[biggest])))
    return esr_table(rows, expression.labels, len(expression.members))


def esr_table(
    rows: Iterable[tuple[float, tuple[np.ndarray, np.ndarray] | None]], labels: Sequence[str], branches: int = 9
) -> str:
    """The text of the original ESR's CSV file.

    Args:
        rows: seconds, and for the face of that frame its classes [B + 1] and its valence and arousal [B + 1, 2] as
            `models.esr.original_outputs` gives them (branches first, ensemble last), or None without a face.
        labels: canonical names of the classes.
        branches: B; nine give the original's 31 columns.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    members = ["Ensemble", *(f"Branch_{b}" for b in range(branches))]
    writer.writerow(["Timestamp(sec)", *(f"{m}_{x}" for m in members for x in ("Emotion", "Arousal", "Valence"))])
    for time, face in rows:
        cells: list[object] = ["None"] * (3 * len(members))
        if face is not None:
            classes, values = face
            order = [branches, *range(branches)]  # the ensemble comes first in the file
            cells = [
                x for i in order for x in (ESR_NAMES[labels[classes[i]]], float(values[i][1]), float(values[i][0]))
            ]
        writer.writerow([time, *cells])
    return out.getvalue()


def esr_csv_name(source: str | Path) -> str:
    """The file name the original gives its table: the input's name up to the first dot, and `.csv`."""
    return Path(source).name.split(".")[0] + ".csv"
