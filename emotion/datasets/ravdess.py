"""RAVDESS: acted emotional speech of 24 actors (Livingstone & Russo, PLoS ONE 2018, CC BY-NC-SA 4.0).

Read are:
- the set as published: files with the official names (seven two-digit fields), in folders or zip archives or both;
  films must be prepared before their faces can be used (`python -m emotion prepare ravdess`);
- a prepared folder (`emotion.datasets.clips`);
- a folder prepared by the original fusion system: `annotations.txt` with its `*_facecroppad.npy`, `*_croppad.wav`.
`au_openface_mean.csv` beside them (columns clip and one per action unit) gives measurements in place of pictures.
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emotion.datasets import Samples, borrowed, clips, ferplus
from emotion.datasets.clips import Entry, Recording, Source
from emotion.errors import UserError
from emotion.labels import RAVDESS

NAME = re.compile(r"\d\d(-\d\d){6}")
SOUND, FILM = (".wav", ".flac", ".mp3", ".ogg"), (".mp4", ".avi", ".mkv", ".mov", ".flv", ".webm")
ANNOTATIONS, ACTION_UNITS = "annotations.txt", "au_openface_mean.csv"
LARGEST = (3, 2, 8, 2, 2, 2, 24)  # every field counts from 1
AUDIO_ONLY, SPEECH = 3, 1

# Test and validation actors behind the published fusion checkpoints; the other sixteen train.
PUBLISHED = {"test": (5, 10, 16, 19), "valid": (11, 13, 18, 22)}
# Test actors of Luna-Jimenez et al., Sensors 21(22) 7665, 2021.
FIVE_FOLDS = ((2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22))
VISUALS = ("faces", "action_units", "none", "borrowed")
FACES = "ferplus"  # folder of the faces that are borrowed
SCHEMES = ("published", "five", "folds")


@dataclass(frozen=True)
class Trial:
    """What a file name says; all fields count from 1."""

    modality: int
    channel: int
    emotion: int
    intensity: int
    statement: int
    repetition: int
    actor: int

    @property
    def label(self) -> str:
        """The acted expression."""
        return RAVDESS[self.emotion - 1]

    @property
    def name(self) -> str:
        """The file name without extension."""
        return "-".join(f"{v:02d}" for v in vars(self).values())


def parse(name: str) -> Trial:
    """The trial behind a file name without extension.

    Raises:
        UserError: not seven two-digit fields, or one is out of range.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{name} is no RAVDESS name; expected seven two-digit fields such as 01-01-05-01-02-01-12")
    trial = Trial(*map(int, name.split("-")))
    fields = zip(vars(trial).items(), LARGEST)
    wrong = [f"{field} {value:02d}" for (field, value), largest in fields if not 1 <= value <= largest]
    if wrong:
        raise UserError(f"{name}: there is no {' nor '.join(wrong)} in RAVDESS")
    return trial


def load(
    root: str | Path,
    split: str = "train",
    visual: str = "faces",
    scheme: str = "published",
    fold: int = 0,
    folds: int = 4,
    seed: int = 0,
    relative: bool = False,
    frames: int = 4,
    sound: bool = True,
) -> Samples:
    """The speech clips of one split.

    Args:
        root: folder (or zip archive) in one of the layouts above.
        split: "train", "valid" or "test"; no two share an actor.
        visual: "faces", "action_units" (one measurement per clip), "none", or "borrowed": `frames` still faces of
            other people with the clip's expression (neutral ones for calm), from the validation set of FER+, which
            lies in or is linked as `root`/ferplus.
        scheme: "published" (behind the original's checkpoints), "five" (folds of Luna-Jimenez et al.) or "folds".
        fold: of the last two: its actors test, the next fold's validate.
        folds, seed: of "folds": how many, and how actors are dealt out.
        relative: give action units relative to the actor's own: less their mean over all clips of the actor, divided
            by their deviation. Uses no labels, but several clips of everyone who is judged.
        sound: False for what is seen alone: sound is neither needed nor read, and of a trial's two films (with and
            without sound) one is taken.

    Returns:
        Samples with "expression" targets in the order of `labels.RAVDESS`; `picture` gives a `clips.Clip`, `groups`
        the actors.

    Raises:
        UserError: unknown option, no clips, a name out of range, or films that were not prepared.
    """
    root = Path(root)
    if split not in clips.SPLITS:
        raise UserError(f"RAVDESS has the splits {', '.join(clips.SPLITS)}, not {split!r}")
    if visual not in VISUALS:
        raise UserError(f"visual must be one of {', '.join(VISUALS)}, not {visual!r}")
    entries = _entries(root)
    if visual == "action_units":
        table = action_units(root)[1]
        table = relative_to_actor(table) if relative else table
        entries = [replace(e, visual=_constant(table.get(_audio_name(e.clip)))) for e in entries]
    if not sound:
        seen_last = sorted(entries, key=lambda e: e.visual is not None)
        entries = list({_audio_name(e.clip): e for e in seen_last}.values())
    chosen = split_actors({int(e.speaker) for e in entries}, scheme, fold, folds, seed)[split]
    entries = [e for e in entries if int(e.speaker) in chosen]
    which = scheme if scheme == "published" else f"{scheme}, fold {fold}"
    what = f"{visual} relative to the actor's" if relative else {"none": "voice alone"}.get(visual, visual)
    if visual == "borrowed":
        entries = borrowed.lend(entries, ferplus.load(root / FACES, "valid", protocol="majority"), RAVDESS, frames)
        what = "voice and face are different persons: faces borrowed from FER+, neutral ones for calm"
    protocol = f"{what}, {which} (actors {' '.join(map(str, sorted(chosen)))})"
    return clips.samples(entries, "ravdess", split, RAVDESS, visual != "none", protocol, sound)


