"""Command lines and environments of child processes: they import nothing by accident.

Without ``-P``, ``python -m`` and ``python -c`` import modules from the working directory before
those of the standard library, and so would run a ``random.py`` that came with a download.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mmkgc_cli

SAFE = "PYTHONSAFEPATH"


def python(*arguments: str) -> list[str]:
    """The command line ``python -P ARGUMENTS`` of this interpreter."""
    return [sys.executable, "-P", *arguments]


def isolated(*arguments: str) -> list[str]:
    """As `python`, also without environment variables of Python and packages of the user."""
    return python("-I", *arguments)


def mmkgc(*arguments: str) -> list[str]:
    """The command line of ``mmkgc ARGUMENTS``."""
    return python("-m", "mmkgc_cli", *arguments)


def environment() -> dict[str, str]:
    """The environment of a child: this one, with a safe search path for modules.

    Empty and relative entries of ``PYTHONPATH`` would stand for the working directory, or lie in
    it. A package that is run from the working directory is added by its path, as -P hides it.
    """
    root = str(Path(mmkgc_cli.__file__).resolve().parent.parent)
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [entry for entry in entries if entry and Path(entry).is_absolute()]
    if root == str(Path.cwd()) and root not in paths:
        paths.insert(0, root)
    rest = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return rest | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {}) | {SAFE: "1"}


def program(name: str) -> str | None:
    """The absolute path of a program of the system; None where it is not installed.

    Empty and relative entries of ``PATH``, and the working directory, which Windows searches first,
    do not count.
    """
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    absolute = os.pathsep.join(entry for entry in entries if Path(entry).is_absolute())
    found = shutil.which(name, path=absolute) if absolute else None
    return found if found and Path(found).is_absolute() else None


def git(root: Path, *arguments: str) -> tuple[list[str], dict[str, str]] | None:
    """Command line and environment of git in the checkout `root`; None where git is not installed.

    Variables such as ``GIT_DIR`` would lead to another repository, and settings of a repository may
    name programs that git starts.
    """
    executable = program("git")
    if executable is None:
        return None
    safe = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
    variables = {key: value for key, value in environment().items() if not key.startswith("GIT_")}
    variables |= {"GIT_CEILING_DIRECTORIES": str(root.parent), "GIT_OPTIONAL_LOCKS": "0"}
    return [executable, *safe, "-C", str(root), *arguments], variables


@contextlib.contextmanager
def inherited_environment() -> Iterator[None]:
    """Within the block, libraries that start children themselves pass them `environment`."""
    before = dict(os.environ)
    os.environ.update(environment())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
