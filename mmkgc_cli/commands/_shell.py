"""What all commands share: output, tables, exit codes, errors without tracebacks."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from mmkgc_cli import __version__
from mmkgc_cli.errors import MmkgcError, is_out_of_memory
from mmkgc_cli.state import interrupts, notices
from mmkgc_cli.text import printable as printable
from mmkgc_cli.text import printable_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

DEBUG = "MMKGC_TRACEBACK"
NO_MEMORY = "not enough memory; lower model.dim, the batch size or the number of negatives"
# Columns of output that does not go to a terminal: tables are never cut in a file or a pipe.
UNLIMITED = 1000


class Output:
    """A stream of the process. Only tables and colours import rich."""

    def __init__(self, stderr: bool) -> None:
        self._stderr = stderr

    @property
    def file(self) -> TextIO:
        """Where the output goes now; escapes what is not printable (see `PrintableStream`)."""
        return sys.stderr if self._stderr else sys.stdout

    def write_data(self, text: str) -> None:
        """Writes text for programs, unchanged unless it goes to a terminal."""
        stream = self.file
        if not stream.isatty():
            stream = getattr(stream, "rich_proxied_file", stream)
        stream.write(text)

    @property
    def is_terminal(self) -> bool:
        """Whether rich may move the cursor and use colours."""
        return _may_be_terminal(self.file) and self.console.is_terminal

    @property
    def width(self) -> int:
        """Columns of a line."""
        needs_console = self.file.isatty() or "console" in vars(self)
        return self.console.width if needs_console else UNLIMITED

    @functools.cached_property
    def console(self) -> Console:
        """The stream for rich."""
        from mmkgc_cli.commands._console import PrintableConsole

        cut = self._stderr or self.file.isatty()
        return PrintableConsole(
            stderr=self._stderr, highlight=False, markup=False, emoji=False, soft_wrap=True,
            width=None if cut else UNLIMITED,
        )  # fmt: skip

    def print(self, value: Any = "") -> None:
        """Writes a line of text, or anything that rich can render."""
        # A console that exists may be drawing a progress bar, which only it can move.
        if isinstance(value, str) and "console" not in vars(self):
            self.file.write(f"{value}\n")
            self.file.flush()
        else:
            self.console.print(value)


class PrintableStream:
    """A text stream that shows control characters, and marks that reorder or hide text, as escapes.

    Names, messages of servers and paths come from other people; on a terminal, they must not move
    the cursor, change colours or imitate other lines. Rich writes to the stream behind it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Writes `text`; line feeds and tabs stay."""
        self.rich_proxied_file.write(printable(text, keep="\n\t"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def _may_be_terminal(file: TextIO) -> bool:
    # Rich treats other streams as terminals where these are set.
    return file.isatty() or any(map(os.environ.get, ("FORCE_COLOR", "TTY_COMPATIBLE")))


# Results go to stdout, messages to stderr.
out, log = Output(stderr=False), Output(stderr=True)


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
    """Complete knowledge graphs with several, partly missing modalities."""


def guarded(app: typer.Typer) -> None:
    """Runs the app and turns errors into one line and an exit code."""
    interrupts.install()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a name gets an escape, not a crash.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    notices.receiver = say
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = PrintableStream(stdout), PrintableStream(stderr)
    try:
        _run(app)
    finally:
        sys.stdout, sys.stderr = stdout, stderr


def _run(app: typer.Typer) -> None:
    try:
        app()
    except MmkgcError as error:
        _fail(error, error.exit_code)
    except KeyboardInterrupt as error:
        _fail(error, 130, "interrupted")
    except SystemExit as error:
        if error.code == 130:  # typer turns Ctrl-C into an exit without a message
            _fail(error, 130, "interrupted")
        interrupts.ignore()
        raise
    except BrokenPipeError:
        # The reader closed the pipe; without this, Python reports it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if is_out_of_memory(error):
            _fail(error, 1, NO_MEMORY)
        where = "the output" if error.filename is None else str(error.filename)
        _fail(error, 3, f"{where}: {error.strerror or error}")
    except Exception as error:
        from mmkgc_cli.plugins import convert_error

        if converted := convert_error(error):
            _fail(error, converted.exit_code, str(converted))
        if is_out_of_memory(error):
            _fail(error, 1, NO_MEMORY)
        first = (str(error).splitlines() or [""])[0]
        _fail(
            error, 1, f"internal error: {type(error).__name__}: {first}; "
            f"report it with the output of the same command under {DEBUG}=1",
        )  # fmt: skip


def _fail(error: BaseException, code: int, message: str | None = None) -> None:
    interrupts.ignore()
    with contextlib.suppress(BrokenPipeError):
        for line in (message or str(error)).split("\n"):
            log.print(_in_colour(line) if log.is_terminal else f"error: {line}")
        if os.environ.get(DEBUG):
            traceback.print_exception(error)
    sys.exit(code)


def _in_colour(line: str) -> Text:
    from rich.text import Text

    return Text("error: ", style="bold red").append(Text(line, style="not bold default"))


def say(message: str) -> None:
    """Prints a message on stderr."""
    log.print(message)


def print_json(value: Any) -> None:
    """Prints one JSON object on stdout."""
    # JSON escapes where the stream cannot encode a character; those of Python are no JSON.
    ascii_only = (sys.stdout.encoding or "").casefold() not in ("utf-8", "utf8")
    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
    sys.stdout.write(printable_json(text) + "\n")


def table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1
) -> Table:
    """A table; only its first column is shortened on a narrow terminal.

    The first `texts` columns are aligned to the left, the others (numbers) to the right.
    """
    from rich.table import Table
    from rich.text import Text

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
