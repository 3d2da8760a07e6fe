"""Limits of downloads, and what a server may do wrong."""

from __future__ import annotations

import gc
import gzip
import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.kg.downloads import Cache, Unavailable
from mmkgc_cli.kg.transport import Failed, opened
from tests.fuzz.http import http
from tests.kg.server import Server, serving, serving_raw

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


OK = b"HTTP/1.1 200 OK\r\n"


def raw_error(folder: Path, *answers: bytes, sha256: str | None = SHA256) -> str:
    """The error of a download of triples.tsv from a server that sends raw responses."""
    cache = Cache(folder, attempts=2, pause=0, timeout=2)
    with serving_raw(*answers) as address, pytest.raises(MmkgcError) as caught:
        cache.fetch([f"{address}/triples.tsv"], "triples.tsv", sha256)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK", OK + b"X: " + b"x" * 500])
def test_headers_that_arrive_slowly_end_at_the_limit(tmp_path: Path, part: bytes) -> None:
    # Each byte arrives within the timeout.
    cache = Cache(tmp_path, timeout=0.2, attempts=100, pause=0, max_seconds=0.5)
    begin = time.monotonic()
    with serving_raw(part, pause=0.05) as address:
        with pytest.raises(Unavailable, match=r"not complete in 0\.5 s \(--max-seconds\)"):
            cache.fetch([f"{address}/a", f"{address}/b"], "a", SHA256)
        assert time.monotonic() - begin < 2
    assert list(tmp_path.iterdir()) == []


def test_headers_that_arrive_slowly_end_after_four_timeouts(tmp_path: Path) -> None:
    cache = Cache(tmp_path, timeout=0.1, attempts=1)
    with (
        serving_raw(OK, pause=0.05) as address,
        pytest.raises(Unavailable, match=r"no complete response in 0\.4 s"),
    ):
        cache.fetch([f"{address}/a"], "a", SHA256)


def test_attempts_and_addresses_do_not_multiply_the_total_time(
    server: Server, tmp_path: Path
) -> None:
    server.plan["/a"] = server.plan["/b"] = [503] * 1000
    cache = Cache(tmp_path, attempts=500, pause=0.05, max_seconds=0.3)
    begin = time.monotonic()
    with pytest.raises(Unavailable):
        cache.fetch([server.url("/a"), server.url("/b")] * 50, "a", SHA256)
    assert time.monotonic() - begin < 3


