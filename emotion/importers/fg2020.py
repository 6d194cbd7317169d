"""FG-2020's released files: teacher and students of the Multitask-CNN and CNN-RNN, and the pretrained face networks.

Understood sources: one .pth file; a folder of them as training, the predictor (`Multitask-CNN/`, `Multitask-CNN-RNN/`)
or the API (`CNN/{0..4}.pth`, `CNN_RNN/{0..4}.pth`) lays them out; a .zip or .tar archive of such a folder.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePath, PurePosixPath

import torch
from torch import Tensor

from emotion import hub
from emotion.errors import UserError
from emotion.importers import Imported
from emotion.importers.files import find_files, is_container, open_file, state_dict, without_counters
from emotion.models.fg2020 import STUDENTS, TASKS, THRESHOLDS, FG2020Config, fg2020

LICENCE = "no licence text with the released weights"
KINDS = {"cnn": ("Multitask-CNN", "CNN"), "rnn": ("Multitask-CNN-RNN", "CNN_RNN")}

# Original stem of a layer -> ours, inside the backbone. {s} is the original's stage 2...5, {b} its block 1, 2, ...
LAYERS = {
    "ferplus": {
        r"conv1_7x7_s2": "conv",
        r"conv1_7x7_s2_bn": "bn",
        r"conv(\d)_(\d)_1x1_reduce": "conv1",
        r"conv(\d)_(\d)_1x1_reduce_bn": "bn1",
        r"conv(\d)_(\d)_3x3": "conv2",
        r"conv(\d)_(\d)_3x3_bn": "bn2",
        r"conv(\d)_(\d)_1x1_increase": "conv3",
        r"conv(\d)_(\d)_1x1_increase_bn": "bn3",
        r"conv(\d)_(\d)_1x1_proj": "project.0",
        r"conv(\d)_(\d)_1x1_proj_bn": "project.1",
    },
    "sfew": {
        r"conv1_conv": "conv",
        r"conv1_bn": "bn",
        r"conv(\d)_(\d)a_conv": "conv1",
        r"conv(\d)_(\d)a_bn": "bn1",
        r"conv(\d)_(\d)b_conv": "conv2",
        r"conv(\d)_(\d)b_bn": "bn2",
        r"conv(\d)_(\d)c_conv": "conv3",
        r"conv(\d)_(\d)c_bn": "bn3",
        r"conv(\d)_(\d)_adapt_conv": "project.0",
        r"conv(\d)_(\d)_adapt_bn": "project.1",
    },
}
SOURCE_CLASSIFIERS = ("classifier.weight", "classifier.bias", "prediction.weight", "prediction.bias")
HEAD = {"bn0": "bn0", "fc_0": "fc0", "bn1": "bn1", "fc_1": "fc1"}


def read(
    source: Path,
    model: str = "auto",
    members: str = "students",
    frames: int = 32,
    size: int = 112,
    crop: str = "five_point",
    name: str = "",
) -> Imported:
    """An original file, folder or archive as one of our checkpoints.

    Args:
        source: where the files are.
        model: "cnn", "rnn", or "auto": what the folder holds (for a file: what its names say).
        members: "students", "teacher", "all" of them as one ensemble, or "student_0" ..., of a folder with several.
        frames: window of the CNN-RNN: 32 (released), 16 or 8; picks the tuned thresholds, and must be what a folder
            `Seq_len=...` says.
        size: face size in pixels: 112 (released) or 224.
        crop: how faces are cut, "five_point" (as the original's script) or "openface" (as its interface).
        name: of the new checkpoint, `arch.tag`.

    Raises:
        UserError: no such files, more than one candidate, or names and shapes that do not fit.
    """
    if crop not in ("five_point", "openface"):
        raise UserError(f"crop must be five_point or openface, not {crop!r}")
    files = find_members(source, model, members, frames)
    states = {
        name: without_counters(state_dict(source if path is None else open_file(source, path), f"{source}: {name}"))
        for name, path in files.items()
    }
    first = next(iter(states.values()))
    temporal = any(".GRU_layer." in k for k in first)
    if (model == "rnn" and not temporal) or (model == "cnn" and temporal):
        raise UserError(f"{source} holds a {'CNN-RNN' if temporal else 'CNN'}, not the {model} asked for")
    if temporal and frames not in THRESHOLDS:
        raise UserError(f"the CNN-RNN has windows of 32, 16 or 8 frames, not {frames}")
    config = fg2020(backbone_of(first, source), tuple(states), frames if temporal else 0, size)
    config = dataclasses.replace(config, input=dataclasses.replace(config.input, template=crop))
    imported = assemble(config, states, source.name)
    return dataclasses.replace(imported, card=dataclasses.replace(imported.card, name=name or imported.card.name))


def assemble(config: FG2020Config, states: dict[str, dict[str, Tensor]], source: str) -> Imported:
    """One checkpoint from the original state dicts of its members; equal CNNs are stored once."""
    dropped: dict[str, str] = {}
    cnns, heads = [], []
    for name, state in states.items():
        tensors = rename_member(state, config, dropped, f"{source}: {name}")
        cnns.append({k: v for k, v in tensors.items() if not k.startswith("temporal.")})
        heads.append({k.removeprefix("temporal."): v for k, v in tensors.items() if k.startswith("temporal.")})
    face = f"{config.input.size[0]} pixels, aligned as {config.input.template}"
    notes = [f"members: {', '.join(states)}", f"faces: {face}; only the middle 5/6 is seen"]
    if config.frames and len(cnns) > 1 and all(_equal(cnns[0], other) for other in cnns[1:]):
        config, cnns = dataclasses.replace(config, shared_cnn=True), cnns[:1]
        notes.append("all members have the same CNN: it is stored and run once")
    tensors = {f"cnns.{i}.{k}": v for i, cnn in enumerate(cnns) for k, v in cnn.items()}
    tensors |= {f"temporal.{i}.{k}": v for i, head in enumerate(heads) for k, v in head.items()}
    kind = "fg2020_rnn" if config.frames else "fg2020"
    several = "teacher_and_students" if "teacher" in states else "students"
    tag = several if len(states) > 1 else config.members[0]
    card = hub.Card(
        name=f"{kind}.{tag}",
        licence=LICENCE,
        commercial=False,
        trained_on=("Aff-Wild2",) if config.frames else ("Aff-Wild2", "DISFA", "ExpW", "AFEW-VA"),
        source=f"imported from {source}",
    )
    return Imported(config, tensors, card, dropped, notes)


def rename_member(
    state: dict[str, Tensor], config: FG2020Config, dropped: dict[str, str], where: str
) -> dict[str, Tensor]:
    """One original network's tensors under our names; those not needed go to `dropped` with the reason.

    Raises:
        UserError: a name that belongs to no layer.
    """
    out, unknown = {}, []
    for name, value in state.items():
        short = name.removeprefix("backbone.") if config.frames else name
        if config.frames and short == name:
            new = _temporal_name(name)
        elif short.startswith("backbone."):
            new = _backbone_name(short.removeprefix("backbone.").removeprefix("model."), config.backbone)
        else:
            new = _head_name(short)
        if new is None:
            unknown.append(name)
        elif config.frames and new.startswith("heads.") and ".fc1." in new:
            dropped[f"{name.rpartition('.')[0]}.*"] = "the CNN's own output layer, which the CNN-RNN does not use"
        else:
            out[new] = value
    if unknown:
        raise UserError(f"{where} has tensors of no known layer: {', '.join(unknown[:4])}; is it an FG-2020 network?")
    return out


def backbone_tensors(source: Path) -> tuple[str, dict[str, Tensor]]:
    """The pretrained face network to start training from: its variant and tensors named as in `FaceResNet50`.

    Args:
        source: `resnet50_ferplus_dag.pth` or `resnet50_face_sfew_dag.pth`.

    Raises:
        UserError: unreadable or another network.
    """
    state = without_counters(state_dict(source))
    variant = backbone_of(state, source)
    out = {}
    for name, value in state.items():
        if name in SOURCE_CLASSIFIERS:
            continue
        new = _backbone_name(name, variant)
        if new is None:
            raise UserError(f"{source} has a tensor of no known layer: {name}")
        out[new.removeprefix("backbone.")] = value
    return variant, out


def backbone_of(state: dict[str, Tensor], source: Path) -> str:
    """Which face network a state dict belongs to.

    Raises:
        UserError: neither.
    """
    for variant, mark in (("ferplus", "conv1_7x7_s2.weight"), ("sfew", "conv1_conv.weight")):
        if any(name.endswith(mark) for name in state):
            return variant
    raise UserError(f"{source} is no FG-2020 network: it has neither the FER+ nor the SFEW face layers")


def find_members(source: Path, model: str, members: str, frames: int) -> dict[str, PurePosixPath | None]:
    """The files of the wanted members below `source`, by member name; None for `source` itself.

    Raises:
        UserError: unknown choice, none found, networks of another window, or several files for one member.
    """
    if model not in ("auto", *KINDS):
        raise UserError(f"model must be auto, cnn or rnn, not {model!r}")
    wanted = {"students": STUDENTS, "teacher": ("teacher",), "all": ("teacher", *STUDENTS)}.get(members, (members,))
    if not set(wanted) <= {"teacher", *STUDENTS}:
        raise UserError(f"members must be students, teacher, all or {STUDENTS[0]} ... {STUDENTS[-1]}, not {members!r}")
    if not is_container(source):
        _check_window(source.parent, frames)
        return {member_of(source) or (wanted[0] if len(wanted) == 1 else "teacher"): None}
    files = [p for p in find_files(source, "*.pth") if not p.name.startswith("opt_")]
    folder = _folder(source, files, model, frames)
    _check_window(source / folder, frames)
    found: dict[str, list[PurePosixPath]] = {name: [] for name in wanted}
    for path in files:
        name = member_of(path)
        if path.parent == folder and name in found:
            found[name].append(path)
    several = {name: paths for name, paths in found.items() if len(paths) > 1}
    if several:
        name, paths = next(iter(several.items()))
        raise UserError(f"several files for {name}: {', '.join(p.name for p in paths)}; keep one, or name the file")
    chosen = {name: paths[0] for name, paths in found.items() if paths}
    if not chosen:
        raise UserError(
            f"no {members} file in {source / folder}; expected names like net_epoch_student_0_id_resnet50.pth or 0.pth"
        )
    return chosen


def member_of(path: PurePath) -> str | None:
    """ "teacher" or "student_3" as the file's name says (a bare number is a student), or None."""
    if "teacher" in path.stem:
        return "teacher"
    match = re.search(r"student_?(\d)", path.stem) or re.fullmatch(r"(\d)", path.stem)
    return f"student_{match[1]}" if match and f"student_{match[1]}" in STUDENTS else None


def _check_window(folder: Path, frames: int) -> None:
    """Refuse networks of another window than asked for, where their folder is called by it."""
    window = re.fullmatch(r"Seq_len=(\d+)", folder.resolve().name)
    if window and int(window[1]) != frames:
        raise UserError(f"{folder} has windows of {window[1]} frames, not {frames}: give --frames {window[1]}")


def _folder(source: Path, files: list[PurePosixPath], model: str, frames: int) -> PurePosixPath:
    """The folder with the files: the outermost, the only one, or the one that bears a published name."""
    folders = sorted({p.parent for p in files})
    if PurePosixPath() in folders or len(folders) == 1:
        return folders[0]
    kinds = ("cnn", "rnn") if model == "auto" else (model,)
    names = {name for kind in kinds for name in KINDS[kind]}
    window = f"Seq_len={frames}"
    candidates = [f for f in folders if f.name in names or (f.name == window and f.parent.name in names)]
    if len(candidates) != 1:
        found = ", ".join(map(str, candidates)) or "none"
        raise UserError(f"expected one folder of networks ({', '.join(sorted(names))}) in {source}, found: {found}")
    return candidates[0]


def _backbone_name(name: str, variant: str) -> str | None:
    stem, _, part = name.rpartition(".")
    for pattern, layer in LAYERS[variant].items():
        if match := re.fullmatch(pattern, stem):
            place = f"stages.{int(match[1]) - 2}.{int(match[2]) - 1}." if match.groups() else ""
            return f"backbone.{place}{layer}.{part}"
    return None


def _head_name(name: str) -> str | None:
    match = re.fullmatch(r"classifier\.([012])\.(bn0|fc_0|bn1|fc_1)\.(\w+)", name)
    return f"heads.{TASKS[int(match[1])]}.{HEAD[match[2]]}.{match[3]}" if match else None


def _temporal_name(name: str) -> str | None:
    match = re.fullmatch(r"classifier\.([012])\.(GRU_layer|fc_1)\.(\w+)", name)
    layer = {"GRU_layer": "gru", "fc_1": "fc1"}
    return f"temporal.{TASKS[int(match[1])]}.{layer[match[2]]}.{match[3]}" if match else None


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())
