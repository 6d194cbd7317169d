"""Reading the faces of videos and streams: every track is one sequence, whose state a recurrent model hands on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from emotion.errors import UserError
from emotion.faces import tracking
from emotion.media import audio, video, windowing
from emotion.outputs import Faces, Result, Task

if TYPE_CHECKING:
    from emotion.predict import FacePredictor

MUTE = "voices were taken for silent"
Hear = Callable[[float], np.ndarray]  # seconds of a frame -> the sound around it, float32 [samples]


@dataclass
class _Waiting:
    """Faces of one sequence that are not read yet, and the model's state after those that are."""

    rows: list[int] = field(default_factory=list)
    crops: list[np.ndarray] = field(default_factory=list)
    sounds: list[np.ndarray] = field(default_factory=list)
    state: Any = None


class FaceReader:
    """Reads faces as a video brings them: frame by frame in, one row per face out.

    A model of single faces reads all new faces together. A model of sequences (one with a `window`, the number of
    frames it reads together) reads every track on its own, whole windows at a time: how many frames are added between
    two calls of `read` makes no difference. (The last frames of a track, which fill no window, are read as a stream's:
    with EMENet's "lanes" they continue the frames 64 before, in `EMENet.sequence` those of the lanes they lie on.)

    Args:
        predictor: whose model reads.
        hear: gives the sound around a frame, for models that hear; None: silence.
        live: read every face at once instead of waiting for whole windows.
    """

    def __init__(self, predictor: FacePredictor, hear: Hear | None = None, live: bool = False) -> None:
        self._predictor, self._hear = predictor, hear
        self._window = getattr(predictor.model, "window", 0)
        self._step = min(1, self._window) if live else self._window
        self._waiting: dict[int, _Waiting] = {}  # by track; models of single faces put all into one
        self._parts: list[tuple[list[int], dict[str, Task]]] = []
        self._count = 0

    def add(self, faces: Faces, crops: np.ndarray, seconds: float) -> None:
        """The faces of the next frame (with track ids), and what the model sees of them, uint8 [N, h, w, 3]."""
        for track, crop in zip(faces.track_ids, crops):
            one = self._waiting.setdefault(int(track) if self._window else 0, _Waiting())
            one.rows.append(self._count)
            one.crops.append(crop)
            if self._hear is not None:
                one.sounds.append(self._hear(seconds))
            self._count += 1

    def read(self, alive: Collection[int]) -> None:
        """Read what can be read by now; tracks that are not `alive` will not go on."""
        for track, one in list(self._waiting.items()):
            complete = not self._window or track not in alive
            while one.rows and (complete or len(one.rows) >= self._step):
                self._read(one)
            if complete:
                del self._waiting[track]

    def take(self) -> dict[str, Task]:
        """Everything that was read since the last call, one row per face in the order they were added."""
        parts, self._parts = self._parts, []
        if not parts:
            return self._predictor.nothing
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        return {name: Task.concatenate([tasks[name] for _, tasks in parts])[order] for name in parts[0][1]}

    def _read(self, one: _Waiting) -> None:
        n = self._step or len(one.rows)
        crops = np.stack(one.crops[:n])
        tasks = self._continue(one, crops, one.sounds[:n]) if self._window else self._predictor.read(crops)
        self._parts.append((one.rows[:n], tasks))
        one.rows, one.crops, one.sounds = one.rows[n:], one.crops[n:], one.sounds[n:]

    def _continue(self, one: _Waiting, crops: np.ndarray, sounds: list[np.ndarray]) -> dict[str, Task]:
        """The next frames of one track, after the state in `one`, which moves on."""
        model, device = self._predictor.model, self._predictor.device
        heard = {"sound": torch.from_numpy(np.stack(sounds)).to(device)} if sounds else {}
        with torch.inference_mode():
            x = model.config.input.tensor(crops).to(device)
            logits, one.state = model.step(x, one.state, **heard)
            return model.decode(logits)


class VideoReader:
    """Reads the frames of one video, with tracks, and gathers what all of them gave.

    Args:
        predictor: finds and reads the faces.
        hear: as in `FaceReader`.
        detect_every: as in `Follower`.

    Attributes:
        timestamps: seconds of the frames read so far.
    """

    def __init__(self, predictor: FacePredictor, hear: Hear | None = None, detect_every: int = 1) -> None:
        self._predictor, self._reader, self._hears = predictor, FaceReader(predictor, hear), hear is not None
        self._follower = Follower(predictor, detect_every)
        self.timestamps: list[float] = []
        self._found: list[Faces] = []
        self._size = (0, 0)

    def add(self, batch: list[video.Frame]) -> float:
        """The next frames; returns the seconds of the last."""
        for seconds, picture, faces in self._follower.follow(batch):
            self._reader.add(faces, self._predictor.crops(picture, faces), seconds)
            self.timestamps.append(seconds)
            self._found.append(faces)
            self._size = (picture.shape[1], picture.shape[0])
        self._reader.read(self._follower.alive)
        return self.timestamps[-1]

    def result(self, source: str, notes: list[str]) -> Result:
        """Everything, once there are no more frames."""
        self._reader.read(alive=())
        counts = [len(faces) for faces in self._found]
        if not sum(counts):
            notes = [*notes, "no face was found in this video"]
        if self._hears and max(counts) > 1:
            notes = [*notes, "several people are in the picture; the sound was taken for the voice of each"]
        nobody = replace(Faces.empty(), track_ids=np.zeros(0, np.int64))
        return Result(
            model=self._predictor.name,
            size=self._size,
            timestamps=np.array(self.timestamps),
            frame=np.repeat(np.arange(len(counts)), counts),
            faces=Faces.concatenate(self._found) if sum(counts) else nobody,
            tasks=self._reader.take(),
            source=source,
            notes=tuple(notes),
        )


