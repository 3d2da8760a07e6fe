"""Trust in plugin files: no code of a file runs before the user has allowed it once.

Files of ``./scorers`` and of folders that environment variables list may have come with a download.
Built-in plugins, and entry points of packages that the user has installed, need no permission. A
file that the user trusts is remembered in ``trust.json`` in the user's configuration folder: by the
SHA-256 of its content, or, for a file that its author edits, by its path.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.plugins.kinds import BUILT_IN, Plugin
from mmkgc_cli.state import home
from mmkgc_cli.state.atomic import make_folder, read_json, storage_errors, write_json
from mmkgc_cli.state.locks import Lock, try_lock
from mmkgc_cli.state.notices import notify

# "1" allows every file; otherwise SHA-256 digests, separated by commas, that are allowed.
VARIABLE = "MMKGC_TRUST_PLUGINS"
FORMAT_VERSION = 1
LOCK_SECONDS = 10.0

_announced: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Trusted:
    """A trusted file: `sha256` of the trusted content, empty for a path that may be edited."""

    file: str
    sha256: str = ""


def require_trust(noun: str, plugin: Plugin, source: bytes) -> None:
    """Checks that a plugin may run, and announces its file once per process.

    Args:
        noun: kind of the plugin, for messages.
        plugin: the plugin that is about to be imported.
        source: the bytes that will be compiled; empty for a module of a package.

    Raises:
        DataError: for a file that is not trusted.
    """
    if plugin.origin == BUILT_IN:
        return
    digest = hashlib.sha256(source).hexdigest()
    if not plugin.module and not _is_trusted(plugin, digest):
        raise refusal(noun, plugin)
    if (str(plugin.file), digest) not in _announced:
        _announced.add((str(plugin.file), digest))
        notify(f"uses the {noun} {plugin.name!r} of {plugin.where} ({plugin.origin})")


def untrusted(plugins: Iterable[tuple[str, Plugin]]) -> list[str]:
    """One line for each plugin, given with the noun of its kind, that is not trusted."""
    return [
        str(refusal(noun, plugin))
        for noun, plugin in plugins
        if plugin.origin != BUILT_IN and not plugin.module
        if not _is_trusted(plugin, plugin.sha256())
    ]


def refusal(noun: str, plugin: Plugin) -> DataError:
    """The error for a plugin that is not trusted."""
    return DataError(
        f"{plugin.where}: the code of this {noun} is not trusted and was not run",
        fix=f"read the file, then type: mmkgc plugins trust {shlex.quote(str(plugin.where))}",
    )


def _is_trusted(plugin: Plugin, digest: str) -> bool:
    allowed = os.environ.get(VARIABLE, "")
    if allowed == "1" or digest in allowed.split(","):
        return True
    path = os.path.realpath(str(plugin.file))
    return any(
        entry.sha256 == digest if entry.sha256 else entry.file == path for entry in trusted_files()
    )


def allow_all() -> None:
    """Allows every plugin in this process and in its children."""
    os.environ[VARIABLE] = "1"


def allow_in_children(plugins: Iterable[Plugin]) -> None:
    """Lets child processes run the present contents of `plugins` without a look at ``trust.json``.

    A child refuses a file that was edited in the meantime, unless its path is trusted.
    """
    if os.environ.get(VARIABLE) != "1":
        digests = {plugin.sha256() for plugin in plugins if plugin.origin != BUILT_IN}
        known = set(filter(None, os.environ.get(VARIABLE, "").split(",")))
        if digests | known:
            os.environ[VARIABLE] = ",".join(sorted(digests | known))


def record_file() -> Path:
    """The file that remembers what is trusted."""
    return home.config_folder() / "trust.json"


def trusted_files() -> list[Trusted]:
    """All trusted files, in the order in which they were added.

    Raises:
        DataError: when ``trust.json`` is damaged.
    """
    path = record_file()
    if not path.is_file():
        return []
    content: Any = read_json(path)
    try:
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError
        entries = [Trusted(str(row["file"]), str(row["sha256"])) for row in content["files"]]
    except (TypeError, KeyError, ValueError):
        raise DataError(
            f"{path}: not a list of trusted files of format version {FORMAT_VERSION}",
            fix="remove the file, and trust your plugins again",
        ) from None
    return entries


def trust(files: Iterable[Path], *, edits: bool = False) -> list[Trusted]:
    """Remembers files as trusted; returns the new entries.

    Args:
        files: plugin files.
        edits: also trust what is written to these paths later.

    Raises:
        DataError: when a file cannot be read.
    """
    entries = [Trusted(os.path.realpath(file), "" if edits else _digest(file)) for file in files]
    with _locked():
        known = trusted_files()
        new = [entry for entry in dict.fromkeys(entries) if entry not in known]
        if new:
            _write([*known, *new])
    return new


def keep_version(plugin: Plugin) -> None:
    """Remembers the present content of a file that is trusted by its path.

    A run that was trained with it stays usable when the file is put back later.
    """
    if plugin.origin == BUILT_IN or plugin.module or plugin.file is None:
        return
    path = os.path.realpath(plugin.file)
    if any(entry.file == path and not entry.sha256 for entry in trusted_files()):
        trust([plugin.file])


def revoke(names: Iterable[str]) -> list[Trusted]:
    """Forgets entries by path, or by the first 8 or more digits of a SHA-256; returns them.

    Raises:
        DataError: when a name matches no entry.
    """
    removed: list[Trusted] = []
    with _locked():
        entries = trusted_files()
        for name in names:
            path = os.path.realpath(name)
            matches = [
                entry
                for entry in entries
                if entry.file == path or (len(name) >= 8 and entry.sha256.startswith(name))
            ]
            if not matches:
                raise DataError(
                    f"{name}: is not trusted", fix="list the trusted files: mmkgc plugins list"
                )
            removed += matches
        _write([entry for entry in entries if entry not in removed])
    return removed


def _write(entries: list[Trusted]) -> None:
    rows = [asdict(entry) for entry in entries]
    write_json(record_file(), {"format_version": FORMAT_VERSION, "files": rows})
    with storage_errors(record_file()):
        record_file().chmod(0o600)


def _digest(file: Path) -> str:
    return Plugin(file.stem, str(file.parent), file.absolute()).sha256()


@contextlib.contextmanager
def _locked() -> Iterator[Lock]:
    path = record_file().with_suffix(".lock")
    make_folder(path.parent)
    end = time.monotonic() + LOCK_SECONDS
    while (lock := try_lock(path)) is None:
        if time.monotonic() > end:
            raise DataError(f"{path}: is locked by another process", fix="try again later")
        time.sleep(0.05)
    with lock:
        yield lock
