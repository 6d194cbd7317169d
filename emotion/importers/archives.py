"""The files of a folder, zip or tar, found by name; archives are read in memory, so no member's path leads anywhere."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from torch import Tensor

from emotion.errors import UserError
from emotion.importers import load_pickle, strip_prefix

LIMIT = 2**30  # bytes of all wanted files of an archive together


def find_files(source: Path, *patterns: str) -> dict[PurePosixPath, Path | io.BytesIO]:
    """Files whose name matches one of `patterns`, by their path below `source`, in order of the path.

    Args:
        source: a folder, a zip, or a tar with any compression.
        patterns: as for a shell, such as "net_epoch_*.pth".

    Raises:
        UserError: unreadable or incomplete, unsafe paths, or more than `LIMIT` bytes.
    """
    if source.is_dir():
        found = {PurePosixPath(p.relative_to(source).as_posix()): p for p in source.rglob("*") if p.is_file()}
        return {k: found[k] for k in sorted(found) if _wanted(k, patterns)}
    try:
        if tarfile.is_tarfile(source):  # before zip: a tar of PyTorch files, zips themselves, also passes as a zip
            found = _from_tar(source, patterns)
        elif zipfile.is_zipfile(source):
            found = _from_zip(source, patterns)
        else:
            raise UserError(f"{source} is neither a folder nor a zip or tar archive")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise UserError(f"cannot read {source}: {error}; is the archive complete?") from error
    return dict(sorted(found.items()))


def tensors_of(file: Path | io.BytesIO, where: str | Path) -> dict[str, Tensor]:
    """The float32 tensors of a PyTorch file that is a state dict or has one under "state_dict".

    Counters and DataParallel's prefix are left out.

    Raises:
        UserError: unreadable, or no state dict.
    """
    content = load_pickle(file, where)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{where} holds no state dict (tensors by name); is it a file of this method?")
    return {k: v.float() for k, v in strip_prefix(content).items() if not k.endswith("num_batches_tracked")}


def _wanted(path: PurePosixPath, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path.name, p) for p in patterns) and not path.name.startswith("._")


def _from_zip(source: Path, patterns: tuple[str, ...]) -> dict[PurePosixPath, io.BytesIO]:
    with zipfile.ZipFile(source) as archive:
        members = {PurePosixPath(m.filename): m for m in archive.infolist() if not m.is_dir()}
        members = {k: m for k, m in members.items() if _wanted(k, patterns)}
        _check(source, {k: m.file_size for k, m in members.items()})
        return {k: io.BytesIO(archive.read(m)) for k, m in members.items()}


def _from_tar(source: Path, patterns: tuple[str, ...]) -> dict[PurePosixPath, io.BytesIO]:
    with tarfile.open(source) as archive:
        members = {PurePosixPath(m.name): m for m in archive.getmembers() if m.isfile()}
        members = {k: m for k, m in members.items() if _wanted(k, patterns)}
        _check(source, {k: m.size for k, m in members.items()})
        return {k: io.BytesIO(archive.extractfile(m).read()) for k, m in members.items()}


def _check(source: Path, sizes: dict[PurePosixPath, int]) -> None:
    for path in sizes:
        if path.is_absolute() or ".." in path.parts or "\\" in str(path):
            raise UserError(f"{source} is refused: its member {str(path)!r} points out of the archive")
    if sum(sizes.values()) > LIMIT:
        raise UserError(f"{source} unpacks to more than {LIMIT >> 20} MiB; unpack it and give the folder")
