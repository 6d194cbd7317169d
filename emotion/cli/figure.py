"""`python -m emotion figure`: bars of prediction and uncertainty for every face of a picture, and its landmarks."""

from __future__ import annotations

import argparse
import csv
import io
from dataclasses import replace

import numpy as np

from emotion import draw, figures, hub, uncertainty
from emotion.cli.analyze import checked_device, chosen_detector
from emotion.cli.console import show
from emotion.cli.films import make_folder
from emotion.errors import UserError
from emotion.faces import crop, in_picture
from emotion.media import read_image, save_image
from emotion.outputs import write_file
from emotion.predict import FacePredictor

PORTRAIT = 360  # pixels


def run(args: argparse.Namespace) -> int:
    """The command; writes one figure per face, and one picture and table of all landmarks."""
    model = hub.load(args.model, checked_device(args.device))
    if args.mc_dropout:
        uncertainty.monte_carlo(model, args.mc_dropout)
    detector = args.detector and chosen_detector(args.detector, args.device)
    predictor = FacePredictor(model, detector, args.faces, args.device)
    picture, stem = read_image(args.picture), args.picture.stem
    result = predictor.image(picture, args.picture.name)
    if not len(result):
        show(f"{args.picture.name}: no face")
        return 0
    make_folder(args.output)
    spec, written = model.config.input, []
    if result.tasks.keys() & figures.TITLES.keys():
        wide = (PORTRAIT, PORTRAIT * spec.size[1] // spec.size[0])
        for n, portrait in enumerate(crop(picture, result.faces, replace(spec, size=wide))):
            written.append(args.output / f"{stem}_face{n + 1}_figure.png")
            save_image(figures.bars(result, n, portrait), written[-1])
    if "landmarks" in result.tasks:
        points = in_picture(figures.landmarks(result), result.faces, spec, result.size)
        written += [args.output / f"{stem}_landmarks.png", args.output / f"{stem}_landmarks.csv"]
        save_image(figures.dotted(draw.overlay(picture, result), points), written[-2])
        write_file(written[-1], _table(points))
    if not written:
        raise UserError(f"{result.model} predicts {', '.join(result.tasks)}; there is no figure of that")
    show(*map(str, written), *result.notes)
    return 0


def _table(points: np.ndarray) -> bytes:
    """face, point, x, y (pixels of the picture) as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["face", "point", "x", "y"])
    for n, face in enumerate(points, start=1):
        writer.writerows([n, k, f"{x:.2f}", f"{y:.2f}"] for k, (x, y) in enumerate(face))
    return out.getvalue().encode()
