"""DISFA: action unit intensities of 27 people watching films (Mavadati et al., IEEE TAC 2013), faces cut by OpenFace.

    ActionUnit_Labels/SN001/SN001_au1.txt        lines `frame,intensity`, frames from 1, intensities 0 to 5
    [img/]LeftVideoSN001_comp/LeftVideoSN001_comp_aligned/frame_det_00_000001.bmp

A unit counts as present from intensity 2 on. Frames for which OpenFace gave no picture are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from emotion import media
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import ABAW1_ACTION_UNITS

TRAINING_PEOPLE = 21
PRESENT = 2


def load(root: str | Path, split: str = "train") -> Samples:
    """The frames of one part of the people.

    Args:
        root: folder in the layout above.
        split: "train" (21 people, drawn as the FG-2020 system draws them), "valid" (the others) or "all".

    Returns:
        Samples with "action_units" 0/1 [N, 8]; groups are people, ids picture paths below `root`.

    Raises:
        UserError: unknown split, missing files or pictures, rows that do not parse, units of different length.
    """
    root = Path(root)
    labels = root / "ActionUnit_Labels"
    people = sorted(p.name for p in labels.glob("*") if p.is_dir())
    if not people:
        raise UserError(f"no folders of people in {labels}")
    order = np.random.RandomState(0).permutation(people).tolist()
    parts = {"train": order[:TRAINING_PEOPLE], "valid": order[TRAINING_PEOPLE:], "all": order}
    if split not in parts:
        raise UserError(f"DISFA has the splits {', '.join(parts)}, not {split!r}")
    ids, targets, groups = [], [], []
    for person in parts[split]:
        intensities = _intensities(labels / person, person)
        numbers, paths = _pictures(root, person)
        if numbers[-1] > len(intensities):
            raise UserError(f"{labels / person} ends with frame {len(intensities)}, but there is {paths[-1]}")
        ids += paths
        targets.append(intensities[np.array(numbers) - 1] >= PRESENT)
        groups += [person] * len(paths)
    if not ids:
        raise UserError(f"DISFA's {split} split is empty: {labels} has only {len(people)} people")
    return Samples(
        dataset="disfa",
        split=split,
        ids=tuple(ids),
        picture=lambda i: media.read_image(root / ids[i]),
        labels={"action_units": ABAW1_ACTION_UNITS},
        targets={"action_units": np.concatenate(targets).astype(np.float32)},
        groups=np.array(groups),
        films=True,
        protocol=f"left camera, present from intensity {PRESENT} on",
    )


def _intensities(folder: Path, person: str) -> np.ndarray:
    """Intensities [frames, 8] of one person."""
    columns = []
    for unit in ABAW1_ACTION_UNITS:
        path = folder / f"{person}_{unit.lower()}.txt"
        try:
            rows = np.array([line.split(",") for line in path.read_text().split()], np.float64)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error}") from error
        except ValueError:
            rows = np.zeros((0, 0))
        if rows.ndim != 2 or rows.shape[1:] != (2,) or (rows[:, 0] != np.arange(1, len(rows) + 1)).any():
            raise UserError(f"{path}: expected lines `frame,intensity` with frames 1, 2, 3, ...")
        columns.append(rows[:, 1])
        if len(columns[0]) != len(rows):
            raise UserError(f"{path} has {len(rows)} frames, the person's other files have {len(columns[0])}")
    return np.stack(columns, axis=1)


def _pictures(root: Path, person: str) -> tuple[list[int], list[str]]:
    """Frame numbers and paths below `root` of one person's pictures, in order."""
    place = f"LeftVideo{person}_comp/LeftVideo{person}_comp_aligned"
    folder = root / "img" / place if (root / "img").is_dir() else root / place
    found = sorted((int(p.stem[-6:]), p) for p in folder.glob("frame_det_00_*.bmp") if p.stem[-6:].isdecimal())
    if not found:
        raise UserError(f"no pictures frame_det_00_000001.bmp ... in {folder}")
    return [n for n, _ in found], [p.relative_to(root).as_posix() for _, p in found]


def fake(root: str | Path, people: int = 23, frames: int = 4, size: int = 112, seed: int = 0) -> Path:
    """Write a small synthetic copy: noise whose brightness follows the sum of intensities; frame 2 has no picture.

    Some units are rare and some frequent, as in the real set.
    """
    root, rng = Path(root), np.random.default_rng(seed)
    often = np.array([0.1, 0.1, 0.3, 0.2, 0.3, 0.05, 0.05, 0.5])
    for k in range(1, people + 1):
        person = f"SN{k:03d}"
        drawn = rng.integers(0, PRESENT, (frames, len(often))), rng.integers(PRESENT, 6, (frames, len(often)))
        values = np.where(rng.random((frames, len(often))) < often, drawn[1], drawn[0])
        folder = root / "ActionUnit_Labels" / person
        folder.mkdir(parents=True, exist_ok=True)
        for unit, column in zip(ABAW1_ACTION_UNITS, values.T):
            text = "\n".join(f"{i},{v}" for i, v in enumerate(column, start=1))
            (folder / f"{person}_{unit.lower()}.txt").write_text(text)
        pictures = root / f"LeftVideo{person}_comp" / f"LeftVideo{person}_comp_aligned"
        pictures.mkdir(parents=True, exist_ok=True)
        for i, row in enumerate(values, start=1):
            if i != 2:
                noise = rng.normal(60 + 4 * row.sum(), 20, (size, size, 3))
                Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(pictures / f"frame_det_00_{i:06d}.bmp")
    return root
