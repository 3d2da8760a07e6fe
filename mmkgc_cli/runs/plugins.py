"""Which file a run's scorer came from, and whether that is still what it was."""

from __future__ import annotations

from pathlib import Path

from mmkgc_cli.errors import DataError
from mmkgc_cli.plugins import BUILT_IN, find
from mmkgc_cli.runs.config import (
    PluginConfig,
    RunConfig,
    from_toml,
    read_config_file,
    read_record,
)
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.scoring.registry import SCORERS


def plugin_of(scorer: str) -> PluginConfig:
    """The record of a scorer.

    Raises:
        DataError: when its file is gone or cannot be read.
    """
    plugin = find(SCORERS, scorer)
    if plugin is None:
        raise DataError(f"the file of the scorer {scorer!r} has just gone; put it back")
    return PluginConfig(origin=plugin.origin, file=str(plugin.file), sha256=plugin.sha256())


def config_to_resume(run: RunDirectory) -> RunConfig:
    """The settings of a run that is to go on as if it had not been stopped.

    Raises:
        DataError: when its scorer is gone, or its file is another than when the run began.
    """
    if change := _change(run):
        raise DataError(
            f"{run.path}: {change}; put the old file back to go on, or train into another --run"
        )
    return _read(run)


def config_and_change(run: RunDirectory) -> tuple[RunConfig, str]:
    """The settings of a trained run, and in one line how its scorer's file has changed since.

    Raises:
        DataError: when its scorer is gone, or has other settings now.
    """
    change = _change(run)
    try:
        return _read(run, for_training=False), change
    except DataError as error:
        raise DataError(f"{run.path}: {change}\n{error}" if change else str(error)) from error


def _read(run: RunDirectory, for_training: bool = True) -> RunConfig:
    return from_toml(run.config, lambda name: load_scorer(name).Config, for_training)


def _change(run: RunDirectory) -> str:
    """One line on how the scorer's file differs from the one the run began with; else empty.

    Built-in scorers change with the version of mmkgc, which ``environment.json`` has.
    """
    values = read_config_file(run.config)
    scorer = values.get("scorer")
    if not isinstance(scorer, str):
        return ""  # reading the settings will say so
    recorded = read_record(run.config, values, "plugin", PluginConfig)
    plugin = find(SCORERS, scorer)
    if plugin is None:
        raise DataError(f"{run.path}: {_gone(scorer, recorded)}")
    now = plugin.sha256()
    if now == recorded.sha256 or plugin.origin == recorded.origin == BUILT_IN:
        return ""
    then = f"{recorded.origin}, SHA-256 {recorded.sha256[:12]}…"
    return (
        f"its scorer {scorer!r} is {plugin.where} now ({plugin.origin}, SHA-256 {now[:12]}…), "
        f"which is not the file it was trained with ({then})"
    )


def _gone(scorer: str, recorded: PluginConfig) -> str:
    file = Path(recorded.file)
    if recorded.origin == BUILT_IN:
        return f"its scorer {scorer!r} is not in this version of mmkgc; see mmkgc scorers list"
    if recorded.origin.startswith("entry point"):
        return f"its scorer {scorer!r} is gone: it was an {recorded.origin}; install that again"
    if file.is_file():
        return (
            f"its scorer {scorer!r} is not found from here, it was {file}; "
            f"set {SCORERS.variable}={file.parent}"
        )
    return (
        f"its scorer {scorer!r} is gone: it was {file}; put the file back, there or into a folder "
        f"that {SCORERS.variable} lists"
    )
