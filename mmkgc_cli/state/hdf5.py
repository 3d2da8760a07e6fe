"""Checks of the structure of an HDF5 file, made before any value is read.

A foreign file may refer to other files: by links, external storage or virtual datasets. It may also
ask for filters that HDF5 loads as code. `plain_datasets` refuses all of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmkgc_cli.errors import DataError

_LINKS = {
    h5py.h5l.TYPE_SOFT: "a soft link",
    h5py.h5l.TYPE_EXTERNAL: "a link to another file",
}
# Filters inside the HDF5 library and h5py; others would be loaded from the machine.
_FILTERS = (
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_SZIP,
    h5py.h5z.FILTER_NBIT,
    h5py.h5z.FILTER_SCALEOFFSET,
    h5py.h5z.FILTER_LZF,
)
_FIX_LINK = "write a file that contains the arrays themselves, without links"
_FIX_STORAGE = "copy the values into a file of their own, for instance with h5repack"


def plain_datasets(
    path: Path, file: h5py.File, fix: str = ""
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yields names and datasets of the root group, after a check of their links and storage.

    Groups are not entered. `fix` says what to do with a file of one of our formats.

    Raises:
        DataError: an object is linked other than by a hard link, or a dataset is external or
            virtual, or has an unknown filter.
    """
    for raw_name in list(file.id):
        try:
            name = raw_name.decode()
        except UnicodeDecodeError:
            raise DataError(
                f"{path}: the name {raw_name[:80]!r} is not UTF-8", fix="rename the array"
            ) from None
        kind = file.id.links.get_info(raw_name).type
        if kind != h5py.h5l.TYPE_HARD:
            raise DataError(
                f"{path}: {name!r} is {_LINKS.get(kind, 'a link of unknown type')}, expected an "
                "array",
                fix=fix or _FIX_LINK,
            )
        item = h5py.h5o.open(file.id, raw_name)
        if isinstance(item, h5py.h5d.DatasetID):
            _check_storage(path, name, item, fix or _FIX_STORAGE)
            yield name, h5py.Dataset(item)


def _check_storage(path: Path, name: str, dataset: h5py.h5d.DatasetID, fix: str) -> None:
    properties = dataset.get_create_plist()
    reason = ""
    if properties.get_layout() == h5py.h5d.VIRTUAL:
        reason = "is a virtual dataset, with its values in other datasets"
    elif properties.get_external_count():
        reason = "has its values in other files (external storage)"
    else:
        for number in range(properties.get_nfilters()):
            code, *_, filter_name = properties.get_filter(number)
            if code not in _FILTERS:
                reason = (
                    f"is compressed with filter {code} ({filter_name[:40]!r}), which is unknown"
                )
    if reason:
        raise DataError(f"{path}: {name!r} {reason}", fix=fix)


def declared_bytes(dataset: h5py.Dataset) -> int:
    """The size of all values of a dataset, which the file may declare without containing them."""
    return math.prod(map(int, dataset.shape or ())) * int(dataset.dtype.itemsize)


def text_attribute(attributes: Mapping[str, Any], name: str) -> str:
    """A string attribute.

    Raises:
        KeyError: it is missing.
        ValueError: it is not a string, or not UTF-8.
    """
    value = attributes[name]
    if not isinstance(value, str):
        raise ValueError(f"attribute {name!r} is {type(value).__name__}, expected a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"attribute {name!r} is not UTF-8") from None
    return value


def integer_attribute(attributes: Mapping[str, Any], name: str) -> int:
    """An integer attribute.

    Raises:
        KeyError: it is missing.
        ValueError: it is not an integer.
    """
    value = attributes[name]
    if not isinstance(value, (int, np.integer)):
        raise ValueError(f"attribute {name!r} is {type(value).__name__}, expected an integer")
    return int(value)