def split_actors(
    actors: set[int], scheme: str = "published", fold: int = 0, folds: int = 4, seed: int = 0
) -> dict[str, set[int]]:
    """Who trains, validates and tests; see `load`.

    Raises:
        UserError: unknown scheme, or a fold that does not exist.
    """
    if scheme not in SCHEMES:
        raise UserError(f"unknown split scheme {scheme!r}; known: {', '.join(SCHEMES)}")
    if scheme == "published":
        test, valid = set(PUBLISHED["test"]), set(PUBLISHED["valid"])
    else:
        groups = FIVE_FOLDS if scheme == "five" else deal(actors, folds, seed)
        if not 0 <= fold < len(groups):
            raise UserError(f"there are folds 0 to {len(groups) - 1}, not {fold}")
        test, valid = set(groups[fold]), set(groups[(fold + 1) % len(groups)])
    return {"train": actors - test - valid, "valid": actors & valid, "test": actors & test}


def deal(actors: set[int], folds: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Actors in `folds` groups of like size, women (even numbers) and men spread evenly.

    Raises:
        UserError: fewer than three folds, or more folds than actors.
    """
    if not 3 <= folds <= len(actors):
        raise UserError(f"{len(actors)} actors can be split into 3 to {len(actors)} folds, not {folds}")
    rng = np.random.default_rng(seed)
    order = [int(a) for parity in (0, 1) for a in rng.permutation(sorted(a for a in actors if a % 2 == parity))]
    return [tuple(sorted(order[k::folds])) for k in range(folds)]


# -- layouts ---------------------------------------------------------------------------------------------------------


def _entries(root: Path) -> list[Entry]:
    if (root / clips.TABLE).is_file():
        return clips.read_prepared(root)
    if (root / ANNOTATIONS).is_file():
        rows = [row for part in annotations(root / ANNOTATIONS).values() for row in part]
        return [_original_entry(root, row) for row in rows]
    found = recordings(root)
    if not any(r.sound for r in found):
        raise UserError(f"{root} has films without sound only; prepare it first (`python -m emotion prepare ravdess`)")
    sounds = {_audio_name(r.clip): r for r in found if r.sound is not None}  # one of the two films of every trial
    return [Entry(r.clip, r.label, r.speaker, "", r.sound, None) for r in sounds.values()]


def recordings(root: str | Path) -> list[Recording]:
    """The speech trials of the set as published: films with their sound files, and sound files without a film.

    Raises:
        UserError: nothing with a RAVDESS name, or a name out of range.
    """
    sources = _sources(Path(root))
    trials = {name: parse(name) for name in sorted(sources)}
    films = {n: t for n, t in trials.items() if t.modality != AUDIO_ONLY and t.channel == SPEECH}
    out = []
    for name, trial in films.items():
        own = sources[name] if trial.modality == 1 else None
        sound = sources.get(_audio_name(name), own)
        out.append(Recording(name, trial.label, str(trial.actor), "", sources[name], sound))
    filmed = {_audio_name(name) for name in films}
    for name, trial in trials.items():
        if trial.modality == AUDIO_ONLY and trial.channel == SPEECH and name not in filmed:
            out.append(Recording(name, trial.label, str(trial.actor), "", None, sources[name]))
    if not out:
        raise UserError(
            f"{root} has no RAVDESS speech clips. Expected files such as Actor_12/03-01-05-01-02-01-12.wav or "
            "01-01-05-01-02-01-12.mp4, in folders or in the published zip archives."
        )
    return out


def _sources(root: Path) -> dict[str, Source]:
    """Name without extension -> file or archive member; unpacked files win over archives."""
    if not root.exists():
        raise UserError(f"{root} does not exist")
    files = [root] if root.is_file() else sorted(root.rglob("*"))
    out: dict[str, Source] = {}
    for archive in (f for f in files if f.suffix.lower() == ".zip"):
        try:
            opened = zipfile.ZipFile(archive)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"cannot read {archive}: {error}; was it downloaded completely?") from error
        members = [m for m in opened.namelist() if _is_clip(Path(m))]
        out |= {Path(member).stem: zipfile.Path(opened, member) for member in members}
    return out | {f.stem: f for f in files if _is_clip(f)}


def _is_clip(path: Path) -> bool:
    return bool(NAME.fullmatch(path.stem)) and path.suffix.lower() in SOUND + FILM


def _audio_name(name: str) -> str:
    return f"{AUDIO_ONLY:02d}{name[2:]}"


@dataclass(frozen=True)
class Annotation:
    """A line of the original's `annotations.txt`: its two files and the class (0 to 7)."""

    video_path: str
    audio_path: str
    label: int


def annotations(path: str | Path) -> dict[str, list[Annotation]]:
    """The original's list of prepared clips, by its own subsets (training, validation, testing).

    Raises:
        UserError: a line that is not `faces;sound;label 1 to 8;subset`.
    """
    out: dict[str, list[Annotation]] = {"training": [], "validation": [], "testing": []}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split(";")
        if len(fields) != 4 or fields[2] not in map(str, range(1, len(RAVDESS) + 1)) or fields[3] not in out:
            raise UserError(f"{path} line {number}: expected faces.npy;sound.wav;label 1 to 8;subset, found {line!r}")
        out[fields[3]].append(Annotation(fields[0], fields[1], int(fields[2]) - 1))
    return out


def _original_entry(root: Path, row: Annotation) -> Entry:
    faces, sound = (p if (p := Path(t)).is_absolute() else root / p for t in (row.video_path, row.audio_path))
    missing = [str(p) for p in (faces, sound) if not p.is_file()]
    if missing:
        raise UserError(f"{root / ANNOTATIONS} names {missing[0]}, which is not there")
    clip = faces.name.removesuffix("_facecroppad.npy")
    trial = parse(clip)

    def crops() -> np.ndarray:
        return clips.read_crops(faces)[..., ::-1]  # the original keeps blue first

    return Entry(clip, RAVDESS[row.label], str(trial.actor), "", sound, crops)


def action_units(root: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the measurements, and of every clip (by its audio name) the means over its film, float32 [1, V].

    Raises:
        UserError: the table is missing or a row has something else than numbers.
    """
    path = (root if root.is_dir() else root.parent) / ACTION_UNITS
    if not path.is_file():
        raise UserError(f"{path.parent} has no {ACTION_UNITS} (columns clip and one per action unit)")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        names, table = tuple(next(reader, ("clip",))[1:]), {}
        for row in reader:
            try:
                table[row[0]] = np.array([row[1:]], dtype=np.float32)
            except (ValueError, IndexError) as error:
                raise UserError(f"{path} line {reader.line_num}: not numbers: {error}") from error
            if table[row[0]].shape != (1, len(names)) or not np.isfinite(table[row[0]]).all():
                raise UserError(f"{path} line {reader.line_num}: expected {len(names)} finite numbers")
    return names, table


def relative_to_actor(table: dict[str, np.ndarray], least: float = 0.05) -> dict[str, np.ndarray]:
    """Measurements by clip, standardised over the clips of every actor; deviations below `least` count as `least`."""
    actors, values = np.array([parse(name).actor for name in table]), np.stack(list(table.values()))
    for actor in set(actors):
        own = values[actors == actor]
        values[actors == actor] = (own - own.mean(axis=0)) / np.maximum(own.std(axis=0), least)
    return dict(zip(table, values))


def _constant(value: np.ndarray | None) -> Callable[[], np.ndarray] | None:
    return None if value is None else lambda: value


# -- synthetic copy --------------------------------------------------------------------------------------------------

FAKE_ACTORS = (1, 5, 11)  # one per split of the published scheme


def fake(root: str | Path, size: int = 224, frames: int = 15) -> Path:
    """Write a prepared folder of three actors with one clip per emotion, and its action units. Returns `root`."""
    root, rng = Path(root), np.random.default_rng(0)
    for folder in ("sound", "faces"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rows, units = [",".join(clips.COLUMNS)], ["clip,AU04_r,AU12_r,AU26_c"]
    for actor in FAKE_ACTORS:
        for emotion in range(1, len(RAVDESS) + 1):
            clip = Trial(1, SPEECH, emotion, 1, 1, 1, actor).name
            clips.write_fake_clip(root, clip, emotion - 1, rng, size, frames)
            rows.append(f"{clip},{RAVDESS[emotion - 1]},{actor},,sound/{clip}.wav,faces/{clip}.npy")
            values = rng.normal(emotion, 0.1, 3)
            units.append(",".join([_audio_name(clip), *(f"{v:.4f}" for v in values)]))
    (root / clips.TABLE).write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / ACTION_UNITS).write_text("\n".join(units) + "\n", encoding="utf-8")
    return root
