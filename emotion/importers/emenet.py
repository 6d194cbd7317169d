"""EMENet's released files: `net_epoch_<E>_<name>.pth` of V and VA networks, most often one folder per ensemble member.

Understood sources: one such file; a folder, zip or tar of members, in folders of their own or side by side, which
becomes an ensemble.
The optimiser's file that the original insists on is not needed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from torch import Tensor

from emotion import hub
from emotion.errors import UserError
from emotion.importers import Imported, marblenet, mobilefacenet
from emotion.importers.files import find_files, is_container, open_file, state_dict, without_counters
from emotion.models import marblenet as ear
from emotion.models import mobilefacenet as eye
from emotion.models.emenet import EMENetConfig, emenet_v, emenet_va

FILE = re.compile(r"net_epoch_(\d+)_(.+)\.pth")
LICENCE = "no licence stated with the weights; research use only"
HEAD = re.compile(r"tmodels\.(\d+)\.(.+)")
SIZES = {7: "expression", 12: "action_units", 40: "valence_arousal", 136: "landmarks", 2: "voice"}
AUXILIARY = ("landmarks", "voice")
GATES = {3: "gru", 4: "lstm", 1: "rnn_tanh"}  # rows of the recurrent weights per hidden unit

State = dict[str, Tensor]


def read(
    source: Path,
    members: str = "*",
    epoch: int | tuple[int, ...] | None = None,
    time_axis: str = "lanes",
    temporal: str | None = None,
    name: str = "",
) -> Imported:
    """Read a network or an ensemble.

    Args:
        source: file, folder or archive.
        members: which members of a folder or archive, as a pattern such as "student_round_3_*".
        epoch: which epoch where members have several (default: the latest); one for all, or one per member, as the
            checkpoint's note lists them.
        time_axis: how the heads read time, see `EMENetConfig`; the published weights know "lanes".
        temporal: "rnn_relu" for plain recurrent heads with ReLU, which the files do not tell from tanh.
        name: name of the checkpoint, `arch.tag`.

    Raises:
        UserError: nothing suitable there, members that differ, or files that are no EMENet.
    """
    chosen = choose(source, members, epoch)
    dropped: dict[str, str] = {}
    configs, networks, notes = [], [], []
    for label, file in chosen.items():
        opened = source if file is None else open_file(source, file)
        state, remarks = without_front_end(without_counters(state_dict(opened, f"{source}: {label}")))
        config, tensors = member(state, f"{source}: {label}", dropped)
        configs.append(config)
        networks.append(tensors)
        notes += [n for n in remarks if n not in notes]
    config, networks = align(configs, networks, list(chosen), dropped)
    try:
        config = replace(config, members=len(networks), time_axis=time_axis, temporal=temporal or config.temporal)
    except ValueError as error:
        raise UserError(str(error)) from error
    card = hub.Card(
        name=name or f"emenet_{'va' if config.sound else 'v'}.affwild2",
        licence=LICENCE,
        commercial=False,
        trained_on=("Aff-Wild2",),
        source=f"imported from {source.resolve().name}",
    )
    if config.sound:
        dropped |= {f"audio_backbone.{k}": why for k, why in marblenet.COMPUTED.items()}
    if config.temporal == "transformer":
        dropped["tmodels.*.pos_encoder.pe"] = "a table of sines, which is computed"
    tensors = {f"members.{m}.{k}": v for m, network in enumerate(networks) for k, v in network.items()}
    return Imported(config, tensors, card, dropped, [*_notes(config, list(chosen)), *notes])


def choose(source: Path, members: str, epoch: int | tuple[int, ...] | None = None) -> dict[str, PurePosixPath | None]:
    """The file of every member by the member's name, in natural order; None for `source` itself.

    A member is a file's name in a folder; it is called by as much of its path as no other member shares. The pattern
    is compared with that, with the whole path, and with the folder's path and last name.

    Raises:
        UserError: none, not the epochs asked for, two files for one member and epoch, or members of one name in
            several folders: generations of students must not mix.
    """
    if not is_container(source):
        match = FILE.fullmatch(source.name)
        return {match[2] if match else source.stem: None}
    groups: dict[PurePosixPath, dict[int, PurePosixPath]] = {}
    for path in find_files(source, "net_epoch_*.pth"):
        if not (match := FILE.fullmatch(path.name)):
            continue
        epochs, number = groups.setdefault(path.parent / match[2], {}), int(match[1])
        if number in epochs:
            raise UserError(f"{source} holds two files for one member and epoch: {epochs[number]}, {path}; remove one")
        epochs[number] = path
    found, places = {}, {}
    for label, (path, epochs) in zip(_labels([*groups]), groups.items()):
        known = (label, str(path), str(path.parent), path.parent.name)
        if not any(fnmatch(name, members) for name in known):
            continue
        found[label] = epochs
        if (other := places.setdefault((path.parent.name, path.name), path)) != path:
            raise UserError(f"{source} holds {other} and {path}, of two ensembles? choose with --members 'FOLDER/*'")
    if not found:
        raise UserError(f"{source} holds no net_epoch_<E>_<name>.pth of a member called {members}")
    ordered = sorted(found, key=lambda k: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", k)])
    wanted = _epochs(source, ordered, epoch)
    return {k: found[k][max(found[k])] if e is None else _at(source, k, found[k], e) for k, e in zip(ordered, wanted)}


def _labels(paths: list[PurePosixPath]) -> list[str]:
    """The shortest end of every path that no other path shares."""
    labels = [""] * len(paths)
    for length in range(max((len(p.parts) for p in paths), default=0), 0, -1):  # shorter ones replace longer ones
        ends = ["/".join(p.parts[-length:]) for p in paths]
        counts = Counter(ends)
        labels = [end if counts[end] == 1 else label for end, label in zip(ends, labels)]
    return labels


def _epochs(source: Path, members: list[str], epoch: int | tuple[int, ...] | None) -> Sequence[int | None]:
    """The epoch of every member; None for its latest."""
    given = epoch if isinstance(epoch, tuple) else (epoch,)
    if len(given) not in (1, len(members)):
        raise UserError(
            f"epoch has {len(given)} values, {source} holds {len(members)} members: give one for all, or one for each "
            f"of {', '.join(members)}"
        )
    return given if len(given) == len(members) else given * len(members)


def _at(source: Path, member: str, epochs: dict[int, PurePosixPath], epoch: int) -> PurePosixPath:
    if epoch not in epochs:
        there = ", ".join(map(str, sorted(epochs)))
        raise UserError(f"{source} holds no epoch {epoch} of {member}, only {there}; leave it out for the latest")
    return epochs[epoch]


def without_front_end(state: State) -> tuple[State, list[str]]:
    """The state without the constants of the sound's front end, and remarks on them."""
    prefix = "audio_backbone."
    heard, notes = marblenet.split_constants(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    return {k: v for k, v in state.items() if not k.startswith(prefix)} | {
        prefix + k: v for k, v in heard.items()
    }, notes


def member(state: State, where: str, dropped: dict[str, str]) -> tuple[EMENetConfig, State]:
    """One network's configuration, as its shapes tell, and its tensors under our names.

    Heads of no known size go to `dropped`.

    Raises:
        UserError: not an EMENet.
    """
    sound = any(k.startswith("audio_backbone.") for k in state)
    prefix = "video_backbone." if sound else "backbone."
    table = {f"{prefix}{old}": f"backbone.{new}" for old, new in mobilefacenet.CHILDREN.items()}
    table |= {f"audio_backbone.{old}": f"audio.{new}" for old, new in marblenet.children().items()}
    tensors = mobilefacenet.rename(state, table)
    heads: dict[str, State] = {}
    rest = [k for k in state if not any(k.startswith(f"{p}.") for p in table)]
    for key in rest:
        if not (match := HEAD.fullmatch(key)):
            raise UserError(f"{where} is no EMENet: it holds {key!r}")
        heads.setdefault(match[1], {})[match[2]] = state[key]
    if not heads or len(tensors) == 0:
        raise UserError(f"{where} is no EMENet: it has no {'heads (tmodels)' if tensors else 'face network'}")
    tasks = {}
    for number, head in heads.items():
        size = len(head["decoder.bias"]) if "decoder.bias" in head else 0
        if size in SIZES and SIZES[size] not in tasks:
            tasks[SIZES[size]] = head
        else:
            dropped[f"tmodels.{number}"] = f"a head with {size} outputs belongs to no task"
    config = _config(tasks, sound, where)
    for task in config.outputs:
        tensors |= {f"heads.{task}.{k}": v for k, v in _head_names(tasks[task]).items()}
    return config, tensors


def _config(tasks: dict[str, State], sound: bool, where: str) -> EMENetConfig:
    """What the shapes of the heads say."""
    first = next(iter(tasks.values()), {})
    if "linear.weight" in first:
        hidden, width = first["linear.weight"].shape
        temporal, layers = "transformer", len({k.split(".")[2] for k in first if k.startswith("transformer_")})
    elif "rnn.weight_ih_l0" in first:
        rows, width = first["rnn.weight_ih_l0"].shape
        hidden = first["decoder.weight"].shape[1]
        temporal, layers = GATES.get(rows // hidden, ""), sum(k.startswith("rnn.weight_ih_l") for k in first)
    else:
        raise UserError(f"{where} is no EMENet: its heads are neither recurrent nor transformers")
    expected = eye.FEATURES + ear.FEATURES * sound
    if width != expected or not temporal:
        raise UserError(
            f"{where}: heads read {width} features, but an EMENet {'with' if sound else 'without'} sound has {expected}"
        )
    absent = {"expression": {"expressions": ()}, "action_units": {"action_units": ()}, "valence_arousal": {"bins": 0}}
    changes = {k: v for task, change in absent.items() if task not in tasks for k, v in change.items()}
    auxiliary = {"landmarks": 68 * ("landmarks" in tasks), "voice": sound and "voice" in tasks}
    make = emenet_va if sound else emenet_v
    try:
        return make(temporal=temporal, hidden=hidden, layers=layers, **auxiliary, **changes)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _head_names(head: State) -> State:
    """A head's tensors under our names; the transformer's position table is computed."""
    out = {k.replace("transformer_encoder.layers.", "encoder."): v for k, v in head.items()}
    return {k: v for k, v in out.items() if k != "pos_encoder.pe"}


def align(
    configs: list[EMENetConfig], networks: list[State], labels: list[str], dropped: dict[str, str]
) -> tuple[EMENetConfig, list[State]]:
    """One configuration for all members: auxiliary heads that not all have are left out.

    Raises:
        UserError: the members differ otherwise.
    """
    common = set.intersection(*(set(c.outputs) for c in configs))
    lost = [t for t in AUXILIARY if t not in common and any(t in c.outputs for c in configs)]
    without = {"landmarks": {"landmarks": 0}, "voice": {"voice": False}}
    changes = {k: v for t in lost for k, v in without[t].items()}
    configs = [replace(c, **changes) for c in configs]
    for label, config in zip(labels, configs):
        if config != configs[0]:
            raise UserError(
                f"{label} and {labels[0]} are networks of different kinds; choose members of one kind with "
                "members=PATTERN, such as members='student_round_3_*'"
            )
    dropped |= {f"auxiliary head {t}": "not all members have it" for t in lost}
    gone = tuple(f"heads.{t}." for t in lost)
    return configs[0], [{k: v for k, v in n.items() if not k.startswith(gone)} for n in networks]


def _notes(config: EMENetConfig, labels: list[str]) -> list[str]:
    reading = {
        "lanes": "Frame t continues the recurrent state of frame t - 64, as in the original's inference.",
        "frames": "The heads follow the clip from frame to frame, which published weights were not trained for.",
        "clips": "The heads run from clip to clip of a batch, as the original trained: results depend on the batch.",
    }[config.time_axis]
    sound = ["Sound is cut by the original's clock, which runs ahead of the pictures."] if config.sound else []
    return [f"Members: {', '.join(labels)}.", f"Tasks: {', '.join(config.outputs)}.", reading, *sound]
