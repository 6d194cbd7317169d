"""From pictures and videos to results: detect, track, crop, run the network, decode.

Knows no method, only the models' contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emotion import faces as cropping
from emotion import hub, media, registry
from emotion.errors import UserError
from emotion.faces.detectors import MTCNN, Detector
from emotion.media import sampling, video
from emotion.models.base import ClipInput, FaceInput
from emotion.models.benet_decode import SceneInput
from emotion.outputs import Faces, Result, Task
from emotion.predict.scenes import ScenePredictor
from emotion.predict.sequences import FaceStream, VideoReader, hearing, unheard

BATCH = 32  # faces per forward pass: more brings nothing on a CPU and costs memory
FRAMES = 16  # of a video that are searched for faces together,
FRAME_PIXELS = 33_000_000  # or fewer, once they have this many pixels (100 MB)

Progress = Callable[[float, float], object]  # seconds done and in all (0: unknown) -> False to stop


class FacePredictor:
    """Finds the faces of pictures and reads them with one model.

    Args:
        model: a loaded model, a registry name or a checkpoint folder.
        detector: finds faces; default MTCNN.
        which: "all" faces, the "largest" or the one "closest-to-centre".
        device: where network and detector run.

    Raises:
        UserError: the checkpoint cannot be loaded, or does not read single faces.
    """

    def __init__(
        self,
        model: nn.Module | str | Path = registry.DEFAULT,
        detector: Detector | None = None,
        which: str = "all",
        device: str | torch.device = "cpu",
    ) -> None:
        self.name = str(model) if not isinstance(model, nn.Module) else _name(model)
        self.model = hub.load(model, device) if not isinstance(model, nn.Module) else model.to(device).eval()
        if not isinstance(getattr(self.model.config, "input", None), FaceInput):
            raise UserError(f"{self.name} does not read single faces; choose one that does: python -m emotion models")
        self.name = _name(self.model) or self.name
        self.detector = detector or MTCNN(device=device)
        self.which, self.device = which, device

    def image(self, picture: Any, source: str = "", faces: Faces | None = None) -> Result:
        """One picture (anything `media.read_image` takes); see `images`."""
        return self.images([picture], [source] if source else None, None if faces is None else [faces])[0]

    def images(
        self, pictures: Sequence[Any], sources: Sequence[str] | None = None, faces: Sequence[Faces] | None = None
    ) -> list[Result]:
        """Read every face of several pictures; detection and network run in batches across them.

        Args:
            pictures: arrays, paths or files, see `media.read_image`.
            sources: a name for each, to appear in the result; default the file names.
            faces: boxes to use instead of detecting, one `Faces` per picture.

        Returns:
            One `Result` per picture, faces sorted by size; a picture without faces gives a result of length 0. `notes`
            says so where the model should hear.
        """
        sources = sources or [Path(p).name if isinstance(p, (str, Path)) else "" for p in pictures]
        arrays = [media.read_image(p) for p in pictures]
        found = list(faces) if faces is not None else self.detect(arrays)
        crops = [self.crops(a, f) for a, f in zip(arrays, found)]
        tasks = self.read(np.concatenate(crops)) if crops else {}
        ends = np.cumsum([len(c) for c in crops])
        notes = unheard(self.model, "a picture has no sound")
        return [
            Result(
                model=self.name,
                size=(array.shape[1], array.shape[0]),
                timestamps=np.zeros(1),
                frame=np.zeros(len(one), dtype=np.int64),
                faces=one,
                tasks={name: task[end - len(one) : end] for name, task in tasks.items()},
                source=source,
                notes=notes,
            )
            for array, one, end, source in zip(arrays, found, ends, sources)
        ]

    def video(
        self,
        source: video.Video,
        rate: sampling.Rate = None,
        detect_every: int = 1,
        name: str = "",
        progress: Progress | None = None,
    ) -> Result:
        """Every face of the frames of a video, followed by track ids. Pictures in memory do not grow with its length.

        A recurrent model reads every track as one sequence; frames in which the person is lost are left out of it.

        Args:
            source: file name, the file's bytes, or an open binary file.
            rate: which frames: a number per second, "all", "F/30" or a rule, see `sampling.rule`; default
                `sampling.DEFAULT` per second, or all of them for recurrent models.
            detect_every: search every so many processed frames for faces; between them boxes move on at constant
                velocity.
            name: the video's name in the result and in messages; default the file's.
            progress: called now and then with the seconds done and the video's length in seconds (0 where it does not
                tell); the result ends there once it returns False.

        Returns:
            One row per face and processed frame; frames without a face are in `timestamps` alone. `notes` says what is
            missing: sound that the model should hear, faces, the rest of a video that is damaged or was stopped.

        Raises:
            UserError: no such file, no video, nothing in it can be decoded, or not one frame is chosen.
        """
        name = name or (Path(source).name if isinstance(source, (str, Path)) else "")
        if rate is None:
            rate = "all" if getattr(self.model, "window", 0) else sampling.DEFAULT
        info, take = video.probe(source, name), sampling.rule(rate)
        hear, note = hearing(self.model, source, info)
        notes = [note] if note else []
        reader = VideoReader(self, hear, detect_every)
        try:
            for batch in _batches(video.decode(source, name, take)):
                now = reader.add(batch)
                if progress is not None and progress(now, info.seconds) is False:
                    of = f" of {info.seconds:.1f}" if info.seconds else ""
                    notes.append(f"stopped after {now:.1f}{of} seconds")
                    break
            else:
                notes += _shortage(reader.timestamps, info)
        except UserError as error:  # broken off: what was read before stands
            if not reader.timestamps:
                raise
            notes.append(f"broken off after {reader.timestamps[-1]:.1f} seconds: {error}")
        if not reader.timestamps:
            raise UserError(f"{name or 'the video'} has no frame that this sampling takes; take more of them")
        return reader.result(name, notes)

    def stream(self, detect_every: int = 1) -> FaceStream:
        """A reader of live frames that keeps tracks and models' states; one for every session."""
        return FaceStream(self, detect_every)

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Faces]:
        """The chosen faces of every picture (uint8 [H, W, 3])."""
        sizes = [(p.shape[1], p.shape[0]) for p in pictures]
        return [cropping.select(f, self.which, size) for f, size in zip(self.detector(pictures), sizes)]

    def crops(self, picture: np.ndarray, faces: Faces) -> np.ndarray:
        """What the model sees of every face: uint8 [N, h, w, 3] RGB."""
        return cropping.crop(picture, faces, self.model.config.input)

    def read(self, crops: np.ndarray) -> dict[str, Task]:
        """Decoded predictions for face crops, uint8 [N, h, w, 3]."""
        if not len(crops):
            return self.nothing
        # with the original ESR's reading of batch norm, a face's result depends on what it is read with
        size = 1 if getattr(self.model.config, "batchnorm", "") == "batch" else BATCH
        with torch.inference_mode():
            x = self.model.config.input.tensor(crops)
            parts = [self.model.decode(self.model(x[i : i + size].to(self.device))) for i in range(0, len(x), size)]
        return {name: Task.concatenate([p[name] for p in parts]) for name in parts[0]}

    @cached_property
    def nothing(self) -> dict[str, Task]:
        """The model's tasks with zero rows."""
        with torch.inference_mode():
            tasks = self.model.decode(self.model(self.model.example().to(self.device)))
        return {name: task[:0] for name, task in tasks.items()}


