"""Our own files of arrays: .npz with a `head` in JSON, nothing pickled."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from emotion.errors import UserError
from eval.results import replace_file

DAMAGED = (ValueError, LookupError, TypeError, AttributeError)  # what odd content of a sound archive raises


def write_arrays(head: dict[str, Any], arrays: dict[str, np.ndarray], path: Path) -> None:
    """A compressed .npz file of arrays and `head`, anything that JSON can hold."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, head=np.array(json.dumps(head)), **arrays)
    replace_file(path, buffer.getvalue())


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_arrays` wrote; nothing is unpickled.

    Raises:
        UserError: unreadable, cut short or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(str(arrays.pop("head"))), arrays
    except Exception as error:  # damaged archives meet their reader with any exception type
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> UserError:
    """What to say of a damaged .npz file."""
    return UserError(f"cannot read {path}: {error}; is it complete, and written by `python -m eval run`?")
