"""Clips of voice and face: your own, from a table, and what every set of clips shares (preparing, reading back).

Preparing turns films into one folder, once: `sound/<clip>.wav` (mono, cut to length), `faces/<clip>.npy` (the face
crops, uint8 [T, H, W, 3], RGB) and `clips.csv` with the columns clip, label, speaker, split, sound, faces. It can be
stopped and started again. Reading the folder back needs neither films nor a face detector.

The table of your own clips has the columns file and label, and may have speaker, split (train, valid, test) and sound
(a separate sound file); file names are relative to the table. A clip is called as its file with folders: `anna/one.mp4`
is the clip `anna__one`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.faces import Detector
from emotion.labels import RAVDESS, canonical
from emotion.media import audio, video
from emotion.media.audio import Sound
from emotion.models.avfusion_audio import clip_samples, sixteen_bits
from emotion.models.avfusion_video import FaceStretch, choose_frames, face_stretch
from emotion.models.base import ClipInput, FaceInput

COLUMNS = ("clip", "label", "speaker", "split", "sound", "faces")
TABLE, SETTINGS = "clips.csv", "settings.json"
SPLITS = ("train", "valid", "test")

Source = Path | zipfile.Path


class Clip(NamedTuple):
    """One sample: sound, and face crops uint8 [T, H, W, 3] (RGB) or measurements float32 [T, V]; None where lacking."""

    sound: Sound | None
    visual: np.ndarray | None


@dataclass(frozen=True)
class Recording:
    """A clip before it is prepared.

    Attributes:
        clip: unique name.
        label: expression; speaker: who speaks; split: of `SPLITS`, or "".
        film: file with the pictures, or None.
        sound: file with the sound (which may be the film), or None.
    """

    clip: str
    label: str
    speaker: str
    split: str
    film: Source | None
    sound: Source | None


@dataclass(frozen=True)
class Entry:
    """A clip that can be read: its sound file, and what gives its faces or measurements; None where lacking."""

    clip: str
    label: str
    speaker: str
    split: str
    sound: Source | None
    visual: Callable[[], np.ndarray] | None


def load(
    root: str | Path,
    split: str = "train",
    labels: tuple[str, ...] = RAVDESS,
    visual: str = "faces",
    sound: bool = True,
) -> Samples:
    """One split of a prepared folder.

    Args:
        root: what `prepare` wrote.
        split: "train", "valid" or "test".
        labels: vocabulary; a clip with another label is refused.
        visual: "faces", or "none" for the sound alone.
        sound: False for the faces alone: sound is neither needed nor read.

    Returns:
        Samples with "expression" targets; `picture` gives a `Clip`, `groups` the speakers.

    Raises:
        UserError: no such folder, rows that do not parse, no clip in the split, or neither sound nor faces asked for.
    """
    if split not in SPLITS:
        raise UserError(f"clips have the splits {', '.join(SPLITS)}, not {split!r}")
    entries = [e for e in read_prepared(Path(root), visual == "faces") if e.split == split]
    if not entries:
        raise UserError(f"{root} has no clips of the split {split}; see the column split of {TABLE}")
    return samples(entries, "clips", split, tuple(labels), visual != "none", f"{visual}, splits of {TABLE}", sound)


def samples(
    entries: list[Entry],
    dataset: str,
    split: str,
    labels: tuple[str, ...],
    visual: bool,
    protocol: str,
    sound: bool = True,
) -> Samples:
    """Entries as samples; those without what `visual` (pictures) and `sound` ask for are left out.

    Raises:
        UserError: nothing is asked for, an unknown label, or nothing is left.
    """
    if not (sound or visual):
        raise UserError("clips without sound need pictures: sound: false and visual: none leave nothing")
    complete = [e for e in entries if (e.sound is not None or not sound) and (e.visual is not None or not visual)]
    if not complete:
        lacking = " and ".join(name for name, asked in (("sound", sound), ("pictures", visual)) if asked)
        raise UserError(f"none of the {len(entries)} clips ({dataset}, {split}) has {lacking}; prepare the set first")
    unknown = {e.label for e in complete} - set(labels)
    if unknown:
        raise UserError(f"{dataset} has clips of {', '.join(sorted(unknown))}; the vocabulary is {', '.join(labels)}")
    targets = np.eye(len(labels), dtype=np.float32)[[labels.index(e.label) for e in complete]]
    if not sound:
        protocol += "; without sound"
    if len(complete) < len(entries):
        protocol += f"; {len(entries) - len(complete)} incomplete clips left out"

    def read(index: int) -> Clip:
        entry = complete[index]
        return Clip(read_sound(entry.sound) if sound else None, entry.visual() if visual else None)

    return Samples(
        dataset=dataset,
        split=split,
        ids=tuple(e.clip for e in complete),
        picture=read,
        labels={"expression": labels},
        targets={"expression": targets},
        groups=np.array([e.speaker for e in complete]),
        protocol=protocol,
    )


def read_sound(source: Source) -> Sound | None:
    """The sound of a file on disk or in an archive; None for a film without sound."""
    return audio.read(source if isinstance(source, Path) else source.read_bytes(), source.name)


def read_prepared(root: Path, faces: bool = True) -> list[Entry]:
    """The rows of a prepared folder.

    Raises:
        UserError: no prepared folder, or a row whose files are missing.
    """
    entries = []
    for line, row in _rows(root / TABLE, COLUMNS):
        for column in ("sound", "faces") if faces else ("sound",):
            if row[column] and not (root / row[column]).is_file():
                raise UserError(f"{root / TABLE} line {line}: there is no file {row[column]}; prepare the set again")
        pictures = None if not row["faces"] else _array_reader(root / row["faces"])
        sound = root / row["sound"] if row["sound"] else None
        entries.append(Entry(row["clip"], row["label"], row["speaker"], row["split"], sound, pictures))
    return entries


def _array_reader(path: Path) -> Callable[[], np.ndarray]:
    return lambda: read_crops(path)


def read_crops(path: Path) -> np.ndarray:
    """The face crops of a prepared clip, uint8 [T, H, W, 3], read as they are needed.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    try:
        crops = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, OverflowError, TypeError, SyntaxError) as error:  # what damaged files raise
        why = getattr(error, "strerror", None) or error or "it is damaged"
        raise UserError(f"cannot read {path}: {why}; delete it and prepare the set again") from error
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[-1] != 3:
        raise UserError(f"{path} holds {crops.dtype} {crops.shape}, not face crops (uint8 [frames, height, width, 3])")
    return crops


