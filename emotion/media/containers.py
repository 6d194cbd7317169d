"""Opening films and sounds: only containers that hold their data themselves, so that no file makes another one be read.

Playlists and descriptions (HLS, DASH, ffconcat, SDP, ...) would make FFmpeg open other files and addresses; they are
recognised by content, so a harmless name changes nothing. References inside a QuickTime film are not followed either,
which is FFmpeg's default (`enable_drefs`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

FILMS = "asf,avi,flv,h264,hevc,m4v,matroska,mov,mpeg,mpegts,mpegvideo,ogg"
SOUNDS = f"{FILMS},aac,ac3,aiff,amr,ape,au,caf,dsf,dts,eac3,flac,mp3,tta,voc,w64,wav,wv"

RESTART = 1.0  # seconds that timestamps jump back by where recordings were joined end to end, at least


def opened(source: str | Path | bytes | BinaryIO, containers: str = FILMS) -> InputContainer:
    """A container to read from.

    Args:
        source: file name, the file's bytes, or an open binary file.
        containers: those that are allowed, `FILMS` or `SOUNDS`.

    Raises:
        av.FFmpegError: it cannot be read, or is none of them.
    """
    import av

    if isinstance(source, (str, Path)):
        source = f"file:{source}"  # else a colon in the name would start a protocol
    elif isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    else:
        source.seek(0)
    return av.open(source, options={"format_whitelist": containers, "protocol_whitelist": "file"})


def origin(container: InputContainer) -> float:
    """Where the clip's clock starts on the container's, in seconds: later than 0 in recordings of broadcasts."""
    return max(0.0, (container.start_time or 0) / 1e6)


def decoded(container: InputContainer, stream: Stream) -> Iterator[Any]:
    """A track's frames one at a time; damaged packets are skipped, as players do.

    Raises:
        av.FFmpegError: the file cannot be read on.
    """
    import av

    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        yield from frames
