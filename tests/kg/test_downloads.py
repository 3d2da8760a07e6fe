from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.downloads import Cache, Unavailable, file_name, is_url
from mmkgc_cli.state.home import cache_folder
from tests.kg.server import Server, serving

CONTENT = bytes(range(256)) * 800  # larger than one chunk
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.files["/a/file.bin"] = running.files["/b/file.bin"] = CONTENT
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", timeout=0.3, attempts=3, pause=0.0)


def file_names(cache: Cache) -> list[str]:
    return sorted(p.name for p in cache.folder.iterdir())


def test_a_file_is_downloaded_once(server: Server, cache: Cache) -> None:
    steps: list[tuple[str, int, int | None]] = []
    cache = dataclasses.replace(cache, progress=lambda *step: steps.append(step))
    for _ in range(2):
        path = cache.fetch([server.url("/a/file.bin")], "file.bin", SHA)
        assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert file_names(cache) == ["file.bin"]
    assert steps[-1] == ("file.bin", len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("trouble", [500, 503, 429, ("drop", 100_000), ("drop", 0), ("hang", 2.0)])
def test_a_temporary_failure_is_retried(server: Server, cache: Cache, trouble: object) -> None:
    server.plan["/a/file.bin"] = [trouble, trouble]
    assert cache.fetch([server.url("/a/file.bin")], "file.bin", SHA).read_bytes() == CONTENT
    assert file_names(cache) == ["file.bin"]


def test_a_broken_connection_is_resumed(server: Server, cache: Cache) -> None:
    server.plan["/a/file.bin"] = [("drop", 100_000)]
    cache.fetch([server.url("/a/file.bin")], "file.bin", SHA)
    (_, first), (_, second) = server.requests
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 100_000


def test_a_later_run_resumes_a_failed_download(server: Server, cache: Cache) -> None:
    server.plan["/a/file.bin"] = [("drop", 50_000)] * 3
    with pytest.raises(Unavailable, match=r"the connection broke .*to resume the download"):
        cache.fetch([server.url("/a/file.bin")], "file.bin", SHA)
    assert ".file.bin.part" in file_names(cache)
    assert not (cache.folder / "file.bin").exists()
    cache.fetch([server.url("/a/file.bin")], "file.bin", SHA)
    assert server.requests[-1][1] is not None
    assert file_names(cache) == ["file.bin"]


@pytest.mark.parametrize("change", ["tag", "no tag", "no ranges"])
def test_a_changed_file_or_a_server_without_ranges_starts_over(
    server: Server, cache: Cache, change: str
) -> None:
    server.files["/a/file.bin"] = b"old" * 50_000
    server.plan["/a/file.bin"] = [("drop", 40_000)] * 3
    server.tag = "" if change == "no tag" else '"old"'
    with pytest.raises(Unavailable):
        cache.fetch([server.url("/a/file.bin")], "file.bin", SHA)
    server.files["/a/file.bin"] = CONTENT
    server.tag = {"tag": '"new"', "no tag": "", "no ranges": '"new"'}[change]
    server.ranges = change != "no ranges"
    assert cache.fetch([server.url("/a/file.bin")], "file.bin", SHA).read_bytes() == CONTENT


def test_a_resumed_file_with_a_wrong_checksum_is_downloaded_again(
    server: Server, cache: Cache
) -> None:
    server.files["/a/file.bin"] = b"x" * len(CONTENT)
    server.plan["/a/file.bin"] = [("drop", 10_000)] * 3
    with pytest.raises(Unavailable):
        cache.fetch([server.url("/a/file.bin")], "file.bin", SHA)
    server.files["/a/file.bin"] = CONTENT
    assert cache.fetch([server.url("/a/file.bin")], "file.bin", SHA).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "trouble", [404, 403, 410, ("bytes", b"<html>moved</html>"), ("hang", 2.0), ("drop", 10)]
)
def test_a_mirror_replaces_a_failing_source(server: Server, cache: Cache, trouble: object) -> None:
    server.plan["/a/file.bin"] = [trouble] * 9
    urls = [server.url("/a/file.bin"), server.url("/b/file.bin")]
    assert cache.fetch(urls, "file.bin", SHA).read_bytes() == CONTENT
    assert file_names(cache) == ["file.bin"]


def test_a_wrong_checksum_is_one_line_and_leaves_no_file(server: Server, cache: Cache) -> None:
    server.files["/a/file.bin"] = b"something else"
    with pytest.raises(DataError, match=rf"file.bin: .* SHA-256 is not {SHA[:12]}…"):
        cache.fetch([server.url("/a/file.bin")], "file.bin", SHA)
    assert file_names(cache) == []


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: Server, cache: Cache) -> None:
    cache.folder.mkdir()
    (cache.folder / "file.bin").write_bytes(CONTENT[:-1])
    assert cache.fetch([server.url("/a/file.bin")], "file.bin", SHA).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (404, "404 Not Found"),
        (("hang", 2.0), r"no response in 0.3 s"),
        (("drip", 0.1), r"too slow: \d+ bytes"),
        (("length", 10), r"the connection broke"),
        (503, "503 Service Unavailable"),
    ],
)
def test_the_error_names_the_reason_for_each_address(
    server: Server, cache: Cache, trouble: object, message: str
) -> None:
    server.plan["/a/file.bin"] = server.plan["/b/file.bin"] = [trouble] * 9
    urls = [server.url("/a/file.bin"), server.url("/b/file.bin")]
    with pytest.raises(Unavailable) as caught:
        cache.fetch(urls, "file.bin", SHA)
    assert str(caught.value).count("http://") == 2
    assert "\n" not in str(caught.value)
    with pytest.raises(Unavailable, match=message):
        cache.fetch(urls[:1], "file.bin", SHA)


