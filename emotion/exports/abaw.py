"""Prediction files of the ABAW challenges: one text file per video and task, for every ensemble member and merged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from emotion.errors import UserError
from emotion.outputs import Task

FOLDERS = {"action_units": "AU_Set", "expression": "EXPR_Set", "valence_arousal": "VA_Set"}


def task_text(task: Task, frames: np.ndarray) -> str:
    """The content of one file: a header, then one line per frame in order; no line break at the end.

    Action units are 0 or 1, expressions class indices, valence and arousal have four decimals.

    Args:
        task: predictions of N frames.
        frames: [N] frame numbers; of a repeated one the first prediction counts.

    Raises:
        UserError: a number of frames that does not fit.
    """
    if len(frames) != len(task.values):
        raise UserError(f"{len(frames)} frame numbers for {len(task.values)} predictions")
    first = np.unique(frames, return_index=True)[1]
    if task.kind == "categorical":
        rows = [[str(c)] for c in task.choice[first]]
    elif task.kind == "multilabel":
        rows = [[str(int(v)) for v in row] for row in task.values[first] >= task.thresholds]
    else:
        rows = [[f"{v:.4f}" for v in row] for row in task.values[first]]
    names = [n.capitalize() if task.kind == "categorical" else n for n in task.labels]
    return "\n".join(",".join(row) for row in [names, *rows])


def write(folder: str | Path, video: str, tasks: dict[str, Task], frames: np.ndarray) -> list[Path]:
    """Write `<folder>/<member>/<TASK>/<video>.txt` for every member and `<folder>/merged/...`, replacing older files.

    Args:
        folder: created where needed.
        video: name of the video, without extension.
        tasks: what a model decoded for the N frames; tasks that the challenge does not have are left out.
        frames: [N] frame numbers.

    Returns:
        The files written.

    Raises:
        UserError: nothing to write, a name that is a path, or a folder that cannot be written.
    """
    written = []
    for name, text in files(video, tasks, frames).items():
        path = Path(folder) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        written.append(path)
    return written


def files(video: str, tasks: dict[str, Task], frames: np.ndarray) -> dict[str, str]:
    """What `write` writes: relative path -> text.

    Raises:
        UserError: nothing to write, or a name that is a path.
    """
    if not video or Path(video).name != video:
        raise UserError(f"{video!r} is no name of a video")
    chosen = {name: task for name, task in tasks.items() if name in FOLDERS}
    if not chosen:
        raise UserError(f"the ABAW challenges know {', '.join(FOLDERS)}; this model predicts none of them")
    out = {}
    for name, task in chosen.items():
        texts = {str(m): task_text(member, frames) for m, member in enumerate(members(task))}
        for part, text in (texts | {"merged": task_text(task, frames)}).items():
            out[f"{part}/{FOLDERS[name]}/{video}.txt"] = text
    return out


def members(task: Task) -> list[Task]:
    """What every member of an ensemble says on its own, as tasks; none for a single network's task without members.

    Thresholds are tuned for the whole: a member of several decides on action units above a half, a single network is
    the whole.
    """
    if task.members is None:
        return []
    tuned = len(task.members) > 1 and task.thresholds is not None and not np.allclose(task.thresholds, 0.5)
    half = np.full(len(task.labels), np.nextafter(np.float32(0.5), np.float32(1))) if tuned else task.thresholds
    return [
        replace(task, values=values, choice=None, votes=None, uncertainty={}, members=None, thresholds=half)
        for values in task.members
    ]
