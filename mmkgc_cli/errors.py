"""Errors that a user can act on: one line each, with the exit code of the command.

Every message says what is wrong, where, what was expected, what came and what to do about it,
as far as that is known. `commands` prints them without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MmkgcError(Exception):
    """Something that ends a command with one line. `exit_code` is 1: a plain failure."""

    exit_code = 1


class UsageError(MmkgcError):
    """The command line asks for something that makes no sense. Exit code 2."""

    exit_code = 2


class DataError(MmkgcError):
    """A file, a setting or the storage cannot be used as it is. Exit code 3."""

    exit_code = 3


class Interrupted(MmkgcError):
    """The user or the system asked to stop; what was finished is saved. Exit code 128 + signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory, of the machine or of a GPU."""
    said = str(error)
    return (
        isinstance(error, MemoryError)
        or "can't allocate memory" in said
        or said.startswith("CUDA out of memory")
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The advice for a registry miss: the nearest known name, or all of them.

    Returns a phrase to append to a message, such as ``did you mean 'epochs'?``.
    """
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if match:
        return f"did you mean {match[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"
