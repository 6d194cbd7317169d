"""What can go wrong between here and a Hub, told in one line."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from emotion.errors import UserError

if TYPE_CHECKING:
    from emotion.remote import Repo

NO_HUB = "the answer is not that of a Hub; check HF_ENDPOINT, and whether this network asks for a log-in"
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
ANSWERS = {
    401: f"the token is not accepted; {LOG_IN}",
    403: f"access is refused; {LOG_IN}, with a token that may do this",
    416: "the server cannot go on with a download that broke off; try again",
    429: "too many requests; wait some minutes and try again",
}
FULL = (errno.ENOSPC, errno.EDQUOT)


class NoHub(Exception):
    """An answer without sense."""


@contextmanager
def sensible() -> Iterator[None]:
    """For reading answers: those that the client stumbles over are no Hub's.

    Raises:
        NoHub: the answer is JSON, and something else than was asked for.
    """
    try:
        yield
    except (TypeError, KeyError, IndexError, AttributeError, AssertionError, RecursionError) as error:
        raise NoHub from error


@contextmanager
def explained(action: str, place: Repo) -> Iterator[None]:
    """The one place that turns what can go wrong between here and a Hub into a message.

    Raises:
        UserError: what was wanted, where it was looked for, why it failed, and how to go on.
    """
    from huggingface_hub import constants, errors

    failures = (OSError, ValueError, RuntimeError, errors.HTTPError, errors.EntryNotFoundError)
    try:
        yield
    except UserError:
        raise
    except (*failures, NoHub, errors.RevisionResolutionError, errors.XetDownloadError) as error:
        reason = "".join(c for c in _reason(error, place) if c.isprintable())  # it may quote the server
        raise UserError(f"cannot {action} {place} ({constants.ENDPOINT}): {reason}") from error


def _reason(error: Exception, place: Repo) -> str:
    """Why, and what to do. What a library raises often only wraps the cause."""
    from huggingface_hub import constants, errors

    chain = list(_causes(error))
    cache = f"the cache {constants.HF_HUB_CACHE}"
    if any(isinstance(e, OSError) and e.errno in FULL for e in chain):
        return f"the disk is full; free some space, or set HF_HOME to move {cache} to another disk"
    if isinstance(error, errors.HFValidationError):
        return "this is no name of a repository; write OWNER/NAME"
    if isinstance(error, (NoHub, json.JSONDecodeError)):
        return NO_HUB
    if isinstance(error, ValueError) and not isinstance(error, errors.HTTPError):
        return " ".join(str(error).split())
    for answer in chain:
        if isinstance(answer, errors.HfHubHTTPError):
            return _answer(answer, place)
    if constants.is_offline_mode():
        return f"HF_HUB_OFFLINE is set and it is not in {cache}; unset it once to go online"
    if "Consistency check failed" in str(error):
        return "the download broke off; try again"
    if broken := [e for e in chain if isinstance(e, errors.HTTPError)]:
        return f"no connection ({broken[-1]}); check the network and HF_ENDPOINT, nothing usable is in {cache}"
    if isinstance(error, (errors.EntryNotFoundError, errors.RevisionResolutionError)):
        return f"it is not in {cache}, and no other place was asked"
    if isinstance(error, OSError):
        return f"{error}; HF_HOME chooses another folder than {cache}"
    return " ".join(str(error).split()) or type(error).__name__


def _answer(error: Any, place: Repo) -> str:
    """What a Hub's refusal means."""
    from huggingface_hub import errors

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return f"access must be asked for on its page; then {LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such repository, or it is private: check the name, or {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {place.revision or 'main'} (any more); name another after @"
    if isinstance(error, errors.EntryNotFoundError):
        return "a file is missing there; it holds no complete checkpoint of this package"
    if status >= 500:
        return f"the server has a problem of its own (HTTP {status}); try again later"
    return ANSWERS.get(status, f"HTTP {status}: {error.server_message or ' '.join(str(error).split())}"[:300])


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
