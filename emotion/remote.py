"""A Hub: checkpoints are fetched from it at one commit, and sent to it. Every failure becomes one message.

Nothing is contacted unless a name asks for it: `OWNER/NAME`, `hf://OWNER/NAME@REVISION`, or a known model's name when
the environment variable EMOTION_HUB says whose repositories to trust. HF_TOKEN, HF_HOME, HF_ENDPOINT and
HF_HUB_OFFLINE mean what they mean to `huggingface_hub`, which does the work.

A Hub, or who poses as one, is not trusted: nothing that it says becomes a path before it has the form of a checksum,
no file becomes larger than it may be, and no token is sent on to another host than the official Hub's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from emotion import __version__, registry
from emotion.errors import UserError
from emotion.remote_errors import NoHub, explained, sensible

NAMESPACE = "EMOTION_HUB"
LIMIT = 4_000_000_000  # bytes of a file of weights; the largest known checkpoint has a sixth of this
SMALL = 1_000_000  # bytes of any other file; the largest known configuration has a hundredth of this
OFFICIAL = ("https", "huggingface.co")  # where mirrors send those who need a token
COMMIT, SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"(?:hf://)?(\w[\w.-]*/\w[\w.-]*)(?:@(\S+))?")  # so ./folder, ../folder and /folder are not names


@dataclass(frozen=True)
class File:
    """A file as a repository lists it; `size` in bytes where it is told, `sha256` of one in large file storage."""

    name: str
    size: int | None
    sha256: str | None

    @property
    def most(self) -> int:
        """Bytes that it may have."""
        return LIMIT if self.name.endswith(".safetensors") else SMALL


@dataclass(frozen=True)
class Repo:
    """A repository on a Hub; `revision` is a branch, tag or commit, None for the default branch.

    Raises:
        UserError: the revision cannot be one. The cache keeps it as a path, so that ".." must not be in it.
    """

    id: str
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.revision is not None and not re.fullmatch(r"(?!.*\.\.|/)[^\s\\~^:?*[]+", self.revision):
            raise UserError(f"{self.revision!r} is no branch, tag or commit of {self.id}")

    def __str__(self) -> str:
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


def repo(name: str, revision: str | None = None) -> Repo | None:
    """The repository that `name` stands for, None if it stands for none.

    Raises:
        UserError: it starts with hf:// and is not complete.
    """
    if match := NAME.fullmatch(name):
        return Repo(match[1], revision or match[2])
    if name.startswith("hf://"):
        raise UserError(f"{name} is not a model's address; write hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    return None


def trusted(name: str, revision: str | None = None) -> Repo | None:
    """The repository of a known model: in the namespace EMOTION_HUB, else the one that its entry pins, else None.

    Raises:
        UserError: EMOTION_HUB is no owner of repositories.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if owner := os.environ.get(NAMESPACE, "").strip():
        place = Repo(f"{owner}/{name}", revision)
        try:
            validate_repo_id(place.id)
        except HFValidationError as error:
            example = "me for repositories such as me/esr9.affectnet"
            raise UserError(f"{NAMESPACE} must be a name on a Hub, {example}, not {owner!r}") from error
        return place
    entry = registry.entries().get(name)
    return Repo(entry.repo, revision or entry.revision) if entry and entry.repo else None


def cached_size(place: Repo, file: str) -> int | None:
    """Bytes of a file that has been downloaded before, None if it has not; contacts nobody."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(place.id, file, revision=place.revision)
    return Path(path).stat().st_size if isinstance(path, str) else None


def fetch(
    place: Repo,
    required: Sequence[str],
    optional: Sequence[str] = (),
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder in the cache that holds a repository's files, downloaded if need be, all from the same commit.

    Args:
        place: which repository, at which revision.
        required, optional: names of files; others are left where they are.
        token: instead of HF_TOKEN or the one stored on logging in; False for none.
        cache_dir: instead of the cache below HF_HOME.
        force_download: replace what the cache holds.
        local_files_only: contact nobody.

    Raises:
        UserError: not there, not allowed, no connection, no space, or not a checkpoint.
    """
    from huggingface_hub import HfApi, constants, errors
    from huggingface_hub.file_download import repo_folder_name

    api = HfApi(token=token, library_name="emotion", library_version=__version__)
    with explained("load", place):
        where = {"cache_dir": cache_dir, "local_files_only": local_files_only}
        with sensible():
            commit = api.resolve_revision(place.id, revision=place.revision, **where).resolved
            if not COMMIT.fullmatch(commit):
                raise NoHub
        cache = Path(cache_dir or constants.HF_HUB_CACHE).expanduser() / repo_folder_name(
            repo_id=place.id, repo_type="model"
        )
        folder = cache / "snapshots" / commit
        if not force_download and all((folder / name).is_file() for name in required):
            return folder
        if local_files_only:
            raise errors.LocalEntryNotFoundError(f"{folder} is not complete")
        listed = _listed(api, Repo(place.id, commit), [*optional, *required])
        _check(listed, required, place)
        for file in listed:  # in this order: a folder that has the required files is complete
            blob = _bring(Repo(place.id, commit), file, cache / "blobs", token, force_download)
            _point(folder / file.name, blob)
        return folder


def _listed(api: Any, place: Repo, names: Sequence[str]) -> list[File]:
    """Those of the files called `names` that a commit has.

    Raises:
        NoHub: sizes or checksums that are none.
    """
    with sensible():
        siblings = api.model_info(place.id, revision=place.revision, files_metadata=True).siblings or []
        found = {}
        for sibling in siblings:
            large = sibling.lfs
            size = sibling.size if large is None or sibling.size is not None else large.size
            sha256 = None if large is None else large.sha256
            if size is not None and not (isinstance(size, int) and 0 <= size < 2**63):
                raise NoHub
            if sha256 is not None and not SHA256.fullmatch(sha256):
                raise NoHub
            found[sibling.rfilename] = File(sibling.rfilename, size, sha256)
    return [found[name] for name in names if name in found]


