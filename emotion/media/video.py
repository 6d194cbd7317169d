"""Videos in and out: upright frames with their true time, one at a time, and annotated films that browsers play.

The clip's clock starts where its container starts, as in a player. Timestamps are the stream's own, so that variable
frame rates are right; nothing is ever computed from a frame's number, except in raw streams, which have no clock.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from emotion.errors import UserError
from emotion.media import audio, check_size, containers, read_image
from emotion.media.sampling import Rule

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Video = str | Path | bytes | BinaryIO
Seconds = Callable[[], float]
Frame = tuple[float, np.ndarray]  # seconds on the clip's clock, and the picture uint8 [H, W, 3], RGB

DEFAULT_RATE = 25.0  # frames per second of a stream that does not tell
ASPECTS = (1 / 4, 4)  # width of a pixel by its height that films have: 0.9 to 2.9

# Encoders of annotated films with their options; the first that this build of FFmpeg has is used. The first three give
# films that browsers play (H.264, VP9); the last needs a player such as VLC.
ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "21", "bf": "0"},  # B frames make FFmpeg's header lie at irregular times
    "libopenh264": {"b": "4M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6", "crf": "32", "b": "0"},
    "mpeg4": {"b": "4M"},
}
TICKS = 60_000  # per second: whole for 24, 25, 30, 50 and 60 frames per second and for 29.97 and 59.94
SOUND_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True)
class VideoInfo:
    """What a video says about itself.

    Attributes:
        rate: average frames per second.
        seconds: length; 0 where it does not tell.
        frames: their number; 0 where it does not tell.
        sound: whether it has a sound track.
    """

    rate: float
    seconds: float
    frames: int
    sound: bool


def probe(source: Video, name: str = "") -> VideoInfo:
    """The facts in a video's header.

    Raises:
        UserError: as `decode`.
    """
    with _opened(source, name) as (container, stream):
        length = container.duration / 1e6 if container.duration else 0.0
        return VideoInfo(_rate(stream), length, stream.frames, bool(container.streams.audio))


def decode(source: Video, name: str = "", take: Rule | None = None) -> Iterator[Frame]:
    """Frames of a video, one at a time.

    Damaged packets are skipped, as players do.

    Args:
        source: file name, the file's bytes, or an open binary file.
        name: what messages call it (default: the file's name).
        take: which frames, a rule of `emotion.media.sampling`; default all. The others are not converted.

    Yields:
        Seconds on the clip's clock (never decreasing), and the picture uint8 [H, W, 3], RGB, upright, with square
        pixels, all of one size.

    Raises:
        UserError: no such file, empty, no video, no picture track, too large or too small pictures, or not one picture
            can be decoded.
    """
    with _opened(source, name) as (container, stream):
        index, size = 0, None
        for seconds, frame in _timed(container, stream):
            size = size or _size(frame, stream, _called(source, name))
            if take is None or take(index, seconds):
                yield seconds, _upright(_rgb(frame, *size), frame)
            index += 1
        if not index:
            raise UserError(f"{_called(source, name)} has no picture that can be decoded; is the file complete?")


def _timed(container: InputContainer, stream: VideoStream) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their seconds on the clip's clock, which goes on where timestamps start again."""
    start, step, latest = containers.origin(container), 1 / _rate(stream), None
    for frame in containers.decoded(container, stream):
        following = 0.0 if latest is None else latest + step
        seconds = following if frame.time is None else frame.time - start
        if latest is not None and seconds < latest - containers.RESTART:
            start += seconds - following
            seconds = following
        latest = seconds if latest is None else max(latest, seconds)
        yield max(0.0, latest), frame


def _size(frame: VideoFrame, stream: VideoStream, name: str) -> tuple[int, int]:
    """Width and height of a frame with square pixels."""
    size = round(frame.width * _aspect(stream)), frame.height
    check_size(*size, name)
    return size


def _rgb(frame: VideoFrame, width: int, height: int) -> np.ndarray:
    """A frame of that size, uint8 [H, W, 3]; transparency is laid on white, as that of pictures."""
    if any(component.is_alpha for component in frame.format.components):
        return read_image(frame.to_ndarray(format="rgba", width=width, height=height))
    return frame.to_ndarray(format="rgb24", width=width, height=height)


def _upright(picture: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """A picture turned by quarters, and mirrored, as the frame's display matrix says; contiguous."""
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).tolist()  # x, y to a x + c y, b x + d y
        if a * d < b * c:
            picture, a, b = picture[:, ::-1], -a, -b
        picture = np.rot90(picture, -round(math.atan2(b, a) / (math.pi / 2)))
    return np.ascontiguousarray(picture)


@contextlib.contextmanager
def _opened(source: Video, name: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first track of moving pictures (pictures of covers are none)."""
    import av
    from av.stream import Disposition

    name = _called(source, name)
    try:
        with _container(source, name) as container:
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not streams:
                raise UserError(f"{name} has no moving pictures{', only sound' if container.streams.audio else ''}")
            streams[0].thread_type = "AUTO"
            yield container, streams[0]
    except (av.FFmpegError, OSError) as error:
        raise UserError(
            f"{name} cannot be read as a video ({error.strerror or error}); is the file complete?"
        ) from error


def _container(source: Video, name: str) -> InputContainer:
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a video in it")
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        if not path.stat().st_size:
            raise UserError(f"{name} is empty (0 bytes); was it copied completely?")
    return containers.opened(source)


def _called(source: Video, name: str) -> str:
    return name or (Path(source).name if isinstance(source, (str, Path)) else "the video")


def _rate(stream: VideoStream) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else DEFAULT_RATE


def _aspect(stream: VideoStream) -> float:
    """Width of a pixel by its height; 1 where it does not tell, is absurd, or a rounding error of scaled films."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if ASPECTS[0] <= aspect <= ASPECTS[1] and abs(aspect - 1) > 0.01 else 1.0


def encoder() -> str:
    """The first of `ENCODERS` that is there.

    Raises:
        UserError: none is.
    """
    import av

    for name in ENCODERS:
        with contextlib.suppress(ValueError):
            return av.Codec(name, "w").name and name
    raise UserError(f"no video encoder is there, PyAV was built without {', '.join(ENCODERS)}: install PyAV from PyPI")


class VideoWriter:
    """An MP4 film: frames with their times, and the sound of another video; a context manager.

    The file appears whole when the block ends, or not at all when it ends with an exception. A width or height that is
    odd loses its last pixel, which 4:2:0 colour cannot hold. Sound is copied where it is AAC in MP4 already, else
    encoded as AAC; it ends with the pictures.

    Args:
        path: the file.
        rate: frames per second, about; true times come with the frames.
        sound: video whose sound is kept, or None.

    Raises:
        UserError: the place cannot be written to, or no encoder is there.
    """

    def __init__(self, path: str | Path, rate: float = DEFAULT_RATE, sound: Video | None = None) -> None:
        import av

        self.path, self.rate = Path(path), rate
        self._partial = self.path.with_name(self.path.name + ".part")
        self._codec = encoder()
        try:
            self._partial.touch()  # PyAV opens the file late, at the first frame: find out now
            self._output = av.open(str(self._partial), "w", format="mp4", options={"movflags": "faststart"})
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        self._stream: VideoStream | None = None
        self._sound_from, self._sound = sound, iter(())
        self._heard, self._end, self._last = 0.0, float("inf"), -1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        import av

        try:
            if kind is None and self._stream is not None:
                self._finish()
            self._output.close()
        except (av.FFmpegError, OSError) as error:
            self._partial.unlink(missing_ok=True)
            if kind is None:
                raise UserError(f"cannot write {self.path}: {error.strerror or error}; is there room?") from error
        if kind is None and self._stream is not None:
            self._partial.replace(self.path)
        self._partial.unlink(missing_ok=True)

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Append a frame.

        Args:
            picture: uint8 [H, W, 3], RGB; all of one size.
            seconds: when it is shown; a frame that is not later than the one before is left out.
        """
        import av

        if self._stream is None:
            self._start(picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
        tick = round(seconds * TICKS)
        if tick <= self._last:
            return
        even = np.ascontiguousarray(picture[: self._stream.height, : self._stream.width])
        frame = av.VideoFrame.from_ndarray(even, format="rgb24")
        frame.pts, frame.time_base = tick, Fraction(1, TICKS)
        self._output.mux(self._stream.encode(frame))
        self._last = tick
        self._hear(seconds)

    def _start(self, width: int, height: int) -> None:
        rate = Fraction(self.rate).limit_denominator(1001)
        self._stream = self._output.add_stream(self._codec, rate=rate, options=ENCODERS[self._codec])
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = self._stream.time_base = Fraction(1, TICKS)
        if self._sound_from is not None:
            self._sound = self._sound_track(self._output, self._sound_from)
            next(self._sound, None)  # all tracks must be there before the first frame is written

    def _finish(self) -> None:
        self._end = self._last / TICKS + 1 / self.rate
        self._hear(float("inf"))
        self._output.mux(self._stream.encode(None))

    def _hear(self, until: float) -> None:
        """Write the sound up to that second, so that both tracks grow together and nothing piles up."""
        while self._heard < until:
            self._heard = next(self._sound, float("inf"))

    def _sound_track(self, output: OutputContainer, source: Video) -> Iterator[float]:
        """Adds the track when first asked, then writes one piece of sound at a time; gives the seconds it got to.

        Sound that cannot be read ends there: the pictures matter more.
        """
        import av

        with contextlib.suppress(av.FFmpegError, UserError), _container(source, "sound") as container:
            track = audio.track(container)
            if track is None:
                return
            copied = track.codec_context.name == "aac" and "mp4" in container.format.name
            yield from (_copy if copied else _encode)(output, container, track, lambda: self._end)


def _copy(output: OutputContainer, container: InputContainer, track: AudioStream, end: Seconds) -> Iterator[float]:
    """Packets as they are, on the clip's clock."""
    out = output.add_stream_from_template(track)
    yield 0.0
    shift = round(containers.origin(container) / track.time_base)
    for packet in container.demux(track):
        if packet.dts is None:
            continue
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        seconds = float(packet.pts * packet.time_base)
        if seconds >= end():
            break
        packet.stream = out
        output.mux(packet)
        yield seconds


def _encode(output: OutputContainer, container: InputContainer, track: AudioStream, end: Seconds) -> Iterator[float]:
    """Decoded and encoded as AAC, on the clip's clock."""
    import av

    rate = track.rate if track.rate in SOUND_RATES else SOUND_RATES[-1]
    layout = "mono" if track.channels == 1 else "stereo"
    out = output.add_stream("aac", rate=rate, layout=layout)
    yield 0.0
    for seconds, samples in audio.pieces(container, track, rate, layout, "s16"):
        if seconds >= end():
            break
        frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, round(seconds * rate), Fraction(1, rate)
        output.mux(out.encode(frame))
        yield seconds
    output.mux(out.encode(None))
