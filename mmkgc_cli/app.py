"""Mounts the commands; each is imported when it is invoked or when its help is shown."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from mmkgc_cli.commands._features_flag import WithFeatures
from mmkgc_cli.commands._help import Command
from mmkgc_cli.commands._shell import guarded, version_callback


class Entry(NamedTuple):
    """Where a command is defined: module of `mmkgc_cli.commands`, function or app, and help.

    `help` repeats the first line of the command's help, so that ``mmkgc --help`` imports none.
    """

    module: str
    attribute: str
    help: str
    command_class: type[TyperCommand] = Command


COMMANDS = {
    "prepare": Entry("prepare", "prepare", "Read and check a graph, and write FOLDER/graph.h5."),
    "audit": Entry(
        "audit", "audit", "Show duplicates, leaks, unseen entities and relation patterns."
    ),
    "datasets": Entry("datasets", "datasets", "List the registered graphs, or show one."),
    "texts": Entry("texts", "app", "Build tables of texts and numbers."),
    "extract": Entry("extract", "extract", "Extract a feature store of MODALITY from files."),
    "features": Entry(
        "features", "app", "Show, check, import, export, merge and mask feature stores."
    ),
    "complete": Entry(
        "complete", "complete", "Compute missing vectors from the graph, and measure them."
    ),
    "train": Entry("train", "train", "Train SCORER and write a run directory.", WithFeatures),
    "eval": Entry(
        "evaluate", "evaluate", "Rank both sides of every triple and write results.json."
    ),
    "batch": Entry("batch", "app", "Run the jobs of a recipe: mmkgc batch RECIPE."),
    "runs": Entry("runs", "app", "List runs, show one, and remove files that are not needed."),
    "config": Entry("config", "app", "Rewrite configuration files of earlier versions."),
    "inspect": Entry(
        "inspect", "inspect", "Show mixture weights and the entropy of negatives of RUN."
    ),
    "scorers": Entry("scorers", "app", "List, show, write, check and measure scorers."),
    "plugins": Entry("plugins", "app", "Trust plugin files, or show which are trusted."),
    "profile": Entry("profile", "profile", "Time the parts of a training step.", WithFeatures),
    "doctor": Entry("doctor", "doctor", "Show what is installed and the backend of each op."),
}


class LazyGroup(TyperGroup):
    """A group that lists its commands from `COMMANDS` and imports the one that is invoked."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # What is listed: names and help, no parameters.
        self.commands = {
            name: Command(name=name, help=entry.help) for name, entry in COMMANDS.items()
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
        single.command(name, cls=entry.command_class, epilog=module.EXAMPLES)(target)
        command = typer.main.get_command(single)
    command.name = name
    return command


app = typer.Typer(
    name="mmkgc",
    cls=LazyGroup,
    help="Complete knowledge graphs with several, partly missing modalities.",
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
