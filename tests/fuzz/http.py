"""Fuzz target: any bytes as the response of a server end a download with a file or one line."""

from __future__ import annotations

from pathlib import Path

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.kg.downloads import Cache
from tests.kg.server import serving_raw

_MAX_BYTES = 1 << 16


def http(data: bytes, folder: Path) -> None:
    """Serves the bytes as a raw response to `Cache.fetch`; redirects lead to the same bytes.

    The name of the file is in the folder, so an error is made to name it, as targets must.
    """
    name = "triples.tsv"
    cache = Cache(folder, timeout=0.5, attempts=2, pause=0.0, max_bytes=_MAX_BYTES, max_seconds=2.0)
    with serving_raw(data) as address:
        try:
            path = cache.fetch([f"{address}/{name}"], name, None)
        except MmkgcError as error:
            message = str(error)
            assert name in message, message
            assert message.isprintable(), message
            raise type(error)(f"{folder}: {message}", fix="see above") from None
    assert path.parent == folder
    content = path.read_bytes()
    assert len(content) <= _MAX_BYTES
    # Without chunks, the content is a part of the response as it was sent.
    assert b"chunked" in data.lower() or content in data
    assert [other for other in folder.iterdir() if other != path] == []
