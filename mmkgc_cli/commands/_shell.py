"""What all commands share: consoles, tables, exit codes, errors without tracebacks."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from enum import StrEnum
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmkgc_cli import __version__
from mmkgc_cli.errors import Interrupted, MmkgcError, is_out_of_memory

DEBUG = "MMKGC_TRACEBACK"

# Results go to stdout, everything said on the way to stderr.
# Tables are cut to the width of a terminal, never on their way into a file.
out = Console(
    highlight=False,
    markup=False,
    emoji=False,
    soft_wrap=True,
    width=None if sys.stdout.isatty() else 1000,
)
log = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def _version(value: bool) -> None:
    if value:
        print(f"mmkgc {__version__}")
        raise typer.Exit


def version_callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Completes knowledge graphs whose entities carry several modalities, some missing."""


def guarded(app: typer.Typer) -> None:
    """Runs the app and turns errors into one line and an exit code."""
    # SIGTERM unwinds like Ctrl-C, so that temporary files go; training has its own handler.
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a name gets an escape, not a crash.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except MmkgcError as error:
        _fail(error, error.exit_code)
    except KeyboardInterrupt as error:
        _fail(error, 130, "interrupted")
    except SystemExit as error:
        if error.code == 130:  # typer has turned Ctrl-C into an exit without a word
            _fail(error, 130, "interrupted")
        raise
    except BrokenPipeError:
        # The reader of a pipe went away; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = "the output" if error.filename is None else str(error.filename)
        _fail(error, 3, f"{where}: {error.strerror or error}")
    except Exception as error:
        from mmkgc_cli.plugins import blame

        if fault := blame(error):
            _fail(error, fault.exit_code, str(fault))
        if is_out_of_memory(error):
            _fail(error, 1, "not enough memory; lower model.dim, training.batch_size or "
                  "negatives.count")  # fmt: skip
        first = (str(error).splitlines() or [""])[0]
        _fail(
            error, 1, f"internal error: {type(error).__name__}: {first} "
            f"(please report it; {DEBUG}=1 shows where)",
        )  # fmt: skip


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Interrupted("terminated", number)


def _fail(error: BaseException, code: int, message: str | None = None) -> None:
    with contextlib.suppress(BrokenPipeError):
        for line in (message or str(error)).splitlines():
            log.print(
                Text("error: ", style="bold red").append(Text(line, style="not bold default"))
            )
        if os.environ.get(DEBUG):
            traceback.print_exception(error)
    sys.exit(code)


def say(message: str) -> None:
    """Tells something on the way, on stderr."""
    log.print(Text(message))


def print_json(value: Any) -> None:
    """Prints one JSON object on stdout."""
    # Escapes for streams that could not show a character; their own would not be JSON.
    plain = (sys.stdout.encoding or "").casefold() not in ("utf-8", "utf8")
    sys.stdout.write(json.dumps(value, ensure_ascii=plain, allow_nan=False) + "\n")


def printable(text: str) -> str:
    """A text for a line of a terminal: what would move its cursor or colour it is escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1
) -> Table:
    """A table whose first column is text, shortened where there is no room; the others never are.

    The first `texts` columns are aligned to the left, the rest, numbers, to the right.
    """
    rows = list(rows)
    result = Table(
        title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False
    )
    for i, name in enumerate(header):
        widest = max([len(name), *(len(row[i]) for row in rows)])
        result.add_column(
            name,
            justify="right" if i >= texts else "left",
            no_wrap=True,
            min_width=widest if i else min(widest, 8),
        )
    for row in rows:
        result.add_row(*map(Text, row))
    return result
