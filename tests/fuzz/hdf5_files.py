"""HDF5 files from decisions: a valid file, then one to four changes of its structure or its bytes.

Files are composed in memory. What they refer to lies in `Traps`: a file with recognisable values,
a named pipe that nobody writes to, and a path that must not be created.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmkgc_cli.features.checksums import write_checksums
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.writing import FeatureBlock, write_store
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from tests.fuzz.choices import Choices
from tests.fuzz.watch import Watch

IDS = ["a", "b é", "c", "d", "e"]
SECRET = 12345.5  # the only value of the file that must not be read
_SECRET_NAME = "secret"
_BLOCK = 512


@dataclass(frozen=True)
class Traps:
    """Files outside of the folder of an input."""

    secret: Path  # HDF5 and raw floats that must not be read
    pipe: Path  # opening it waits for ever
    absent: Path  # must not be created
    watch: Watch

    @classmethod
    def plant(cls, folder: Path) -> Traps:
        """Creates them in an empty folder."""
        secret, pipe = folder / f"{_SECRET_NAME}.h5", folder / "pipe"
        with h5py.File(secret, "w") as file:
            for name in ("vectors", "x", "v", "train"):
                file[name] = np.full((5, 4), SECRET, np.float32)
        (folder / f"{_SECRET_NAME}.raw").write_bytes(np.full(64, SECRET, "<f4").tobytes())
        os.mkfifo(pipe)
        return cls(secret, pipe, folder / "absent.h5", Watch(folder))

    @property
    def raw(self) -> Path:
        """Floats without a header."""
        return self.secret.with_suffix(".raw")

    def check(self) -> None:
        """No process opened or created a file among the traps since the last check."""
        names = self.watch.names()
        assert not names, f"opened files outside: {names}"


@functools.cache
def graph() -> Graph:
    """A ring of the entities of all files."""
    n = len(IDS)
    train = np.array([[i, i % 2, (i + 1) % n] for i in range(n)], dtype=np.int32)
    return Graph("ring", IDS, ["next", "other"], train, train[:2], train[2:4])


@functools.cache
def _store_image(generated: bool, dtype: str, compression: str | None) -> bytes:
    values = np.arange(1, 21, dtype=np.float32).reshape(5, 4)
    observed = np.array([True, True, False, True, True])
    made = ~observed if generated else None
    blocks = [FeatureBlock(IDS, values * (observed | generated)[:, None], observed, made)]
    completion = {"strategy": "mean"} if generated else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.h5"
        write_store(
            path, Metadata("image", graph="ring", completion=completion), iter(blocks), n=5,
            width=4, dtype=dtype, compression=compression,
        )  # fmt: skip
        image = path.read_bytes()
    size = int(image[:_BLOCK].split(b"size ")[1].split(b"\n")[0])
    return image[:size]


@functools.cache
def _graph_image() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_graph(graph(), Path(folder)).read_bytes()


def vectors(choices: Choices, traps: Traps) -> bytes:
    """A file of vectors of another program."""
    image = io.BytesIO()
    libver = choices.pick(["earliest", "latest", "v108"])
    userblock = choices.pick([0, 0, 0, 512])
    with h5py.File(image, "w", libver=libver, userblock_size=userblock) as file:
        width = choices.pick([4, 1, 3])
        dtype = choices.pick(["<f4", "<f2", "<f8", "<i4", ">f4"])
        values = np.arange(1, 5 * width + 1).reshape(5, width).astype(dtype)
        if choices.chance(25):
            for i, row in enumerate(values):
                file[f"K{i}"] = row
            target = "K0"
        else:
            target = choices.pick(["vectors", "x"])
            file.create_dataset(target, data=values, **_storage(choices, values))
            if choices.chance(60):
                file["ids"] = np.array([name.encode() for name in IDS])
        _change(file, choices, traps, [target, "ids"], maximum=3)
    return _flipped(image.getvalue(), choices, 0)


def store(choices: Choices, traps: Traps) -> bytes:
    """A feature store with valid checksums."""
    image = _store_image(
        choices.chance(25), choices.pick(["float32", "float16"]), choices.pick([None, "gzip"])
    )
    names = ["vectors", "ids", "observed", "generated"]
    return _store_checksums(_flipped(_edited(image, choices, traps, names), choices, _BLOCK))


def graph_file(choices: Choices, traps: Traps) -> bytes:
    """A prepared graph with a valid checksum."""
    names = ["train", "valid", "test", "entities", "relations", "entity_labels"]
    image = _flipped(_edited(_graph_image(), choices, traps, names), choices, _BLOCK)
    digest = hashlib.sha256(image[_BLOCK:]).hexdigest().encode()
    return (b"mmkgc graph\nsha256 " + digest + b"\n").ljust(_BLOCK, b"\0") + image[_BLOCK:]


def _store_checksums(image: bytes) -> bytes:
    file = io.BytesIO(image)
    write_checksums(file)
    return file.getvalue()


def _edited(image: bytes, choices: Choices, traps: Traps, names: Sequence[str]) -> bytes:
    data = io.BytesIO(image)
    with h5py.File(data, "r+") as file:
        _change(file, choices, traps, names, maximum=4)
    return data.getvalue()


def _change(
    file: h5py.File, choices: Choices, traps: Traps, names: Sequence[str], *, maximum: int
) -> None:
    for _ in range(choices.pick([0, 1, 1, 1, 2, maximum])):
        change = choices.pick(_CHANGES)
        name = choices.pick(names)
        # HDF5 refuses some combinations; the file then stays as it was or loses an object.
        with (
            contextlib.suppress(Exception),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            change(file, name, choices, traps)


def _storage(choices: Choices, values: Any) -> dict[str, Any]:
    """Options of storage that fit any array with two axes."""
    chunks = tuple(max(1, size // 2) for size in values.shape)
    return choices.pick(
        [
            {},
            {"chunks": chunks},
            {"chunks": chunks, "compression": "gzip"},
            {"chunks": chunks, "compression": "lzf", "shuffle": True},
            {"chunks": chunks, "fletcher32": True, "maxshape": (None, *values.shape[1:])},
        ]
    )


def _current(file: h5py.File, name: str) -> np.ndarray[Any, Any]:
    item = _own(file, name)
    if isinstance(item, h5py.Dataset) and item.shape is not None and item.size < 10_000:
        return np.asarray(item[()])
    return np.arange(20, dtype=np.float32).reshape(5, 4)


def _own(file: h5py.File, name: str) -> Any:
    """The object of a name, if its values are in this file; else the file.

    The generator itself must not follow a link into a trap, nor crash.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return file
    item = file[name]
    if isinstance(item, h5py.Dataset):
        properties = item.id.get_create_plist()
        filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
        # HDF5 corrupts memory when it reads a short chunk of an unknown filter.
        if item.is_virtual or item.external or filters & set(_UNKNOWN_FILTERS):
            return file
    return item


