"""Variants of the test films, made with PyAV: other containers, times, orientations and damages."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from emotion.media import video

MEDIA = Path(__file__).parent / "media"
TALK, TWO = MEDIA / "talk_man_1.mp4", MEDIA / "talk_two_people.mp4"


def silent(path: Path, times: list[float], source: Path = TALK) -> Path:
    """The first frames of a film at these seconds, without sound."""
    with video.VideoWriter(path, 25) as out:
        for seconds, (_, picture) in zip(times, video.decode(source)):
            out.write(picture, seconds)
    return path


def remuxed(path: Path, tracks: str = "va", source: Path = TALK) -> Path:
    """The same packets in the container of the path's extension (.ts starts later than 0), with some tracks only."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        kept = [s for s in old.streams if s.type[0] in tracks]
        copies = {s.index: new.add_stream_from_template(s) for s in kept}
        for packet in old.demux(kept):
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return path


def with_cover(path: Path) -> Path:
    """A film whose first picture track is its cover, as shops add it."""
    with av.open(str(TALK)) as old, av.open(str(path), "w") as new:
        cover = new.add_stream("png")
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 64, "rgb24", Disposition.attached_pic
        copy = new.add_stream_from_template(old.streams.video[0])
        new.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 200, np.uint8), format="rgb24")))
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    return path


def talking(path: Path, layout: str = "mono", rate: int = 48000, seconds: float = 3.0, aspect: float = 1.0) -> Path:
    """Ten pictures a second of 160x120 pixels, left half black and right half white, with a tone that rises.

    Args:
        path: the film.
        layout, rate, seconds: of the sound.
        aspect: width of a pixel by its height.
    """
    with av.open(str(path), "w") as container:
        pictures, sound = container.add_stream("libx264", rate=10), container.add_stream("aac", rate, layout=layout)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 120, "yuv420p"
        pictures.codec_context.sample_aspect_ratio = Fraction(aspect).limit_denominator(1000)
        halves = np.zeros((120, 160, 3), np.uint8)
        halves[:, 80:] = 255
        t = np.arange(round(seconds * rate)) / rate
        samples = (0.4 * np.sin(2 * np.pi * (300 + 100 * t) * t)).astype(np.float32)
        for k, part in enumerate(np.array_split(samples, round(seconds * 10))):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(halves, format="rgb24")))
            frame = av.AudioFrame.from_ndarray(np.tile(part, (sound.channels, 1)), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, k * len(part)
            container.mux(sound.encode(frame))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    return path


def joined(path: Path, *others: Path) -> Path:
    """Transport streams one behind the other, as by `cat`."""
    path.write_bytes(b"".join(other.read_bytes() for other in others))
    return path


def noisy(path: Path, packets: slice, source: Path) -> Path:
    """A film with some of its packets of sound overwritten by noise."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        places = [(p.pos, p.size) for p in container.demux(container.streams.audio[0]) if p.size]
    for at, size in places[packets]:
        data[at : at + size] = np.random.default_rng(at).bytes(size)
    path.write_bytes(data)
    return path


def turned(path: Path, quarters: int, mirrored: bool = False, source: Path = TALK) -> Path:
    """A film with a display matrix that mirrors it sideways and turns it clockwise by quarters, as phones write it."""
    a, b, c, d = {0: (1, 0, 0, 1), 1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarters]
    a, b = (-a, -b) if mirrored else (a, b)
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 4 * 5 + 16  # version and flags, times and ids, layer and volume
    rows = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", *rows)
    path.write_bytes(data)
    return path


def sideways(path: Path) -> Path:
    """The talk as a phone held upright stores it: pictures lying on their side, and a matrix that puts them up."""
    lying = path.with_name(f"lying_{path.name}")
    with video.VideoWriter(lying, 25) as out:
        for seconds, picture in video.decode(TALK):
            out.write(np.rot90(picture), seconds)
    data = bytearray(lying.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def damaged(path: Path, source: Path = TALK) -> Path:
    """A film with a stretch of noise in its middle."""
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = np.random.default_rng(0).bytes(20_000)
    path.write_bytes(data)
    return path


def cut_off(path: Path) -> Path:
    """Half of a film's bytes, as after a copy that broke off."""
    whole = remuxed(path.with_name(f"whole_{path.stem}.mkv")).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path