def recordings(table: str | Path) -> list[Recording]:
    """Your own clips, from a table (see the module's text).

    Raises:
        UserError: missing columns or files, an unknown label or split, or two clips of one name.
    """
    table, out = Path(table), {}
    for line, row in _rows(table, ("file", "label")):
        where = f"{table} line {line}"
        files = {column: table.parent / row[column] for column in ("file", "sound") if row.get(column)}
        missing = [str(path) for path in files.values() if not path.is_file()]
        if "file" not in files or missing:
            raise UserError(f"{where}: there is no file {', '.join(missing) or '(the name is empty)'}")
        try:
            label = canonical(row["label"])
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        split = row.get("split") or ""
        if split and split not in SPLITS:
            raise UserError(f"{where}: split must be one of {', '.join(SPLITS)} or empty, not {split!r}")
        name = clip_name(row["file"])
        if name.casefold() in out:  # some file systems take no notice of case
            raise UserError(f"{where}: another clip is called {name} too; file names must differ without extension")
        film = files["file"] if _is_film(files["file"]) else None
        out[name.casefold()] = Recording(
            name, label, row.get("speaker") or name, split, film, files.get("sound", files["file"])
        )  # fmt: skip
    return list(out.values())


def clip_name(file: str) -> str:
    """What the clip of a file is called: its path below the table without extension, `__` between folders."""
    path = Path(file).with_suffix("")
    return "__".join(part for part in path.parts if part not in (path.anchor, ".."))


def _is_film(path: Path) -> bool:
    try:
        with path.open("rb") as file:  # by name, files beside it could be read too
            soundfile.info(file)
    except (OSError, soundfile.LibsndfileError, TypeError):  # TypeError: a name that ends with .raw
        return True
    return False


def _rows(path: Path, columns: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a CSV file that has at least these columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, {k: (v or "").strip() for k, v in row.items() if k}) for row in reader]
            given = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    missing = set(columns) - set(given)
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    return rows


# -- preparing -------------------------------------------------------------------------------------------------------


@dataclass
class Prepared:
    """What happened to one clip: `problem` is "" or says what is missing and why."""

    recording: Recording
    sound: str = ""
    faces: str = ""
    problem: str = ""


