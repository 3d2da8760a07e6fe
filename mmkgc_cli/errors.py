"""Errors that a user can act on: one line each, with the exit code of the command.

Every error has three parts: where (FILE:LINE, a flag or a setting), what was expected and what
came, and, as `fix`, what to type next. `commands` prints them without a traceback.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from typing import Self

from mmkgc_cli.text import printable

LONGEST = 4000  # characters of a problem; the middle of a longer one is left out


class MmkgcError(Exception):
    """An error that ends a command with one line and `exit_code`."""

    exit_code = 1

    def __init__(self, problem: str, *, fix: str = "") -> None:
        """Joins `problem` (where and why) and `fix` (an imperative) to one line."""
        # A name of a file or a server must not look like another line, nor fill the screen.
        if len(problem) > LONGEST:
            problem = f"{problem[: LONGEST // 2]} … {problem[-LONGEST // 2 :]}"
        super().__init__(printable(f"{problem}; {fix}" if fix else problem))

    @classmethod
    def joined(cls, problems: Iterable[object]) -> Self:
        """One error for several problems, one line each; every line contains its own fix."""
        error = cls("")
        error.args = ("\n".join(printable(str(problem), keep="\n") for problem in problems),)
        return error


class UsageError(MmkgcError):
    """The command line is invalid. Exit code 2."""

    exit_code = 2


class DataError(MmkgcError):
    """A file, a setting or the storage cannot be used. Exit code 3."""

    exit_code = 3


class Interrupted(MmkgcError):
    """A signal ended the command after it saved its work. Exit code 128 + signal."""

    def __init__(self, problem: str, signal_number: int, *, fix: str = "") -> None:
        super().__init__(problem, fix=fix)
        self.exit_code = 128 + signal_number


# Parts of messages about memory of torch, CUDA, C++, HDF5, numpy and the dynamic linker.
_OUT_OF_MEMORY = re.compile(
    "can't allocate memory|cannot allocate memory|not enough memory|out of memory"
    "|unable to allocate|memory allocation failed|bad_alloc|ALLOC_FAILED"
    "|failed to map segment|can't start new thread"
    # Sizes beyond the address space.
    "|storage size calculation overflowed|integer multiplication overflow|array is too big"
    "|maximum allowed dimension exceeded",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the CPU or on a GPU.

    Native code reports a failed allocation as `SystemError` too: with the `MemoryError` behind it,
    or without any if none could be allocated.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if isinstance(error, SystemError):
        behind = error.__cause__ or error.__context__
        return is_out_of_memory(behind) if behind else "without" in str(error)
    return isinstance(error, (RuntimeError, ValueError, OSError, ImportError)) and bool(
        _OUT_OF_MEMORY.search(str(error))
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The fix for an unknown name: the nearest known name, or all known names.

    Returns a phrase such as ``did you mean 'epochs'?``.
    """
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if match:
        return f"did you mean {match[0]!r}?"
    return f"known: {', '.join(names)}" if names else "leave it out: none is known"
