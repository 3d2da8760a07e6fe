"""What a kind of plugin is, and a plugin that was found."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from mmkgc_cli.errors import DataError

T = TypeVar("T")
BUILT_IN = "built in"


@dataclass(frozen=True)
class Complaint:
    """What is wrong with a class: which member, what was expected and what is there."""

    member: str
    text: str


@dataclass(frozen=True)
class PluginKind(Generic[T]):
    """What plugins of one kind are called, where they are looked for, and what they must be.

    `base` and `check` are functions, so that what they need is imported only for loading a plugin.
    """

    noun: str
    package: str  # of the built-in ones
    group: str  # of entry points
    folder: str  # in the working directory
    variable: str  # more folders, separated as in PATH
    attribute: str  # of the module, which holds the class
    base: Callable[[], type[T]]
    check: Callable[[type[T]], Complaint | None]


@dataclass(frozen=True)
class Plugin:
    """A plugin that was found, not imported yet."""

    name: str
    origin: str
    file: Path | None  # absolute; None where an entry point leads nowhere
    module: str = ""  # to import by; empty for a file that belongs to no package
    attribute: str = ""

    @property
    def where(self) -> str:
        """The file as a message names it: from the working directory where it is in there."""
        if self.file is None:
            return f"{self.origin}: {self.module}"
        with contextlib.suppress(ValueError, OSError):
            return str(self.file.relative_to(Path.cwd()))
        return str(self.file)

    def sha256(self) -> str:
        """Of the file; empty where there is none.

        Raises:
            DataError: when it cannot be read.
        """
        return hashlib.sha256(self.read()).hexdigest() if self.file else ""

    def read(self) -> bytes:
        """What is in the file, which there must be.

        Raises:
            DataError: when it cannot be read.
        """
        assert self.file is not None
        try:
            return self.file.read_bytes()
        except OSError as error:
            raise DataError(f"{self.where}: cannot be read: {error.strerror}") from error
