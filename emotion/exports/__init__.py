"""Formats of the original frameworks, for tools that read them. Our own formats are methods of `outputs.Result`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from emotion.errors import UserError
from emotion.exports.abaw import FOLDERS, task_text
from emotion.exports.abaw import files as abaw_files
from emotion.exports.abaw import members as single_tasks
from emotion.outputs import Faces, Result, Task

FORMATS = ("parquet", "esr", "abaw", "fg2020")  # what `files` can write

# Names the original ESR writes, by canonical name.
ESR_NAMES = {
    "neutral": "Neutral", "happiness": "Happy", "sadness": "Sad", "surprise": "Surprise", "fear": "Fear",
    "disgust": "Disgust", "anger": "Anger", "contempt": "Contempt",
}  # fmt: skip


def files(form: str, result: Result, stem: str) -> dict[str, bytes]:
    """A result in another format: relative path -> content.

    Those of the originals know one face per frame: the biggest. "esr" (`esr_csv`) has a row for every frame; so has
    "abaw" (`exports_abaw`), where a frame without a face repeats the nearest one with a face, as predictions for these
    challenges do; "fg2020" (`fg2020_csv`) has rows for frames with a face, counted from 1 as there.

    Args:
        form: one of `FORMATS`.
        stem: what the files are called, without extension.

    Raises:
        UserError: the model does not predict what the format needs, or a library is missing.
    """
    if form == "parquet":
        return {f"{stem}.parquet": result.to_parquet()}
    if form == "esr":
        return {f"esr/{stem}.csv": esr_csv(result).encode()}
    one = biggest(result)
    if form == "abaw":
        rows = nearest_rows(one)
        texts = abaw_files(stem, {name: task[rows] for name, task in one.tasks.items()}, np.arange(len(rows)))
        return {f"abaw/{name}": text.encode() for name, text in texts.items()}
    if form != "fg2020":
        raise UserError(f"formats are {', '.join(FORMATS)}, not {form!r}")
    if missing := FOLDERS.keys() - one.tasks.keys():
        raise UserError(f"the FG-2020 table has {', '.join(FOLDERS)}; {result.model} predicts no {missing.pop()}")
    return {f"fg2020/{stem}.csv": fg2020_csv(one.frame + 1, one.tasks).encode()}


def check(forms: Iterable[str], model: str, tasks: dict[str, Task]) -> None:
    """Whether these formats can be written of what a model says, before anything is read.

    Args:
        forms: some of `FORMATS`.
        model: its name.
        tasks: what it predicts, without rows.

    Raises:
        UserError: as `files`.
    """
    nothing = Result(model, (1, 1), np.zeros(0), np.zeros(0), Faces.empty(), tasks)
    for form in forms:
        files(form, nothing, "x")


def biggest(result: Result) -> Result:
    """The biggest face of every frame that has one."""
    order = np.lexsort((-result.faces.areas, result.frame))
    return result[order[np.unique(result.frame[order], return_index=True)[1]]]


def nearest_rows(result: Result) -> np.ndarray:
    """For every frame of a result with one face per frame, the row of the face next in time; empty without faces."""
    if not len(result):
        return np.zeros(0, np.int64)
    times, wanted = result.timestamps[result.frame], result.timestamps
    after = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    return np.where(np.abs(wanted - times[before]) <= np.abs(times[after] - wanted), before, after)


def esr_csv(result: Result) -> str:
    """A result in the original ESR's table: one line per frame, of the biggest face; `None` where there is no face.

    Valences are those of the result, limited to [-1, 1]; the original does not limit them.

    Raises:
        UserError: the model is no ensemble with valence and arousal.
    """
    one = biggest(result)
    expression, affect = one.tasks.get("expression"), one.tasks.get("valence_arousal")
    if expression is None or affect is None or expression.members is None or affect.members is None:
        raise UserError(f"{result.model} has no branches with expression and valence/arousal: no ESR table possible")
    classes = np.concatenate([expression.members.argmax(-1).T, expression.choice[:, None]], axis=1)
    values = affect.members.transpose(1, 0, 2).copy()
    values[..., 1] = np.clip((values[..., 1] + 1) / 2, 0, 1)
    values = np.concatenate([values, values.mean(axis=1, keepdims=True)], axis=1)
    rows = []
    face_of = dict(zip(one.frame.tolist(), range(len(one))))
    for f, time in enumerate(result.timestamps.tolist()):
        i = face_of.get(f)
        rows.append((time, None if i is None else (classes[i], values[i])))
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


def fg2020_files(tasks: dict[str, Task], members: Sequence[str]) -> dict[str, str]:
    """The prediction files of the FG-2020 system: relative path -> text.

    Every member has its folder with decisions, an ensemble also `merged` (decisions) and `merged_raw` (mean scores).
    As in the original, EXPR.txt names all classes above its one column of class indices.

    Args:
        tasks: what an FG-2020 model decodes; frames in order.
        members: their names, as in the model's config.
    """
    files = {}
    for name, task in tasks.items():
        file, frames = f"{FOLDERS[name].removesuffix('_Set')}.txt", np.arange(len(task.values))
        if len(members) > 1:
            files[f"merged/{file}"] = text = task_text(task, frames)
            scores = [",".join(f"{v:.4f}" for v in row) for row in task.values]
            files[f"merged_raw/{file}"] = "\n".join([text.split("\n")[0], *scores])
        for member, alone in zip(members, single_tasks(task)):
            files[f"{member}/{file}"] = task_text(alone, frames)
    return files


def fg2020_csv(frames: Sequence[int], tasks: dict[str, Task]) -> str:
    """The table of the FG-2020 system's programming interface: one row per frame number, sorted.

    A frame that appears more than once (in overlapping windows) gets its mean valence and arousal and its most
    frequent decisions, the lowest of equally frequent ones.

    Args:
        frames: number of the frame behind every row of the tasks.
        tasks: expression, action units and valence and arousal.
    """
    units, expression, affect = (tasks[t] for t in ("action_units", "expression", "valence_arousal"))
    numbers, row, times = np.unique(np.asarray(frames), return_inverse=True, return_counts=True)

    def total(values: np.ndarray) -> np.ndarray:
        out = np.zeros((len(numbers), values.shape[1]))
        np.add.at(out, row, values)
        return out

    present = total(units.values >= units.thresholds) * 2 > times[:, None]
    classes = total(np.eye(len(expression.labels))[expression.choice]).argmax(axis=1)
    values = total(affect.values) / times[:, None]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["frames_ids", *units.labels, "EXPR", *affect.labels])
    for number, au, label, va in zip(numbers, present, classes, values):
        writer.writerow([number, *au.astype(int), label, *(float(v) for v in va)])
    return out.getvalue()


def frame_number(file: str | Path) -> int:
    """The number of a frame in its file name: the digits after the last underscore (or the whole stem).

    Raises:
        UserError: no such digits.
    """
    digits = Path(file).stem.rpartition("_")[2]
    if not digits.isdecimal():
        raise UserError(f"{Path(file).name} has no frame number; names must end like video_000012.jpg or 000012.jpg")
    return int(digits)