def _remove(file: h5py.File, name: str) -> None:
    if file.get(name, getlink=True) is not None:
        del file[name]


_TEXT = h5py.string_dtype("utf-8")
_TYPES: list[Any] = [
    "<f2", "<f4", "<f8", ">f4", ">i8", "i1", "u1", "u8", "?", "c8", "S1", "S40", "V8", _TEXT,
    h5py.string_dtype("ascii", 3), h5py.vlen_dtype(np.int32), h5py.vlen_dtype(np.float32),
    h5py.enum_dtype({"FALSE": 0, "TRUE": 1}, "i1"), h5py.enum_dtype({"A": 0, "B": 7}, "i4"),
    np.dtype([("a", "<f4"), ("b", "S3")]), np.dtype(("<f4", (2,))), h5py.ref_dtype,
    h5py.regionref_dtype, np.dtype("longdouble"), h5py.opaque_dtype(np.dtype("M8[s]")),
]  # fmt: skip


def _type(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    values = _current(file, name)
    dtype = np.dtype(choices.pick(_TYPES))
    _remove(file, name)
    try:
        data = values.astype(dtype)
    except (TypeError, ValueError):
        file.create_dataset(name, shape=values.shape, dtype=dtype)
    else:
        file.create_dataset(name, data=data, dtype=dtype)


_SHAPES: list[Any] = [
    (), (0,), (5,), (4,), (0, 4), (5, 0), (1, 4), (6, 4), (5, 4, 1), (5, 1, 4), (5, 4, 2), (5, 3),
    (2**22, 641), (2**40, 4), (5, 2**40), (2**31, 2**31), (2**62,), (2**20,), (2**20, 2**10),
    (1,) * 32, (2,) * 10, (5, *(1,) * 20),
]  # fmt: skip


def _shape(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    """Another shape; large ones are declared, not stored."""
    dtype = _current(file, name).dtype
    shape = choices.pick(_SHAPES)
    _remove(file, name)
    chunks = tuple(min(max(size, 1), 64) for size in shape) if shape and len(shape) < 8 else None
    file.create_dataset(
        name, shape=shape, dtype=dtype, chunks=chunks, fillvalue=choices.pick([None, 0, 1])
    )


def _null(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    _remove(file, name)
    file[name] = h5py.Empty("f4")


def _filters(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    values = _current(file, name)
    every: list[dict[str, Any]] = [
        {"compression": "gzip", "compression_opts": 9},
        {"compression": "lzf", "shuffle": True, "fletcher32": True},
        {"scaleoffset": 2},
        {"compression": "szip", "compression_opts": ("nn", 8)},
        {"fillvalue": 7},
        {"chunks": tuple(max(1, size) for size in values.shape)},
        {"chunks": tuple(4 * max(1, size) for size in values.shape), "maxshape": (None,) * 2},
    ]
    options = choices.pick(every)
    _remove(file, name)
    file.create_dataset(name, data=values, **options)


_UNKNOWN_FILTERS = [32001, 32015, 300, 65535, 255]


def _unknown_filter(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    """A filter that no library has; the file then declares it, with or without a chunk."""
    _remove(file, name)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((5, 4))
    number = choices.pick(_UNKNOWN_FILTERS)
    properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL, tuple(range(choices.integer(20))))
    space = h5py.h5s.create_simple((5, 4))
    dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, dcpl=properties)
    if choices.chance(50):
        dataset.write_direct_chunk((0, 0), b"\1" * choices.pick([80, 1, 0]), choices.integer(4))


def _soft_link(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    target = choices.pick([f"/{name}", "/", "missing", "/ids", ".", "", "a/" * 500, "\udc80"])
    _remove(file, name)
    file[name] = h5py.SoftLink(target)


def _external_link(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    target = choices.pick(
        [traps.secret, traps.pipe, traps.absent, "/dev/zero", "x.h5", "/", "../traps/secret.h5"]
    )
    _remove(file, name)
    file[name] = h5py.ExternalLink(str(target), choices.pick(["vectors", "train", "/", "x"]))


def _hard_link(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    """Two names of one object, or a group that contains itself."""
    if choices.chance(50):
        other = choices.pick(["ids", "observed", "zz", "train", "entities"])
        item = _own(file, name)
        if other != name and item is not file:
            _remove(file, other)
            file[other] = item
        return
    _remove(file, name)
    group = file.create_group(name)
    group["loop"] = group
    group["root"] = file["/"]


def _group(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    kind = choices.integer(3)
    _remove(file, name)
    if kind == 0:
        file.create_group(name)
    elif kind == 1:
        file[name] = np.dtype("<f4")
    else:
        group = file.create_group(name)
        for depth in range(40):
            group = group.create_group(f"g{depth}")


def _virtual(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    source = choices.pick(
        [traps.secret, traps.raw, traps.absent, traps.pipe, ".", "%b.h5", "x.h5", "/dev/zero"]
    )
    _remove(file, name)
    layout = h5py.VirtualLayout((5, 4), "<f4", maxshape=(None, 4))
    layout[:] = h5py.VirtualSource(str(source), choices.pick(["vectors", name]), (5, 4))
    file.create_virtual_dataset(name, layout, fillvalue=1)


def _external_storage(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    target = choices.pick([traps.raw, traps.pipe, "/dev/zero", "/etc/hostname", "x.h5", ""])
    size = choices.pick([80, 0, 1, h5py.h5f.UNLIMITED])
    _remove(file, name)
    file.create_dataset(
        name, (5, 4), "<f4", external=[(str(target), choices.pick([0, 4, 2**40]), size)]
    )


_STRINGS: list[bytes] = [
    b"\xff\xfe", b"", b"\0a", b"a\0b", b"\xc3", b"a" * 70_000, b"\x1b[31m", b"\xe2\x80\xae",
    b"a", b"a\nb", b"\xed\xa0\x80", b" ", b"\xc2\x9b",
]  # fmt: skip


def _strings(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    rows = [choices.pick(_STRINGS) for _ in range(choices.pick([5, 4, 6, 0]))]
    _remove(file, name)
    if choices.chance(50):
        file.create_dataset(name, data=np.array(rows, dtype=object), dtype=_TEXT)
    else:
        file.create_dataset(name, data=np.array(rows, dtype=bytes))


def _values(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    item = _own(file, name)
    if item.dtype.kind not in "fiub":  # h5py may crash on conversions of other types
        return
    value = choices.pick([np.nan, np.inf, -1, 0, 1e300, 2**31, 7])
    with np.errstate(all="ignore"):
        item[choices.integer(5)] = np.asarray(value).astype(item.dtype)


_TEXTS = [
    "", "[", "{}", "[]", "null", "5", '"x"', "[" * 3000, "9" * 5000, '{"a": NaN}', "\ud800",
    '"\\ud800"', "x" * 60_000, "\x1b[31m", "image/../../x", "other", "1", "{" * 100, "[1, [2]]",
    '{"notes": 1}', "true", "[null]", '{"strategy": 5}',
]  # fmt: skip
_ATTRIBUTES: list[Any] = [
    0, 1, 2, 99, -1, 2**63 - 1, 1.5, np.nan, True, np.arange(3), np.zeros((2, 2)), np.zeros(0),
    b"\xff", b"bytes", np.array([b"a", b"b"]), np.zeros(1, [("a", "f4")]), np.zeros(8000, "f8"),
    h5py.Empty("f4"), h5py.Empty(_TEXT), np.void(b"abc"), np.array(["1"], dtype=_TEXT),
]  # fmt: skip


def _attribute(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    item = choices.pick([file, file, file, _own(file, name)])
    names = sorted(item.attrs) or ["x"]
    attribute = choices.pick(names)
    kind = choices.integer(8)
    if kind == 0:
        del item.attrs[attribute]
    elif kind == 1:
        for number in range(choices.pick([20, 200])):
            item.attrs[f"n{number}"] = number
    elif kind == 2:
        item.attrs[b"\xff\xfe"] = 1
    elif kind < 5:
        value = choices.pick(_TEXTS)
        item.attrs[attribute] = value
    elif kind == 5:
        item.attrs.create(attribute, choices.pick(_STRINGS[:5]))
    else:
        item.attrs[attribute] = choices.pick(_ATTRIBUTES)


def _missing(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    _remove(file, name)


def _more(file: h5py.File, name: str, choices: Choices, traps: Traps) -> None:
    kind = choices.integer(4)
    if kind == 0:
        for number in range(100):
            file.create_group(f"g{number}")
    elif kind == 1:
        file[b"\xff\xfe"] = 1
    elif kind == 2:
        file[choices.pick(["\x1b[31m", "a\nb", " ", "x" * 3000, "‮"])] = np.ones((5, 4))
    else:
        file["more"] = np.ones((7, 4), "<f4")


_CHANGES: list[Callable[[h5py.File, str, Choices, Traps], None]] = [
    _type, _type, _shape, _shape, _null, _filters, _unknown_filter, _soft_link, _external_link,
    _hard_link, _group, _virtual, _external_storage, _strings, _values, _attribute, _attribute,
    _missing, _more,
]  # fmt: skip


def _flipped(image: bytes, choices: Choices, start: int) -> bytes:
    """Changes of bytes after `start`, half of them near the beginning, where headers are."""
    if not choices.chance(45):
        return image
    content = bytearray(image)
    for _ in range(choices.pick([1, 1, 2, 3, 5, 8])):
        size = len(content) - start
        if size < 16:
            break
        reach = min(size, choices.pick([96, 800, 2400, size, size]))
        position = start + choices.integer(1 << 16) * choices.pick([1, 7]) % reach
        kind = choices.integer(8)
        if kind < 2:
            content[position] ^= 1 << choices.integer(8)
        elif kind == 2:
            content[position] = choices.integer(256)
        elif kind == 3:
            content[position : position + 8] = b"\xff" * len(content[position : position + 8])
        elif kind == 4:
            content[position] = (content[position] + choices.pick([1, 255])) % 256
        elif kind == 5:
            origin = start + choices.integer(1 << 16) % size
            part = content[origin : origin + choices.pick([8, 16, 40])]
            content[position : position + len(part)] = part
        elif kind == 6:
            content[position : position + 8] = choices.pick(
                [0, 1, size, size - 8, 2**31, 2**40]
            ).to_bytes(8, "little")
        elif kind == 7 and choices.chance(25):
            del content[position:]
    return bytes(content)


def each(count: int, make: Callable[[Choices, Traps], bytes], traps: Traps) -> Iterator[bytes]:
    """Files of the decisions 0, 1, …, for measurements."""
    for number in range(count):
        yield make(Choices(hashlib.sha512(str(number).encode()).digest() * 4), traps)
