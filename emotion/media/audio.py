"""Sound in: files that hold sound, alone or in a video, become mono samples; and other sample rates.

WAV, FLAC, OGG and MP3 go through soundfile, everything else (MP4, M4A, WebM, MOV ...) through PyAV. There, what is
damaged or missing becomes silence, so that everything else is heard at its time.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from emotion.errors import UserError
from emotion.media import containers

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

RATES = (4000, 384_000)  # samples per second that recordings have
MAX_SECONDS = 6 * 3600
GAP = 0.005  # seconds that timestamps may run ahead of the samples: containers round them


@dataclass(frozen=True)
class Sound:
    """Mono sound.

    Attributes:
        samples: float32 [N], full scale is -1...1; several channels were averaged.
        rate: samples per second.
        start: when the first sample sounds, in seconds on the clip's clock.
    """

    samples: np.ndarray
    rate: int
    start: float = 0.0

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate

    def at_rate(self, rate: int, resampler: str = "soxr") -> Sound:
        """The same sound with another sample rate; `resampler` as in `resample`."""
        if rate == self.rate:
            return self
        return Sound(resample(self.samples, self.rate, rate, resampler), rate, self.start)

    def window(self, start: float, samples: int) -> np.ndarray:
        """float32 [samples] from `start` seconds of the clip's clock on; zeros where there is no sound."""
        first = round((start - self.start) * self.rate)
        out = np.zeros(samples, np.float32)
        part = self.samples[max(first, 0) : max(first + samples, 0)]
        out[max(-first, 0) : max(-first, 0) + len(part)] = part
        return out


def read(source: str | Path | bytes | BinaryIO, name: str = "") -> Sound | None:
    """The sound of an audio or video file; None for a video without a sound track.

    Args:
        source: file name, the file's bytes, or an open binary file.
        name: what messages call it (default: the file's name).

    Raises:
        UserError: missing, unreadable, empty, or longer than `MAX_SECONDS`.
    """
    if isinstance(source, (str, Path)):
        name = name or Path(source).name
        try:
            with Path(source).open("rb") as file:
                return _read(file, name)
        except OSError as error:
            raise UserError(f"cannot read {source}: {error.strerror or error}") from error
    return _read(io.BytesIO(source) if isinstance(source, bytes) else source, name or "the recording")


def _read(file: BinaryIO, name: str) -> Sound | None:
    import soundfile

    try:
        with soundfile.SoundFile(file) as recording:
            rate = _check(recording.samplerate, recording.frames, name)
            samples = recording.read(dtype="float32", always_2d=True).mean(axis=1)
            whole = len(samples) == recording.frames  # else it is damaged; PyAV reads on behind that
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a name that ends with .raw
        whole = False
    sound = Sound(samples, rate) if whole else _read_track(file, name)
    if sound is not None and not len(sound.samples):
        raise UserError(f"{name} holds no sound at all (0 samples)")
    if sound is not None and not np.isfinite(sound.samples).all():
        raise UserError(f"{name} has samples that are not finite (NaN or infinity)")
    return sound


def _read_track(file: BinaryIO, name: str) -> Sound | None:
    """The first sound track of what PyAV opens."""
    import av

    start, parts, count = 0.0, [], 0
    try:
        with containers.opened(file, containers.SOUNDS) as container:
            if not container.streams.audio:
                return None
            stream = track(container)
            if stream is None:
                raise UserError(f"{name} has sound of a kind that cannot be decoded here; convert it to AAC or WAV")
            rate = _check(stream.rate, 0, name)
            for seconds, samples in pieces(container, stream, rate):
                start = seconds if not parts else start
                parts.append(samples.mean(axis=0))
                count += len(parts[-1])
                _check(rate, count, name)
    except av.FFmpegError as error:
        raise UserError(f"{name} holds no sound that can be read, or is damaged ({error.strerror})") from error
    if not parts:
        raise UserError(f"{name} holds no sound that can be decoded; is the file complete?")
    return Sound(np.concatenate(parts), rate, start)


def track(container: InputContainer) -> AudioStream | None:
    """The first sound track that can be decoded."""
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def pieces(
    container: InputContainer, stream: AudioStream, rate: int, layout: str | None = None, levels: str = "flt"
) -> Iterator[tuple[float, np.ndarray]]:
    """A track's sound without gaps: silence stands for what is damaged or missing.

    Timestamps only ever put silence in, no sample is left out or moved forward. Those that start again, or that lie
    beyond the clip's end, are not believed.

    Args:
        container: where it is from.
        stream: the track.
        rate: samples per second wanted.
        layout: channels wanted ("mono", "stereo"); default as they come.
        levels: "flt" (float32) or "s16" (int16), which FFmpeg keeps from clipping where it mixes channels.

    Yields:
        When the piece begins, in seconds on the clip's clock, and its samples [channels, N], N > 0.

    Raises:
        av.FFmpegError: nothing can be read. Sound that cannot be read on ends there.
    """
    import av

    zero, begin, done = containers.origin(container), None, 0
    length = container.duration / 1e6 if container.duration else MAX_SECONDS
    try:
        for frame in _alike(containers.decoded(container, stream), rate, layout, levels):
            samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T
            if not samples.size or not np.isfinite(samples).all():
                continue
            begin = (frame.time or 0.0) - zero if begin is None else begin
            seconds = begin + done / rate if frame.time is None else frame.time - zero
            ahead = seconds - begin - done / rate
            if ahead < -containers.RESTART:
                zero += ahead
            elif ahead > GAP and seconds < length:
                until = round((seconds - begin) * rate)
                for first in range(done, until, rate):
                    yield begin + first / rate, np.zeros((len(samples), min(rate, until - first)), samples.dtype)
                done = until
            yield begin + done / rate, samples
            done += samples.shape[1]
    except av.FFmpegError:
        if begin is None:
            raise


