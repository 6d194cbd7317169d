"""CK+: posed expressions filmed in the laboratory, from neutral to the apex (Lucey et al., CVPR Workshops 2010).

Layout: `cohn-kanade-images/S005/001/*.png` and `Emotion/S005/001/*_emotion.txt` (one number, or no file where the
sequence is not labelled). `prepare` writes a copy of the same layout with faces cut out and only the frames used.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from emotion.datasets import Prepared, Samples
from emotion.errors import UserError
from emotion.labels import CKPLUS
from emotion.outputs import Faces

IMAGES, EMOTION = "cohn-kanade-images", "Emotion"
# Number in the emotion file -> expression.
CODES = dict(enumerate(("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"), start=1))
FOLDS = 10
TRAINING_FOLDS = 4  # the paper's ESR-4 trains on four of the eight folds that are left, one less per branch
NEUTRAL = {"first": 0, "fourth-last": -4}
PARTS = (0, -3, -2, -1)  # frames of a sequence that are used


class Recording(NamedTuple):
    """One labelled sequence: its frames in order and its expression."""

    subject: str
    name: str
    frames: list[Path]
    expression: str


def load(root: str | Path, split: str = "all", fold: int = 0, leave_out: int = 0, neutral: str = "first") -> Samples:
    """Three apex frames and one neutral frame of every labelled sequence.

    Subjects with at least one labelled sequence, sorted by name, are dealt round-robin into ten folds. Trial `fold`
    tests on that fold, validates on the next and trains on the first four of the remaining eight.

    Args:
        root: folder with cohn-kanade-images/ and Emotion/.
        split: "train", "valid" or "test" of a trial, or "all".
        fold: 0 to 9.
        leave_out: which of the four training folds to leave out, 1 to 4 (branch b of the paper's ensemble trains
            without the b-th); 0 for none.
        neutral: frame that stands for neutral: "first", or "fourth-last" as in the ESR framework, which expects
            folders that were reduced to four frames.

    Returns:
        Samples with "expression" [N, 8] one-hot in the order of `labels.CKPLUS`; groups are subjects.

    Raises:
        UserError: unknown options, missing folders or frames, emotion files that do not parse.
    """
    root = Path(root)
    if split not in ("train", "valid", "test", "all"):
        raise UserError(f"CK+ has the splits train, valid, test and all, not {split!r}")
    if not 0 <= fold < FOLDS:
        raise UserError(f"CK+ has the folds 0 to {FOLDS - 1}, not {fold}")
    if not 0 <= leave_out <= TRAINING_FOLDS:
        raise UserError(f"one of the training folds 1 to {TRAINING_FOLDS} can be left out (0: none), not {leave_out}")
    if neutral not in NEUTRAL:
        raise UserError(f"the neutral frame is one of {', '.join(NEUTRAL)}, not {neutral!r}")
    sequences = read_sequences(root)
    chosen = _subjects(sorted({s.subject for s in sequences}), split, fold, leave_out)
    rows = [
        (path, label, s.subject)
        for s in sequences
        if s.subject in chosen
        for path, label in [(s.frames[NEUTRAL[neutral]], "neutral"), *((f, s.expression) for f in s.frames[-3:])]
    ]
    if not rows:
        raise UserError(f"{root} has no labelled subject in the {split} split of fold {fold}")
    return Samples(
        dataset="ckplus",
        split=split,
        ids=tuple(path.name for path, *_ in rows),
        picture=lambda i: _grey(rows[i][0]),
        labels={"expression": CKPLUS},
        targets={"expression": np.eye(8, dtype=np.float32)[[CKPLUS.index(label) for _, label, _ in rows]]},
        groups=np.array([subject for *_, subject in rows]),
        protocol=f"fold {fold} of {FOLDS} by subject, three apex frames, {neutral} frame as neutral"
        + (f", without training fold {leave_out}" if leave_out else ""),
    )


def _subjects(subjects: list[str], split: str, fold: int, leave_out: int) -> set[str]:
    parts = [subjects[k::FOLDS] for k in range(FOLDS)]
    following = (fold + 1) % FOLDS
    training = [k for k in range(FOLDS) if k not in (fold, following)][:TRAINING_FOLDS]
    kept = [k for number, k in enumerate(training, start=1) if number != leave_out]
    folds = {"train": kept, "valid": [following], "test": [fold], "all": range(FOLDS)}[split]
    return {name for k in folds for name in parts[k]}


def read_sequences(root: Path) -> list[Recording]:
    """Every labelled sequence, sorted by subject and number.

    Raises:
        UserError: missing folders, fewer than four frames, or an emotion file that does not parse.
    """
    for name in (IMAGES, EMOTION):
        if not (root / name).is_dir():
            raise UserError(f"{root} is no CK+ folder: it has no {name}/")
    out = []
    for path in sorted((root / EMOTION).glob("*/*/*_emotion.txt")):
        subject, number = path.parts[-3:-1]
        frames = sorted((root / IMAGES / subject / number).glob("*.png"))
        if len(frames) < 4:
            raise UserError(f"{root / IMAGES / subject / number} has {len(frames)} frames, at least 4 are needed")
        out.append(Recording(subject, number, frames, _expression(path)))
    if not out:
        raise UserError(f"{root / EMOTION} holds no file like S005/001/S005_001_00000011_emotion.txt")
    return out


def _expression(path: Path) -> str:
    try:
        return CODES[float(path.read_text(encoding="ascii"))]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} must hold one number, 1 to 7 ({type(error).__name__}: {error})") from None


def _grey(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except OSError as error:
        raise UserError(f"cannot read the frame {path}: {error}") from error


def prepare(
    root: str | Path,
    out: str | Path,
    detect: Callable[[Sequence[np.ndarray]], list[Faces]],
    progress: Callable[[list[Recording]], Iterable[Recording]] = iter,
) -> Prepared:
    """Write a copy with the largest face cut out of the first and the last three frames of every labelled sequence.

    Sequences that are there already are kept, so an interrupted run goes on where it stopped. A frame without a face
    is cut as its neighbour; a sequence without any, or with an unreadable frame, is left out and told.

    Args:
        root: the original folder.
        out: where the copy goes.
        detect: a face detector of `emotion.faces` (the paper used Viola and Jones's).
        progress: is given all sequences and yields them, to show how far it is.

    Raises:
        UserError: as `read_sequences`.
    """
    root, out, done, problems = Path(root), Path(out), 0, []
    for sequence in progress(read_sequences(root)):
        labels = Path(EMOTION) / sequence.subject / sequence.name
        try:
            if not (out / labels).is_dir():
                _write_sequence(sequence, out / IMAGES / sequence.subject / sequence.name, detect)
                _copy_whole(root / labels, out / labels)  # last: a sequence with a label is complete
            done += len(PARTS)
        except UserError as error:
            problems.append(str(error))
    return Prepared(done, tuple(problems))


def _write_sequence(sequence: Recording, folder: Path, detect: Callable[[Sequence[np.ndarray]], list[Faces]]) -> None:
    paths = [sequence.frames[k] for k in PARTS]
    frames = [_grey(path) for path in paths]
    found = detect([np.repeat(f[..., None], 3, axis=2) for f in frames])
    boxes = [f.boxes[f.areas.argmax()] if len(f) else None for f in found]
    known = [k for k, box in enumerate(boxes) if box is not None]
    if not known:
        raise UserError(f"no face found in {paths[0].parent}; try another detector")
    folder.mkdir(parents=True, exist_ok=True)
    for k, (path, frame) in enumerate(zip(paths, frames)):
        nearest = min(known, key=lambda other: abs(other - k))  # people hardly move in these films
        x0, y0, x1, y1 = np.rint(boxes[nearest]).astype(int)
        Image.fromarray(frame[max(y0, 0) : y1, max(x0, 0) : x1]).save(folder / path.name)


def _copy_whole(source: Path, target: Path) -> None:
    partial = target.with_name(target.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.replace(target)


# -- synthetic copy --------------------------------------------------------------------------------------------------


def fake(root: str | Path, subjects: int = 12, seed: int = 0) -> Path:
    """Write random sequences whose pattern grows with time and depends on the expression.

    The last subject has no label; sequences have four to seven frames.
    """
    root, rng = Path(root), np.random.default_rng(seed)
    for index in range(subjects):
        subject, code = f"S{5 + 7 * index:03d}", 1 + index % 7
        frames = 4 + index % 4
        for frame in range(1, frames + 1):
            path = root / IMAGES / subject / "001" / f"{subject}_001_{frame:08d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_fake_face(code, (frame - 1) / (frames - 1), rng)).save(path)
        if index != subjects - 1:
            label = root / EMOTION / subject / "001" / f"{subject}_001_{frames:08d}_emotion.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"   {code:.7e}\n", encoding="ascii")
    return root


def _fake_face(code: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:96, :96]
    wave = np.sin((x * np.cos(code) + y * np.sin(code)) * 2 * np.pi / (12 + 2 * code))
    return np.clip(128 + 80 * strength * wave + rng.normal(0, 10, (96, 96)), 0, 255).astype(np.uint8)
