"""Messages between a parent and the child that reads a file: a JSON header and raw bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

_SIZES = struct.Struct("<IQ")
HEADER_BYTES = 1 << 20

Buffer = bytes | bytearray | memoryview


class Message(NamedTuple):
    """A JSON object and the bytes of an array or a text."""

    header: dict[str, Any]
    payload: bytearray


class TooLong(Exception):
    """A message is longer than the receiver allows."""


def send(write: Callable[[Buffer], object], header: Mapping[str, Any], payload: Buffer) -> None:
    """Writes a message with `write`, which accepts all bytes it is given."""
    text = json.dumps(header).encode()
    view = memoryview(payload).cast("B")
    write(_SIZES.pack(len(text), len(view)) + text)
    if len(view):
        write(view)


def receive(read: Callable[[memoryview], int], most_bytes: int) -> Message | None:
    """Reads a message with `read`, which fills a part of a buffer; None at the end of the stream.

    Raises:
        TooLong: header or payload is longer than allowed; nothing is allocated.
        ValueError: the message is cut, or its header is no JSON object.
    """
    sizes = _exactly(read, _SIZES.size)
    if not sizes:
        return None
    header_size, size = _SIZES.unpack(sizes)
    if header_size > HEADER_BYTES or size > most_bytes:
        raise TooLong
    header = json.loads(_exactly(read, header_size))
    payload = _exactly(read, size)
    if not isinstance(header, dict) or len(payload) != size:
        raise ValueError("a message is cut or not valid")
    return Message(header, payload)


def _exactly(read: Callable[[memoryview], int], size: int) -> bytearray:
    """`size` bytes; none at the end of the stream."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = read(view)
        if not count:
            return bytearray()
        view = view[count:]
    return data


class Peer:
    """The child's side of the conversation with its parent."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader, self._writer = reader, writer

    def send(self, header: Mapping[str, Any], payload: Buffer = b"") -> None:
        """Sends an answer."""
        send(self._writer.write, header, payload)
        self._writer.flush()

    def receive(self) -> Message | None:
        """The next question; None when the parent has no more."""
        return receive(self._reader.readinto, 1 << 62)  # type: ignore[attr-defined]
