"""What a reader opens: seen by the kernel for the traps, and by the interpreter for all else.

`Watch` reports every access to the files of a folder, by any process and any library. `Guard` is
an audit hook: it reports files outside of the folder of an input that Python code opens, and
programs and code that it starts.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import tempfile
from pathlib import Path
from types import CodeType
from typing import Any

_EVENT = struct.Struct("iIII")
_OPEN, _ACCESS, _CREATE, _DELETE, _MOVED_TO = 0x20, 0x1, 0x100, 0x200, 0x80


class Watch:
    """Accesses to the files in a folder."""

    def __init__(self, folder: Path) -> None:
        """Watches from now on.

        Raises:
            OSError: the system cannot watch the folder.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = _OPEN | _ACCESS | _CREATE | _DELETE | _MOVED_TO
        if libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def names(self) -> list[str]:
        """The names of the files that were opened, read, created or removed since the last call."""
        names: set[str] = set()
        while True:
            try:
                data = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                return sorted(names)
            while data:
                *_, size = _EVENT.unpack_from(data)
                names.add(os.fsdecode(data[_EVENT.size : _EVENT.size + size].rstrip(b"\0")))
                data = data[_EVENT.size + size :]


class Guard:
    """What Python code opens, starts and runs while an input is read."""

    def __init__(self) -> None:
        """Adds the hook, which stays; it reports only within `folder`."""
        self.folder: str | None = None
        self.found: list[str] = []
        root = Path(__file__).resolve().parent.parent.parent
        settings = (os.environ.get(name) for name in ("MMKGC_HOME", "XDG_CONFIG_HOME"))
        places = {
            root, sys.prefix, sys.base_prefix, Path(sys.executable).resolve().parent.parent,
            tempfile.gettempdir(), *filter(os.path.isabs, sys.path), *filter(None, settings),
        }  # fmt: skip
        # Libraries and tables of the system, such as those of MIME types, locales and time zones.
        self._allowed = (*(f"{place}/" for place in places), "/usr/", "/proc/self/")
        self._files = ("/dev/null", "/dev/urandom", "/etc/mime.types", "/etc/localtime")
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in ("open", "os.listdir", "os.scandir"):
            path = arguments[0]
            if isinstance(path, (str, bytes)) and not self._is_allowed(os.fsdecode(path)):
                self.found.append(f"{event} {path!r}")
        elif event == "exec":
            code = arguments[0]
            if isinstance(code, CodeType) and code.co_filename.startswith(self.folder):
                self.found.append(f"ran code of {code.co_filename!r}")
        elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
            if os.fsdecode(arguments[0]) != sys.executable:
                self.found.append(f"started {arguments[0]!r}")
        elif event in ("os.system", "pickle.find_class", "socket.connect", "socket.getaddrinfo"):
            self.found.append(f"{event} {arguments!r}")

    def _is_allowed(self, path: str) -> bool:
        whole = os.path.abspath(path)  # noqa: PTH100 - as it is, links are not followed
        return whole in self._files or f"{whole}/".startswith((f"{self.folder}/", *self._allowed))
