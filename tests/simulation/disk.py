"""A disk that loses what was not flushed, and returns errors at the n-th operation.

The model is what POSIX promises, which is less than ext4 does:

- Data: a write is durable after an fsync of its file. Before, each block of 512 bytes of each write
  is kept, dropped or, where it extends the file, replaced by zeros; each truncation is kept or
  dropped.
- Names: a creation, rename, removal or new folder is durable after an fsync of its folder. Before,
  either a prefix of them is kept (a journal) or any subset (no journal). A rename is atomic.
- An fsync that fails loses the data: the next one reports success without them.
- EINTR is a short write, because Python repeats interrupted calls.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import IO, Any

from mmkgc_cli.state.files import Disk

BLOCK = 512
NO_PROCESS = 99_999_999  # beyond the largest process id
FAULTS = ("cut", "ENOSPC", "EIO", "EINTR")
# The operations that each fault can hit.
_HITS = {
    "ENOSPC": ("open", "write", "make_folder", "replace"),
    "EIO": ("write", "sync", "replace", "truncate"),
    "EINTR": ("write",),
}


class PowerCut(BaseException):
    """The power failed; nothing reaches the disk any more."""


class Node:
    """A file: its contents on the disk, and the writes since."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.pending: list[tuple[int, bytes | None]] = []  # offset and data; None truncates

    def after(self, random: Random) -> bytes:
        """Contents after a power cut."""
        content = bytearray(self.durable)
        for offset, data in self.pending:
            if data is None:
                if random.random() < 0.5:
                    del content[offset:]
                    content.extend(bytes(offset - len(content)))
                continue
            fate = random.choice(("keep", "drop", "mix"))
            for start in range(0, len(data), BLOCK):
                part = data[start : start + BLOCK]
                at = offset + start
                if fate == "keep" or (fate == "mix" and random.random() < 0.5):
                    content.extend(bytes(max(0, at + len(part) - len(content))))
                    content[at : at + len(part)] = part
                elif fate == "mix" and random.random() < 0.5:
                    content.extend(bytes(max(0, at + len(part) - len(content))))
        return bytes(content)


class _File(io.FileIO):
    """An unbuffered file that reports its writes to the disk."""

    def __init__(self, disk: SimulatedDisk, path: Path, mode: str) -> None:
        super().__init__(str(path), mode.replace("b", ""))
        self.disk = disk
        self.node = Node()
        self.appends = "a" in mode

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.disk.is_off:  # closing a file after the cut flushes it
            return len(view)
        if self.disk.step("write") == "EINTR" and len(view) > 1:
            view = view[: self.disk.random.randrange(1, len(view))]
        offset = os.fstat(self.fileno()).st_size if self.appends else self.tell()
        size = super().write(view)
        self.node.pending.append((offset, bytes(view[:size])))
        return size

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        if self.disk.is_off:
            return size
        self.disk.step("truncate")
        if os.fstat(self.fileno()).st_size != size:
            super().truncate(size)
            self.node.pending.append((size, None))
        return size


