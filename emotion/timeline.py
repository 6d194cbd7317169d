"""What a video's result says over time: smoothed values, a summary, subtitles.

Smoothing is an exponential moving average along every track: with x(t) what the model says of a face at second t and t'
the time of the face before it on the same track,

    y(t) = a y(t') + (1 - a) x(t),   a = exp(-(t - t') / s)

for a time constant of s seconds. It needs no future, is right for any frame rate, and forgets by itself over gaps.
Numbers are never smoothed unless asked for; drawings and subtitles are (`DRAWN`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emotion.errors import UserError
from emotion.outputs import Result, Task, write_file

DRAWN = 0.3  # seconds; time constant of what is drawn
FORGOTTEN = 60.0  # seconds after which a track's average is dropped, far beyond any influence


class Smoother:
    """The moving average of a stream, face by face (see the module's text); one for every session.

    Args:
        seconds: time constant s, may be changed between two calls; 0 changes nothing.

    Raises:
        UserError: negative or not finite.
    """

    def __init__(self, seconds: float = DRAWN) -> None:
        if not 0 <= seconds < np.inf:
            raise UserError(f"smoothing takes a time constant of 0 or more seconds, not {seconds}")
        self.seconds = seconds
        self._last: dict[int, tuple[float, np.ndarray]] = {}  # by track: time and averages of the last face

    def __call__(self, result: Result) -> Result:
        """The next frames of the stream (or the whole video), smoothed.

        Values, uncertainties and what single members say are averaged, and classes are chosen by the averaged values;
        votes are left out.

        Raises:
            UserError: the result has no tracks.
        """
        if not self.seconds or not len(result):
            return result
        if result.faces.track_ids is None:
            raise UserError("only videos can be smoothed over time: this result has no tracks")
        times, tracks = result.timestamps[result.frame].tolist(), result.faces.track_ids.tolist()
        arrays = [array for task in result.tasks.values() for array in _arrays(task).values()]
        rows = np.concatenate([array.reshape(len(result), -1) for array in arrays], axis=1)
        for i, (track, time) in enumerate(zip(tracks, times)):
            before = self._last.get(track)
            if before is not None:
                keep = np.float32(np.exp((before[0] - time) / self.seconds))
                rows[i] = keep * before[1] + (1 - keep) * rows[i]
            self._last[track] = (time, rows[i].copy())
        self._last = {k: v for k, v in self._last.items() if times[-1] - v[0] < FORGOTTEN}
        return replace(result, tasks=_unpacked(result.tasks, rows))


def smooth(result: Result, seconds: float = DRAWN) -> Result:
    """A video's result with every track smoothed over time.

    Args:
        seconds: time constant.

    Raises:
        UserError: as `Smoother`.
    """
    return Smoother(seconds)(result)


def _arrays(task: Task) -> dict[str, np.ndarray]:
    """What is smoothed, [N, ...]: the values (""), what members say ("members") and every uncertainty."""
    members = {} if task.members is None else {"members": np.moveaxis(task.members, 1, 0)}
    return {"": task.values, **members, **task.uncertainty}


def _unpacked(tasks: dict[str, Task], rows: np.ndarray) -> dict[str, Task]:
    out, at = {}, 0
    for name, task in tasks.items():
        new = {}
        for kind, array in _arrays(task).items():
            width = int(np.prod(array.shape[1:]))
            new[kind] = rows[:, at : at + width].reshape(array.shape).astype(np.float32)
            at += width
        values, members = new.pop(""), new.pop("members", None)
        members = None if members is None else np.moveaxis(members, 0, 1)
        out[name] = replace(task, values=values, choice=None, uncertainty=new, members=members, votes=None)
    return out


# -- summary ---------------------------------------------------------------------------------------------------------


def durations(timestamps: np.ndarray) -> np.ndarray:
    """How long every processed frame stands, seconds [F]: until the next; the last one as long as is usual."""
    gaps = np.diff(timestamps)
    return np.append(gaps, np.median(gaps) if len(gaps) else 0.0)[: len(timestamps)]


def summary(result: Result) -> dict[str, Any]:
    """A video in a few numbers, for everybody together and for every track.

    Returns:
        "model", "source", "seconds", "frames", "frames_without_face", "notes", and "everyone" and "tracks" (the
        latter a list with "track", "first" and "last" second): "seconds" a face is seen and, per task,
        - categorical: "share" of that time per label (sum 1) and "peaks", per label the highest value and its second,
        - multilabel: "share" of that time in which each label is present, and "peaks",
        - continuous: "mean" per label over that time, "highest" and "lowest" value and their seconds.
        A video of one frame counts it as one second.
    """
    stands = durations(result.timestamps)
    stands = np.where(stands.sum() > 0, stands, 1.0)
    ids = result.faces.track_ids
    tracks = []
    for track in [] if ids is None else np.unique(ids):
        one = result[np.flatnonzero(ids == track)]
        times = result.timestamps[one.frame]
        tracks.append({"track": int(track), "first": _round(times[0]), "last": _round(times[-1]), **_part(one, stands)})
    return {
        "model": result.model,
        "source": result.source,
        "seconds": _round(stands.sum()),
        "frames": len(result.timestamps),
        "frames_without_face": len(result.timestamps) - len(np.unique(result.frame)),
        "notes": list(result.notes),
        "everyone": _part(result, stands),
        "tracks": tracks,
    }


def summary_json(result: Result, path: str | Path | None = None) -> str:
    """`summary` as JSON text; also written to `path` when given."""
    text = json.dumps(summary(result), indent=1, ensure_ascii=False, allow_nan=False)
    if path is not None:
        write_file(path, text.encode("utf-8"))
    return text


def _part(result: Result, stands: np.ndarray) -> dict[str, Any]:
    weights = stands[result.frame]
    seconds = result.timestamps[result.frame]
    tasks = {name: _task(task, weights, seconds) for name, task in result.tasks.items()} if len(result) else {}
    return {"seconds": _round(stands[np.unique(result.frame)].sum()), **tasks}


def _task(task: Task, weights: np.ndarray, seconds: np.ndarray) -> dict[str, Any]:
    def extreme(of: Any) -> dict[str, Any]:
        places = of(task.values, axis=0)
        return {
            label: {"timestamp": _round(seconds[i]), "value": _round(task.values[i, k])}
            for k, (label, i) in enumerate(zip(task.labels, places))
        }

    def mean(values: np.ndarray) -> dict[str, float]:
        total = weights.sum()
        averaged = (weights @ values) / total if total > 0 else values.mean(axis=0)
        return dict(zip(task.labels, (_round(v) for v in averaged)))

    if task.kind == "continuous":
        return {"mean": mean(task.values), "highest": extreme(np.argmax), "lowest": extreme(np.argmin)}
    if task.kind == "categorical":
        return {"share": mean(np.eye(len(task.labels))[task.choice]), "peaks": extreme(np.argmax)}
    return {"share": mean(task.present.astype(float)), "peaks": extreme(np.argmax)}


def _round(value: float) -> float:
    return round(float(value), 4)


# -- subtitles -------------------------------------------------------------------------------------------------------


def webvtt(result: Result, path: str | Path | None = None) -> str:
    """Subtitles (WebVTT) that say what each track shows; also written to `path` when given.

    Frames that say the same are one cue. A line is "1 happiness" for track 1; models without expressions give the
    action units that are present, or their values with one decimal.
    """
    ids = result.faces.track_ids
    texts: list[list[str]] = [[] for _ in result.timestamps]
    for i in range(len(result)) if ids is None else np.argsort(ids, kind="stable"):
        words = caption(result, i)
        texts[result.frame[i]].append(words if ids is None else f"{ids[i]} {words}")
    ends = result.timestamps + durations(result.timestamps)
    cues = [f"{_clock(a)} --> {_clock(b)}\n{text}\n" for a, b, text in _cues(result.timestamps, ends, texts)]
    whole = "\n".join(["WEBVTT\n", *cues])
    if path is not None:
        write_file(path, whole.encode("utf-8"))
    return whole


def caption(result: Result, face: int) -> str:
    """What one face shows, in a few words."""
    tasks = result.tasks
    task = tasks.get("expression") or next(iter(tasks.values()), None)
    if task is None:
        return "face"
    if task.kind == "categorical":
        return task.labels[task.choice[face]]
    if task.kind == "multilabel":
        return ", ".join(x for x, there in zip(task.labels, task.present[face]) if there) or "-"
    return ", ".join(f"{x} {v:+.1f}" for x, v in zip(task.labels, task.values[face]))


def _cues(starts: np.ndarray, ends: np.ndarray, texts: list[list[str]]) -> Iterator[tuple[float, float, str]]:
    """Stretches of equal text that are not empty: first and last second, and the text."""
    begin = 0
    for i in range(1, len(texts) + 1):
        if i == len(texts) or texts[i] != texts[begin]:
            if texts[begin] and ends[i - 1] > starts[begin]:
                yield starts[begin], ends[i - 1], "\n".join(texts[begin])
            begin = i


def _clock(seconds: float) -> str:
    """hh:mm:ss.mmm"""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"
