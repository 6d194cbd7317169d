"""`python -m emotion webcam`: faces of a camera in a window, recorded on request."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterator
from typing import Protocol

import cv2
import numpy as np

from emotion import draw, exports, timeline
from emotion.cli import films
from emotion.cli.analyze import checked_device, chosen_detector
from emotion.cli.console import PROGRAM, show
from emotion.draw import panels
from emotion.errors import UserError
from emotion.media import sampling
from emotion.media.video import Frame, VideoWriter
from emotion.outputs import Result
from emotion.predict import FacePredictor

WINDOWLESS = "no display, or an OpenCV without windows: pip install opencv-python in place of opencv-python-headless"
PAGE = "open the page instead, it has a tab for the webcam: python app.py"
SEARCHED = 480  # pixels; longest side at which faces are searched: who sits at a camera is near
CLOSED = (27, ord("q"))  # Escape and q


class Window(Protocol):
    """Where pictures are shown: says False once the user closes it."""

    def __call__(self, picture: np.ndarray, title: str) -> bool: ...


def run(args: argparse.Namespace) -> int:
    """The command: until the window is closed, or Ctrl-C."""
    timeline.Smoother(args.smooth)
    sampling.rule(args.fps)
    if args.output is None and args.export:
        raise UserError("--export writes files: say where with -o DIR")
    window = desktop_window(PROGRAM)
    if window is None and args.output is None:
        raise UserError(f"no window can be opened here ({WINDOWLESS}); {PAGE}")
    if window is None:
        print("no window can be opened here; recording until Ctrl-C", file=sys.stderr)
    detector = chosen_detector(args.detector or "mtcnn", checked_device(args.device), SEARCHED)
    predictor = FacePredictor(args.model, detector, args.faces, args.device)
    exports.check(args.export, predictor.name, predictor.nothing)
    with contextlib.closing(camera_frames(args.camera, sampling.rule(args.fps))) as frames:
        result = watch(frames, predictor, args, window)
    if args.output is not None and result is not None:
        films.save(result, args.output, result.source, args.export)
        panels.curves(result, args.output / f"{result.source}.curves.png")
        show(f"{len(result.timestamps)} frames in {args.output / result.source}.mp4, .csv, .json, ...")
    return 0


def watch(
    frames: Iterator[Frame], predictor: FacePredictor, args: argparse.Namespace, window: Window | None = None
) -> Result | None:
    """Read frames as they come, show them and (where `args.output` says) record them with what is drawn in.

    Args:
        frames: seconds since the start and pictures, from a camera or any other source.
        predictor: finds and reads the faces.
        args: output, smooth, details, detect_every, as on the command line.
        window: shows the pictures, or None.

    Returns:
        All that was read where it is recorded, else None. The result's source is the recording's name.

    Raises:
        UserError: the recording cannot be written.
    """
    name = time.strftime("webcam-%Y%m%d-%H%M%S")
    stream, smoother = predictor.stream(args.detect_every), timeline.Smoother(args.smooth)
    for note in stream.notes:
        print(note, file=sys.stderr)
    beside, read, rate = panels.Details() if args.details else None, [], Rate()
    with contextlib.ExitStack() as open_files, films.Stop() as stop:
        if args.output is not None:
            films.make_folder(args.output)
            film = open_files.enter_context(VideoWriter(args.output / f"{name}.mp4"))
        for seconds, picture in frames:
            one = stream.read(picture, seconds, name)
            canvas = draw.overlay(picture, smoother(one))
            if beside is not None:
                canvas = np.concatenate([canvas, beside(one, len(canvas))], axis=1)
            if args.output is not None:
                film.write(canvas, seconds)
                read.append(one)
            shown = window is None or window(canvas, rate.tick())
            if stop.asked or not shown:
                break
    return Result.concatenate(read) if read else None


class Rate:
    """Frames per second of late, as a window's title."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def tick(self) -> str:
        """Count one frame."""
        self._times = [*self._times[-30:], time.perf_counter()]
        if len(self._times) < 2:
            return PROGRAM
        each = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        return f"{PROGRAM}: {1 / each:.1f} frames per second, {1000 * each:.0f} ms each"


def camera_frames(camera: int, take: sampling.Rule | None = None) -> Iterator[Frame]:
    """Frames of a camera with the seconds since the first one; `take` says which, default all.

    Raises:
        UserError: there is no such camera, or it gives no pictures.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what fails is told below
    source = cv2.VideoCapture(camera)
    try:
        start = None
        for index in itertools.count():
            there, picture = source.read()
            if not there:
                break
            now = time.monotonic()
            start = now if start is None else start
            if take is not None and not take(index, now - start):
                continue
            yield now - start, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        if start is None:
            raise UserError(
                f"camera {camera} gives no picture; is it there, free and allowed? Others: --camera 1, 2, ..."
            )
    finally:
        source.release()


def desktop_window(name: str) -> Window | None:
    """An OpenCV window, or None where there is no display or OpenCV was built without windows (as "headless")."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return None  # some builds of OpenCV would end the process
    try:
        cv2.namedWindow(name, cv2.WINDOW_NORMAL)
    except cv2.error:
        return None

    def show_picture(picture: np.ndarray, title: str) -> bool:
        cv2.setWindowTitle(name, title)
        cv2.imshow(name, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(1) not in CLOSED and cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) > 0

    return show_picture
