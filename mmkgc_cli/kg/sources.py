"""Sources of a graph: a folder, a file, an archive, or the address of one."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.archives import is_packed, unpacked
from mmkgc_cli.kg.datasets import Dataset, fetch_files
from mmkgc_cli.kg.downloads import (
    Cache,
    file_name,
    is_url,
    public,
    remove_abandoned,
    sha256_of,
)
from mmkgc_cli.kg.readers.lines import require_folder
from mmkgc_cli.state.home import cache_folder


@dataclasses.dataclass(frozen=True)
class Source:
    """Local files: the path to read, the origin to record, and notes on the provenance."""

    path: Path
    origin: str
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def user_source(source: str, sha256: str | None, cache: Cache) -> Iterator[Source]:
    """Yields the files of a user's source, downloaded and unpacked as needed.

    Args:
        source: path or address.
        sha256: checksum of the file; None accepts any file and notes the checksum of a download.
        cache: settings of a download; each address has a folder of its own. Its `max_bytes` is
            also the limit for the content of an archive.

    Raises:
        UsageError: when a checksum is given for a folder.
        DataError: for another checksum, and as `unpacked`.
        Unavailable: when a download fails.
    """
    notes: tuple[str, ...] = ()
    if is_url(source):
        remove_abandoned(cache_folder() / "urls")
        cache = dataclasses.replace(cache, folder=_folder_of(source))
        path, origin = cache.fetch([source], file_name(source), sha256), public(source)
        if sha256 is None:
            notes = (f"downloaded without a checksum; its SHA-256 is {sha256_of(path)}",)
    else:
        path = Path(source)
        # A path may contain bytes that are not text.
        origin = str(path.resolve()).encode("utf-8", "backslashreplace").decode()
        if sha256 is not None:
            if not path.is_file():
                raise UsageError(
                    f"--sha256: {source} is not a file",
                    fix="omit --sha256, or pass --source a file",
                )
            if (digest := sha256_of(path)) != sha256.casefold():
                raise DataError(
                    f"{path}: SHA-256 {digest}, expected {sha256}",
                    fix="get the right file, or correct --sha256",
                )
    with unpacked(path, cache.max_bytes) as content:
        yield Source(content, origin, notes)


def _folder_of(url: str) -> Path:
    return cache_folder() / "urls" / hashlib.sha256(url.encode()).hexdigest()[:16]


@contextlib.contextmanager
def registered_source(
    dataset: Dataset, source: str | None, cache: Cache, *, verify: bool
) -> Iterator[Source]:
    """Yields the files of a registered benchmark, downloaded or from the user's source.

    An address of an archive is downloaded as one file; any other is a folder with the files. With
    `verify` off, files at the user's address may have other checksums.

    Raises:
        DataError: as `user_source`, or when the source is not a folder.
        Unavailable: when a download fails.
    """
    if source is None:
        yield Source(fetch_files(dataset, cache), dataset.source)
    elif is_url(source) and not is_packed(urlsplit(source).path):
        if not verify:
            cache = dataclasses.replace(cache, folder=_folder_of(source))
        yield Source(fetch_files(dataset, cache, source, verify=verify), dataset.source)
    else:
        with user_source(source, None, cache) as files:
            require_folder(files.path)
            yield dataclasses.replace(files, origin=dataset.source, notes=())