def test_a_redirect_from_https_to_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(self: object, request: requests.PreparedRequest, **_: object) -> requests.Response:
        response = requests.Response()
        response.status_code, response.request, response.url = 302, request, str(request.url)
        response.raw = io.BytesIO()
        response.headers["Location"] = "http://example.org/a"
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    with (
        pytest.raises(Failed, match="from https to http"),
        opened("https://example.org/a", {}, 1.0, time.monotonic() + 5),
    ):
        pass


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 302 F\r\nLocation: /\x1b[31m\r\n\r\n", "control characters"),
        (b"HTTP/1.1 302 F\r\nLocation: /\xe2\x80\xae\r\n\r\n", "control characters"),
        (b"HTTP/1.1 404 \x1b[31m\xc2\x9b\r\n\r\n", r"404 \x1b[31m"),
        (b"HTTP/1.1 404 " + b"x" * 5000 + b"\r\n\r\n", "404 xxx"),
        (b"hello\r\n\r\n", "malformed response (hello"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 99999 OK\r\n\r\n", "malformed response"),
        (b"", "connection broke"),
        (OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n", "malformed response"),
        (OK + b"X: x\r\n" * 200 + b"\r\n", "malformed response (got more than 100 headers)"),
        (OK + b"Content-Length: " + b"9" * 18 + b"\r\n\r\n", "larger than the limit"),
        (OK + b"Content-Length: 9\r\n\r\ncontent", "connection broke"),
        (OK + b"Content-Length: 3\r\n\r\ncontent", "SHA-256 is not"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "connection broke"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n7\r\ncont", "connection broke"),
        (OK + b"\r\n<!DOCTYPE html><p>Log in", "web page instead of the file"),
        (OK + b"\r\n\xef\xbb\xbf<?xml version='1.0'?>\n<html>", "web page instead of the file"),
        (
            OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"content", mtime=0),
            "the server sent it with Content-Encoding gzip",
        ),
        (b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-6/7\r\n\r\ncontent", "another byte range"),
        (b"HTTP/1.1 206 P\r\n\r\ncontent", "another byte range"),
        (b"HTTP/1.1 416 R\r\n\r\n", "cannot resume"),
    ],
)  # fmt: skip
def test_a_faulty_response_is_one_line(tmp_path: Path, answer: bytes, expected: str) -> None:
    message = raw_error(tmp_path, answer)
    assert expected in message
    assert "\x1b" not in message


@pytest.mark.parametrize("length", ["²", "9" * 5000, "-1", "7, 7", "seven"])
def test_a_content_length_that_is_no_size_is_ignored_or_one_line(
    tmp_path: Path, length: str
) -> None:
    answer = OK + b"Content-Length: " + length.encode() + b"\r\n\r\ncontent"
    with serving_raw(answer) as address:
        try:
            path = Cache(tmp_path, attempts=1).fetch([f"{address}/a"], "a", SHA256)
        except Unavailable as error:
            assert str(error).isprintable()
        else:
            assert path.read_bytes() == b"content"


def test_a_gzip_transfer_without_checksum_is_refused(tmp_path: Path) -> None:
    answer = OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"content", mtime=0)
    assert "Content-Encoding gzip" in raw_error(tmp_path, answer, sha256=None)
    assert list(tmp_path.iterdir()) == []


PARTIAL = OK + b'ETag: "v1"\r\nContent-Length: 7\r\n\r\ncon'


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-6/7\r\n\r\ncontent",
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 4-6/7\r\n\r\nent",
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 3\r\n\r\ntent",
        b"HTTP/1.1 206 P\r\nContent-Type: multipart/byteranges\r\n\r\n--x",
        b"HTTP/1.1 416 R\r\n\r\n",
        OK + b"\r\ncontent",
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 3-6/7\r\n\r\ntent",
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 3-6/*\r\n\r\ntent",
    ],
)  # fmt: skip
def test_any_answer_to_a_range_request_ends_with_the_right_file(
    tmp_path: Path, answer: bytes
) -> None:
    with serving_raw(PARTIAL, answer, OK + b"\r\ncontent") as address:
        path = Cache(tmp_path, pause=0).fetch([f"{address}/a"], "a", None)
    assert path.read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [path]


def test_a_range_that_ends_early_is_not_taken_for_the_whole_file(tmp_path: Path) -> None:
    short = b"HTTP/1.1 206 P\r\nContent-Range: bytes 3-4/7\r\nContent-Length: 2\r\n\r\nte"
    with serving_raw(PARTIAL, short) as address, pytest.raises(Unavailable, match="5 of 7 bytes"):
        Cache(tmp_path, attempts=2, pause=0).fetch([f"{address}/a"], "a", None)


def test_the_message_says_where_the_partial_file_is(tmp_path: Path) -> None:
    message = raw_error(tmp_path, PARTIAL)
    assert f"its first 3 bytes are in {tmp_path / '.triples.tsv.part'}" in message


def test_a_folded_header_is_not_stored_as_a_version(tmp_path: Path) -> None:
    answer = OK + b'ETag: "a\r\n b"\r\nContent-Length: 9\r\n\r\ncon'
    raw_error(tmp_path, answer)
    assert (tmp_path / ".triples.tsv.part.from").read_text().count("\n") == 2


def test_abandoned_partial_files_are_removed(server: Server, tmp_path: Path) -> None:
    day = 24 * 3600
    ages = {".b.part": 31, ".b.part.from": 31, ".c.part": 29, ".a.part-17": 2, ".d.part-18": 0.5}
    for name, days in ages.items():
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - days * day,) * 2)
    server.files["/a"] = b"content"
    Cache(tmp_path).fetch([server.url("/a")], "a", SHA256)
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".c.part", ".d.part-18"}


# urllib3 leaves the socket of some malformed responses to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_any_response_ends_with_a_file_or_one_line(tmp_path: Path) -> None:
    lines = [
        b"HTTP/1.1 200 OK", b"HTTP/1.0 206 P", b"HTTP/1.1 302 F", b"HTTP/1.1 416 X", b"HTTP/2 200",
        b"Content-Length: 7", b"Content-Length: -1", b"Transfer-Encoding: chunked",
        b"Location: /triples.tsv", b"Location: http://[", b"Location: //", b"Location: http://\xff",
        b"Content-Range: bytes 0-6/7", b"Content-Encoding: gzip", b'ETag: "x"', b" fold", b":",
        b"", b"7\r\ncontent\r\n0\r\n", b"ffffffffffffffff", b"<html>", b"content",
    ]  # fmt: skip
    draw = random.Random(0)
    files = 0
    for n in range(300):
        parts = [*draw.choices(lines[:5]), *draw.choices(lines[5:17], k=draw.randrange(4)), b""]
        data = bytearray(b"\r\n".join([*parts, *draw.choices(lines)]))
        for _ in range(draw.randrange(3)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (folder := tmp_path / str(n)).mkdir()
        try:
            http(bytes(data), folder)
            files += 1
        except MmkgcError as error:
            assert str(error).startswith(f"{folder}: triples.tsv: ")
    gc.collect()
    assert 0 < files < 300


def test_ctrl_c_ends_a_download_at_any_point_and_keeps_what_arrived(tmp_path: Path) -> None:
    content = b"a\tr\tb\n" * 20_000
    head = OK + b'ETag: "v1"\r\nContent-Length: %d\r\n\r\n' % len(content)
    # While waiting for a response, within its headers, and within its content.
    states = {"wait": b"", "headers": OK, "content": head + content[:50_000]}
    folder = Path(__file__).resolve().parents[2]

    def interrupt(state: str, outcomes: dict[str, tuple[int, str]]) -> None:
        asked = threading.Event()
        with serving_raw(states[state], then_hang=True) as address:
            command = [sys.executable, "-m", "mmkgc_cli", "prepare", "mine", "--format", "hrt",
                       "--source", f"{address}/t.tsv", "--out", str(tmp_path / state)]  # fmt: skip
            environment = {**os.environ, "MMKGC_HOME": str(tmp_path / f"{state}-home")}
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
            )
            home = tmp_path / f"{state}-home"
            wanted = ".t.tsv.part.from" if state == "content" else ".t.tsv.part"
            end = time.monotonic() + 30
            while not list(home.rglob(wanted)) and time.monotonic() < end:
                asked.wait(0.05)
            asked.wait(0.3)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=10)
            outcomes[state] = process.returncode, stderr

    outcomes: dict[str, tuple[int, str]] = {}
    threads = [threading.Thread(target=interrupt, args=(state, outcomes)) for state in states]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {state: code for state, (code, _) in outcomes.items()} == dict.fromkeys(states, 130)
    for _, stderr in outcomes.values():
        assert "Traceback" not in stderr
    kept = {state: [p.stat().st_size for p in tmp_path.glob(f"{state}-home/urls/*/.t.tsv.part")]
            for state in states}  # fmt: skip
    assert kept == {"wait": [], "headers": [], "content": [50_000]}
