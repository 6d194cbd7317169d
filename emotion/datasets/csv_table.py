"""Faces of your own, named by a CSV table: `labels.csv` beside the pictures.

| column | content |
|---|---|
| `file` | path below the folder; every picture is one face, cut out already unless there is a box |
| `expression` | a name in any usual spelling, |
| `expression.happiness`, ... | or one column per expression: votes or probabilities |
| `valence`, `arousal` | in [-1, 1] |
| `AU1`, `AU2`, ... | 0 or 1 |
| `split` | train, valid, test ...; without this column all rows are the split "all" |
| `group` | person or video, where rows are not independent |
| `x0`, `y0`, `x1`, `y1` | the face's box in the picture, in pixels |

At least one kind of labels must be there; an empty cell is an unknown label. Other columns are refused.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from emotion import media
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.labels import ACTION_UNIT_NAMES, AFFECTNET, VALENCE_AROUSAL, canonical

TABLE = "labels.csv"
BOX = ("x0", "y0", "x1", "y1")
VOTES = "expression."
WHOLE = "all"  # the split of a table without that column
ORDER = (*AFFECTNET, "calm")

Row = dict[str, str]


def load(root: str | Path, split: str = WHOLE) -> Samples:
    """The faces of one split.

    Args:
        root: folder with the table.
        split: as the column says.

    Returns:
        Samples with the labelled ones of "expression" (a distribution, [N, K] over the expressions that occur in any
        split), "valence_arousal" [N, 2] and "action_units" [N, U]; NaN where unknown. Ids are the file names, with
        `#2`, `#3` ... for further faces of the same picture.

    Raises:
        UserError: missing table or pictures, unknown columns, rows that do not parse, an empty split.
    """
    root = Path(root)
    rows = _read(root / TABLE)
    columns = tuple(rows[0])
    labels, targets = _targets(rows, columns, root / TABLE)
    splits = sorted({row["split"] for row in rows}) if "split" in columns else [WHOLE]
    if split not in splits:
        raise UserError(f"{root / TABLE} has the split{'s' * (len(splits) > 1)} {', '.join(splits)}, not {split!r}")
    kept = [k for k, row in enumerate(rows) if row.get("split", split) == split]
    boxes = _boxes(rows, root / TABLE) if BOX[0] in columns else None
    for k in kept:
        if not (root / rows[k]["file"]).is_file():
            raise UserError(f"{root / TABLE} row {k + 2}: there is no file {root / rows[k]['file']}")

    def picture(i: int) -> np.ndarray:
        whole = media.read_image(root / rows[kept[i]]["file"])
        if boxes is None:
            return whole
        return np.asarray(Image.fromarray(whole).crop(tuple(boxes[kept[i]].tolist())))

    return Samples(
        dataset="csv_table",
        split=split,
        ids=_ids([rows[k]["file"] for k in kept], boxes is not None, root / TABLE),
        picture=picture,
        labels=labels,
        targets={task: values[kept] for task, values in targets.items()},
        groups=np.array([rows[k]["group"] for k in kept]) if "group" in columns else None,
        protocol="labels of the table",
    )


def _read(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, skipinitialspace=True)
            head = next(lines, [])
            rows = [dict(zip(head, line)) | {"": str(len(line))} for line in lines if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    known = {"file", "expression", "split", "group", *VALENCE_AROUSAL, *BOX, *ACTION_UNIT_NAMES}
    unknown = [name for name in head if name not in known and not name.startswith(VOTES)]
    if unknown or "file" not in head or len(set(head)) != len(head):
        raise UserError(
            f"{path} has the columns {', '.join(head) or '(none)'}; it needs `file`, each once, and beside labels "
            f"knows split, group, {', '.join(BOX)}" + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )
    for pair in (VALENCE_AROUSAL, BOX):
        if 0 < sum(name in head for name in pair) < len(pair):
            raise UserError(f"{path} needs all of {', '.join(pair)} or none")
    if not rows:
        raise UserError(f"{path} has no rows")
    for k, row in enumerate(rows):
        if int(row.pop("")) != len(head):
            raise UserError(f"{path} row {k + 2}: not as many cells as there are headers ({len(head)})")
        if not row["file"] or row.get("split") == "" or row.get("group") == "":
            raise UserError(f"{path} row {k + 2}: file, split and group must not be empty")
    return rows


def _targets(
    rows: list[Row], columns: tuple[str, ...], path: Path
) -> tuple[dict[str, tuple[str, ...]], dict[str, np.ndarray]]:
    """Vocabulary and values of every task that the table has columns for."""
    labels: dict[str, tuple[str, ...]] = {}
    targets: dict[str, np.ndarray] = {}
    votes = [name for name in columns if name.startswith(VOTES)]
    if votes and "expression" in columns:
        raise UserError(f"{path} has both `expression` and {votes[0]}; keep one of them")
    if votes:
        names = {_canonical(name.removeprefix(VOTES), f"{path}, column {name}"): name for name in votes}
        labels["expression"] = tuple(name for name in ORDER if name in names)
        given = _numbers(rows, [names[name] for name in labels["expression"]], lambda v: v >= 0, "0 or more", path)
        empty = np.flatnonzero(given.sum(axis=1) == 0)
        if len(empty):
            raise UserError(f"{path} row {empty[0] + 2}: no vote for any expression; leave the cells empty instead")
        targets["expression"] = given / given.sum(axis=1, keepdims=True)
    elif "expression" in columns:
        said = [
            _canonical(r["expression"], f"{path} row {k + 2}") if r["expression"] else "" for k, r in enumerate(rows)
        ]
        labels["expression"] = tuple(name for name in ORDER if name in said)
        targets["expression"] = np.full((len(rows), len(labels["expression"])), np.nan)
        for k, name in enumerate(said):
            if name:
                targets["expression"][k] = [name == label for label in labels["expression"]]
    if VALENCE_AROUSAL[0] in columns:
        labels["valence_arousal"] = VALENCE_AROUSAL
        targets["valence_arousal"] = _numbers(rows, VALENCE_AROUSAL, lambda v: -1 <= v <= 1, "from -1 to 1", path)
    units = tuple(name for name in ACTION_UNIT_NAMES if name in columns)
    if units:
        labels["action_units"] = units
        targets["action_units"] = _numbers(rows, units, lambda v: v in (0, 1), "0 or 1", path)
    if not labels:
        raise UserError(f"{path} has no labels: expression, expression.<name>, valence and arousal, or AU1 ...")
    return labels, {task: values.astype(np.float32) for task, values in targets.items()}


def _canonical(name: str, where: str) -> str:
    try:
        return canonical(name)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _numbers(
    rows: list[Row], names: tuple[str, ...] | list[str], fits: Callable[[float], bool], expected: str, path: Path
) -> np.ndarray:
    """float64 [N, len(names)], NaN for empty cells."""
    out = np.full((len(rows), len(names)), np.nan)
    for k, row in enumerate(rows):
        for j, name in enumerate(names):
            if not (cell := row[name].strip()):
                continue
            with contextlib.suppress(ValueError):
                out[k, j] = float(cell)
            if not fits(out[k, j]) or not np.isfinite(out[k, j]):
                raise UserError(f"{path} row {k + 2}: {name} is {cell!r}, expected a number {expected}")
    return out


def _boxes(rows: list[Row], path: Path) -> np.ndarray:
    boxes = _numbers(rows, BOX, lambda v: True, "of pixels", path)
    bad = np.flatnonzero(~(boxes[:, 2:] > boxes[:, :2]).all(axis=1) | (boxes[:, :2] < 0).any(axis=1))
    if len(bad):
        raise UserError(f"{path} row {bad[0] + 2}: the box {boxes[bad[0]].tolist()} is not x0 < x1, y0 < y1 from 0 on")
    return np.rint(boxes).astype(int)


def _ids(files: list[str], several: bool, path: Path) -> tuple[str, ...]:
    """File names, numbered where a picture has several faces."""
    seen: dict[str, int] = {}
    out = []
    for file in files:
        seen[file] = seen.get(file, 0) + 1
        if seen[file] > 1 and not several:
            raise UserError(f"{path}: {file} occurs twice in one split; only faces with boxes may share a picture")
        out.append(file if seen[file] == 1 else f"{file}#{seen[file]}")
    return tuple(out)


def fake(root: str | Path, per_class: int = 2, seed: int = 0) -> Path:
    """Write a small synthetic copy: all kinds of labels, some of them unknown, two splits, two persons each."""
    root, rng = Path(root), np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    lines = [["file", "split", "group", "expression", *VALENCE_AROUSAL, "AU6", "AU12"]]
    for split in ("train", "test"):
        for c, name in enumerate(("neutral", "Happy", "angry", "")):
            for k in range(per_class):
                file = f"{split}_{c}_{k}.png"
                noise = rng.normal(60 + 40 * c, 20, (64, 64, 3))
                Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(root / file)
                affect = rng.uniform(-1, 1, 2).round(2).tolist() if c else ["", ""]
                units = [int(name == "Happy")] * 2 if k else ["", int(name == "Happy")]
                lines.append([file, split, f"{split}_person_{k}", name, *affect, *units])
    with (root / TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return root
