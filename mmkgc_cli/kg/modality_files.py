"""What ``datasets.toml`` says of modalities: published files, and how they are had."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.downloads import Cache, Unavailable, home, public, sha256_of
from mmkgc_cli.kg.readers.lines import require_folder
from mmkgc_cli.state.atomic import read_text, write_text

SHA256 = r"^[0-9a-f]{64}$"
_PAGE = re.compile(rb"\s*<(!doctype html|html|head)\b", re.IGNORECASE)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UpstreamFile(_Entry):
    """A published file that tables or id maps are made from; `mirrors` hold the same bytes."""

    url: str = Field(pattern=r"^https?://")
    mirrors: tuple[str, ...] = ()
    sha256: str = Field(pattern=SHA256)
    licence: str = Field(min_length=1)


class TableFile(_Entry):
    """A table of texts or numbers that `mmkgc texts build` makes, and its checksum."""

    made_of: tuple[str, ...] = Field(min_length=1)  # names of upstream files
    sha256: str = Field(pattern=SHA256)


class FeatureFile(_Entry):
    """A published file of vectors, and whose rows they are.

    With parser `rows`, `ids` names an OpenKE vocabulary of the benchmark, and row i belongs to the
    entity of id i. With parser `keys`, it names an upstream file of entity and key, and the file
    holds a vector for each key.
    """

    modality: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    publisher: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    file: str = Field(pattern=r"^[\w.-]+\.\w+$")
    url: str | None = Field(default=None, pattern=r"^https?://")
    mirrors: tuple[str, ...] = ()
    page: str = Field(pattern=r"^https?://")  # where people find it
    sha256: str | None = Field(default=None, pattern=SHA256)  # else pinned at first use
    ids: str = Field(min_length=1)
    parser: Literal["rows", "keys"]
    encoder: str = ""
    licence: str = Field(min_length=1)
    evidence: str = Field(min_length=1)  # who says that it is there, and when
    verified: bool  # whether the file itself was looked at

    @model_validator(mode="after")
    def _mirrors_need_a_checksum(self) -> Self:
        if self.mirrors and (self.url is None or self.sha256 is None):
            raise ValueError(f"{self.file}: mirrors need an address and a checksum beside them")
        return self

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses that give the file itself; none where it takes a browser."""
        return () if self.url is None else (self.url, *self.mirrors)

    @property
    def by_hand(self) -> str:
        """What to do where nothing can be downloaded."""
        return f"get {self.file} at {self.page} and give --source FILE"


def obtain_upstream(
    name: str, file: UpstreamFile, source: Path | None, cache: Cache, verify: bool = True
) -> Path:
    """A published file: from the folder `source` where it is there, else downloaded.

    Raises:
        DataError: when `source` is no folder, or with `verify`, when its file has another checksum.
        Unavailable: when a download fails.
    """
    if source is not None:
        require_folder(source)
        path = source / name
        if path.is_file():
            if verify:
                _hold(path, file.sha256, "or pass --allow-unverified to take this one")
            return path
    cache = dataclasses.replace(cache, folder=home() / "upstream")
    try:
        return cache.fetch([file.url, *file.mirrors], name, file.sha256)
    except Unavailable as error:
        if cache.offline:
            raise
        raise Unavailable(f"{error}; or put it at {cache.folder / name} yourself") from None


def obtain_features(file: FeatureFile, source: Path | None, cache: Cache) -> Path:
    """A published file of vectors: `source` where it is given, else downloaded.

    The checksum of a file that has none registered is noted beside the first download, and later
    ones are held against it.

    Raises:
        DataError: when a file has another checksum.
        Unavailable: when it cannot be had: what to do stands in the same line.
    """
    if source is not None:
        if file.sha256 is not None:
            _hold(source, file.sha256, "`mmkgc features import` takes other files")
        return source
    require_address(file)
    pin = cache.folder / f"{file.file}.sha256"
    pinned = _pinned(pin)
    try:
        path = cache.fetch(file.urls, file.file, file.sha256 or pinned)
    except (Unavailable, DataError) as error:
        why = f"; it was pinned by an earlier download, remove {pin} to take another file"
        changed = isinstance(error, DataError) and file.sha256 is None and pinned is not None
        raise type(error)(f"{error}{why if changed else ''}; or {file.by_hand}") from None
    with path.open("rb") as opened:
        is_page = _PAGE.match(opened.read(256))
    if is_page:
        path.unlink()
        raise Unavailable(
            f"{file.file}: {public(file.urls[0])} answered with a web page, as addresses do that "
            f"are dead or want a click; {file.by_hand}"
        )
    if file.sha256 is None and pinned is None:
        write_text(pin, f"{sha256_of(path)}\n")
    return path


def require_address(file: FeatureFile) -> None:
    """Checks that a file of vectors can be downloaded at all.

    Raises:
        Unavailable: when it takes a browser.
    """
    if not file.urls:
        raise Unavailable(f"{file.file}: no address gives it without a browser; {file.by_hand}")


def _pinned(pin: Path) -> str | None:
    if not pin.is_file():
        return None
    text = read_text(pin).strip()
    if not re.match(SHA256, text):
        raise DataError(f"{pin}: {text[:40]!r} is no SHA-256; remove the file to pin anew")
    return text


def _hold(path: Path, expected: str, advice: str) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if (found := sha256_of(path)) != expected:
        raise DataError(
            f"{path}: SHA-256 {found[:12]}…, expected {expected[:12]}…; get the published file, "
            f"{advice}"
        )
