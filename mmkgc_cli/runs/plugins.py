"""Which files a run's plugins came from, and whether those are still what they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.plugins import BUILT_IN, PluginKind, discover, find
from mmkgc_cli.runs.config import from_toml, read_config_file, read_record, require_present_form
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.sections import PluginConfig, RunConfig
from mmkgc_cli.sampling.registry import DEFAULT, SAMPLERS
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.scoring.registry import SCORERS


def plugin_of(kind: PluginKind[Any], name: str) -> PluginConfig:
    """The record of a plugin.

    Raises:
        DataError: when its file is gone or cannot be read.
    """
    plugin = find(kind, name)
    if plugin is None:
        raise DataError(f"the file of the {kind.noun} {name!r} has just gone; put it back")
    return PluginConfig(origin=plugin.origin, file=str(plugin.file), sha256=plugin.sha256())


def with_plugin_records(config: RunConfig) -> RunConfig:
    """The configuration with the records of the files that its plugins come from."""
    sampler = plugin_of(SAMPLERS, config.negatives.sampler) if config.negatives else None
    return replace(config, plugin=plugin_of(SCORERS, config.scorer), sampler_plugin=sampler)


def names_taken(scorer: str, sampler: str) -> list[str]:
    """One line for each file that is not used, since another plugin has its name."""
    return [
        *discover(SCORERS).taken.get(scorer, []),
        *discover(SAMPLERS).taken.get(sampler, []),
    ]


def config_to_resume(run: RunDirectory) -> RunConfig:
    """The settings of a run that is to go on as if it had not been stopped.

    Raises:
        DataError: when its scorer or sampler is gone, or in another file than when the run began.
    """
    values = _values(run)
    if change := _scorer_change(run, values) or _sampler_change(run, values):
        raise DataError(
            f"{run.path}: {change}; put the old file back to go on, or train into another --run"
        )
    return _read(run)


def config_and_change(run: RunDirectory) -> tuple[RunConfig, str]:
    """The settings of a trained run, and in one line how its scorer's file has changed since.

    Its sampler plays no part any more, and may be gone.

    Raises:
        DataError: when its scorer is gone, or has other settings now.
    """
    change = _scorer_change(run, _values(run))
    try:
        return _read(run, for_training=False), change
    except DataError as error:
        raise DataError(f"{run.path}: {change}\n{error}" if change else str(error)) from error


def _values(run: RunDirectory) -> dict[str, Any]:
    values = read_config_file(run.config)
    require_present_form(values, run.path)
    return values


def _read(run: RunDirectory, for_training: bool = True) -> RunConfig:
    return from_toml(run.config, lambda name: load_scorer(name).Config, for_training=for_training)


def _scorer_change(run: RunDirectory, values: Mapping[str, Any]) -> str:
    return _change(run, values, SCORERS, values.get("scorer"), "plugin")


def _sampler_change(run: RunDirectory, values: Mapping[str, Any]) -> str:
    negatives = values.get("negatives")  # none where all entities are candidates
    name = negatives.get("sampler", DEFAULT) if isinstance(negatives, Mapping) else None
    return _change(run, values, SAMPLERS, name, "sampler_plugin")


def _change(
    run: RunDirectory, values: Mapping[str, Any], kind: PluginKind[Any], name: object, section: str
) -> str:
    """One line on how a plugin's file differs from the one the run began with; else empty.

    Built-in plugins change with the version of mmkgc, which ``environment.json`` has.
    """
    if not isinstance(name, str):
        return ""  # reading the settings will say so
    recorded = read_record(run.config, values, section, PluginConfig)
    plugin = find(kind, name)
    if plugin is None:
        raise DataError(f"{run.path}: {_gone(kind, name, recorded)}")
    now = plugin.sha256()
    if now == recorded.sha256 or plugin.origin == recorded.origin == BUILT_IN:
        return ""
    then = f"{recorded.origin}, SHA-256 {recorded.sha256[:12]}…"
    return (
        f"its {kind.noun} {name!r} is {plugin.where} now ({plugin.origin}, SHA-256 {now[:12]}…), "
        f"which is not the file it was trained with ({then})"
    )


def _gone(kind: PluginKind[Any], name: str, recorded: PluginConfig) -> str:
    file, what = Path(recorded.file), f"its {kind.noun} {name!r}"
    if recorded.origin == BUILT_IN:
        return f"{what} is not in this version of mmkgc, which has: {', '.join(_built_in(kind))}"
    if recorded.origin.startswith("entry point"):
        return f"{what} is gone: it was an {recorded.origin}; install that again"
    if file.is_file():
        return f"{what} is not found from here, it was {file}; set {kind.variable}={file.parent}"
    return (
        f"{what} is gone: it was {file}; put the file back, there or into a folder that "
        f"{kind.variable} lists"
    )


def _built_in(kind: PluginKind[Any]) -> list[str]:
    return [p.name for p in discover(kind).plugins.values() if p.origin == BUILT_IN]
