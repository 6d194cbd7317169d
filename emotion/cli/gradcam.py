"""`python -m emotion gradcam`: where a model looked, for every face of a picture and every branch of its ensemble."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from emotion import draw
from emotion.cli.analyze import checked_device, chosen_detector
from emotion.cli.console import show
from emotion.cli.films import make_folder
from emotion.explain import Maps, grad_cam, jet_overlay
from emotion.faces import crop
from emotion.media import read_image, save_image
from emotion.predict import FacePredictor

TILE = 192  # pixels
LINE = 24  # pixels of text below a tile

Blend = Callable[[np.ndarray, np.ndarray], np.ndarray]


def run(args: argparse.Namespace) -> int:
    """The command; writes one sheet per face."""
    device = checked_device(args.device)
    predictor = FacePredictor(args.model, args.detector and chosen_detector(args.detector, device), args.faces, device)
    picture = read_image(args.picture)
    (faces,) = predictor.detect([picture])
    if not len(faces):
        show(f"{args.picture.name}: no face")
        return 0
    model, spec = predictor.model, predictor.model.config.input
    maps = grad_cam(model, spec.tensor(predictor.crops(picture, faces)).to(predictor.device))
    portraits = crop(picture, faces, replace(spec, size=(TILE, TILE)))
    blend: Blend = _original if args.original else _clean
    make_folder(args.output)
    for n, portrait in enumerate(portraits):
        path = args.output / f"{args.picture.stem}_face{n + 1}_gradcam.png"
        save_image(sheet(portrait, maps, n, model.labels["expression"], blend), path)
        show(str(path))
    return 0


def sheet(portrait: np.ndarray, maps: Maps, n: int, labels: tuple[str, ...], blend: Blend) -> np.ndarray:
    """Tiles side by side: the face, the ensemble's map (of several members), and every member's with its class.

    Args:
        portrait: uint8 [S, S, 3]; maps: of N faces, of which the n-th is shown; labels: of the classes.
        blend: (portrait, map) -> uint8 [S, S, 3].
    """
    members = list(zip(maps.members[:, n], maps.classes[:, n], maps.probabilities[:, n]))
    tiles = [("face", portrait)]
    if len(members) > 1:
        tiles.append(("ensemble", blend(portrait, maps.ensemble[n])))
    for b, (values, label, probability) in enumerate(members, start=1):
        text = f"{labels[label]} {100 * probability:.0f} %"
        tiles.append((f"{b} {text}" if len(members) > 1 else text, blend(portrait, values)))
    side = len(portrait)
    canvas = Image.new("RGB", (side * len(tiles), side + LINE), "white")
    pen = ImageDraw.Draw(canvas)
    for k, (text, pixels) in enumerate(tiles):
        canvas.paste(Image.fromarray(pixels), (k * side, 0))
        pen.text(((k + 0.5) * side, side + LINE / 2), text, fill="black", font=draw.font(14), anchor="mm")
    return np.asarray(canvas)


def _clean(portrait: np.ndarray, values: np.ndarray) -> np.ndarray:
    return draw.heat(portrait, values, bar=False)


def _original(portrait: np.ndarray, values: np.ndarray) -> np.ndarray:
    return jet_overlay(values, portrait)