def prepare(
    found: list[Recording],
    out: str | Path,
    config: ClipInput,
    detector: Detector,
    progress: Callable[[Iterable[Recording]], Iterable[Recording]] = iter,
) -> list[Prepared]:
    """Cut sound and faces of every recording and write a prepared folder; what is there already is kept.

    Args:
        found: the recordings.
        out: folder; must be new, or of an earlier run with the same settings.
        config: length, number of pictures, crop and sound of the clips.
        detector: finds the faces.
        progress: wraps the loop, for a progress bar.

    Returns:
        One `Prepared` per recording. A damaged file is a problem of its clip, not of the run.

    Raises:
        UserError: `out` holds clips with other settings, or `config` has no face crops.
    """
    if not isinstance(config.visual, FaceInput):
        raise UserError("preparing cuts faces out of films: the model's input must be face crops")
    out = Path(out)
    for folder in (out / "sound", out / "faces"):
        folder.mkdir(parents=True, exist_ok=True)
    _check_settings(out / SETTINGS, config)
    done = [_prepare_one(r, out, config, detector) for r in progress(found)]
    rows = [
        (p.recording.clip, p.recording.label, p.recording.speaker, p.recording.split, p.sound, p.faces) for p in done
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    _write(out / TABLE, text.getvalue().encode())
    return done


def _check_settings(path: Path, config: ClipInput) -> None:
    text = json.dumps(dataclasses.asdict(config), indent=1)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{path.parent} was prepared with other settings (see {path.name}); choose another folder")
    _write(path, text.encode())


def _prepare_one(recording: Recording, out: Path, config: ClipInput, detector: Detector) -> Prepared:
    done, problems = Prepared(recording), []
    voice, faces = f"sound/{recording.clip}.wav", f"faces/{recording.clip}.npy"
    try:
        sound = None if recording.sound is None else read_sound(recording.sound)
        start = None if sound is None else middle(sound.seconds, config, sound.start)
        if sound is not None:
            if not (out / voice).is_file():
                _write(out / voice, _wav(clip_samples(sound, config, start), config.audio.rate))
            done.sound = voice
        if recording.film is not None and not (out / faces).is_file():
            stretch = _face(recording.film, start, config, detector)
            if stretch is None:
                problems.append("no face in any picture")
            else:
                buffer = io.BytesIO()
                np.save(buffer, stretch.crops)
                _write(out / faces, buffer.getvalue())
        done.faces = faces if recording.film is not None and (out / faces).is_file() else ""
    except UserError as error:
        problems.append(str(error))
    done.problem = "; ".join(problems)
    return done


def _face(source: Source, start: float | None, config: ClipInput, detector: Detector) -> FaceStretch | None:
    """The face in a film from `start` on; None: in the middle of it, for films without sound."""
    film = source if isinstance(source, Path) else source.read_bytes()
    if start is None:
        start = middle(video.probe(film, source.name).seconds, config)
    return face_stretch(choose_frames(video.decode(film, source.name), config, start), detector, config.visual)


def middle(seconds: float, config: ClipInput, begin: float = 0.0) -> float:
    """Where the stretch starts whose middle is that of a recording; 0 where that would be before the clip's start.

    Args:
        seconds: length of the recording.
        config: length of the stretch.
        begin: when the recording begins on the clip's clock, in seconds.
    """
    return max(0.0, begin + (seconds - config.seconds) / 2)


def _wav(samples: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, (sixteen_bits(samples) * 32768).astype(np.int16), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, so that a stopped run leaves no broken files."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    partial.replace(path)


def fake(root: str | Path, per_class: int = 2, size: int = 224, frames: int = 15) -> Path:
    """Write a small prepared folder: every class has a tone and a shade of its own. Returns `root`."""
    root, rng, rows = Path(root), np.random.default_rng(0), []
    for folder in ("sound", "faces"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        for number, label in enumerate(RAVDESS):
            for k in range(per_class):
                clip = f"{split}-{label}-{k}"
                write_fake_clip(root, clip, number, rng, size, frames)
                rows.append((clip, label, split, split, f"sound/{clip}.wav", f"faces/{clip}.npy"))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    _write(root / TABLE, text.getvalue().encode())
    return root


def write_fake_clip(root: Path, clip: str, number: int, rng: np.random.Generator, size: int, frames: int) -> None:
    """Sound and crops of one synthetic clip of class `number`."""
    rate = 22050
    t = np.arange(int(3.6 * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 150 * (1 + number) * t) + rng.normal(0, 0.01, len(t))
    _write(root / "sound" / f"{clip}.wav", _wav(tone.astype(np.float32), rate))
    shade = rng.integers(0, 30, (frames, 1, 1, 3)) + 25 * number
    buffer = io.BytesIO()
    np.save(buffer, np.broadcast_to(shade, (frames, size, size, 3)).astype(np.uint8))
    _write(root / "faces" / f"{clip}.npy", buffer.getvalue())