def test_an_unreachable_server_is_one_line(cache: Cache) -> None:
    with serving() as stopped:
        url = stopped.url("/a/file.bin")
    with pytest.raises(Unavailable, match="Connection refused"):
        cache.fetch([url], "file.bin", SHA)
    with pytest.raises(Unavailable, match="resolve"):
        cache.fetch(["http://no.such.host.invalid/file.bin"], "file.bin", SHA)


def test_offline_uses_the_cache_and_sends_no_request(server: Server, cache: Cache) -> None:
    offline = dataclasses.replace(cache, offline=True)
    url = server.url("/a/file.bin")
    with pytest.raises(Unavailable, match=r"file.bin: no such file, and downloads are off"):
        offline.fetch([url], "file.bin", SHA)
    assert not server.requests
    cache.fetch([url], "file.bin", SHA)
    assert offline.fetch([url], "file.bin", SHA).read_bytes() == CONTENT
    (cache.folder / "file.bin").write_bytes(b"changed")
    with pytest.raises(Unavailable, match="has another checksum"):
        offline.fetch([url], "file.bin", SHA)


def test_without_a_checksum_a_changed_file_is_downloaded_again(
    server: Server, cache: Cache
) -> None:
    url = server.url("/a/file.bin")
    assert cache.fetch([url], "file.bin", None).read_bytes() == CONTENT
    server.files["/a/file.bin"] = b"changed"
    assert cache.fetch([url], "file.bin", None).read_bytes() == b"changed"
    assert file_names(cache) == ["file.bin"]
    server.plan["/a/file.bin"] = [404]
    with pytest.raises(Unavailable):
        cache.fetch([url], "file.bin", None)
    assert (cache.folder / "file.bin").read_bytes() == b"changed"
    offline = dataclasses.replace(cache, offline=True)
    assert offline.fetch([url], "file.bin", None).read_bytes() == b"changed"


def test_two_processes_do_not_write_to_the_same_partial_file(server: Server, cache: Cache) -> None:
    fcntl = pytest.importorskip("fcntl")
    cache.folder.mkdir()
    part = cache.folder / ".file.bin.part"
    with part.open("wb") as other:
        other.write(b"of the other process")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        path = cache.fetch([server.url("/a/file.bin")], "file.bin", SHA)
        assert path.read_bytes() == CONTENT
        assert part.read_bytes() == b"of the other process"
    assert file_names(cache) == [".file.bin.part", "file.bin"]


def test_a_url_with_resolve_in_its_path_is_retried(server: Server, cache: Cache) -> None:
    server.files["/x/resolve/main/file.bin"] = CONTENT
    server.plan["/x/resolve/main/file.bin"] = [("drop", 10)]
    url = server.url("/x/resolve/main/file.bin")
    assert cache.fetch([url], "file.bin", SHA).read_bytes() == CONTENT


def test_an_archive_with_a_content_encoding_is_not_unpacked(server: Server, cache: Cache) -> None:
    server.encoding = "x-gzip"
    server.files["/t.tsv.gz"] = packed = gzip.compress(b"a\tr\tb\n")
    digest = hashlib.sha256(packed).hexdigest().upper()
    url = server.url("/t.tsv.gz")
    assert cache.fetch([url], "t.tsv.gz", digest).read_bytes() == packed
    cache.fetch([url], "t.tsv.gz", digest)  # checksums ignore case
    assert len(server.requests) == 1


def test_secrets_in_a_url_are_not_printed_or_stored(server: Server, cache: Cache) -> None:
    server.plan["/gone"] = [("drop", 0)] * 9
    url = server.url("/gone?token=secret").replace("http://", "http://user:secret@")
    with pytest.raises(Unavailable) as caught:
        cache.fetch([url], "gone", None)
    assert "secret" not in str(caught.value)
    assert "/gone: " in str(caught.value)
    for path in cache.folder.iterdir():
        assert b"secret" not in path.read_bytes()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root ignores permissions")
def test_a_read_only_cache_is_one_line(server: Server, cache: Cache) -> None:
    cache.folder.mkdir(mode=0o500)
    with pytest.raises(DataError, match="cannot be written: permission denied"):
        cache.fetch([server.url("/a/file.bin")], "file.bin", SHA)


def test_mmkgc_home_sets_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMKGC_HOME", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MMKGC_HOME")
    assert cache_folder().name == "mmkgc"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://x.org/a/b.tar.gz?download=1#top", "b.tar.gz"),
        ("http://x.org/a%20b.zip", "a b.zip"),
    ],
)
def test_a_url_contains_the_file_name(url: str, name: str) -> None:
    assert is_url(url)
    assert file_name(url) == name


@pytest.mark.parametrize(
    "url",
    ["https://x.org", "https://x.org/", "ftp://x.org/a", "file:///etc/passwd", "https:///a",
     "https://x.org/a%2F..%2F..", "https://x.org/..", "https://x.org/a%00b", "https://x.org/a%5Cb"],
)  # fmt: skip
def test_a_url_without_a_plain_file_name_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--source"):
        file_name(url)
