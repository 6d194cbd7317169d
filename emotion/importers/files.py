"""Reading what authors publish: PyTorch files, and folders, zips and tars of them. The only place that opens pickles.

Nothing is ever unpacked to a disk: members of archives are read in memory, so no member's path leads anywhere.
"""

from __future__ import annotations

import io
import lzma
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from emotion.errors import UserError, listed

LIMIT = 2**32  # bytes of all wanted files of an archive together; the largest known set has a third of this
# Plain numbers of numpy, which learning rates in older training files are; under the names of numpy 1 and 2.
NUMPY_SCALARS = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    type(np.dtype("float64")),
]
PLAIN = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16}
PLAIN |= {torch.float32, torch.float64}  # types of numbers that every operation knows
# What broken files make the readers of archives, pickles and their tensors raise.
BROKEN_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError)
BROKEN_CONTENT = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError)

File: TypeAlias = "Path | io.BytesIO"


def find_files(source: Path, *patterns: str) -> list[PurePosixPath]:
    """Files whose name matches one of `patterns`, as sorted paths below `source`.

    Args:
        source: a folder, a zip, or a tar with any compression.
        patterns: as for a shell, such as "net_epoch_*.pth".

    Raises:
        UserError: unreadable or incomplete, unsafe paths, or more than `LIMIT` bytes.
    """
    if source.is_dir():
        sizes = {PurePosixPath(p.relative_to(source).as_posix()): 0 for p in source.rglob("*") if p.is_file()}
    else:
        sizes = _members(source)
    wanted = {k: size for k, size in sizes.items() if any(fnmatch(k.name, p) for p in patterns)}
    wanted = {k: size for k, size in wanted.items() if not k.name.startswith("._")}  # resource forks of macOS
    for path in wanted:
        if path.is_absolute() or ".." in path.parts or "\\" in str(path):
            raise UserError(f"{source} is refused: its member {str(path)!r} points out of the archive")
    if sum(wanted.values()) > LIMIT:
        raise UserError(f"{source} unpacks to more than {LIMIT >> 20} MiB; unpack it and give the folder")
    return sorted(wanted)


def open_file(source: Path, path: PurePosixPath) -> File:
    """One of the files that `find_files` found.

    Raises:
        UserError: it cannot be read.
    """
    if source.is_dir():
        return source / path
    try:
        if tarfile.is_tarfile(source):
            with tarfile.open(source) as archive:
                found = next(m for m in archive if m.isfile() and PurePosixPath(m.name) == path)
                return io.BytesIO(archive.extractfile(found).read())
        with zipfile.ZipFile(source) as archive:
            found = next(m for m in archive.infolist() if PurePosixPath(m.filename) == path)
            return io.BytesIO(archive.read(found))
    except (*BROKEN_ARCHIVE, RuntimeError, NotImplementedError) as error:  # the last two: encryption, odd compression
        raise UserError(f"cannot read {path} in {source}: {error}; is the archive complete?") from error


def choose(source: Path, *patterns: str) -> tuple[File, str]:
    """The file itself, or the one file of a folder or archive that matches the first pattern that any file matches.

    Returns:
        The file, and what messages call it.

    Raises:
        UserError: none, or several.
    """
    if not is_container(source):
        return source, str(source)
    for pattern in patterns:
        found = find_files(source, pattern)
        if len(found) > 1:
            raise UserError(f"{source} holds several files to choose from: {listed(found)}; give one of them")
        if found:
            return open_file(source, found[0]), f"{source}: {found[0]}"
    raise UserError(f"{source} holds no file called {' or '.join(patterns)}")


def is_container(source: Path) -> bool:
    """Whether it is a folder or an archive of files; a PyTorch file, a zip too, is none."""
    if source.is_dir():
        return True
    try:
        if tarfile.is_tarfile(source):  # before zip: a tar of PyTorch files also passes as a zip
            return True
        return zipfile.is_zipfile(source) and not any(
            n.endswith("data.pkl") for n in zipfile.ZipFile(source).namelist()
        )
    except BROKEN_ARCHIVE:  # it ends like a zip; what its reader finds wrong is told when it is read
        return False


