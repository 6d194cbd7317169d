"""Formats of the original frameworks, for tools that read them. Our own formats are methods of `outputs.Result`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from emotion.errors import UserError, listed
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

    Columns are the ensemble's emotion, arousal and valence, then every branch's; nine branches give the original's 31.
    The ensemble's emotion is the plurality of the branches. Arousal is mapped to [0, 1] and limited to it per branch,
    valence is neither.

    Raises:
        UserError: the model is no ensemble with valence and arousal, or has other expressions than the original.
    """
    one = biggest(result)
    expression, affect = one.tasks.get("expression"), one.tasks.get("valence_arousal")
    if expression is None or affect is None or expression.members is None or affect.members is None:
        raise UserError(f"{result.model} has no branches with expression and valence/arousal: no ESR table possible")
    if unknown := set(expression.labels) - ESR_NAMES.keys():
        raise UserError(f"the ESR table has no name for {result.model}'s {listed(sorted(unknown))}")
    names = np.array([ESR_NAMES[label] for label in expression.labels])
    classes = expression.members.argmax(-1)  # [B, N]
    plurality = (classes[..., None] == np.arange(len(names))).sum(axis=0).argmax(axis=1)
    values = affect.members[..., [affect.labels.index(axis) for axis in ("arousal", "valence")]].copy()  # [B, N, 2]
    values[..., 0] = np.clip((values[..., 0] + 1) / 2, 0, 1)
    values = np.concatenate([values.swapaxes(0, 1).copy().mean(axis=1)[None], values])
    columns = [c for name, v in zip([names[plurality], *names[classes]], values) for c in (name, v[:, 0], v[:, 1])]
    rows = list(zip(*(column.tolist() for column in columns)))  # per face
    face_of = dict(zip(one.frame.tolist(), range(len(one))))
    members = ["Ensemble", *(f"Branch_{b}" for b in range(len(classes)))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["Timestamp(sec)", *(f"{m}_{x}" for m in members for x in ("Emotion", "Arousal", "Valence"))])
    for f, time in enumerate(result.timestamps.tolist()):
        writer.writerow([time, *(rows[face_of[f]] if f in face_of else ["None"] * len(columns))])
    return out.getvalue()


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
