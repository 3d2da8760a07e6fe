"""Records the plugin files of a run and checks whether they have changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.plugins import BUILT_IN, Plugin, PluginKind, discover, find
from mmkgc_cli.plugins.trust import keep_version
from mmkgc_cli.runs.config import from_toml, read_config_file, read_record, require_present_form
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.sections import PluginConfig, RunConfig
from mmkgc_cli.sampling.registry import DEFAULT, SAMPLERS
from mmkgc_cli.scoring.registry import SCORERS


def plugin_of(kind: PluginKind[Any], name: str) -> PluginConfig:
    """The record of a plugin.

    Raises:
        DataError: when its file is missing or unreadable.
    """
    plugin = find(kind, name)
    if plugin is None:
        raise DataError(
            f"the file of the {kind.noun} {name!r} was removed meanwhile", fix="put it back"
        )
    return PluginConfig(origin=plugin.origin, file=str(plugin.file), sha256=plugin.sha256())


def with_plugin_records(config: RunConfig) -> RunConfig:
    """The configuration with the records of the files that its plugins come from."""
    sampler = plugin_of(SAMPLERS, config.negatives.sampler) if config.negatives else None
    return replace(config, plugin=plugin_of(SCORERS, config.scorer), sampler_plugin=sampler)


def plugins_of(config: RunConfig) -> list[tuple[str, Plugin]]:
    """The plugins that a configuration names and that exist, each with the noun of its kind."""
    named: list[tuple[PluginKind[Any], str]] = [(SCORERS, config.scorer)]
    if config.negatives:
        named.append((SAMPLERS, config.negatives.sampler))
    found = [(kind.noun, find(kind, name)) for kind, name in named]
    return [(noun, plugin) for noun, plugin in found if plugin is not None]


def keep_plugin_versions(config: RunConfig) -> None:
    """Remembers the present content of plugin files that are trusted by their paths."""
    for _, plugin in plugins_of(config):
        keep_version(plugin)


def names_taken(scorer: str, sampler: str) -> list[str]:
    """One line for each file that is not used because another plugin has its name."""
    return [
        *discover(SCORERS).taken.get(scorer, []),
        *discover(SAMPLERS).taken.get(sampler, []),
    ]


def config_to_resume(run: RunDirectory) -> RunConfig:
    """The settings of a run to resume.

    Raises:
        DataError: when the scorer or the sampler is missing, or its file has changed.
    """
    values = _values(run)
    if change := _scorer_change(run, values) or _sampler_change(run, values):
        raise DataError(
            f"{run.path}: {change}",
            fix="put the old file back to go on, or train into another --run",
        )
    return _read(run)


def config_and_change(run: RunDirectory) -> tuple[RunConfig, str]:
    """The settings of a trained run, and one line on how the file of its scorer has changed.

    The sampler is not needed and may be missing.

    Raises:
        DataError: when the scorer is missing or has other settings now.
    """
    change = _scorer_change(run, _values(run))
    try:
        return _read(run, for_training=False), change
    except DataError as error:
        if not change:
            raise
        fixed = DataError(f"{run.path}: {change}", fix="put the old file back, or train again")
        raise DataError.joined([fixed, error]) from error


def _values(run: RunDirectory) -> dict[str, Any]:
    values = read_config_file(run.config)
    require_present_form(values, run.path)
    return values


def _read(run: RunDirectory, for_training: bool = True) -> RunConfig:
    return from_toml(run.config, lambda name: SCORERS.load(name).Config, for_training=for_training)


def _scorer_change(run: RunDirectory, values: Mapping[str, Any]) -> str:
    return _change(run, values, SCORERS, values.get("scorer"), "plugin")


def _sampler_change(run: RunDirectory, values: Mapping[str, Any]) -> str:
    negatives = values.get("negatives")  # none where all entities are candidates
    name = negatives.get("sampler", DEFAULT) if isinstance(negatives, Mapping) else None
    return _change(run, values, SAMPLERS, name, "sampler_plugin")


def _change(
    run: RunDirectory, values: Mapping[str, Any], kind: PluginKind[Any], name: object, section: str
) -> str:
    """One line on how the file of a plugin differs from the recorded one; empty if it does not.

    Built-in plugins change with the version of mmkgc, which ``environment.json`` records.

    Raises:
        DataError: when the plugin is missing.
    """
    if not isinstance(name, str):
        return ""  # reading the settings reports it
    recorded = read_record(run.config, values, section, PluginConfig)
    plugin = find(kind, name)
    if plugin is None:
        problem, fix = _missing(kind, name, recorded)
        raise DataError(f"{run.path}: {problem}", fix=fix)
    now = plugin.sha256()
    if now == recorded.sha256 or plugin.origin == recorded.origin == BUILT_IN:
        return ""
    then = f"{recorded.origin}, SHA-256 {recorded.sha256[:12]}…"
    return (
        f"its {kind.noun} {name!r} is {plugin.where} now ({plugin.origin}, SHA-256 {now[:12]}…), "
        f"which is not the file it was trained with ({then})"
    )


def _missing(kind: PluginKind[Any], name: str, recorded: PluginConfig) -> tuple[str, str]:
    """Problem and fix for a plugin that is not found."""
    file, subject = Path(recorded.file), f"its {kind.noun} {name!r}"
    if recorded.origin == BUILT_IN:
        names = ", ".join(_built_in(kind))
        return f"{subject} is not in this version of mmkgc", f"train again with one of: {names}"
    if recorded.origin.startswith("entry point"):
        return f"{subject} is gone: it was an {recorded.origin}", "install that package again"
    if file.is_file():
        problem = f"{subject} is not found from here, it was {file}"
        return problem, f"set {kind.variable}={file.parent}"
    fix = f"put the file back, there or into a folder that {kind.variable} lists"
    return f"{subject} is gone: it was {file}", fix


def _built_in(kind: PluginKind[Any]) -> list[str]:
    return [p.name for p in discover(kind).plugins.values() if p.origin == BUILT_IN]
