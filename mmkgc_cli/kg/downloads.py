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
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from mmkgc_cli import __version__
from mmkgc_cli.errors import DataError, MmkgcError, UsageError
from mmkgc_cli.state.atomic import make_folder, storage_errors

if TYPE_CHECKING:
    import requests

HOME = "MMKGC_HOME"
OFFLINE = "MMKGC_OFFLINE"
_CHUNK = 1 << 16
_SLOWEST = 1024  # bytes that must arrive within the timeout
_RESERVE = 64 << 20  # bytes to leave free on the disk
_REDIRECTS = (301, 302, 303, 307, 308)
_RETRY = (408, 425, 429, 500, 502, 503, 504)

_FIX_URL = "pass the path or the https address of a file or an archive"

# Name of the file, bytes received, total bytes (None when the server does not announce them).
Progress = Callable[[str, int, int | None], None]


def home() -> Path:
    """The folder for caches: ``MMKGC_HOME``, or the user's cache folder of the system."""
    import platformdirs

    folder = os.environ.get(HOME)
    if not folder:
        return platformdirs.user_cache_path("mmkgc")
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{HOME}={folder}: {error}", fix=f"set {HOME} to the path of a folder"
        ) from None


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


class _Failed(Exception):
    """One attempt failed; `retry` says whether another one at the same address may succeed."""

    def __init__(self, reason: str, *, retry: bool, mismatch: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry
        self.mismatch = mismatch  # the downloaded file has another checksum


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
        max_seconds: time for the content of one attempt; a later run resumes the download.
        reserve: bytes to leave free on the disk.
    """

    folder: Path
    offline: bool = False
    timeout: float = 30.0
    attempts: int = 4
    pause: float = 1.0
    progress: Progress | None = None
    max_bytes: int = 64 << 30
    max_seconds: float = 24 * 3600.0
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
        make_folder(self.folder)
        partial = path.with_name(f".{path.name}.part")
        reasons: list[str] = []
        mismatch = False
        for url in urls:
            try:
                self._download(url, path, expected, partial)
                return path
            except _Failed as error:
                mismatch |= error.mismatch
                reasons.append(f"{public(url)}: {error}")
        problem = f"{name}: cannot be downloaded from {'; '.join(reasons)}"
        if mismatch and len(reasons) == 1:
            raise DataError(problem, fix="check the address and the expected checksum")
        fix = "check the network and the address, and run the command again"
        raise Unavailable(
            problem, fix=f"{fix} to resume the download" if partial.is_file() else fix
        )

    def _download(self, url: str, path: Path, sha256: str | None, partial: Path) -> None:
        """Downloads from one address; starts over when a resumed file has another checksum.

        Raises:
            _Failed: with the reason.
        """
        import pooch

        pooch.get_logger().setLevel(logging.WARNING)
        downloader = _Resuming(self, path.name, partial)
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
                if fresh or not downloader.resumed:
                    raise _Failed(
                        f"its SHA-256 is not {str(sha256)[:12]}…", retry=False, mismatch=True
                    ) from None
                # The first bytes may come from another version of the file.


class _Resuming:
    """A downloader for pooch that stores received bytes in `partial` and requests the rest."""

    def __init__(self, cache: Cache, name: str, partial: Path) -> None:
        self._cache = cache
        self._name = name
        self._partial = partial
        self.resumed = False

    def __call__(self, url: str, output_file: Any, _: Any) -> None:
        self.resumed = False
        with _locked(self._partial) as partial:
            for attempt in range(self._cache.attempts):
                try:
                    self._attempt(url, partial)
                    break
                except _Failed as error:
                    if not error.retry or attempt == self._cache.attempts - 1:
                        raise
                    time.sleep(self._cache.pause * 2**attempt)
            partial.replace(output_file)
            _validator(partial).unlink(missing_ok=True)

    def _attempt(self, url: str, partial: Path) -> None:
        import requests
        import urllib3

        # With compressed transfers, ranges and sizes would not refer to bytes of the file.
        headers = {"Accept-Encoding": "identity", "User-Agent": f"mmkgc/{__version__}"}
        start = partial.stat().st_size if partial.is_file() else 0
        tag = _read_validator(partial, url)
        if start and tag is not None:
            headers |= {"Range": f"bytes={start}-", "If-Range": tag}
        try:
            with requests.get(
                url, headers=headers, stream=True, timeout=self._cache.timeout
            ) as response:
                try:
                    self._receive(response, url, partial, start)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        _discard(partial)
                    raise
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            raise _Failed(f"no response in {self._cache.timeout:g} s", retry=True) from None
        except (
            requests.exceptions.ConnectionError,
            requests.exceptions.ChunkedEncodingError,
            urllib3.exceptions.HTTPError,
        ) as error:
            # A host name that does not resolve means no network; a retry would not help.
            unresolved = any(isinstance(inner, socket.gaierror) for inner in _chain(error))
            problem = "the host name does not resolve" if unresolved else "the connection broke"
            raise _Failed(f"{problem} ({_reason(error)})", retry=not unresolved) from None
        except requests.exceptions.TooManyRedirects:
            raise _Failed("the server redirects in a loop or too often", retry=False) from None
        except requests.exceptions.InvalidSchema:
            raise _Failed(
                "the server redirects to an address that is neither http nor https", retry=False
            ) from None
        # urllib raises a plain ValueError for some addresses, which pooch's caller would take for
        # another checksum.
        except (requests.exceptions.RequestException, ValueError) as error:
            raise _Failed(
                f"malformed address or redirect ({_reason(error)})", retry=False
            ) from None

    def _receive(self, response: requests.Response, url: str, partial: Path, start: int) -> None:
        code = response.status_code
        if code == 416:  # the file ends before `start`, so the partial file is not a part of it
            partial.unlink(missing_ok=True)
            raise _Failed("the server cannot resume the download", retry=True)
        if code in _REDIRECTS:
            raise _Failed(f"{code}, a redirect without an address", retry=False)
        if code not in (200, 206):
            raise _Failed(_printable(f"{code} {response.reason}"), retry=code in _RETRY)
        resumes = code == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        )
        if code == 206 and not resumes:
            partial.unlink(missing_ok=True)
            raise _Failed("the server sent another byte range than requested", retry=True)
        self.resumed |= resumes
        received = start if resumes else 0
        length = response.headers.get("Content-Length", "")
        total = received + int(length) if length.isdigit() else None
        room = shutil.disk_usage(partial.parent).free - self._cache.reserve
        room += received
        self._require_room(partial, max(received, total or 0), room)
        _write_validator(partial, url, response.headers)
        begin = window_start = time.monotonic()
        window_bytes = 0
        with partial.open("ab" if resumes else "wb") as file:
            for chunk in _chunks(response):
                self._require_room(partial, received + len(chunk), room)
                file.write(chunk)
                received += len(chunk)
                if time.monotonic() - begin > self._cache.max_seconds:
                    raise _Failed(f"not complete in {self._cache.max_seconds:g} s", retry=False)
                window_bytes += len(chunk)
                if self._cache.progress:
                    self._cache.progress(self._name, received, total)
                if time.monotonic() - window_start > self._cache.timeout:
                    if window_bytes < _SLOWEST:
                        seconds = f"{self._cache.timeout:g} s"
                        raise _Failed(f"too slow: {window_bytes} bytes in {seconds}", retry=True)
                    window_start, window_bytes = time.monotonic(), 0
        if total is not None and received != total:
            raise _Failed(f"received {received} of {total} bytes", retry=True)

    def _require_room(self, partial: Path, size: int, room: int) -> None:
        """Removes the partial file when a download of `size` bytes exceeds a limit.

        Raises:
            _Failed: when it does.
        """
        if size <= min(self._cache.max_bytes, room):
            return
        _discard(partial)
        if size > self._cache.max_bytes:
            raise _Failed(f"larger than the limit of {self._cache.max_bytes:,} bytes", retry=False)
        raise _Failed(
            f"{size:,} bytes or more, but the disk of {partial.parent} has room for "
            f"{max(0, room):,}",
            retry=False,
        )


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yields received bytes as they arrive, undecoded.

    Waiting for full chunks would hide a slow server. Decoding would unpack an archive that a server
    declares as compressed content.
    """
    read1 = getattr(response.raw, "read1", None)
    if read1 is None:  # urllib3 before 2.2
        yield from response.raw.stream(_CHUNK, decode_content=False)
    else:
        while chunk := read1(_CHUNK, decode_content=False):
            yield chunk


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[Path]:
    """Locks `partial` for this process; yields another name while another process has the lock."""
    try:
        import fcntl
    except ImportError:  # this system has no such locks
        yield partial
        return
    with partial.open("ab") as file:
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


def _discard(partial: Path) -> None:
    """Removes a partial file that cannot be resumed, to free the disk."""
    partial.unlink(missing_ok=True)
    _validator(partial).unlink(missing_ok=True)


def _validator(partial: Path) -> Path:
    """The file that records the address and the version of a partial file."""
    return partial.with_name(partial.name + ".from")


def _write_validator(partial: Path, url: str, headers: Any) -> None:
    tag = headers.get("ETag", "")
    # A weak tag does not guarantee equal bytes; without a strong one nothing can be resumed.
    version = tag if tag.startswith('"') else headers.get("Last-Modified", "")
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


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, as network libraries nest them."""
    yield error
    for inner in (getattr(error, "reason", None), error.__cause__, *error.args):
        if isinstance(inner, BaseException):
            yield from _chain(inner)
            return


def _reason(error: Exception) -> str:
    """The innermost reason of nested network errors, as one line."""
    inner = list(_chain(error))[-1]
    text = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)
    return _printable(text.rsplit(": ", 1)[-1]) or type(inner).__name__


def _printable(text: str) -> str:
    """A text of a server as one line of at most 200 characters without control characters."""
    line = " ".join(text.split())[:200]
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)


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
