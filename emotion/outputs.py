"""What a prediction is: detected faces, one `Task` of arrays per thing predicted, and where it came from.

One schema serves images, videos, streams and scenes. Arrays are flat over all faces of all frames;
`frame` says which frame a face belongs to, and frames without a face stay in `timestamps`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from emotion.errors import UserError

SCHEMA = "emotion/1"
WRITTEN = {"landmarks": "model_landmarks"}  # tasks that JSON calls otherwise: "landmarks" are the detector's


@dataclass(frozen=True)
class Faces:
    """N detections in one picture, in pixels of the original (upright) picture.

    Attributes:
        boxes: float32 [N, 4], x0 y0 x1 y1, inside the picture.
        scores: float32 [N], detector's confidence in [0, 1].
        landmarks: float32 [N, 5, 2] (x, y of left eye, right eye, nose, left and right mouth corner as seen
            in the picture), or None where the detector gives none.
        track_ids: int64 [N], the same number for the same person through a video, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray | None = None
    track_ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float32).reshape(-1, 4)
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=np.float32).reshape(-1))
        for name in ("scores", "landmarks", "track_ids"):
            value = getattr(self, name)
            if value is not None and len(value) != len(boxes):
                raise ValueError(f"{len(boxes)} boxes but {len(value)} {name}")

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> Faces:
        """A subset by index array, mask or slice."""
        index = [index] if isinstance(index, (int, np.integer)) else index
        return Faces(**{f.name: None if (v := getattr(self, f.name)) is None else v[index] for f in fields(self)})

    @property
    def areas(self) -> np.ndarray:
        """Box areas in square pixels, [N]."""
        return (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])

    @classmethod
    def empty(cls) -> Faces:
        """No detection at all."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2), np.float32))

    @classmethod
    def concatenate(cls, parts: list[Faces]) -> Faces:
        """All detections of `parts` in order; landmarks and ids survive only where every part has them."""
        parts = [p for p in parts if len(p)] or [cls.empty()]
        columns = {f.name: [getattr(p, f.name) for p in parts] for f in fields(cls)}
        return cls(**{k: None if any(v is None for v in vs) else np.concatenate(vs) for k, vs in columns.items()})


@dataclass(frozen=True)
class Task:
    """One thing a model predicts, for N faces.

    Attributes:
        kind: "categorical" (one of K: `values` sum to 1), "multilabel" (each of K is present or not: `values`
            in [0, 1]) or "continuous" (`values` in `bounds`).
        labels: names of the K columns.
        values: float32 [N, K].
        bounds: smallest and largest value a continuous task can take.
        choice: int64 [N], the predicted class of a categorical task (not always the argmax: ESR votes).
        thresholds: float32 [K], from which on a multilabel column counts as present.
        uncertainty: "total", "aleatoric", "epistemic" -> float32 [N] (categorical) or [N, K], in [0, 1]; for
            continuous tasks the standard deviation, in the values' own unit. Where a continuous task also has
            "deviation", that is the standard deviation and the others are entropies of distributions, in [0, 1].
        members: float32 [M, N, K], what each ensemble member or branch says, or None.
        votes: float32 [N, K], share of members that chose each class, or None.
    """

    kind: str
    labels: tuple[str, ...]
    values: np.ndarray
    bounds: tuple[float, float] = (0.0, 1.0)
    choice: np.ndarray | None = None
    thresholds: np.ndarray | None = None
    uncertainty: dict[str, np.ndarray] = field(default_factory=dict)
    members: np.ndarray | None = None
    votes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("categorical", "multilabel", "continuous"):
            raise ValueError(f"kind must be categorical, multilabel or continuous, not {self.kind!r}")
        values = np.asarray(self.values, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != len(self.labels):
            raise ValueError(f"values have shape {values.shape}, expected [N, {len(self.labels)}]")
        object.__setattr__(self, "values", values)
        if self.kind == "categorical" and self.choice is None:
            object.__setattr__(self, "choice", values.argmax(axis=1))

    def __getitem__(self, index: Any) -> Task:
        """The rows of some faces, by index array, mask or slice."""
        index = [index] if isinstance(index, (int, np.integer)) else index

        def pick(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[index]

        return replace(
            self,
            values=self.values[index],
            choice=pick(self.choice),
            votes=pick(self.votes),
            uncertainty={k: v[index] for k, v in self.uncertainty.items()},
            members=None if self.members is None else self.members[:, index],
        )

    @property
    def present(self) -> np.ndarray:
        """Which columns of a multilabel task reach their thresholds (0.5 where it has none), bool [N, K]."""
        return self.values >= (0.5 if self.thresholds is None else self.thresholds)

    @property
    def deviation(self) -> np.ndarray | None:
        """Standard deviation [N, K] of a continuous task in the values' unit; None where the model does not tell it."""
        if self.kind != "continuous":
            return None
        told = [self.uncertainty[kind] for kind in ("deviation", "total", "epistemic") if kind in self.uncertainty]
        if told:
            return told[0]
        return self.members.std(axis=0) if self.members is not None and len(self.members) > 1 else None

    def names(self) -> list[str]:
        """The predicted class of every face (categorical tasks)."""
        return [self.labels[i] for i in self.choice]

    @classmethod
    def concatenate(cls, parts: list[Task]) -> Task:
        """All rows of `parts`, which must come from the same model, in order."""

        def join(get: Any, axis: int = 0) -> np.ndarray | None:
            arrays = [get(p) for p in parts]
            return None if arrays[0] is None else np.concatenate(arrays, axis=axis)

        return replace(
            parts[0],
            values=join(lambda p: p.values),
            choice=join(lambda p: p.choice),
            votes=join(lambda p: p.votes),
            uncertainty={k: join(lambda p, k=k: p.uncertainty[k]) for k in parts[0].uncertainty},
            members=join(lambda p: p.members, axis=1),
        )


