from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.sources import _READERS
from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.downloads import Cache, Unavailable
from mmkgc_cli.kg.modality_files import (
    FeatureFile,
    UpstreamFile,
    obtain_features,
    obtain_upstream,
)
from mmkgc_cli.state.home import cache_folder
from tests.kg.server import Server, serving

COMMIT = r"/[0-9a-f]{40}/"
CONTENT = bytes(range(256)) * 800
SHA = hashlib.sha256(CONTENT).hexdigest()


def every_feature_file() -> list[tuple[str, FeatureFile]]:
    names = dict.fromkeys(map(datasets.published_name, datasets.registry()))
    return [(name, file) for name in names for file in datasets.published(name).features]


def test_every_upstream_file_has_a_pinned_address_a_checksum_and_a_licence() -> None:
    used = {file.ids for _, file in every_feature_file()}
    for name in datasets.registry():
        for table in datasets.published(name).tables.values():
            used.update(table.made_of)
    for name, file in datasets.upstream().items():
        assert name in used, f"{name}: nothing is built from it"
        for url in (file.url, *file.mirrors):
            assert url.startswith("https://"), name
            assert re.search(COMMIT, url), f"{name}: no commit in {url}"
        assert len(file.sha256) == 64
        assert file.licence


def test_every_table_is_built_from_registered_files() -> None:
    for name in datasets.registry():
        for table, file in datasets.published(name).tables.items():
            assert set(file.made_of) <= set(datasets.upstream()), f"{name} {table}"


def test_every_feature_file_has_ids_a_known_format_and_dated_evidence() -> None:
    seen = set()
    for name, file in every_feature_file():
        known = datasets.upstream() if file.parser == "keys" else datasets.published(name).sha256
        assert file.ids in known, file.file
        assert Path(file.file).suffix in _READERS, file.file
        assert re.search(r"\b20\d\d-\d\d-\d\d\b", file.evidence), f"{file.file}: no date"
        assert file.licence
        for url in (*file.urls, file.page):
            assert url.startswith("https://"), url
        key = (name, file.modality, file.publisher)
        assert key not in seen, key
        seen.add(key)
    assert seen


def feature_file(url: str | None, **more: Any) -> FeatureFile:
    return FeatureFile(
        modality="image", publisher="someone", file="v.npy", url=url, page="https://x.org/page",
        ids="entity2id.txt", parser="rows", licence="none", evidence="made up", verified=False,
        **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"modality": "Image!"},
        {"parser": "guess"},
        {"url": "ftp://x.org/v.npy"},
        {"sha256": "12"},
        {"file": "../v.npy"},
        {"mirrors": ["https://y.org/v.npy"]},
        {"licence": ""},
        {"colour": "red"},
    ],
)
def test_an_invalid_entry_is_refused(changes: dict[str, Any]) -> None:
    entry = feature_file("https://x.org/v.npy").model_dump()
    FeatureFile(**entry)
    with pytest.raises(ValidationError):
        FeatureFile(**entry | changes)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.files["/a/v.npy"] = running.files["/b/v.npy"] = CONTENT
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", timeout=0.3, attempts=2, pause=0.0)


def test_the_first_download_without_a_checksum_pins_the_later_ones(
    server: Server, cache: Cache
) -> None:
    file = feature_file(server.url("/a/v.npy"))
    path = obtain_features(file, None, cache)
    pin = path.with_name("v.npy.sha256")
    assert pin.read_text().strip() == SHA
    assert obtain_features(file, None, cache) == path
    assert len(server.requests) == 1
    path.unlink()
    server.files["/a/v.npy"] = b"changed"
    with pytest.raises(
        DataError, match=r"SHA-256 is not .*remove .*v.npy.sha256 to accept"
    ) as error:
        obtain_features(file, None, cache)
    assert "get v.npy at https://x.org/page and pass --source" in str(error.value)
    assert pin.read_text().strip() == SHA
    pin.unlink()
    assert obtain_features(file, None, cache).read_bytes() == b"changed"
    pin.write_text("nonsense")
    with pytest.raises(DataError, match=r"'nonsense' is not a SHA-256; remove the file"):
        obtain_features(file, None, cache)


@pytest.mark.parametrize("trouble", [("drop", 100_000), 503])
def test_a_download_is_resumed_after_a_failure(
    server: Server, cache: Cache, trouble: object
) -> None:
    server.plan["/a/v.npy"] = [trouble]
    path = obtain_features(feature_file(server.url("/a/v.npy")), None, cache)
    assert path.read_bytes() == CONTENT


def test_a_mirror_with_a_checksum_replaces_a_failing_source(server: Server, cache: Cache) -> None:
    mirrors = (server.url("/b/v.npy"),)
    file = feature_file(server.url("/gone"), sha256=SHA, mirrors=mirrors)
    assert obtain_features(file, None, cache).read_bytes() == CONTENT
    assert not (cache.folder / "v.npy.sha256").exists()


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><p>Are you sure?", b"\n <HTML lang='en'>", b"<head>"]
)
def test_a_web_page_instead_of_the_file_is_refused_and_removed(
    server: Server, cache: Cache, page: bytes
) -> None:
    server.files["/a/v.npy"] = page
    file = feature_file(server.url("/a/v.npy"))
    with pytest.raises(Unavailable, match=r"returned a web page .*get v.npy at https://x"):
        obtain_features(file, None, cache)
    assert not list(cache.folder.iterdir())


def test_a_dead_link_is_one_line_with_a_fix(server: Server, cache: Cache) -> None:
    with pytest.raises(
        Unavailable, match=r"404 Not Found; .*; or get v.npy at .*--source"
    ) as caught:
        obtain_features(feature_file(server.url("/gone")), None, cache)
    assert "\n" not in str(caught.value)
    with pytest.raises(Unavailable, match=r"no address gives it without a browser; get v.npy at"):
        obtain_features(feature_file(None), None, cache)
    offline = dataclasses.replace(cache, offline=True)
    with pytest.raises(Unavailable, match=r"downloads are off .*; run once .*; or get v.npy at"):
        obtain_features(feature_file(server.url("/a/v.npy")), None, offline)


def test_a_users_file_must_have_the_registered_checksum(
    server: Server, cache: Cache, tmp_path: Path
) -> None:
    own = tmp_path / "own.npy"
    own.write_bytes(b"other")
    assert obtain_features(feature_file(None), own, cache) == own
    with pytest.raises(DataError, match=r"own.npy: SHA-256 .*use `mmkgc features import`"):
        obtain_features(feature_file(None, sha256=SHA), own, cache)
    own.write_bytes(CONTENT)
    assert obtain_features(feature_file(server.url("/a/v.npy"), sha256=SHA), own, cache) == own
    with pytest.raises(DataError, match="nothing.npy: no such file"):
        obtain_features(feature_file(None, sha256=SHA), tmp_path / "nothing.npy", cache)
    assert not server.requests


def test_upstream_files_share_one_cache(server: Server, cache: Cache) -> None:
    file = UpstreamFile(url=server.url("/a/v.npy"), sha256=SHA, licence="none")
    for _ in range(2):
        path = obtain_upstream("u.txt", file, None, cache)
        assert path == cache_folder() / "upstream" / "u.txt"
    assert len(server.requests) == 1
