"""Clips of voice and face: one model slid over sound and pictures, and what each of the two would say alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from emotion import hub
from emotion.errors import UserError
from emotion.faces.detectors import MTCNN, Detector
from emotion.measures import FaceMeter
from emotion.media import audio, video
from emotion.media.audio import Sound
from emotion.models.avfusion import AVFusion, Clips
from emotion.models.avfusion_video import COUNTED_FPS
from emotion.models.base import ClipInput, FaceInput, VectorInput
from emotion.outputs import Faces, Result, Task
from emotion.predict import stretches
from emotion.predict.stretches import Stretch

PACE = 5 / 3  # decisions per second
FAITHFUL = "faithful"  # the originals' rule: one decision for the whole clip
BATCH = 8  # stretches per forward pass
MODALITIES = ("voice", "face")
NOWHERE, NOTHING = np.full(4, np.nan, np.float32), np.zeros(0, np.float32)

Progress = Callable[[float, float], object]  # seconds done and in all (0: unknown) -> False to stop
Scores = dict[str, np.ndarray]  # logits "both", "voice", "face" [N, K], and "attention" [N, 2]


class ClipPredictor:
    """Reads clips of voice and face with one fusion model; either may be missing.

    Args:
        model: a loaded model, a registry name or a checkpoint folder.
        detector: finds faces; default MTCNN.
        device: where network and detector run.

    Raises:
        UserError: the checkpoint cannot be loaded, or does not read clips.
    """

    def __init__(
        self, model: nn.Module | str | Path, detector: Detector | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.name = type(model).__name__ if isinstance(model, nn.Module) else str(model)
        self.model: AVFusion = model.to(device).eval() if isinstance(model, nn.Module) else hub.load(model, device)
        if not isinstance(getattr(self.model.config, "input", None), ClipInput):
            raise UserError(f"{self.name} does not read clips; see: python -m emotion models")
        self.name = getattr(getattr(self.model, "card", None), "name", "") or self.name
        self.input = self.seen = self.model.config.input
        self.meter = None
        if isinstance(self.input.visual, VectorInput) and self.input.visual.measured_by:
            self.meter = FaceMeter(self.input.visual.measured_by, device)
            self.seen = replace(self.input, visual=self.meter.input)  # what is cut out of films
        self.detector, self.device = detector or MTCNN(device=device), device

    def clip(
        self, source: video.Video, rate: float | str | None = None, name: str = "", progress: Progress | None = None
    ) -> Result:
        """A film with or without sound, or a sound file.

        Args:
            source: file name, the file's bytes, or an open binary file.
            rate: decisions per second, each about the model's stretch (3.6 s) around it; "faithful": one decision by
                the originals' rule, frames counted from the first one and sound from the middle of the file; default:
                "faithful" for models that learned so, else `PACE`.
            name: the clip's name in the result and in messages; default the file's.
            progress: called now and then with the seconds done and the clip's length (0 where it does not tell); the
                result ends there once it returns False.

        Returns:
            One row per decision, at the middle of its stretch; a stretch with neither voice nor face is in
            `timestamps` alone. Boxes are the face's, NaN where there is none; scores the share of the stretch's frames
            in which it was found. Tasks: "expression", and for a clip that has both modalities
            - "expression_voice" and "expression_face": what either says alone; all classes alike where it is missing;
            - "contribution": by how much the decided class's probability falls when one is left out;
            - "attention": how selectively the other modality attends to its moments, 0 (all alike) to 1 (one only).

        Raises:
            UserError: no such file, neither sound nor pictures in it, or a rate that is none.
        """
        name = name or (Path(source).name if isinstance(source, (str, Path)) else "")
        sound, info, notes = self._open(source, name)
        length = max(info.seconds if info else 0.0, sound.start + sound.seconds if sound else 0.0)
        done: list[Stretch] = []
        scores: list[Scores] = []
        for batch in _batches(self._cut(source if info else None, sound, name, rate)):
            scores.append(self._judge([s for s in batch if s.voice is not None or s.seen is not None]))
            done += [_lightened(s) for s in batch]
            reached = min(done[-1].seconds + self.input.seconds / 2, length or np.inf)
            if progress is not None and progress(reached, length) is False:
                notes.append(f"stopped after {reached:.1f}{f' of {length:.1f}' if length else ''} seconds")
                break
        if info and not info.seconds and len(done) > 1:
            length = 0.0  # a film that does not tell may outlast its sound
        return self._result(done, {k: np.concatenate([s[k] for s in scores]) for k in scores[0]}, length, name, notes)

    def _open(self, source: video.Video, name: str) -> tuple[Sound | None, video.VideoInfo | None, list[str]]:
        """Sound and the film's header, as far as there are any, and what to say about it."""
        sound = info = None
        problems = []
        if hasattr(source, "seek"):
            source.seek(0)
        try:
            sound = audio.read(source, name)
        except UserError as problem:
            problems.append(problem)
        try:
            info = video.probe(source, name)
        except UserError as problem:
            problems.append(problem)
        if sound is None and info is None:
            raise problems[0]
        if sound is None:
            return None, info, ["no sound: judged by the face alone"]
        if info is None:
            return sound, None, ["no pictures: judged by the voice alone"]
        if not isinstance(self.seen.visual, FaceInput):
            return sound, None, [f"{self.name} reads measurements, not pictures: judged by the voice alone"]
        return sound, info, []

    def _cut(
        self, film: video.Video | None, sound: Sound | None, name: str, rate: float | str | None
    ) -> Iterator[Stretch]:
        if rate is None:
            rate = FAITHFUL if self.input.timing == "index" else PACE
        if rate == FAITHFUL:
            frames = None if film is None else video.decode(film, name)
            return iter([stretches.whole(self.seen, sound, frames, self.detector)])
        return stretches.slide(self.seen, sound, film, name, self.detector, _step(rate))

    def _judge(self, found: list[Stretch]) -> Scores:
        """Logits of both modalities and of each alone, and the attention; zeros where a modality is missing."""
        n, k = len(found), len(self.model.config.labels)
        out = {name: np.zeros((n, k), np.float32) for name in ("both", *MODALITIES)}
        out["attention"] = np.zeros((n, 2), np.float32)
        there = np.array([(s.voice is not None, s.seen is not None) for s in found], bool).reshape(-1, 2)
        for voice, face in ((True, True), (True, False), (False, True)):
            rows = np.flatnonzero((there == (voice, face)).all(axis=1))
            if not len(rows):
                continue
            features = np.stack([found[i].voice for i in rows]) if voice else None
            visual = self.visual([found[i].seen.crops for i in rows]) if face else None
            clips = Clips(*(None if x is None else x.to(self.device) for x in self.model.inputs(features, visual)))
            for name, values in self._scores(clips).items():
                out[name][rows] = values.float().cpu().numpy()
        return out

    def visual(self, crops: list[np.ndarray]) -> np.ndarray:
        """What the network is given of face crops [T, H, W, 3]: themselves, or what was measured on them [B, T, V]."""
        if self.meter is None:
            return np.stack(crops)
        return self.meter(np.concatenate(crops)).reshape(len(crops), self.input.frames, -1)

    @torch.inference_mode()
    def _scores(self, clips: Clips) -> dict[str, Tensor]:
        whole = self.model(clips, attention=True)
        both = whole["expression"]
        if clips.visual is None:
            return {"both": both, "voice": both}
        if clips.audio is None:
            return {"both": both, "face": both}
        return {
            "both": both,
            "voice": self.model(Clips(clips.audio, None))["expression"],
            "face": self.model(Clips(None, clips.visual))["expression"],
            "attention": torch.stack([_selectivity(whole[f"attention_{m}"]) for m in ("audio", "visual")], dim=1),
        }

    def _result(self, done: list[Stretch], scores: Scores, length: float, name: str, notes: list[str]) -> Result:
        rows = [i for i, s in enumerate(done) if s.voice is not None or s.seen is not None]
        seen = [done[i].seen for i in rows]
        boxes = [NOWHERE if s is None else s.box for s in seen]
        shares = [0.0 if s is None else s.share for s in seen]
        voices, faces = sum(done[i].voice is not None for i in rows), sum(s is not None for s in seen)
        if not rows:
            notes = [*notes, "there is neither a voice nor a face in this clip"]
        elif not (voices and faces) and not notes:
            notes = [
                "no face was found: judged by the voice alone"
                if voices
                else "the sound is silent: judged by the face alone"
            ]
        # a clip shorter than a stretch has its middle earlier
        last = max(length - self.input.seconds / 2, length / 2) if length else np.inf
        return Result(
            model=self.name,
            size=done[-1].size,
            timestamps=np.minimum([s.seconds for s in done], last),
            frame=np.array(rows, np.int64),
            faces=Faces(np.reshape(boxes, (-1, 4)), np.array(shares)),
            tasks=self._tasks(scores, bool(voices and faces)),
            source=name,
            notes=tuple(notes),
        )

    def _tasks(self, scores: Scores, both: bool) -> dict[str, Task]:
        """What the logits say, and, for a clip of both modalities, what carried it; see `clip`."""

        def read(name: str) -> Task:
            return self.model.decode({"expression": torch.from_numpy(scores[name])})["expression"]

        whole = read("both")
        if not both:
            return {"expression": whole}
        alone = {name: read(name) for name in MODALITIES}
        rows = np.arange(len(whole.choice))
        without = [alone[name].values[rows, whole.choice] for name in reversed(MODALITIES)]
        lost = whole.values[rows, whole.choice][:, None] - np.stack(without, axis=1)
        return {
            "expression": whole,
            **{f"expression_{name}": task for name, task in alone.items()},
            "contribution": Task("continuous", MODALITIES, lost, bounds=(-1.0, 1.0)),
            "attention": Task("continuous", MODALITIES, scores["attention"]),
        }


def _selectivity(weights: Tensor) -> Tensor:
    """How selectively [B] steps are attended to [B, Tq, T]: 1 - normalised entropy of what all queries give them."""
    received = weights.mean(dim=1)
    steps = received.shape[-1]
    if steps == 1:
        return received.new_zeros(len(received))
    return 1 + torch.special.xlogy(received, received).sum(dim=-1) / float(np.log(steps))


def _step(rate: float | str) -> int:
    """Thirtieths of a second from one decision to the next."""
    try:
        if 0 < float(rate) < float("inf"):
            return max(1, round(COUNTED_FPS / float(rate)))
    except ValueError:
        pass
    raise UserError(f"decisions are made at a positive number per second, or {FAITHFUL}, not {rate!r}")


def _batches(cut: Iterator[Stretch]) -> Iterator[list[Stretch]]:
    while batch := list(islice(cut, BATCH)):
        yield batch


def _lightened(stretch: Stretch) -> Stretch:
    """Without the arrays that the network has read."""
    seen = stretch.seen and stretch.seen._replace(crops=NOTHING)
    return stretch._replace(voice=None if stretch.voice is None else NOTHING, seen=seen)
