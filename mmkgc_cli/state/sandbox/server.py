"""The processes in which foreign files are read: a server, and a child for each file.

The server imports the modules of the tasks once and forks a child for each request, since a new
process would import numpy and h5py for each file. It reads no file itself. Server and children end
with the process that started the server, even if that is killed.
"""

from __future__ import annotations

import codecs
import ctypes
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.state.forks import ForkServer
from mmkgc_cli.state.sandbox.messages import Peer
from mmkgc_cli.text import reason_of

_ORPHAN_SECONDS = 2.0  # between two looks at whether the parent lives
_PR_SET_PDEATHSIG = 1
# Imported before the first fork, since children can open no file, not even a module.
_CODECS = ("ascii", "latin-1", "unicode_escape", "utf-8")


def serve(descriptor: int) -> NoReturn:
    """Forks a child for each request on the socket `descriptor`, until its other end is closed."""
    parent = os.getppid()
    server = ForkServer(descriptor)
    for name in _CODECS:
        codecs.lookup(name)
    importlib.import_module("h5py")  # while the parent prepares its first request
    loaded: set[str] = set()
    for request, descriptors in server.requests(
        lambda: os.getppid() == parent, seconds=_ORPHAN_SECONDS
    ):
        if request["task"] not in loaded:
            load(request["task"])  # stays imported for the next child
            loaded.add(request["task"])
            # Collecting garbage would touch, and so copy, pages that children share.
            gc.collect()
            gc.freeze()
        if server.fork(request["id"], descriptors):
            _serve_file(request, *descriptors)
    server.kill_children()
    os._exit(0)


def _serve_file(request: Mapping[str, Any], link: int, file: int) -> NoReturn:
    """Runs a task in a forked child."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Buffered readers and writers read and write as many bytes as they are asked to.
    with os.fdopen(link, "rb") as reader, os.fdopen(os.dup(link), "wb") as writer:
        limit(request["limits"], may_open=False)
        run(request["task"], Peer(reader, writer), FileIO(file), request["arguments"])
    os._exit(0)


def serve_one(
    task: str, path: str, arguments: Mapping[str, Any], limits: Mapping[str, int]
) -> None:
    """Runs a task in a process of its own, which talks through its standard input and output."""
    load(task)
    peer = Peer(sys.stdin.buffer, sys.stdout.buffer)
    limit(limits, may_open=True)
    with Path(path).open("rb", buffering=0) as file:
        run(task, peer, file, arguments)


def load(task: str) -> Callable[[Peer, FileIO, Mapping[str, Any]], None]:
    """The function ``MODULE:NAME``."""
    module, _, name = task.partition(":")
    function: Callable[..., None] = getattr(importlib.import_module(module), name)
    return function


def limit(limits: Mapping[str, int], may_open: bool) -> None:
    """Limits this process; it can write no file and, unless it `may_open`, open none.

    The limit of memory is on what the task needs in addition.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    values = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CPU: limits["cpu_seconds"] + 1,
    }
    statm = Path("/proc/self/statm")
    if statm.exists():
        size = int(statm.read_text().split()[0]) * resource.getpagesize()
        values[resource.RLIMIT_AS] = size + limits["memory"]
    if not may_open:
        values[resource.RLIMIT_NOFILE] = 0
    for number, value in values.items():
        _, hard = resource.getrlimit(number)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        # SIGXCPU, which says why, comes one second before SIGKILL.
        soft = max(1, value - 1) if number == resource.RLIMIT_CPU else value
        resource.setrlimit(number, (soft, value))


def run(task: str, peer: Peer, file: FileIO, arguments: Mapping[str, Any]) -> None:
    """Runs a task and reports its errors to the parent."""
    try:
        load(task)(peer, file, arguments)
    except MmkgcError as error:
        peer.send({"error": type(error).__name__, "text": str(error)})
    except MemoryError:
        peer.send({"memory": True})
    except (BrokenPipeError, ConnectionResetError):  # the parent has closed its end
        pass
    except Exception as error:  # libraries raise many types on files of another format
        peer.send({"failure": reason_of(error)})