@dataclass(frozen=True)
class Result:
    """Everything predicted for one picture, video or stream.

    Attributes:
        model: name of the checkpoint.
        size: width and height of the picture in pixels.
        timestamps: float64 [F] seconds of every processed frame (0.0 for a picture).
        frame: int64 [N], index into `timestamps` for every face.
        faces: the N faces of all frames.
        tasks: task name -> `Task` over these N faces; a task the checkpoint was not trained for is absent.
        source: file name (never a path) or "".
        notes: what the reader should know ("no sound in this clip"), in plain words.
    """

    model: str
    size: tuple[int, int]
    timestamps: np.ndarray
    frame: np.ndarray
    faces: Faces
    tasks: dict[str, Task]
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "timestamps", np.asarray(self.timestamps, dtype=np.float64).reshape(-1))
        object.__setattr__(self, "frame", np.asarray(self.frame, dtype=np.int64).reshape(-1))
        rows = {"frame": self.frame} | {name: task.values for name, task in self.tasks.items()}
        for name, array in rows.items():
            if len(array) != len(self.faces):
                raise ValueError(f"{len(self.faces)} faces but {len(array)} rows of {name}")
        if len(self.frame) and not 0 <= self.frame.min() <= self.frame.max() < len(self.timestamps):
            raise ValueError(f"frame numbers must lie in 0...{len(self.timestamps) - 1}")

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: Any) -> Result:
        """The same frames with a subset of the faces, by index, index array, mask or slice."""
        index = [index] if isinstance(index, (int, np.integer)) else index
        tasks = {name: task[index] for name, task in self.tasks.items()}
        return replace(self, frame=self.frame[index], faces=self.faces[index], tasks=tasks)

    @classmethod
    def concatenate(cls, parts: list[Result]) -> Result:
        """The frames of successive results of one stream, in order; model, size, source and notes are the first's."""
        if not any(len(p) for p in parts):
            return replace(parts[0], timestamps=np.concatenate([p.timestamps for p in parts]))
        starts = np.cumsum([0, *(len(p.timestamps) for p in parts)])
        filled = [p for p in parts if len(p)]
        return replace(
            parts[0],
            timestamps=np.concatenate([p.timestamps for p in parts]),
            frame=np.concatenate([p.frame + start for p, start in zip(parts, starts)]),
            faces=Faces.concatenate([p.faces for p in filled]),
            tasks={name: Task.concatenate([p.tasks[name] for p in filled]) for name in parts[0].tasks},
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """One flat dict per face and frame; a frame without a face is a row with empty face fields.

        `face` counts from 1 within the frame, like the numbers drawn on pictures.
        """
        by_frame: list[list[int]] = [[] for _ in self.timestamps]
        for i, f in enumerate(self.frame):
            by_frame[f].append(i)
        for f, members in enumerate(by_frame):
            for number, i in enumerate(members or [None], start=1):
                row = {"source": self.source, "frame": f, "timestamp": _floats(self.timestamps[f])}
                row["face"] = None if i is None else number
                yield row | self._face_row(i)

    def _face_row(self, i: int | None) -> dict[str, Any]:
        def cell(array: np.ndarray, *index: int, digits: int = 6) -> float | None:
            return None if i is None else _floats(array[index], digits)

        row: dict[str, Any] = {"track": None}
        if i is not None and self.faces.track_ids is not None:
            row["track"] = int(self.faces.track_ids[i])
        row |= {name: cell(self.faces.boxes, i, k, digits=2) for k, name in enumerate(("x0", "y0", "x1", "y1"))}
        row["score"] = cell(self.faces.scores, i)
        for name, task in self.tasks.items():
            if task.kind == "categorical":
                row[name] = None if i is None else task.labels[task.choice[i]]
            row |= {f"{name}.{label}": cell(task.values, i, k) for k, label in enumerate(task.labels)}
            for kind, values in task.uncertainty.items():
                if values.ndim == 1:
                    row[f"{name}.uncertainty.{kind}"] = cell(values, i)
                else:
                    row |= {f"{name}.{x}.uncertainty.{kind}": cell(values, i, k) for k, x in enumerate(task.labels)}
        return row

    def to_dict(self) -> dict[str, Any]:
        """The JSON document (schema `emotion/1`, described in docs/schema.md)."""
        frames: list[dict[str, Any]] = [{"timestamp": _floats(t), "faces": []} for t in self.timestamps]
        for i, f in enumerate(self.frame):
            frames[f]["faces"].append(self._face_dict(i))
        return {
            "schema": SCHEMA,
            "model": self.model,
            "source": self.source,
            "width": int(self.size[0]),
            "height": int(self.size[1]),
            "labels": {WRITTEN.get(name, name): list(task.labels) for name, task in self.tasks.items()},
            "notes": list(self.notes),
            "frames": frames,
        }

    def _face_dict(self, i: int) -> dict[str, Any]:
        face: dict[str, Any] = {"box": _floats(self.faces.boxes[i], 2), "score": _floats(self.faces.scores[i])}
        if self.faces.landmarks is not None:
            face["landmarks"] = _floats(self.faces.landmarks[i], 2)
        if self.faces.track_ids is not None:
            face["track"] = int(self.faces.track_ids[i])
        for name, task in self.tasks.items():
            entry: dict[str, Any] = {"values": dict(zip(task.labels, _floats(task.values[i])))}
            if task.kind == "categorical":
                entry = {"label": task.labels[task.choice[i]]} | entry
            if task.thresholds is not None:
                entry["present"] = [x for x, v, t in zip(task.labels, task.values[i], task.thresholds) if v >= t]
            if task.votes is not None:
                entry["votes"] = dict(zip(task.labels, _floats(task.votes[i])))
            for kind, values in task.uncertainty.items():
                value = _floats(values[i])
                per_label = dict(zip(task.labels, value)) if values.ndim == 2 else value
                entry.setdefault("uncertainty", {})[kind] = per_label
            if task.members is not None:
                entry["members"] = _floats(task.members[:, i])
            face[WRITTEN.get(name, name)] = entry
        return face

    def to_json(self, path: str | Path | None = None, indent: int | None = 1) -> str:
        """The JSON text; also written to `path` when given."""
        text = json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)
        return _write(text, path)

    def to_csv(self, path: str | Path | None = None) -> str:
        """The CSV text with one line per face and frame; also written to `path` when given."""
        out = io.StringIO()
        writer = csv.DictWriter(out, fieldnames=list(self._columns()), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        return _write(out.getvalue(), path)

    def _columns(self) -> list[str]:
        head = ["source", "frame", "timestamp", "face"]
        return head + list(self._face_row(None))

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(list(self.rows()), columns=self._columns())

    def to_parquet(self, path: str | Path | None = None) -> bytes:
        """The rows as a Parquet file: texts, 64-bit integers and floats; also written to `path` when given.

        Raises:
            UserError: pyarrow is missing, or the place cannot be written to.
        """
        texts = {"source"} | {name for name, task in self.tasks.items() if task.kind == "categorical"}
        kinds = dict.fromkeys(self._columns(), "float64") | dict.fromkeys(("frame", "face", "track"), "Int64")
        table = self.to_frame().astype(kinds | dict.fromkeys(texts, "string"))
        try:
            content = table.to_parquet(index=False)
        except ImportError as error:
            raise UserError("Parquet files need pyarrow: pip install pyarrow (or write CSV)") from error
        if path is not None:
            write_file(path, content)
        return content


def _floats(value: Any, digits: int = 6) -> Any:
    """Rounded plain Python floats, nested like the array; a value that is not finite becomes None."""
    if isinstance(value, np.ndarray) and value.ndim:
        return [_floats(v, digits) for v in value]
    number = float(value)
    return round(number, digits) if np.isfinite(number) else None


def _write(text: str, path: str | Path | None) -> str:
    if path is not None:
        write_file(path, text.encode("utf-8"))
    return text


def write_file(path: str | Path, content: bytes) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        UserError: the place cannot be written to; nothing stays behind.
    """
    target = Path(path)
    partial = target.with_name(target.name + ".part")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