class FaceStream:
    """Faces of a live stream, such as a webcam: one frame in, its result out, with tracks and models' states kept.

    One object belongs to one stream; several of them may share a predictor. Models that hear are given silence, and
    every result says so.

    Args:
        predictor: finds and reads the faces.
        detect_every: search every so many frames for faces; between them boxes move on at constant velocity.

    Raises:
        UserError: `detect_every` is less than 1.
    """

    def __init__(self, predictor: FacePredictor, detect_every: int = 1) -> None:
        self._predictor, self._reader = predictor, FaceReader(predictor, live=True)
        self._follower = Follower(predictor, detect_every)
        self.notes = unheard(predictor.model, "a camera's sound is not read")

    def read(self, picture: np.ndarray, seconds: float, source: str = "") -> Result:
        """The next frame.

        Args:
            picture: uint8 [H, W, 3], RGB.
            seconds: its time, not before the last one's.
            source: a name for the result.

        Returns:
            A result of this one frame, with track ids.
        """
        ((_, _, faces),) = self._follower.follow([(seconds, picture)])
        self._reader.add(faces, self._predictor.crops(picture, faces), seconds)
        self._reader.read(self._follower.alive)
        size, frame = (picture.shape[1], picture.shape[0]), np.zeros(len(faces), np.int64)
        tasks = self._reader.take()
        return Result(self._predictor.name, size, np.array([seconds]), frame, faces, tasks, source, self.notes)


class Follower:
    """Finds the faces of successive frames and gives them track ids.

    Args:
        predictor: whose detector searches.
        detect_every: search every so many frames.

    Raises:
        UserError: `detect_every` is less than 1.
    """

    def __init__(self, predictor: FacePredictor, detect_every: int = 1) -> None:
        if detect_every < 1:
            raise UserError(f"faces can be searched in every frame or every 2nd, 3rd, ..., not {detect_every}")
        self._predictor, self._every = predictor, detect_every
        self._tracks, self._count = tracking.Tracks.start(), 0

    @property
    def alive(self) -> set[int]:
        """Tracks that may go on."""
        return set(self._tracks.faces.track_ids.tolist())

    def follow(self, batch: list[video.Frame]) -> list[tuple[float, np.ndarray, Faces]]:
        """Time, picture and faces (with track ids) of the next frames, searched for or carried on."""
        due = [(self._count + i) % self._every == 0 for i in range(len(batch))]
        found = iter(self._predictor.detect([picture for (_, picture), search in zip(batch, due) if search]))
        out = []
        for (seconds, picture), search in zip(batch, due):
            if search:
                self._tracks, faces = tracking.advance(self._tracks, next(found), seconds)
            else:
                faces = tracking.coast(self._tracks, seconds, (picture.shape[1], picture.shape[0]))
            out.append((seconds, picture, faces))
        self._count += len(batch)
        return out


def unheard(model: Any, why: str) -> tuple[str, ...]:
    """What to tell the reader of predictions that a model made without sound: nothing, unless the model hears."""
    return (f"{why}; {MUTE}",) if getattr(model.config, "sound", False) else ()


def hearing(model: Any, source: video.Video, info: video.VideoInfo) -> tuple[Hear | None, str]:
    """What a model hears at every frame of a video, and what to tell the reader ("" when all is well).

    Returns:
        seconds of a frame -> float32 [10080] at 16 kHz, centred on the frame; None for a model that does not hear, or
        where there is no sound. With the model's "faithful" clock the windows are the original's.
    """
    if not getattr(model.config, "sound", False):
        return None, ""
    try:
        sound = audio.read(source) if info.sound else None
    except UserError as error:
        return None, f"{error}; {MUTE}"
    if sound is None:
        return None, f"the video has no sound; {MUTE}"
    sound, rate = sound.at_rate(windowing.RATE), info.rate
    if model.config.audio_clock == "true":
        return lambda seconds: sound.window(
            seconds + 0.5 / rate - windowing.HALF / windowing.RATE, windowing.SOUND_WINDOW
        ), ""
    frames = info.frames or max(1, round(info.seconds * rate))
    starts = windowing.video_sound_windows(frames, rate, len(sound.samples), model.config.audio_clock)
    return lambda seconds: windowing.cut_sound(sound, starts[[min(round(seconds * rate), frames - 1)]])[0], ""
