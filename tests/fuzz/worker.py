"""A process that runs inputs of one target after another; `run.py` watches it.

Its arguments are a shared file and the module of the targets. It reads lines ``TARGET SEED START
STOP`` and writes one JSON object per failure and per chunk. The number of the current input and
the time of its start are in the shared file, so that the parent knows the input on which a worker
hangs or dies.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import mmap
import os
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

PROGRESS = struct.Struct("<qd")  # number of the input, -1 between chunks; monotonic time of start
FILE_BYTES = 1 << 28
MEMORY = 3 << 30  # beyond the libraries


def scratch() -> Path | None:
    """A folder in memory, where there is one."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else None


def limit() -> None:
    """Limits memory and the size of files of this process and its children."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """An empty folder for inputs; home, settings and temporary files lie beside it.

    Temporary files are not in its parent, since a reader may open what it puts there.
    """
    with tempfile.TemporaryDirectory(prefix="mmkgc-fuzz-", dir=scratch()) as temporary:
        folders = {name: Path(temporary) / name for name in ("input", "temporary")}
        for folder in folders.values():
            folder.mkdir()
        os.environ["MMKGC_HOME"] = str(Path(temporary) / "home")
        os.environ["XDG_CONFIG_HOME"] = str(Path(temporary) / "config")
        tempfile.tempdir = str(folders["temporary"])
        yield folders["input"]


def main() -> None:
    progress_path = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is not an answer
    with private_folder() as folder:
        warnings.simplefilter("ignore")
        targets = importlib.import_module(sys.argv[2])
        faulthandler.enable()
        with progress_path.open("r+b") as file, mmap.mmap(file.fileno(), PROGRESS.size) as shared:
            is_limited = False
            for line in sys.stdin:
                name, *numbers = line.split()
                seed, start, stop = map(int, numbers)
                targets.examples(name)
                if not is_limited:
                    limit()
                    is_limited = True
                accepted, slowest, slow_number = 0, 0.0, start
                began = time.monotonic()
                for number in range(start, stop):
                    now = time.monotonic()
                    PROGRESS.pack_into(shared, 0, number, now)
                    try:
                        accepted += targets.check(
                            name, targets.generate(name, seed, number), folder
                        )
                    except Exception as error:
                        text = "".join(traceback.format_exception(error))
                        frames = traceback.extract_tb(error.__traceback__)
                        own = [frame for frame in frames if "/mmkgc_cli/" in frame.filename]
                        place = (own or frames)[-1]
                        where = f"{Path(place.filename).name}:{place.lineno}"
                        reason = f"{type(error).__name__} at {where}"
                        answers.write(
                            json.dumps({"failure": number, "reason": reason, "text": text[-1500:]})
                            + "\n"
                        )
                    if (seconds := time.monotonic() - now) > slowest:
                        slowest, slow_number = seconds, number
                PROGRESS.pack_into(shared, 0, -1, time.monotonic())
                answers.write(json.dumps({
                    "done": stop - start, "accepted": accepted, "slowest": slowest,
                    "slow": slow_number, "seconds": time.monotonic() - began,
                    "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                }) + "\n")  # fmt: skip
        with contextlib.suppress(ImportError):
            from mmkgc_cli.state import sandbox

            sandbox.close()


if __name__ == "__main__":
    main()
