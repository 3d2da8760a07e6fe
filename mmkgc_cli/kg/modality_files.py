"""Published files of modalities in ``datasets.toml``, and how to obtain them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.downloads import Cache, Unavailable, sha256_of
from mmkgc_cli.kg.readers.lines import require_folder
from mmkgc_cli.state.atomic import read_text, write_text
from mmkgc_cli.state.home import cache_folder

SHA256 = r"^[0-9a-f]{64}$"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UpstreamFile(_Entry):
    """A published file that tables or id maps are built from; `mirrors` have the same bytes."""

    url: str = Field(pattern=r"^https?://")
    mirrors: tuple[str, ...] = ()
    sha256: str = Field(pattern=SHA256)
    licence: str = Field(min_length=1)


class TableFile(_Entry):
    """A table of texts or numbers that `mmkgc texts build` writes, and its checksum."""

    made_of: tuple[str, ...] = Field(min_length=1)  # names of upstream files
    sha256: str = Field(pattern=SHA256)


class FeatureFile(_Entry):
    """A published file of feature vectors, and how its rows map to entities.

    With parser `rows`, `ids` names an OpenKE vocabulary of the benchmark, and row i is the vector
    of the entity with id i. With parser `keys`, `ids` names an upstream file of entities and keys,
    and the file contains one vector per key.
    """

    modality: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    publisher: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    file: str = Field(pattern=r"^[\w.-]+\.\w+$")
    url: str | None = Field(default=None, pattern=r"^https?://")
    mirrors: tuple[str, ...] = ()
    page: str = Field(pattern=r"^https?://")  # web page with a link to the file
    sha256: str | None = Field(default=None, pattern=SHA256)  # None: pinned at the first download
    ids: str = Field(min_length=1)
    parser: Literal["rows", "keys"]
    encoder: str = ""
    licence: str = Field(min_length=1)
    evidence: str = Field(min_length=1)  # source and date of the claim that the file exists
    verified: bool  # whether the file itself was inspected

    @model_validator(mode="after")
    def _mirrors_need_a_checksum(self) -> Self:
        if self.mirrors and (self.url is None or self.sha256 is None):
            raise ValueError(f"{self.file}: mirrors require url and sha256")
        return self

    @property
    def urls(self) -> tuple[str, ...]:
        """The direct addresses of the file; empty when it needs a browser."""
        return () if self.url is None else (self.url, *self.mirrors)

    @property
    def by_hand(self) -> str:
        """The fix when the file cannot be downloaded."""
        return f"get {self.file} at {self.page} and pass --source FILE"


def obtain_upstream(
    name: str, file: UpstreamFile, source: Path | None, cache: Cache, *, verify: bool = True
) -> Path:
    """Returns a published file from the folder `source`, or downloads it when it is not there.

    Raises:
        DataError: when `source` is not a folder, or (with `verify`) its file has another checksum.
        Unavailable: when a download fails.
    """
    if source is not None:
        require_folder(source)
        path = source / name
        if path.is_file():
            if verify:
                _verify(
                    path,
                    file.sha256,
                    fix="get the published file, or pass --allow-unverified to use this one",
                )
            return path
    cache = dataclasses.replace(cache, folder=cache_folder() / "upstream")
    try:
        return cache.fetch([file.url, *file.mirrors], name, file.sha256)
    except Unavailable as error:
        if cache.offline:
            raise
        raise Unavailable(
            str(error), fix=f"or put the file at {cache.folder / name} yourself"
        ) from None


def obtain_features(file: FeatureFile, source: Path | None, cache: Cache) -> Path:
    """Returns the published file of vectors at `source`, or downloads it.

    When no checksum is registered, that of the first download is pinned in a file beside it, and
    later downloads are compared with it.

    Raises:
        DataError: when a file has another checksum.
        Unavailable: when it cannot be downloaded.
    """
    if source is not None:
        if file.sha256 is not None:
            _verify(
                source,
                file.sha256,
                fix="get the published file, or use `mmkgc features import` for another one",
            )
        return source
    require_address(file)
    pin = cache.folder / f"{file.file}.sha256"
    pinned = _read_pin(pin)
    try:
        path = cache.fetch(file.urls, file.file, file.sha256 or pinned)
    except (Unavailable, DataError) as error:
        fix = f"or {file.by_hand}"
        if isinstance(error, Unavailable):
            raise Unavailable(str(error), fix=fix) from None
        if file.sha256 is None and pinned is not None:
            fix = f"or remove {pin} to accept a file with another checksum; {fix}"
        raise DataError(str(error), fix=fix) from None
    if file.sha256 is None and pinned is None:
        write_text(pin, f"{sha256_of(path)}\n")
    return path


def require_address(file: FeatureFile) -> None:
    """Checks that a file of vectors has a direct address.

    Raises:
        Unavailable: when it needs a browser.
    """
    if not file.urls:
        raise Unavailable(f"{file.file}: no address gives it without a browser", fix=file.by_hand)


def _read_pin(pin: Path) -> str | None:
    if not pin.is_file():
        return None
    text = read_text(pin).strip()
    if not re.match(SHA256, text):
        raise DataError(
            f"{pin}: {text[:40]!r} is not a SHA-256",
            fix="remove the file; the next download is pinned again",
        )
    return text


def _verify(path: Path, expected: str, *, fix: str) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file", fix="check the path, or omit --source to download")
    if (digest := sha256_of(path)) != expected:
        raise DataError(f"{path}: SHA-256 {digest[:12]}…, expected {expected[:12]}…", fix=fix)
