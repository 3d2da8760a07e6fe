"""Mounts the commands; each is imported when it is invoked or when its help is shown."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from mmkgc_cli.commands._features_flag import WithFeatures
from mmkgc_cli.commands._shell import guarded, version_callback


class Entry(NamedTuple):
    """Where a command is defined: module of `mmkgc_cli.commands`, function or app, and help.

    `help` repeats the first line of the command's help, so that ``mmkgc --help`` imports none.
    """

    module: str
    attribute: str
    help: str
    command_class: type[TyperCommand] = TyperCommand


COMMANDS = {
    "prepare": Entry(
        "prepare",
        "prepare",
        "Read, check and store a graph as FOLDER/graph.h5, with its audit beside it.",
    ),
    "audit": Entry(
        "audit",
        "audit",
        "Show duplicates, leaks, unseen entities, relation patterns and what copying would score.",
    ),
    "datasets": Entry(
        "datasets",
        "datasets",
        "List the registered graphs, or show one: counts, addresses, licence and citation.",
    ),
    "texts": Entry("texts", "app", "Make tables of texts and numbers."),
    "extract": Entry(
        "extract",
        "extract",
        "Make a feature store of MODALITY; when stopped or killed, the same command goes on.",
    ),
    "features": Entry(
        "features", "app", "Show, check, import, fetch, export, merge and mask feature stores."
    ),
    "complete": Entry(
        "complete",
        "complete",
        "Fill in vectors from what other entities and the train triples say, and measure them.",
    ),
    "train": Entry(
        "train",
        "train",
        "Train SCORER, keep the weights that rank valid best, and leave a run directory.",
        WithFeatures,
    ),
    "eval": Entry(
        "evaluate",
        "evaluate",
        "Rank both sides of every triple, filtered, and write results.json and the ranks.",
    ),
    "batch": Entry(
        "batch",
        "app",
        "Run the jobs of a recipe: mmkgc batch RECIPE. Finished jobs are skipped.",
    ),
    "runs": Entry("runs", "app", "List runs, show one, and remove files that are not needed."),
    "config": Entry("config", "app", "Rewrite configuration files of earlier versions."),
    "inspect": Entry(
        "inspect",
        "inspect",
        "Show what the scorer of RUN weighs modalities and experts by, and its certainty of "
        "negatives.",
    ),
    "scorers": Entry(
        "scorers", "app", "List scorers, show one, start a new one, check and measure one."
    ),
    "profile": Entry(
        "profile",
        "profile",
        "Time the parts of a training step against what memory alone would take; writes nothing.",
        WithFeatures,
    ),
    "doctor": Entry(
        "doctor", "doctor", "Say what works here, what does not, and what to do about it."
    ),
}


class LazyGroup(TyperGroup):
    """A group that lists its commands from `COMMANDS` and imports the one that is invoked."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # What is listed: names and help, no parameters.
        self.commands = {
            name: TyperCommand(name=name, help=entry.help) for name, entry in COMMANDS.items()
        }
        self._imported: dict[str, Any] = {}
        self._is_listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name with its parameters, or its stub while commands are listed."""
        if self._is_listing or cmd_name not in COMMANDS:
            return self.commands.get(cmd_name)
        if cmd_name not in self._imported:
            self._imported[cmd_name] = _import_command(cmd_name, COMMANDS[cmd_name])
        return self._imported[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list of commands of the help."""
        with self._listing():
            super().format_commands(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Names of commands and options that begin with `incomplete`."""
        with self._listing():
            return super().shell_complete(ctx, incomplete)

    @contextlib.contextmanager
    def _listing(self) -> Iterator[None]:
        self._is_listing = True
        try:
            yield
        finally:
            self._is_listing = False


def _import_command(name: str, entry: Entry) -> Any:
    module = importlib.import_module(f"mmkgc_cli.commands.{entry.module}")
    command: Any
    target = getattr(module, entry.attribute)
    if isinstance(target, typer.Typer):
        command = typer.main.get_group(target)
    else:
        single = typer.Typer(
            add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
        )
        single.command(name, cls=entry.command_class)(target)
        command = typer.main.get_command(single)
    command.name = name
    return command


app = typer.Typer(
    name="mmkgc",
    cls=LazyGroup,
    help="Completes knowledge graphs whose entities carry several modalities, some missing.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.callback()(version_callback)


def main() -> None:
    """Entry point of the console script."""
    guarded(app)


if __name__ == "__main__":
    main()
