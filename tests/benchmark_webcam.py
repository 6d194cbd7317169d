"""`python -m tests.benchmark_webcam [MODEL ...]`: milliseconds of one frame of the page's webcam, by model.

A frame is 640 x 480 with one face: read with the page's own session, drawn and encoded, without the browser.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from PIL import Image

from emotion import draw, hub, registry
from emotion.faces.detectors import MTCNN
from emotion.predict import FacePredictor
from emotion.ui import pieces, webcam

FRAMES = 90


def main() -> None:
    """Print a line per model."""
    parser = argparse.ArgumentParser(description=__doc__.split(": ", 1)[1])
    parser.add_argument("models", nargs="*", default=[registry.DEFAULT])
    frame = Image.new("RGB", (640, 480))
    face = Image.open(pieces.EXAMPLES / "officer.jpg").convert("RGB")
    frame.paste(face.resize((round(face.width * 480 / face.height), 480)), (100, 0))
    picture = np.asarray(frame)
    for name in parser.parse_args().models:
        predictor = FacePredictor(hub.load(name), MTCNN(longest_side=webcam.SEARCHED))
        session = webcam.Session(name, False, predictor.stream(webcam.DETECT_EVERY))
        spent = []
        for _ in range(10 + FRAMES):
            start = time.perf_counter()
            pieces.data_uri(draw.overlay(picture, session.read(picture, 0.3)))
            spent.append(time.perf_counter() - start)
        each = float(np.mean(spent[10:]))
        print(f"{name}: {1000 * each:.1f} ms, {1 / each:.1f} frames per second")


if __name__ == "__main__":
    main()
