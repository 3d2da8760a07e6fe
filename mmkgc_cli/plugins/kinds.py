"""Kinds of plugins (scorers, samplers), and a plugin file that was found."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, cast

from mmkgc_cli.errors import DataError

T = TypeVar("T")
BUILT_IN = "built in"


@dataclass(frozen=True)
class Complaint:
    """What is wrong with a class: the member, what was expected and what came, and the fix."""

    member: str
    text: str
    fix: str


@dataclass(frozen=True)
class PluginKind(Generic[T]):
    """One kind of plugin: its noun, where files are searched, and what a class must define.

    The base class is named, not imported, since it needs torch: listing plugins does not.
    """

    noun: str
    package: str  # of the built-in ones
    group: str  # of entry points
    folder: str  # in the working directory
    variable: str  # lists more folders, separated as in PATH
    attribute: str  # of the module; names the class
    base: str  # MODULE:CLASS; its attribute `Config` is the base of settings
    # Positional arguments (without self) of the methods that mmkgc calls.
    calls: Mapping[str, tuple[str, ...]]
    # What this kind checks in addition: class and base class.
    check: Callable[[type[T], type[T]], Complaint | None]

    def base_class(self) -> type[T]:
        """Imports the base class."""
        module, _, name = self.base.partition(":")
        return cast("type[T]", getattr(importlib.import_module(module), name))


@dataclass(frozen=True)
class Plugin:
    """A plugin that was found; it may not be imported yet."""

    name: str
    origin: str
    file: Path | None  # absolute; None for an entry point without a module
    module: str = ""  # dotted name; empty for a file that belongs to no package
    attribute: str = ""

    @property
    def where(self) -> str:
        """The file for messages, relative to the working directory where possible."""
        if self.file is None:
            return f"{self.origin}: {self.module}"
        with contextlib.suppress(ValueError, OSError):
            return str(self.file.relative_to(Path.cwd()))
        return str(self.file)

    def sha256(self) -> str:
        """The SHA-256 of the file; empty without a file.

        Raises:
            DataError: when the file cannot be read.
        """
        return hashlib.sha256(self.read()).hexdigest() if self.file else ""

    def read(self) -> bytes:
        """The bytes of the file, which must not be None.

        Raises:
            DataError: when the file cannot be read.
        """
        assert self.file is not None
        try:
            return self.file.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{self.where}: no such file", fix="check the path") from None
        except OSError as error:
            raise DataError(
                f"{self.where}: cannot be read: {error.strerror}",
                fix=f"make it readable: chmod u+r {self.where}",
            ) from error