def _check(listed: Sequence[File], required: Sequence[str], place: Repo) -> None:
    """Refuse before downloading what cannot be a checkpoint."""
    if missing := [name for name in required if name not in {file.name for file in listed}]:
        raise UserError(f"{place} holds no checkpoint of this package: it has no {' and no '.join(missing)}")
    for file in listed:
        if file.size is not None and file.size > file.most:
            raise UserError(f"{place} is not loaded: {_too_large(file.name, file.size, file.most)}")


def _too_large(name: str, size: int, most: int) -> str:
    return f"its {name} has {size / 1e6:.1f} MB, more than the {most / 1e6:.0f} MB that it may have here"


class _Capped:
    """A file that is open for writing and takes no more bytes than it should have, whatever a server sends."""

    def __init__(self, out: IO[bytes], file: File) -> None:
        self.out, self.file = out, file

    def write(self, content: bytes) -> int:
        most = self.file.most if self.file.size is None else self.file.size
        if self.out.tell() + len(content) > most:
            raise UserError(f"the download of {self.file.name} was stopped: it has more than the {most} bytes expected")
        return self.out.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.out, name)


def _bring(place: Repo, file: File, blobs: Path, token: str | bool | None, force: bool) -> Path:
    """Put a file where the client's cache keeps contents, going on where an earlier process was stopped.

    The client itself resumes within one process only, trusts names that come from the server, and stops at no size.
    What is not in large file storage has no checksum to tell whether a part is of the same file, so it begins anew.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers
    from huggingface_hub.utils.sha import sha_fileobj

    partial = blobs / f"{file.sha256 or f'{place.revision}-{file.name}'}.part"
    url = hf_hub_url(place.id, file.name, revision=place.revision, endpoint=constants.ENDPOINT)
    blobs.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(partial.with_suffix(".part.lock")):
        if file.sha256 and not force and (blobs / file.sha256).exists():
            return blobs / file.sha256
        location = get_hf_file_metadata(url, token=token).location
        own = urlsplit(location)[:2] in (urlsplit(url)[:2], OFFICIAL)  # a token is for a Hub, not for its storage
        headers = build_hf_headers(token=token if own else False, library_name="emotion")
        try:
            with partial.open("ab" if file.sha256 and not force else "wb") as out:
                capped: Any = _Capped(out, file)
                http_get(location, capped, resume_size=out.tell(), headers=headers, expected_size=file.size)
            with partial.open("rb") as content:
                digest = sha_fileobj(content).hex()
            if file.sha256 and digest != file.sha256:
                problem = f"is not the file it should be (sha256 {digest}, expected {file.sha256})"
                raise UserError(f"{file.name} of {place} {problem}; it was changed on its way, try again")
        except (HfHubHTTPError, OSError, UserError):  # a connection that breaks off is none of these
            partial.unlink(missing_ok=True)
            raise
        return partial.replace(blobs / digest)


def _point(name: Path, blob: Path) -> None:
    """Let `name` be the file `blob`: a link, or where there are none the file itself."""
    name.parent.mkdir(parents=True, exist_ok=True)
    name.unlink(missing_ok=True)
    try:
        name.symlink_to(os.path.relpath(blob, name.parent))
    except OSError:
        shutil.move(blob, name)


def push(
    id: str,
    files: Mapping[str, Path | bytes],
    message: str,
    sdk: str | None = None,
    private: bool = False,
    only: bool = False,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
) -> str:
    """Send files to a repository in one commit; the repository is made if there is none.

    Args:
        id: OWNER/NAME.
        files: path in the repository -> content or a file here.
        message: of the commit.
        sdk: "gradio" or "static" for a Space; None for a model.
        private: make a new repository private; one that exists must be private already.
        only: delete what the repository holds beside `files`.
        token: instead of HF_TOKEN or the one stored on logging in.
        branch: instead of the default one; made if there is none.
        create_pr: propose the commit to the repository's owners instead of changing a branch.

    Returns:
        The commit's address.

    Raises:
        UserError: not a name, not allowed, no connection, or public though `private` is asked for.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    if not re.fullmatch(NAME, id) or "@" in id:
        raise UserError(f"{id!r} is no name of a repository; write OWNER/NAME")
    if branch and create_pr:
        raise UserError("a pull request has a branch of its own; give branch or create_pr, not both")
    id, kind = id.removeprefix("hf://"), "space" if sdk else "model"
    api = HfApi(token=token, library_name="emotion", library_version=__version__)
    with explained("publish to", Repo(id, branch)), sensible():
        api.create_repo(id, repo_type=kind, space_sdk=sdk, private=private or None, exist_ok=True)
        if private and not api.repo_info(id, repo_type=kind).private:
            raise UserError(f"{id} exists and is public; make it private in its settings, or leave --private away")
        sent: list[Any] = [
            CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
            for path, content in files.items()
        ]
        if only:
            others = set(api.list_repo_files(id, repo_type=kind)) - files.keys() - {".gitattributes"}
            sent += [CommitOperationDelete(path) for path in sorted(others)]
        if branch:
            api.create_branch(id, branch=branch, repo_type=kind, exist_ok=True)
        options = {"repo_type": kind, "revision": branch, "create_pr": create_pr}
        return str(api.create_commit(id, sent, commit_message=message, **options).commit_url)