def _alike(frames: Iterable[AudioFrame], rate: int, layout: str | None, levels: str) -> Iterator[AudioFrame]:
    """Interleaved frames of one rate, type (and layout), though these may change on the way.

    Planar ones of more than 8 channels make PyAV crash.
    """
    import av

    kind, resampler = None, None
    for frame in frames:
        if kind != (frame.format.name, frame.layout.name, frame.sample_rate):
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            yield from resampler.resample(None) if resampler else ()
            resampler = av.AudioResampler(format=levels, layout=layout, rate=rate)
        yield from resampler.resample(frame)
    yield from resampler.resample(None) if resampler else ()


def _check(rate: int, frames: int, name: str) -> int:
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"{name} says it has {rate} samples per second; {RATES[0]} to {RATES[1]} can be read")
    if frames > rate * MAX_SECONDS:
        raise UserError(f"{name} is longer than {MAX_SECONDS // 3600} hours; cut it first")
    return rate


def resample(samples: np.ndarray, rate: int, target: int, resampler: str = "soxr") -> np.ndarray:
    """The same sound with `target` samples per second.

    Args:
        samples: float32 [N].
        rate, target: samples per second.
        resampler: "soxr" (libsoxr, very high quality) or "kaiser" (`kaiser_best`, what librosa did before 0.10).

    Returns:
        float32 [ceil(N target / rate)].
    """
    if resampler == "kaiser":
        return kaiser_best(samples, rate, target)
    import soxr

    return _to_length(soxr.resample(samples, rate, target, quality="VHQ"), _length(len(samples), rate, target))


# `kaiser_best` of resampy 0.2: a windowed sinc, tabulated and linearly interpolated.
ZEROS, STEPS, ROLLOFF, BETA = 64, 512, 0.9475937167399596, 14.769656459379492


def kaiser_best(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Band-limited interpolation (J. O. Smith) as resampy 0.2 does it, for weights trained on its output.

    Every output sample is a weighted sum of its neighbours; the weights repeat after target / gcd outputs, so each of
    these phases is one filter. Kept as they are: the truncated table step, the last output left at zero, and the
    clock that adds up one float per output, so that a full step sometimes comes a sample early.
    """
    common = gcd(rate, target)
    up, down = target // common, rate // common
    outputs = len(samples) * up // down
    clock = np.cumsum(np.append(0.0, np.full(outputs, 1 / (target / rate))))
    reach = int(ZEROS / min(1.0, target / rate)) + 2
    padded = np.pad(samples.astype(np.float64), reach)

    def weighted(places: np.ndarray, fraction: float) -> np.ndarray:
        before, after = _phase_filter(fraction, target / rate)
        kernel = np.concatenate([before[::-1], after])
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel))
        return windows[places + reach + 1 - len(before)] @ kernel

    out = np.zeros(_length(len(samples), rate, target), np.float32)
    for phase in range(min(up, outputs)):
        index = np.arange(phase, outputs, up)
        places = index * down // up
        out[index] = weighted(places, phase * down % up / up)
        early = clock[index] < places
        out[index[early]] = weighted(places[early] - 1, 1.0)
    return out


@lru_cache(maxsize=1)
def _sinc_table() -> np.ndarray:
    """Right half of the windowed sinc, [ZEROS * STEPS + 1]."""
    n = ZEROS * STEPS
    return ROLLOFF * np.sinc(ROLLOFF * np.arange(n + 1) / STEPS) * np.kaiser(2 * n + 1, BETA)[n:]


def _phase_filter(fraction: float, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the samples up to (nearest first) and after a position that lies `fraction` beyond a sample."""
    scale = min(1.0, ratio)
    table, step = _sinc_table() * scale, int(STEPS * scale)
    slope = np.append(np.diff(table), 0.0)
    wings = []
    for distance in (scale * fraction, scale - scale * fraction):
        offset, rest = divmod(distance * STEPS, 1)
        places = int(offset) + step * np.arange((len(table) - int(offset)) // step)
        wings.append(table[places] + rest * slope[places])
    return wings[0], wings[1]


def _length(samples: int, rate: int, target: int) -> int:
    return -(-samples * target // rate)


def _to_length(samples: np.ndarray, length: int) -> np.ndarray:
    return np.pad(samples[:length], (0, max(length - len(samples), 0)))
