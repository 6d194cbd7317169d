"""AFEW-VA: film clips with valence and arousal per frame (Kossaifi et al., Image and Vision Computing 2017).

    01/001/00000.png ...   and   01/001/001.json, folders 01 to 12:
    {"frames": {"00000": {"landmarks": 68 x [x, y], "valence": -10...10, "arousal": -10...10}, ...}}

Values are divided by 10. Faces are cut by five points taken from the landmarks, see `emotion.faces.alignment`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from emotion import media
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.faces.alignment import five_point_crop
from emotion.labels import VALENCE_AROUSAL


def load(root: str | Path, split: str = "train") -> Samples:
    """The frames of one part of the clips.

    Args:
        root: folder in the layout above.
        split: "train" (80 % of the clips, drawn as the FG-2020 system draws them), "valid" (the others) or "all".

    Returns:
        Samples with "valence_arousal" [N, 2] in [-1, 1]; groups are clips, ids `<folder>_<clip>/<frame>.png`.

    Raises:
        UserError: unknown split, no clips, damaged JSON, values out of range, pictures missing.
    """
    root = Path(root)
    files = {f"{p.parts[-3]}_{p.parts[-2]}": p for p in sorted(root.glob("*/*/*.json")) if p.stem == p.parent.name}
    if not files:
        raise UserError(f"no clips in {root}; expected 01/001/001.json beside its pictures")
    order = np.random.RandomState(0).permutation(list(files)).tolist()
    count = int(0.8 * len(order))
    parts = {"train": order[:count], "valid": order[count:], "all": order}
    if split not in parts:
        raise UserError(f"AFEW-VA has the splits {', '.join(parts)}, not {split!r}")
    paths, points, values, groups = [], [], [], []
    for clip in parts[split]:
        for path, landmarks, value in _frames(files[clip]):
            paths.append(path)
            points.append(landmarks)
            values.append(value)
            groups.append(clip)
    return Samples(
        dataset="afewva",
        split=split,
        ids=tuple(f"{clip}/{path.name}" for clip, path in zip(groups, paths)),
        picture=lambda i: five_point_crop(media.read_image(paths[i]), points[i]),
        labels={"valence_arousal": VALENCE_AROUSAL},
        targets={"valence_arousal": np.array(values, np.float32).reshape(-1, 2)},
        groups=np.array(groups),
        films=True,
        protocol="annotated values / 10, faces cut by landmarks",
    )


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Left eye, right eye, nose, mouth corners [5, 2] from 68 landmarks; an eye is the mean of its two corners."""
    eyes = [landmarks[[36, 39]].mean(axis=0), landmarks[[42, 45]].mean(axis=0)]
    return np.stack([*eyes, landmarks[33], landmarks[48], landmarks[54]])


def _frames(path: Path) -> list[tuple[Path, np.ndarray, list[float]]]:
    """Picture, five points, and valence and arousal of every frame of a clip, in order."""
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["frames"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path}: {error!r}") from error
    out = []
    for name in sorted(frames):
        row = frames[name]
        try:
            landmarks = np.array(row["landmarks"], np.float64)
            value = [float(row["valence"]) / 10, float(row["arousal"]) / 10]
        except (KeyError, TypeError, ValueError):
            landmarks, value = np.zeros(0), [np.nan]
        if landmarks.shape != (68, 2) or not all(-1 <= v <= 1 for v in value):
            raise UserError(f"{path} frame {name}: expected 68 landmarks, and valence and arousal in -10 to 10")
        picture = path.parent / f"{name}.png"
        if not picture.is_file():
            raise UserError(f"{path} describes frame {name}, but {picture} does not exist")
        out.append((picture, five_points(landmarks), value))
    return out


def fake(root: str | Path, clips: int = 6, frames: int = 4, size: int = 120, seed: int = 0) -> Path:
    """Write a small synthetic copy: noise whose brightness follows valence, landmarks of a face that moves a little."""
    root, rng = Path(root), np.random.default_rng(seed)
    for k in range(clips):
        folder = root / f"{1 + k // 3:02d}" / f"{k + 1:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        table = {}
        for i in range(frames):
            valence, arousal = rng.integers(-10, 11, 2).tolist()
            landmarks = rng.uniform(size / 2 - 25, size / 2 + 25, (68, 2))
            shape = {
                36: (-20, -15),
                39: (-8, -15),
                42: (8, -15),
                45: (20, -15),
                33: (0, 2),
                48: (-12, 18),
                54: (12, 18),
            }
            for index, offset in shape.items():
                landmarks[index] = np.array(offset) + size / 2 + i
            table[f"{i:05d}"] = {"landmarks": landmarks.round(1).tolist(), "valence": valence, "arousal": arousal}
            noise = rng.normal(128 + 8 * valence, 20, (size, size, 3))
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(folder / f"{i:05d}.png")
        (folder / f"{folder.name}.json").write_text(json.dumps({"frames": table}), encoding="utf-8")
    return root
