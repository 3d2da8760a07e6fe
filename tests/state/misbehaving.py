"""Tasks that misbehave, as a file may make a library do; see `mmkgc_cli.state.sandbox`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import UsageError
from mmkgc_cli.state.sandbox import Peer

Arguments = Mapping[str, Any]


def crash(peer: Peer, file: FileIO, arguments: Arguments) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(peer: Peer, file: FileIO, arguments: Arguments) -> None:
    time.sleep(3600)


def spin(peer: Peer, file: FileIO, arguments: Arguments) -> None:
    while True:
        pass


def allocate(peer: Peer, file: FileIO, arguments: Arguments) -> None:
    peer.send({}, bytes(1 << 30))


def talk(peer: Peer, file: FileIO, arguments: Arguments) -> None:
    peer.send({}, bytes(1 << 20))


def leave(peer: Peer, file: FileIO, arguments: Arguments) -> None:
    os._exit(7)


def refuse(peer: Peer, file: FileIO, arguments: Arguments) -> None:
    raise UsageError("v: has no array", fix="give another")


def write(peer: Peer, file: FileIO, arguments: Arguments) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.write(os.open(arguments["path"], os.O_WRONLY | os.O_CREAT), b"x")


def look(peer: Peer, file: FileIO, arguments: Arguments) -> None:
    Path(arguments["path"]).read_bytes()


def echo(peer: Peer, file: FileIO, arguments: Arguments) -> None:
    while question := peer.receive():
        peer.send({**question.header, "pid": os.getpid(), "file": file.name}, question.payload)
