"""A clip of voice and face cut into the overlapping stretches that a fusion model judges one by one.

Nothing here grows with a film's length but its sound and the list of results: frames are dropped once cut out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, zip_longest
from typing import NamedTuple

import numpy as np

from emotion.faces import crop
from emotion.faces.detectors import Detector
from emotion.media import video
from emotion.media.audio import Sound
from emotion.models.avfusion_audio import clip_samples, mfcc
from emotion.models.avfusion_video import COUNTED_FPS, choose_frames, face_stretch, frame_numbers
from emotion.models.base import ClipInput
from emotion.outputs import Faces

SILENCE = 1e-4  # effective value (full scale is 1) below which there is no voice
PICTURES = 8  # that are searched for faces together


class Seen(NamedTuple):
    """The face of one stretch.

    Attributes:
        crops: uint8 [T, H, W, 3], RGB.
        box: float32 [4], x0 y0 x1 y1 in pixels, mean over the frames in which it was found.
        share: of the stretch's frames in which it was found.
    """

    crops: np.ndarray
    box: np.ndarray
    share: float


class Stretch(NamedTuple):
    """What one decision is made from.

    Attributes:
        seconds: its middle on the clip's clock.
        voice: raw sound features [C, columns], or None for silence.
        seen: the face, or None.
        size: width and height of the film's pictures; zeros without a film.
    """

    seconds: float
    voice: np.ndarray | None
    seen: Seen | None
    size: tuple[int, int]


def whole(config: ClipInput, sound: Sound | None, film: Iterator[video.Frame] | None, detector: Detector) -> Stretch:
    """One stretch by the originals' rule: the film's first frames, counted, and the middle of the sound."""
    config = replace(config, timing="index")
    seen, size = None, (0, 0)
    if film is not None:
        pictures = choose_frames(film, config)
        size = next((_size(picture) for picture in pictures if picture is not None), size)
        face = face_stretch(pictures, detector, config.visual)
        if face is not None:
            seen = Seen(face.crops, face.boxes[face.found].mean(axis=0), float(face.found.mean()))
    return Stretch(config.seconds / 2, _voice(sound, config, 0.0), seen, size)


def slide(
    config: ClipInput, sound: Sound | None, source: video.Video | None, name: str, detector: Detector, step: int
) -> Iterator[Stretch]:
    """Stretches by time, one every `step` thirtieths of a second from the clip's start on.

    The last one ends with the clip, give or take half a step; a clip shorter than one stretch gives one.

    Args:
        config: the model's input.
        sound: of the clip, or None.
        source: its pictures, or None.
        name: what messages call it.
        detector: finds the faces; the largest is followed.
        step: from one stretch to the next.
    """
    config = replace(config, timing="time")
    film = Film(config, detector, step)
    faces = film.stretches(source, name) if source is not None else iter(())
    for k, (voice, seen) in enumerate(zip_longest(_voices(sound, config, step), faces)):
        yield Stretch(k * step / COUNTED_FPS + config.seconds / 2, voice, seen, film.size)


def number_of(seconds: float, config: ClipInput, step: int) -> int:
    """How many stretches a clip of this length has."""
    return 1 + max(0, round((seconds - config.seconds) * COUNTED_FPS / step))


def _voices(sound: Sound | None, config: ClipInput, step: int) -> Iterator[np.ndarray | None]:
    if sound is None:
        return
    sound = sound.at_rate(config.audio.rate, config.audio.resampler)
    for k in range(number_of(sound.start + sound.seconds, config, step)):
        yield _voice(sound, config, k * step / COUNTED_FPS)


def _voice(sound: Sound | None, config: ClipInput, start: float) -> np.ndarray | None:
    """Sound features of a stretch, or None for silence."""
    if sound is None:
        return None
    samples = clip_samples(sound, config, start)
    return mfcc(samples, config.audio) if np.sqrt(np.mean(samples**2)) >= SILENCE else None


class _Look(NamedTuple):
    """One frame that stretches ask for, by its number at 30 per second.

    `crop` is None, and `picture` kept, until the film's first face was found.
    """

    number: int
    face: Faces
    crop: np.ndarray | None
    picture: np.ndarray | None


class Film:
    """Reads a film once and hands out the face of every stretch.

    The face is the largest of each frame; a frame without one is cut where the last one was, or else the next.
    """

    def __init__(self, config: ClipInput, detector: Detector, step: int) -> None:
        self.config, self.detector, self.step = config, detector, step
        self.numbers = frame_numbers(config)
        self._asked: deque[list[int]] = deque()  # what each frame that is decoded is for
        self._next, self._end = 0, 0.0
        self.size = (0, 0)

    def stretches(self, source: video.Video, name: str) -> Iterator[Seen | None]:
        """The face of every stretch; None where no face was found in it.

        Raises:
            UserError: the film cannot be read.
        """
        held: list[_Look] = []
        k = 0
        for looks in self._looks(source, name):
            held += looks
            while held and held[-1].number >= k * self.step + self.numbers[-1]:
                yield self._seen(k, held)
                k += 1
                held = [look for look in held if look.number >= k * self.step]
        for rest in range(k, number_of(self._end, self.config, self.step)):
            yield self._seen(rest, held)

    def _looks(self, source: video.Video, name: str) -> Iterator[list[_Look]]:
        known: Faces | None = None
        frames = video.decode(source, name, self._take)
        while pictures := [picture for _, picture in islice(frames, PICTURES)]:
            looks, self.size = [], _size(pictures[0])
            for picture, found in zip(pictures, self.detector(pictures)):
                face = found[[int(found.areas.argmax())]] if len(found) else found
                known = face if len(face) else known
                cut = None if known is None else crop(picture, known, self.config.visual)[0]
                kept = picture if known is None else None
                looks += [_Look(number, face, cut, kept) for number in self._asked.popleft()]
            yield looks

    def _take(self, _: int, seconds: float) -> bool:
        """A rule of `sampling`: whether stretches ask for this frame, the first at or after its due time."""
        now = int((seconds + 1e-3) * COUNTED_FPS)
        due = [n for n in range(self._next, now + 1) if self._is_due(n)]
        self._next, self._end = now + 1, seconds
        if due:
            self._asked.append(due)
        return bool(due)

    def _is_due(self, number: int) -> bool:
        return bool(((number >= self.numbers) & ((number - self.numbers) % self.step == 0)).any())

    def _seen(self, k: int, held: list[_Look]) -> Seen | None:
        looks = {look.number: look for look in held}
        mine = [looks.get(k * self.step + int(n)) for n in self.numbers]
        found = [look.face for look in mine if look is not None and len(look.face)]
        if not found:
            return None
        visual = self.config.visual
        crops = np.zeros((len(mine), *visual.size, 3), np.uint8)
        for i, look in enumerate(mine):
            if look is None:  # the film is over
                crops[i] = crops[i - 1]
            else:
                crops[i] = crop(look.picture, found[0], visual)[0] if look.crop is None else look.crop
        return Seen(crops, np.concatenate([f.boxes for f in found]).mean(axis=0), len(found) / len(mine))


def _size(picture: np.ndarray) -> tuple[int, int]:
    return picture.shape[1], picture.shape[0]
