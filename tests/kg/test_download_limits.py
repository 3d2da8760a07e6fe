"""Limits of downloads, and what a server may do wrong."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.kg.downloads import Cache, Unavailable
from tests.kg.server import Server, serving

SHA256 = hashlib.sha256(b"content").hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def fetch_error(cache: Cache, server: Server) -> str:
    with pytest.raises(MmkgcError) as caught:
        cache.fetch([server.url("/a")], "a", SHA256)
    assert isinstance(caught.value, Unavailable)
    message = str(caught.value)
    assert "SHA-256" not in message
    assert "\n" not in message
    return message


def test_an_endless_download_stops_at_the_limit_and_leaves_nothing(
    server: Server, tmp_path: Path
) -> None:
    server.plan["/a"] = [("endless", bytes(4096))]
    message = fetch_error(Cache(tmp_path, max_bytes=100_000, pause=0), server)
    assert "larger than the limit of 100,000 bytes" in message
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 1


def test_an_endless_download_keeps_the_reserve_of_the_disk(server: Server, tmp_path: Path) -> None:
    server.plan["/a"] = [("endless", bytes(4096))]
    # Far below the free space of the moment, so that other processes do not matter.
    reserve = shutil.disk_usage(tmp_path).free * 2
    message = fetch_error(Cache(tmp_path, reserve=reserve, pause=0), server)
    assert "has room for 0" in message
    assert list(tmp_path.iterdir()) == []


def test_an_announced_size_above_the_limit_is_refused_before_it_arrives(
    server: Server, tmp_path: Path
) -> None:
    server.files["/a"] = b"content"
    server.plan["/a"] = [("length", 10**12)]
    assert "larger than the limit" in fetch_error(Cache(tmp_path, pause=0), server)
    assert list(tmp_path.iterdir()) == []


def test_a_download_ends_after_its_total_time_and_can_be_resumed(
    server: Server, tmp_path: Path
) -> None:
    server.files["/a"] = b"content"
    server.plan["/a"] = [("drip", 0.02)]
    message = fetch_error(Cache(tmp_path, max_seconds=0.03, pause=0), server)
    assert "not complete in 0.03 s" in message
    assert "resume" in message
    assert Cache(tmp_path).fetch([server.url("/a")], "a", SHA256).read_bytes() == b"content"
    assert server.requests[-1][1] is not None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/a", "in a loop"),
        ("", "redirect without an address"),
        ("file:///etc/passwd", "neither http nor https"),
        ("ftp://127.0.0.1/a", "neither http nor https"),
        ("data:text/plain,content", "neither http nor https"),
        ("http://[::1/a", "malformed"),
        ("http://", "in a loop"),  # resolves to the address itself
        ("http://127.0.0.1:99999/a", "malformed"),
    ],
)
def test_a_bad_redirect_is_named_as_such(
    server: Server, tmp_path: Path, address: str, expected: str
) -> None:
    server.plan["/a"] = [("redirect", address)] * 40
    assert expected in fetch_error(Cache(tmp_path, attempts=1, pause=0), server)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_download_that_fills_the_disk_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = b"content"
    (tmp_path / ".a.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match="the disk is full"):
        Cache(tmp_path, pause=0).fetch([server.url("/a")], "a", SHA256)
    assert list(tmp_path.iterdir()) == []
