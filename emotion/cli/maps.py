"""`python -m emotion maps`: where in a picture a scene model sees people and emotions, as pictures and arrays."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from emotion.cli import scenes
from emotion.cli.console import show, table
from emotion.cli.films import make_folder
from emotion.draw import scene_maps
from emotion.errors import UserError
from emotion.media import read_image, save_image
from emotion.predict.scenes import SceneMaps


def run(args: argparse.Namespace) -> int:
    """The command."""
    predictor = scenes.predictor(args, args.model)
    picture = read_image(args.picture)
    maps = predictor.maps(picture, args.emotions or None)
    stem = args.picture.stem
    make_folder(args.output)
    save_image(scene_maps.sheet(picture, maps, coloured=args.colour), args.output / f"{stem}_maps.png")
    _save_arrays(maps, args.output / f"{stem}_maps.npz")
    out = table("map", "smallest", "largest", "where it is largest (x, y)")
    for name, values in _named(maps):
        row, column = np.unravel_index(values.argmax(), values.shape)
        x, y = ((np.array([column, row]) + 0.5) * maps.size / values.shape[::-1]).astype(int)
        out.add_row(name, f"{values.min():.3f}", f"{values.max():.3f}", f"{x}, {y}")
    show(f"{args.picture.name}  {maps.size[0]} x {maps.size[1]} pixels", out)
    show(f"{args.output / stem}_maps.png, {args.output / stem}_maps.npz")
    return 0


def _named(maps: SceneMaps) -> list[tuple[str, np.ndarray]]:
    people = [] if maps.heatmap is None else [("people", maps.heatmap)]
    return [*people, *zip(maps.labels, maps.maps)]


def _save_arrays(maps: SceneMaps, path: Path) -> None:
    """A NumPy archive: "size" (width, height of the picture), "labels" [K], "maps" [K, h, w], "heatmap" [h, w]."""
    heatmap = {} if maps.heatmap is None else {"heatmap": maps.heatmap}
    try:
        np.savez_compressed(path, size=np.array(maps.size), labels=np.array(maps.labels), maps=maps.maps, **heatmap)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