def load_pickle(file: str | File, where: str | Path = "") -> Any:
    """The content of a PyTorch file (zip or legacy format), tensors only; code in it is refused, never run.

    Args:
        file: path or open binary file.
        where: what messages call the file (default: its path).

    Raises:
        UserError: truncated, not a PyTorch file, it wants to run code, or it would fill the memory.
    """
    where = where or file
    try:
        _check_stored(file, where)
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about versions of the pickle protocol
            return torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{where} is refused: it is no complete PyTorch file of plain tensors, or it holds code that would run "
            "when opened. Get the file from its original source, or save the state dict alone."
        ) from error
    except (*BROKEN_ARCHIVE, *BROKEN_CONTENT, struct.error, MemoryError) as error:
        raise UserError(f"cannot read {where} as a PyTorch file ({type(error).__name__}); is it complete?") from error


def state_dict(file: File, where: str | Path = "") -> dict[str, Tensor]:
    """The tensors of a PyTorch file that is a state dict or has one under "state_dict".

    Floating-point tensors become float32, and a leading `module.` (DataParallel's) falls away.

    Raises:
        UserError: unreadable, no state dict, or tensors that are not plain, not finite or larger than their data.
    """
    where = where or file
    content = load_pickle(file, where)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    plain = isinstance(content, Mapping) and all(isinstance(k, str) for k in content)
    if not plain or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{where} holds no state dict (tensors by name); is it a file of this method?")
    tensors = {name.removeprefix("module."): _checked(value, name, where) for name, value in content.items()}
    if len(tensors) < len(content):
        raise UserError(
            f"{where} holds tensors twice, with and without the prefix 'module.'; which count cannot be told"
        )
    return tensors


def without_counters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without batch norm's count of training steps, which plays no part in prediction."""
    return {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}


def renamed(name: str, prefixes: Mapping[str, str]) -> str | None:
    """A tensor's name with its longest dotted prefix in the table replaced; None where none is in the table."""
    head, tail = name, ""
    while head:
        if head in prefixes:
            return prefixes[head] + tail
        head, _, last = head.rpartition(".")
        tail = f".{last}{tail}"
    return None


def _checked(value: Tensor, name: str, where: str | Path) -> Tensor:
    if value.layout != torch.strided or value.dtype not in PLAIN or value.is_meta:
        raise UserError(f"{where}: {name} is no plain tensor ({value.dtype}, {value.layout})")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UserError(f"{where} is refused: {name} claims to be larger than its data")
    value = value.float() if value.is_floating_point() else value
    if not torch.isfinite(value).all():
        raise UserError(f"{where} is damaged: {name} holds values that are not finite")
    return value


def _check_stored(file: str | File, where: str | Path) -> None:
    """PyTorch never compresses; a file that is larger inside than outside was made to fill the memory."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            packed = [m.filename for m in archive.infolist() if m.file_size > m.compress_size]
        if packed:
            raise UserError(f"{where} is refused: its {packed[0]} is compressed, which PyTorch's files never are")
    if isinstance(file, io.BytesIO):
        file.seek(0)


def _members(source: Path) -> dict[PurePosixPath, int]:
    """Path and unpacked size of every file in an archive; links and devices are no files."""
    try:
        if tarfile.is_tarfile(source):  # before zip: a tar of PyTorch files, zips themselves, also passes as a zip
            with tarfile.open(source) as archive:
                return {PurePosixPath(m.name): m.size for m in archive if m.isfile()}
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                return {PurePosixPath(m.filename): m.file_size for m in archive.infolist() if not m.is_dir()}
    except BROKEN_ARCHIVE as error:
        raise UserError(f"cannot read {source}: {error}; is the archive complete?") from error
    raise UserError(f"{source} is neither a folder nor a zip or tar archive")