def _name(model: nn.Module) -> str:
    card = getattr(model, "card", None)
    return card.name if card else ""


def _batches(frames: Iterator[video.Frame]) -> Iterator[list[video.Frame]]:
    """Several frames at a time; what was begun also comes where the video cannot be read on."""
    batch: list[video.Frame] = []
    try:
        for frame in frames:
            batch.append(frame)
            if len(batch) >= min(FRAMES, FRAME_PIXELS * 3 // frame[1].size):
                yield batch
                batch = []
    except UserError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _shortage(timestamps: list[float], info: video.VideoInfo) -> list[str]:
    """Tells of a video whose pictures end long before it, as in files that were not copied completely."""
    usual = float(np.median(np.diff(timestamps))) if len(timestamps) > 1 else info.seconds
    last = timestamps[-1] + usual if timestamps else info.seconds
    if info.seconds - last < max(1.0, usual):
        return []
    return [f"the pictures end after {last:.1f} of {info.seconds:.1f} seconds; is the file complete?"]


def analyze(
    source: Any,
    model: nn.Module | str | Path = registry.DEFAULT,
    which: str = "all",
    device: str | torch.device = "cpu",
    rate: sampling.Rate = None,
) -> Result:
    """Read every face of a picture or a video; what it is says its content, not its name.

    A model of voice and face reads a film or a sound file, see `ClipPredictor.clip`; a scene model reads the people of
    a picture, see `emotion.predict.scenes`.

    Args:
        source: path, bytes or open file of either, PIL image or array, see `media.read_image` and `video.decode`.
        model: registry name, checkpoint folder or loaded model.
        which: "all" faces, the "largest" or the one "closest-to-centre".
        device: "cpu", "cuda", ...
        rate: which frames of a video, see `FacePredictor.video`, or decisions per second, see `ClipPredictor.clip`.

    Raises:
        UserError: the picture, the video or the checkpoint cannot be read.
    """
    model = model if isinstance(model, nn.Module) else hub.load(model, device)
    if isinstance(getattr(model.config, "input", None), ClipInput):
        from emotion.predict.clips import ClipPredictor

        return ClipPredictor(model, device=device).clip(source, rate)
    predictor = of_pictures(model, which, device)
    return predictor.video(source, rate) if media.is_video(source) else predictor.image(source)


def of_pictures(
    model: nn.Module | str | Path, which: str = "all", device: str | torch.device = "cpu"
) -> FacePredictor | ScenePredictor:
    """What reads pictures with a model: of faces or of whole scenes, as its input says.

    Args:
        model: registry name, checkpoint folder or loaded model.
        which: faces; a scene model gives everybody.
        device: "cpu", "cuda", ...

    Raises:
        UserError: the checkpoint cannot be loaded or reads neither, or a choice of faces was asked of a scene model.
    """
    loaded = model if isinstance(model, nn.Module) else hub.load(model, device)
    if not isinstance(getattr(loaded.config, "input", None), SceneInput):
        return FacePredictor(loaded, which=which, device=device)
    if which != "all":
        raise UserError(f"a scene model reads everybody: the choice of faces {which!r} has no meaning for it")
    return ScenePredictor(loaded, device=device)
