"""Downloads: from several mirrors, resumed, checked by SHA-256, kept in a cache.

pooch keeps the cache and checks the files; what is here is its downloader, which goes on where an
earlier attempt broke off.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
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
_PIECE = 1 << 16
_SLOWEST = 1024  # bytes that must come within the timeout
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)

# Name of the file, bytes received, bytes in all where the server says.
Progress = Callable[[str, int, int | None], None]


def home() -> Path:
    """The folder for caches: ``MMKGC_HOME``, or where the system keeps them."""
    import platformdirs

    chosen = os.environ.get(HOME)
    if not chosen:
        return platformdirs.user_cache_path("mmkgc")
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{HOME}={chosen}: {error}") from None


def is_url(source: str) -> bool:
    """Whether a source is an address rather than a path."""
    return "://" in source


def file_name(url: str) -> str:
    """The name of the file behind an address.

    Raises:
        UsageError: when it has none, or the scheme is neither http nor https.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"--source {url}: {error}") from None
    name = PurePosixPath(unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"--source {url}: expected a path, or an http or https address")
    if not name or name in (".", "..") or not name.isprintable() or set(name) & set('\\/:*?"<>|'):
        raise UsageError(f"--source {url}: the address names no file")
    return name


def public(url: str) -> str:
    """An address without what may be secret: user, password, query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Unavailable(MmkgcError):
    """A file could not be had from any address."""


class _Failed(Exception):
    """One attempt failed; `again` says whether another one at the same address may succeed."""

    def __init__(self, reason: str, again: bool, mismatch: bool = False) -> None:
        super().__init__(reason)
        self.again = again
        self.mismatch = mismatch  # what came has another checksum


@dataclass(frozen=True)
class Cache:
    """A folder of downloaded files.

    Args:
        folder: where they are.
        offline: take what is there and download nothing.
        timeout: seconds without an answer, or with fewer than 1,024 bytes, that end an attempt.
        attempts: at each address; between them it waits 1, 2, 4 ... times `pause` seconds.
        progress: told how far a download is.
    """

    folder: Path
    offline: bool = False
    timeout: float = 30.0
    attempts: int = 4
    pause: float = 1.0
    progress: Progress | None = None

    def fetch(self, urls: Sequence[str], name: str, sha256: str | None) -> Path:
        """The file `name`, downloaded from the first address that gives it whole.

        With `sha256` a file that is there and has it is taken; without, only when offline, since it
        may have changed where it came from.

        Raises:
            Unavailable: when no address gives it, or when offline and it is not there.
            DataError: when what comes has another checksum, or the storage refuses.
        """
        path = self.folder / name
        wanted = None if sha256 is None else sha256.casefold()
        if path.is_file() and (self.offline if wanted is None else sha256_of(path) == wanted):
            return path
        if self.offline:
            state = "has another checksum" if path.is_file() else "is not there"
            raise Unavailable(
                f"{path}: {state}, and downloads are off (--offline or {OFFLINE}); put the file "
                f"there ({public(urls[0])}), or run once with a network"
            )
        make_folder(self.folder)
        partial = path.with_name(f".{path.name}.part")
        reasons: list[str] = []
        mismatch = False
        for url in urls:
            try:
                self._download(url, path, wanted, partial)
                return path
            except _Failed as error:
                mismatch |= error.mismatch
                reasons.append(f"{public(url)}: {error}")
        kept = "; what came is kept, and a later try goes on there" if partial.is_file() else ""
        kind = DataError if mismatch and len(reasons) == 1 else Unavailable
        raise kind(f"{name}: could not be downloaded from {'; '.join(reasons)}{kept}")

    def _download(self, url: str, path: Path, sha256: str | None, partial: Path) -> None:
        """One address: again from the start when what was resumed turns out wrong.

        Raises:
            _Failed: with the reason.
        """
        import pooch

        pooch.get_logger().setLevel(logging.WARNING)
        downloader = _Resuming(self, path.name, partial)
        # pooch takes a file that is there for good when there is no checksum.
        name = path.name if sha256 else f".{path.name}.new"
        for fresh in (False, True):
            try:
                with storage_errors(path):
                    (self.folder / f".{path.name}.new").unlink(missing_ok=True)
                    found = pooch.retrieve(
                        url, sha256, fname=name, path=self.folder, downloader=downloader
                    )
                    Path(found).replace(path)
                return
            except ValueError:  # what pooch raises for another checksum
                if fresh or not downloader.resumed:
                    raise _Failed(
                        f"another SHA-256 than {str(sha256)[:12]}…", again=False, mismatch=True
                    ) from None
                # The beginning may have been of another version.


class _Resuming:
    """A downloader for pooch that keeps what came in `partial` and asks for the rest."""

    def __init__(self, cache: Cache, name: str, partial: Path) -> None:
        self._cache = cache
        self._name = name
        self._partial = partial
        self.resumed = False

    def __call__(self, url: str, output_file: Any, _: Any) -> None:
        self.resumed = False
        with _own(self._partial) as partial:
            for attempt in range(self._cache.attempts):
                try:
                    self._attempt(url, partial)
                    break
                except _Failed as error:
                    if not error.again or attempt == self._cache.attempts - 1:
                        raise
                    time.sleep(self._cache.pause * 2**attempt)
            partial.replace(output_file)
            _validator(partial).unlink(missing_ok=True)

    def _attempt(self, url: str, partial: Path) -> None:
        import requests
        import urllib3

        # Compressed transfers would make ranges and sizes mean something else.
        headers = {"Accept-Encoding": "identity", "User-Agent": f"mmkgc/{__version__}"}
        start = partial.stat().st_size if partial.is_file() else 0
        tag = _read_validator(partial, url)
        if start and tag is not None:
            headers |= {"Range": f"bytes={start}-", "If-Range": tag}
        try:
            with requests.get(
                url, headers=headers, stream=True, timeout=self._cache.timeout
            ) as response:
                self._receive(response, url, partial, start)
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            raise _Failed(f"no answer in {self._cache.timeout:g} s", again=True) from None
        except (
            requests.exceptions.ConnectionError,
            requests.exceptions.ChunkedEncodingError,
            urllib3.exceptions.HTTPError,
        ) as e:
            # A name that does not resolve is a missing network, not a bad moment.
            lost = any(isinstance(inner, socket.gaierror) for inner in _chain(e))
            reason = f"the connection broke ({_reason(e)})"
            if lost:
                reason = f"the name of the host does not resolve ({_reason(e)})"
            raise _Failed(reason, again=not lost) from None
        except (requests.exceptions.RequestException, UnicodeError) as e:
            raise _Failed(_reason(e), again=False) from None

    def _receive(self, response: requests.Response, url: str, partial: Path, start: int) -> None:
        code = response.status_code
        if code == 416:  # nothing is left beyond the start: what is there is not what it seems
            partial.unlink(missing_ok=True)
            raise _Failed("the server refused to go on", again=True)
        if code not in (200, 206):
            raise _Failed(f"{code} {response.reason}", again=code in _TRY_AGAIN)
        going_on = code == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        )
        if code == 206 and not going_on:
            partial.unlink(missing_ok=True)
            raise _Failed("the server sent another part than asked for", again=True)
        self.resumed |= going_on
        received = start if going_on else 0
        length = response.headers.get("Content-Length", "")
        total = received + int(length) if length.isdigit() else None
        _write_validator(partial, url, response.headers)
        window_start, window_bytes = time.monotonic(), 0
        with partial.open("ab" if going_on else "wb") as file:
            for piece in _pieces(response):
                file.write(piece)
                received += len(piece)
                window_bytes += len(piece)
                if self._cache.progress:
                    self._cache.progress(self._name, received, total)
                if time.monotonic() - window_start > self._cache.timeout:
                    if window_bytes < _SLOWEST:
                        raise _Failed(f"too slow: {window_bytes} bytes in a while", again=True)
                    window_start, window_bytes = time.monotonic(), 0
        if total is not None and received != total:
            raise _Failed(f"{received} of {total} bytes came", again=True)


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """What has come so far, each time: waiting for full pieces would hide how slow a server is.

    Bytes as they travel: a server that calls an archive a compressed page must not unpack it.
    """
    read1 = getattr(response.raw, "read1", None)
    if read1 is None:  # urllib3 before 2.2
        yield from response.raw.stream(_PIECE, decode_content=False)
    else:
        while piece := read1(_PIECE, decode_content=False):
            yield piece


@contextlib.contextmanager
def _own(partial: Path) -> Iterator[Path]:
    """`partial` for this process alone; another name while another process has it."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield partial
        return
    with partial.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The other process may have finished and moved the file away in between.
            mine = os.path.samestat(os.fstat(file.fileno()), partial.stat())
        except OSError:
            mine = False
        path = partial if mine else partial.with_name(f"{partial.name}-{os.getpid()}")
        try:
            yield path
        finally:
            if not mine or (path.is_file() and not path.stat().st_size):
                path.unlink(missing_ok=True)
                _validator(path).unlink(missing_ok=True)