class SimulatedDisk(Disk):
    """A folder whose changes are recorded; see the module for the model."""

    def __init__(self, root: Path, random: Random, faults: dict[int, str] | None = None) -> None:
        """Records changes below `root`; `faults` maps numbers of operations to faults."""
        self.root, self.random = root, random
        self.faults = dict(faults or {})
        self.count = 0
        self.is_off = False
        self.happened: list[str] = []
        self.tally: Counter[str] = Counter()  # faults that happened
        # Digests of the contents that each name has had as a whole; None: no file.
        self.versions: dict[str, set[str | None]] = defaultdict(lambda: {None})
        # Files whose names have been on the disk, and the last contents of those removed.
        self.durable: set[Path] = set()
        self.removed: dict[Path, bytes] = {}
        self.start()

    def start(self) -> None:
        """Takes the present contents as those on the disk."""
        self.is_off = False
        self.nodes: dict[int, Node] = {}
        self.names: dict[Path, Node | None] = {}  # on the disk; None is a folder
        self.changes: list[list[tuple[Path, Node | None, bool]]] = []
        for path in sorted(self.root.rglob("*")):
            if path.is_dir():
                self.names[path] = None
            else:
                content = path.read_bytes()
                node = Node(content)
                self.nodes[path.stat().st_ino] = self.names[path] = node
                self.durable.add(path)
                self.versions[str(path)].add(digest(content))

    def step(self, operation: str) -> str | None:
        """Counts an operation; raises the fault that is due, or returns EINTR."""
        if self.is_off:
            raise PowerCut
        self.count += 1
        for number in sorted(self.faults):
            fault = self.faults[number]
            if number > self.count or (fault != "cut" and operation not in _HITS[fault]):
                continue
            del self.faults[number]
            self.tally[fault] += 1
            self.happened.append(f"{fault} at {operation}, operation {self.count}")
            if fault == "cut":
                self.is_off = True
                if operation in ("write", "truncate"):
                    # HDF5 calls these, and would crash on another exception.
                    raise OSError(errno.EIO, "the power failed")
                raise PowerCut
            if fault == "EINTR":
                return fault
            code = getattr(errno, fault)
            raise OSError(code, os.strerror(code))
        return None

    def open(self, path: Path, mode: str, buffering: int = -1) -> IO[bytes]:
        self.step("open")
        path = path.absolute()
        is_new = not path.exists()
        file = _File(self, path, mode)
        number = os.fstat(file.fileno()).st_ino
        if is_new:
            self.nodes[number] = Node()
            self.changes.append([(path, self.nodes[number], True)])
        file.node = self.nodes[number]
        if "w" in mode and not is_new:
            file.node.pending.append((0, None))
        if not buffering:
            return file
        return (io.BufferedRandom if "+" in mode else io.BufferedWriter)(file)

    def sync(self, file: IO[bytes]) -> None:
        file.flush()
        raw: Any = getattr(file, "raw", file)
        try:
            self.step("sync")
        except OSError:
            raw.node.durable = raw.node.after(self.random)
            raw.node.pending.clear()
            raise
        os.lseek(raw.fileno(), 0, os.SEEK_CUR)
        raw.node.durable = Path(f"/proc/self/fd/{raw.fileno()}").read_bytes()
        raw.node.pending.clear()

    def sync_folder(self, folder: Path) -> None:
        self.step("sync_folder")
        folder = folder.absolute()
        waiting = []
        for change in self.changes:
            if change[0][0].parent == folder:
                _apply(self.names, change)
                self.durable.update(p for p, node, exists in change if exists and node)
            else:
                waiting.append(change)
        self.changes = waiting

    def replace(self, source: Path, target: Path) -> None:
        self.step("replace")
        source, target = source.absolute(), target.absolute()
        if source.parent != target.parent:
            raise AssertionError(f"{source} -> {target}: a rename across folders is not atomic")
        self.versions[str(target)].add(digest(source.read_bytes()))
        node = self.nodes[source.stat().st_ino]
        source.replace(target)
        self.changes.append([(target, node, True), (source, None, False)])

    def unlink(self, path: Path) -> None:
        self.step("unlink")
        self.removed[path.absolute()] = path.read_bytes() if path.is_file() else b""
        path.unlink()
        self.changes.append([(path.absolute(), None, False)])

    def make_folder(self, path: Path) -> None:
        self.step("make_folder")
        path.mkdir()
        self.changes.append([(path.absolute(), None, True)])

    def remove_folder(self, path: Path) -> None:
        self.step("remove_folder")
        path.rmdir()
        self.changes.append([(path.absolute(), None, False)])

    def lose_power(self) -> None:
        """Replaces the folder by what the disk has after a power cut, and starts again."""
        names = dict(self.names)
        if self.random.random() < 0.5:
            kept = self.changes[: self.random.randrange(len(self.changes) + 1)]
        else:
            kept = [change for change in self.changes if self.random.random() < 0.5]
        for change in kept:
            _apply(names, change)
        contents = {  # hard order, so that the seed decides
            path: node and node.after(self.random) for path, node in sorted(names.items())
        }
        for entry in self.root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for path, content in contents.items():
            if path.parent.is_dir():
                if isinstance(content, bytes):
                    _of_the_dead(path).write_bytes(content)
                else:
                    path.mkdir()
        self.start_again()

    def start_again(self) -> None:
        """As `start`, but torn contents do not count as versions."""
        versions = {name: set(known) for name, known in self.versions.items()}
        self.start()
        self.versions = defaultdict(lambda: {None}, versions)


def _of_the_dead(path: Path) -> Path:
    """The path of a file that this process wrote before the cut, as if the process had ended."""
    return path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{NO_PROCESS}-"))


def _apply(names: dict[Path, Node | None], change: list[tuple[Path, Node | None, bool]]) -> None:
    for path, node, exists in change:
        if exists:
            names[path] = node
        else:
            names.pop(path, None)


def digest(content: bytes) -> str:
    """A digest of the contents of a file."""
    return hashlib.sha256(content).hexdigest()
