"""Where the files of a graph come from: a folder, a file, an archive, an address."""

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
from mmkgc_cli.kg.downloads import Cache, file_name, home, is_url, public, sha256_of
from mmkgc_cli.kg.readers.lines import require_folder


@dataclasses.dataclass(frozen=True)
class Source:
    """Files at hand: what to read, where it came from, and what to note about it."""

    path: Path
    origin: str
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def own_source(source: str, sha256: str | None, cache: Cache) -> Iterator[Source]:
    """A source of one's own, downloaded and unpacked as needed.

    Args:
        source: path or address.
        sha256: checksum of the file; None takes what comes, and notes the checksum of a download.
        cache: whose settings a download follows; it gets a folder of its own per address.

    Raises:
        UsageError: for a checksum of a folder.
        DataError: for another checksum, and as `unpacked`.
        Unavailable: when a download fails.
    """
    notes: tuple[str, ...] = ()
    if is_url(source):
        cache = dataclasses.replace(cache, folder=_folder_of(source))
        path, origin = cache.fetch([source], file_name(source), sha256), public(source)
        if sha256 is None:
            notes = (f"downloaded without a checksum; it has SHA-256 {sha256_of(path)}",)
    else:
        path = Path(source)
        # A path may hold bytes that are no text.
        origin = str(path.resolve()).encode("utf-8", "backslashreplace").decode()
        if sha256 is not None:
            if not path.is_file():
                raise UsageError(f"--sha256: {source} is not a file")
            if (found := sha256_of(path)) != sha256.casefold():
                raise DataError(f"{path}: SHA-256 {found}, expected {sha256}")
    with unpacked(path) as inside:
        yield Source(inside, origin, notes)


def _folder_of(url: str) -> Path:
    return home() / "urls" / hashlib.sha256(url.encode()).hexdigest()[:16]


@contextlib.contextmanager
def registered_source(
    dataset: Dataset, source: str | None, cache: Cache, verify: bool
) -> Iterator[Source]:
    """The files of a registered benchmark: downloaded, or from a source of one's own.

    An address of an archive is downloaded as it is; any other is taken for a folder of the files.
    With `verify` off, files at an address of one's own may have other checksums.

    Raises:
        DataError: as `own_source`, or when the source is no folder.
        Unavailable: when a download fails.
    """
    if source is None:
        yield Source(fetch_files(dataset, cache), dataset.source)
    elif is_url(source) and not is_packed(urlsplit(source).path):
        if not verify:
            cache = dataclasses.replace(cache, folder=_folder_of(source))
        yield Source(fetch_files(dataset, cache, source, verify), dataset.source)
    else:
        with own_source(source, None, cache) as found:
            require_folder(found.path)
            yield dataclasses.replace(found, origin=dataset.source, notes=())
