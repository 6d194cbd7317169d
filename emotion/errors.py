"""The one exception for anything a user can mend: the message says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """Bad input, file or option. Command lines print it and exit with 2, the page shows it."""


def listed(things: Sequence[object], most: int = 5) -> str:
    """The first few of them for a message, with dots where there are more."""
    return ", ".join(map(str, things[:most])) + (" ..." if len(things) > most else "")
