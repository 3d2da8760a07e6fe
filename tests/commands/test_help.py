"""The help of every command: examples, panels, and sentences that can be read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer._click import Context

from mmkgc_cli.app import app
from mmkgc_cli.commands._help import _PANEL_OF, FEWEST, Command

ROOT_COMMAND: Any = typer.main.get_command(app)


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every group and command with its path."""
    yield path, command
    for name in getattr(command, "commands", ()):
        yield from walk(command.get_command(Context(command), name), (*path, name))


EVERYTHING = dict(walk(ROOT_COMMAND))
COMMANDS = {path: command for path, command in EVERYTHING.items() if isinstance(command, Command)}
GROUPS = {path: command for path, command in EVERYTHING.items() if hasattr(command, "commands")}


def options(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "option"]


def test_every_command_has_our_help() -> None:
    assert set(EVERYTHING) == set(COMMANDS) | set(GROUPS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_ends_with_two_examples_that_it_accepts(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    lines = [line.strip() for line in (command.epilog or "").splitlines()[2:]]
    assert len(lines) == 2
    known = {name for option in options(command) for name in (*option.opts, *option.secondary_opts)}
    for line in lines:
        words = shlex.split(line)
        if path[0] == "batch" and words[2] not in GROUPS[("batch",)].commands:
            words.insert(2, "run")  # `mmkgc batch RECIPE`
        assert words[: len(path) + 1] == ["mmkgc", *path], line
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_flag_is_in_a_panel_where_there_are_several(path: tuple[str, ...]) -> None:
    flags = [option.opts[-1] for option in options(COMMANDS[path])]
    if len(flags) > FEWEST:
        assert [flag for flag in flags if flag not in _PANEL_OF] == []


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_of_a_flag_is_a_sentence(path: tuple[str, ...]) -> None:
    wrong = []
    parameters: list[Any] = COMMANDS[path].params
    for parameter in parameters:
        text = parameter.help or ""
        is_key = re.fullmatch(r"\w+\.\w+\.?", text)
        sentence = re.sub(r" \[default: [^]]*\]$", "", text)
        starts = re.match(r"[A-Z]\w+", sentence)
        if is_key or not starts or not sentence.endswith(".") or text.startswith("Of "):
            wrong.append(f"{parameter.name}: {text!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: " ".join(path) or "mmkgc")
def test_no_line_of_a_list_of_commands_is_cut_at_80_columns(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    group = GROUPS[path]
    text = group.get_help(Context(group, info_name=" ".join(("mmkgc", *path))))
    commands = text.partition("Commands:")[2]
    assert "..." not in commands, text
    assert "…" not in commands, text


def test_every_command_that_downloads_has_the_flags_of_the_limits() -> None:
    downloading = {
        path: options
        for path, found in walk(ROOT_COMMAND, ())
        if "--offline" in (options := {o for p in found.params for o in p.opts})
    }
    assert len(downloading) == 3
    for path, options in downloading.items():
        assert {"--max-bytes", "--max-seconds"} <= options, path
