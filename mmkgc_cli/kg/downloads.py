"""Downloads from several mirrors, with resumption, SHA-256 checksums and a cache.

pooch manages the cache and compares checksums. This module provides its downloader, which resumes
interrupted downloads.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from mmkgc_cli.errors import DataError, MmkgcError, UsageError
from mmkgc_cli.state import interrupts
from mmkgc_cli.state.atomic import make_folder, storage_errors

if TYPE_CHECKING:
    import requests

OFFLINE = "MMKGC_OFFLINE"
_SLOWEST = 1024  # bytes that must arrive within the timeout
_RESERVE = 64 << 20  # bytes to leave free on the disk
_SIZE = re.compile("[0-9]{1,18}")
_CONTENT_RANGE = re.compile("bytes (?P<first>[0-9]{1,18})-[0-9]{1,18}/(?P<total>[0-9]{1,18}|[*])")
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}>\s*)?<(?:!doctype html|html|head)\b", re.IGNORECASE
)
# Partial files that this process has locked.
_held: set[Path] = set()
_PARTIAL = re.compile(r"[.].*[.]part(?P<pid>-[0-9]+)?(?:[.]from)?")

MAX_BYTES = 64 << 30
MAX_SECONDS = 24 * 3600.0

_FIX_URL = "pass the path or the https address of a file or an archive"

# Name of the file, bytes received, total bytes (None when the server does not announce them).
Progress = Callable[[str, int, int | None], None]


def is_url(source: str) -> bool:
    """Whether a source is a URL and not a path."""
    return "://" in source


def file_name(url: str) -> str:
    """The file name in a URL.

    Raises:
        UsageError: when it contains none, or the scheme is neither http nor https.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"--source {url}: {error}", fix=_FIX_URL) from None
    name = PurePosixPath(unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(
            f"--source {url}: expected a path, or an http or https address", fix=_FIX_URL
        )
    if not name or name in (".", "..") or not name.isprintable() or set(name) & set('\\/:*?"<>|'):
        raise UsageError(f"--source {url}: the address contains no file name", fix=_FIX_URL)
    return name


def public(url: str) -> str:
    """A URL without its user, password and query, which may be secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Unavailable(MmkgcError):
    """A file could not be downloaded from any address."""


@dataclass(frozen=True)
class Cache:
    """A folder of downloaded files.

    Args:
        folder: the folder with the files.
        offline: use the files in the folder and download nothing.
        timeout: seconds without a response, or with fewer than 1,024 bytes, after which an attempt
            fails.
        attempts: number of attempts per address, with pauses of 1, 2, 4 ... times `pause` seconds.
        progress: called during a download.
        max_bytes: size of a file above which its download is stopped and removed.
        max_seconds: time for a file, with all attempts and addresses; a later run resumes the
            download.
        reserve: bytes to leave free on the disk.
    """

    folder: Path
    offline: bool = False
    timeout: float = 30.0
    attempts: int = 4
    pause: float = 1.0
    progress: Progress | None = None
    max_bytes: int = MAX_BYTES
    max_seconds: float = MAX_SECONDS
    reserve: int = _RESERVE

    def fetch(self, urls: Sequence[str], name: str, sha256: str | None) -> Path:
        """Downloads the file `name` from the first address that works; returns its path.

        A cached file with the checksum `sha256` is used instead. Without `sha256`, a cached file is
        used only when offline, because the file at the address may have changed.

        Raises:
            Unavailable: when every address fails, or when offline and the file is not cached.
            DataError: when the downloaded file has another checksum, or it cannot be written.
        """
        path = self.folder / name
        expected = None if sha256 is None else sha256.casefold()
        if path.is_file() and (self.offline if expected is None else sha256_of(path) == expected):
            return path
        if self.offline:
            state = "has another checksum" if path.is_file() else "no such file"
            raise Unavailable(
                f"{path}: {state}, and downloads are off (--offline or {OFFLINE})",
                fix=f"run once without --offline, or put the file there from {public(urls[0])}",
            )
        from mmkgc_cli.kg.transport import Failed

        make_folder(self.folder)
        partial = path.with_name(f".{path.name}.part")
        remove_abandoned(self.folder)
        deadline = time.monotonic() + self.max_seconds
        reasons: list[str] = []
        mismatch = False

        for url in urls:
            try:
                self._download(url, path, expected, partial, deadline)
                return path
            except Failed as error:
                mismatch |= error.mismatch
                reasons.append(f"{public(url)}: {error}")
            if time.monotonic() > deadline:
                break
        problem = f"{name}: cannot be downloaded from {'; '.join(reasons)}"
        if mismatch and len(reasons) == 1:
            raise DataError(problem, fix="check the address and the expected checksum")
        fix = "check the network and the address, and run the command again"
        if partial.is_file():
            size = partial.stat().st_size
            fix += f" to resume the download (its first {size:,} bytes are in {partial})"
        raise Unavailable(problem, fix=fix)

    def _download(
        self, url: str, path: Path, sha256: str | None, partial: Path, deadline: float
    ) -> None:
        """Downloads from one address; starts over when a resumed file has another checksum.

        Raises:
            Failed: with the reason.
        """
        import pooch

        from mmkgc_cli.kg.transport import Failed, server_text

        pooch.get_logger().setLevel(logging.WARNING)
        downloader = _Resuming(self, path.name, partial, deadline, verified=sha256 is not None)
        # Without a checksum, pooch would never replace an existing file.
        name = path.name if sha256 else f".{path.name}.new"
        for fresh in (False, True):
            try:
                with storage_errors(path):
                    (self.folder / f".{path.name}.new").unlink(missing_ok=True)
                    file = pooch.retrieve(
                        url, sha256, fname=name, path=self.folder, downloader=downloader
                    )
                    Path(file).replace(path)
                return
            except ValueError:  # pooch raises it for another checksum
                if not fresh and downloader.resumed:
                    # The first bytes may come from another version of the file.
                    continue
                reason = f"its SHA-256 is not {str(sha256)[:12]}…"
                if downloader.encoding.casefold() != "identity":
                    encoding = server_text(downloader.encoding)
                    reason += f"; the server sent it with Content-Encoding {encoding}"
                raise Failed(reason, retry=False, mismatch=True) from None


class _Resuming:
    """A downloader for pooch that stores received bytes in `partial` and requests the rest."""

    def __init__(
        self, cache: Cache, name: str, partial: Path, deadline: float, *, verified: bool
    ) -> None:
        self._cache = cache
        self._name = name
        self._partial = partial
        self._deadline = deadline
        self._verified = verified  # by a checksum
        self.resumed = False
        self.encoding = ""

    def __call__(self, url: str, output_file: Any, _: Any) -> None:
        from mmkgc_cli.kg.transport import Failed

        self.resumed = False
        for attempt in range(self._cache.attempts):
            try:
                # Another process may have renamed the file since the last attempt.
                with _locked(self._partial) as partial:
                    self._attempt(url, partial)
                    self._require_file(partial)
                    partial.replace(output_file)
                    _validator(partial).unlink(missing_ok=True)
                return
            except Failed as error:
                if error.retry and time.monotonic() + 0.01 > self._deadline:
                    raise Failed(self._out_of_time(), retry=False) from None
                if not error.retry or attempt == self._cache.attempts - 1:
                    raise
                pause = self._cache.pause * 2**attempt
                if time.monotonic() + pause >= self._deadline:
                    raise
                time.sleep(pause)

    def _attempt(self, url: str, partial: Path) -> None:
        from mmkgc_cli.kg.transport import opened

        headers = {}
        start = partial.stat().st_size if partial.is_file() else 0
        tag = _read_validator(partial, url)
        if start and tag is not None:
            headers = {"Range": f"bytes={start}-", "If-Range": tag}
        else:
            start = 0
        try:
            with opened(url, headers, self._cache.timeout, self._deadline) as response:
                self._receive(response, url, partial, start)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                _discard(partial)
            raise

    def _receive(self, response: requests.Response, url: str, partial: Path, start: int) -> None:
        """Writes the content of a response, from byte `start` of the file when it has that range.

        Raises:
            Failed: when the content is incomplete, too slow or too large.
        """
        from mmkgc_cli.kg.transport import Failed, chunks, server_text

        code = response.status_code
        if code == 416:  # the file ends before `start`, so the partial file is not a part of it
            _discard(partial)
            raise Failed("the server cannot resume the download", retry=start > 0)
        content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        resumes = start > 0 and code == 206
        if code == 206 and (
            not start or content_range is None or int(content_range["first"]) != start
        ):
            _discard(partial)
            raise Failed("the server sent another byte range than requested", retry=start > 0)
        self.resumed |= resumes
        self.encoding = response.headers.get("Content-Encoding") or "identity"
        # Many servers declare files like triples.tsv.gz as encoded although they send them as is.
        is_packed = self._name.casefold().endswith((".gz", ".tgz", ".bz2", ".xz"))
        if self.encoding.casefold() != "identity" and not self._verified and not is_packed:
            raise Failed(
                f"the server sent it with Content-Encoding {server_text(self.encoding)}, which was "
                "not asked for",
                retry=False,
            )
        received = start if resumes else 0
        total = None
        if resumes and content_range is not None and content_range["total"] != "*":
            total = int(content_range["total"])
        elif _SIZE.fullmatch(length := response.headers.get("Content-Length", "")):
            total = received + int(length)
        room = shutil.disk_usage(partial.parent).free - self._cache.reserve + received
        self._require_room(partial, max(received, total or 0), room)
        _write_validator(partial, url, response.headers)
        window_start, window_bytes = time.monotonic(), 0
        with partial.open("ab" if resumes else "wb") as file:
            for chunk in chunks(response):
                self._require_room(partial, received + len(chunk), room)
                file.write(chunk)
                received += len(chunk)
                if time.monotonic() > self._deadline:
                    raise Failed(self._out_of_time(), retry=False)
                window_bytes += len(chunk)
                if self._cache.progress:
                    self._cache.progress(self._name, received, total)
                if time.monotonic() - window_start > self._cache.timeout:
                    if window_bytes < _SLOWEST:
                        seconds = f"{self._cache.timeout:g} s"
                        raise Failed(f"too slow: {window_bytes} bytes in {seconds}", retry=True)
                    window_start, window_bytes = time.monotonic(), 0
        if total is not None and received != total:
            raise Failed(f"received {received} of {total} bytes", retry=True)

    def _out_of_time(self) -> str:
        return f"not complete in {self._cache.max_seconds:g} s (--max-seconds)"

    def _require_file(self, partial: Path) -> None:
        """Removes a web page that was sent instead of the file.

        Raises:
            Failed: when it was one.
        """
        from mmkgc_cli.kg.transport import Failed

        if self._name.casefold().endswith((".html", ".htm")):
            return
        with partial.open("rb") as file:
            is_page = _PAGE.match(file.read(512))
        if is_page:
            _discard(partial)
            raise Failed("the server returned a web page instead of the file", retry=False)

    def _require_room(self, partial: Path, size: int, room: int) -> None:
        """Removes the partial file when a download of `size` bytes exceeds a limit.

        Raises:
            Failed: when it does.
        """
        from mmkgc_cli.kg.transport import Failed

        if size <= min(self._cache.max_bytes, room):
            return
        _discard(partial)
        if size > self._cache.max_bytes:
            raise Failed(
                f"larger than the limit of {self._cache.max_bytes:,} bytes (--max-bytes)",
                retry=False,
            )
        raise Failed(
            f"{size:,} bytes or more, but the disk of {partial.parent} has room for "
            f"{max(0, room):,}",
            retry=False,
        )


def _remove_empty_files() -> None:
    """Removes locked files without content when a signal ends the process."""
    for partial in list(_held):
        with contextlib.suppress(OSError):
            if not partial.stat().st_size:
                partial.unlink()


interrupts.cleanups.append(_remove_empty_files)


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[Path]:
    """Locks `partial` for this process; yields another name while another process has the lock."""
    try:
        import fcntl
    except ImportError:  # this system has no such locks
        yield partial
        return
    with partial.open("ab") as file:
        _held.add(partial)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have finished and renamed the file in the meantime.
            acquired = os.path.samestat(os.fstat(file.fileno()), partial.stat())
        except OSError:
            acquired = False
        path = partial if acquired else partial.with_name(f"{partial.name}-{os.getpid()}")
        try:
            yield path
        finally:
            if not acquired or (path.is_file() and not path.stat().st_size):
                path.unlink(missing_ok=True)
                _validator(path).unlink(missing_ok=True)
            _held.discard(partial)


def _discard(partial: Path) -> None:
    """Removes a partial file that cannot be resumed, to free the disk."""
    partial.unlink(missing_ok=True)
    _validator(partial).unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Removes partial files in a folder and its subfolders that nothing has written for 30 days.

    Those of processes that did not have the lock cannot be resumed; one day is enough for them.
    """
    now = time.time()
    for path in list(folder.rglob(".*.part*")):
        if match := _PARTIAL.fullmatch(path.name):
            age = 24 * 3600.0 * (1 if match["pid"] else 30)
            with contextlib.suppress(OSError):
                if now - path.lstat().st_mtime > age:
                    path.unlink()


def _validator(partial: Path) -> Path:
    """The file that records the address and the version of a partial file."""
    return partial.with_name(partial.name + ".from")


def _write_validator(partial: Path, url: str, headers: Any) -> None:
    tag = headers.get("ETag", "")
    # A weak tag does not guarantee equal bytes; without a strong one nothing can be resumed.
    version = tag if tag.startswith('"') else headers.get("Last-Modified", "")
    if not (version.isascii() and version.isprintable()):
        version = ""
    _validator(partial).write_text(f"{_identity(url)}\n{version}\n", encoding="utf-8")


def _identity(url: str) -> str:
    """A hash of a URL, which may contain a password."""
    return hashlib.sha256(url.encode()).hexdigest()


def _read_validator(partial: Path, url: str) -> str | None:
    try:
        lines = _validator(partial).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return lines[1] if len(lines) > 1 and lines[0] == _identity(url) and lines[1] else None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}", fix="check the permissions of the file"
        ) from error
