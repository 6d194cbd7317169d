"""ESR: the original's split files, `Net-Base-Shared_Representations.pt` and `Net-Branch_1.pt` ... `Net-Branch_N.pt`.

Each is a plain state dict. They do not say which variant they are: shapes and tensor names tell.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path, PurePath, PurePosixPath

from torch import Tensor

from emotion import hub, registry
from emotion.errors import UserError, listed
from emotion.importers import Imported
from emotion.importers.files import find_files, open_file, state_dict, without_counters
from emotion.models import esr

BASE = "Net-Base-Shared_Representations.pt"
BRANCH = re.compile(r"Net-Branch_([1-9]\d*)\.pt")
LICENCE = "no commercial use (terms of the original's published weights)"

# Original tensor name without its trailing parameter -> ours; {} is the block's index from 0.
_BLOCK = re.compile(r"(conv|bn)([1-9]\d*)\.(weight|bias|running_mean|running_var)")
_HEADS = {"fc": "fc", "fc_dimensional": "affect"}

Files = dict[str, PurePosixPath]


def read(source: Path, batchnorm: str = "running", stage: int | None = None, name: str = "") -> Imported:
    """Read a set of split files.

    Args:
        source: the folder with the files, a folder of such folders named by number (training output), an archive
            of either, or one of the files.
        batchnorm: "running" (every layer in evaluation mode) or "batch" (branches normalise with the statistics of
            the current batch, as the original does when it predicts).
        stage: which numbered folder to take (default: the highest).
        name: name of the checkpoint, `arch.tag`; that of a registry entry also tells what it was trained on.

    Raises:
        UserError: files missing, unreadable, of different kinds, or of no known variant.
    """
    if source.is_file() and (source.name == BASE or BRANCH.fullmatch(source.name)):
        source = source.parent
    files = _choose(_find(source), source, stage)
    parts = {n: without_counters(state_dict(open_file(source, path), source / path)) for n, path in files.items()}
    base = parts[BASE]
    branches = [parts[f"Net-Branch_{number}.pt"] for number in range(1, len(parts))]
    _check_equal(branches, source)
    config = _recognise(base, branches, source)
    try:
        config = replace(config, batchnorm=batchnorm)
    except ValueError as error:
        raise UserError(str(error)) from error

    tensors = _rename(base, "base.", BASE)
    for index, branch in enumerate(branches):
        tensors |= _rename(branch, f"branches.{index}.", f"Net-Branch_{index + 1}.pt", blocks="blocks.")
    return Imported(
        config=config,
        tensors=tensors,
        card=_card(config, source, name),
        notes=_notes(config),
    )


def _find(source: Path) -> dict[PurePath, Files]:
    """All split files at `source`, by the folder they lie in (relative to `source`)."""
    groups: dict[PurePath, Files] = {}
    for path in find_files(source, "*.pt"):
        if path.name == BASE or BRANCH.fullmatch(path.name):
            groups.setdefault(path.parent, {})[path.name] = path
    if not groups:
        raise UserError(f"{source} holds no {BASE} and no Net-Branch_N.pt")
    return groups


def _choose(groups: dict[PurePath, Files], source: Path, stage: int | None) -> Files:
    """The one complete set of files: the outermost, or among numbered folders `stage` or the highest."""
    if stage is not None:
        groups = {k: v for k, v in groups.items() if k.name == str(stage)}
        if not groups:
            raise UserError(f"{source} has no folder {stage} with split files")
    depth = min(len(k.parts) for k in groups)
    outer = [k for k in groups if len(k.parts) == depth]
    if len(outer) > 1 and not (all(k.name.isdecimal() for k in outer) and len({k.parent for k in outer}) == 1):
        raise UserError(f"{source} holds several checkpoints: {listed(sorted(outer))}; give one of them")
    folder = outer[0] if len(outer) == 1 else max(outer, key=lambda k: int(k.name))
    files = groups[folder]
    numbers = [int(match[1]) for file in files if (match := BRANCH.fullmatch(file))]
    wanted = chain([BASE], (f"Net-Branch_{n}.pt" for n in range(1, max(numbers, default=1) + 1)))
    missing = list(islice((file for file in wanted if file not in files), 6))  # a number may be absurdly high
    if missing:
        raise UserError(f"{source / folder} lacks {listed(missing)}")
    return files


def _check_equal(branches: list[dict[str, Tensor]], source: Path) -> None:
    """All branches must have the same tensors of the same shapes."""
    first = {k: v.shape for k, v in branches[0].items()}
    for number, branch in enumerate(branches, start=1):
        shapes = {k: v.shape for k, v in branch.items()}
        different = sorted(k for k in first.keys() | shapes.keys() if first.get(k) != shapes.get(k))
        if different:
            raise UserError(
                f"{source}: Net-Branch_{number}.pt and Net-Branch_1.pt are of different kinds: "
                f"{listed(different)}; they must come from one training"
            )


def _kernels(tensors: dict[str, Tensor]) -> list[tuple[int, ...]]:
    """Shapes of conv1.weight, conv2.weight, ... as far as they are there."""
    found = {int(m[2]): tuple(v.shape) for k, v in tensors.items() if (m := _BLOCK.fullmatch(k)) and v.ndim == 4}
    return [found[number] for number in sorted(found)]


def _recognise(base: dict[str, Tensor], branches: list[dict[str, Tensor]], source: Path) -> esr.ESRConfig:
    """The published variant with these convolutions (pooling and padding leave no trace in the files)."""
    found = _kernels(base), _kernels(branches[0])
    count = len(branches)
    affect = "fc_dimensional.weight" in branches[0]
    for config in (esr.esr9(affect, count), *(esr.esr4(level, count) for level in (1, 2, 3, 4))):
        blocks = (*config.base, *config.branch)
        depths = [config.input.depth, *(b.out for b in blocks)]
        kernels = [(b.out, depth, b.kernel, b.kernel) for depth, b in zip(depths, blocks)]
        if found == (kernels[: len(config.base)], kernels[len(config.base) :]):
            return config
    raise UserError(
        f"{source} is no known ESR: the base has convolutions {found[0]}, the branches {found[1]}; "
        "known are ESR-9 and ESR-4 with branching levels 1 to 4"
    )


def _rename(tensors: dict[str, Tensor], prefix: str, file: str, blocks: str = "") -> dict[str, Tensor]:
    """Tensors of one file under our names."""
    out = {}
    for name, value in tensors.items():
        head, _, parameter = name.rpartition(".")
        if match := _BLOCK.fullmatch(name):
            out[f"{prefix}{blocks}{int(match[2]) - 1}.{match[1]}.{match[3]}"] = value
        elif blocks and head in _HEADS:
            out[f"{prefix}{_HEADS[head]}.{parameter}"] = value
        else:
            raise UserError(f"{file} holds {name!r}, which belongs to no ESR")
    return out


def _card(config: esr.ESRConfig, source: Path, name: str) -> hub.Card:
    """Name, licence and origin. What the weights were trained on is stated only where the files can tell."""
    if not name:
        nine = "esr9.affectnet" if config.affect else "esr9_discrete.imported"
        name = nine if config.input.depth == 3 else "esr4.ckplus"
    entry = registry.entries().get(name)
    return hub.Card(
        name=name,
        licence=LICENCE,
        commercial=False,
        trained_on=entry.trained_on if entry else (),
        source=f"imported from the original files in {source.resolve().name}",
    )


def _notes(config: esr.ESRConfig) -> list[str]:
    reading = {
        "running": "Batch norm uses the stored statistics everywhere; the original's branches used those of the "
        "current batch (import with batchnorm=batch for that reading)",
        "batch": "Branches normalise with the statistics of the current batch, as in the original: a face's result "
        "depends on the other faces of its batch",
    }[config.batchnorm]
    affect = "with" if config.affect else "without"
    return [f"{config.branches} branches, {affect} valence/arousal heads", reading]