def _validator(partial: Path) -> Path:
    """Where the address and version of a partial file are noted."""
    return partial.with_name(partial.name + ".from")


def _write_validator(partial: Path, url: str, headers: Any) -> None:
    tag = headers.get("ETag", "")
    # A weak tag does not promise equal bytes; without a strong one nothing can be resumed.
    good = tag if tag.startswith('"') else headers.get("Last-Modified", "")
    _validator(partial).write_text(f"{_identity(url)}\n{good}\n", encoding="utf-8")


def _identity(url: str) -> str:
    """What stands for an address in a file: it may hold a password."""
    return hashlib.sha256(url.encode()).hexdigest()


def _read_validator(partial: Path, url: str) -> str | None:
    try:
        lines = _validator(partial).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return lines[1] if len(lines) > 1 and lines[0] == _identity(url) and lines[1] else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those it was made from, as network libraries nest them."""
    yield error
    for inner in (getattr(error, "reason", None), error.__cause__, *error.args):
        if isinstance(inner, BaseException):
            yield from _chain(inner)
            return


def _reason(error: Exception) -> str:
    """The innermost reason of nested network errors, in one line."""
    inner = list(_chain(error))[-1]
    text = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)
    return " ".join(text.rsplit(": ", 1)[-1].split()) or type(inner).__name__


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
