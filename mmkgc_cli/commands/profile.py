"""``mmkgc profile``: times the parts of a training step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from mmkgc_cli.commands._features_flag import FeaturesOption, stores
from mmkgc_cli.commands._help import examples
from mmkgc_cli.commands._plugins_flag import TrustPluginsFlag
from mmkgc_cli.commands._shell import Device, JsonFlag, out, print_json, say, table
from mmkgc_cli.errors import UsageError

EXAMPLES = examples(
    "mmkgc profile rotate --graph graphs/elements",
    "mmkgc profile rotate --graph graphs/elements --set model.dim=256 --steps 100",
)


def profile(
    scorer: Annotated[str, typer.Argument(help="Name of a scorer.")],
    *,
    graph: Annotated[Path, typer.Option(help="Directory of a prepared graph.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with [model], [training], [sampler], [features]; flags override it."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of timed steps.")] = 50,
    device: Annotated[
        Device | None, typer.Option(help="Device to train on (training.device).")
    ] = None,
    features: FeaturesOption = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any setting; repeatable."),
    ] = None,
    trust_plugins: TrustPluginsFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Time the parts of a training step.

    Compares with the time for memory access alone; writes nothing.
    """
    from mmkgc_cli.kg.storage import load_graph
    from mmkgc_cli.runs.config import resolve_plugins
    from mmkgc_cli.runs.toml_file import NO_FILE, read_toml

    flags: dict[tuple[str, str], Any] = {
        ("features", modality): path for modality, path in stores(features).items()
    }
    if device is not None:
        flags["training", "device"] = device.value
    file = read_toml(config) if config else NO_FILE
    resolved = resolve_plugins(
        scorer,
        file=file,
        flags=flags,
        overrides=overrides or [],
        warn=lambda line: say(f"warning: {line}"),
    )
    loaded = load_graph(graph)
    from mmkgc_cli.runs import profiling  # torch: after the settings are checked

    try:
        report = profiling.profile(resolved, loaded, steps)
    except profiling.NothingToTrain:
        raise UsageError(
            f"{scorer} has no parameters, so there are no training steps to time",
            fix="name a scorer with parameters, such as mmkgc profile rotate",
        ) from None
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    rows = [
        (p.name, f"{p.ms:.2f}", f"{100 * p.ms / report.step_ms:.0f} %", f"{p.floor_ms:.2f}")
        for p in report.parts
    ]
    other_ms = max(0.0, report.step_ms - sum(part.ms for part in report.parts))
    rows.append(("other", f"{other_ms:.2f}", f"{100 * other_ms / report.step_ms:.0f} %", ""))
    rows.append(("total", f"{report.step_ms:.2f}", "", ""))
    out.print(table("step", ["part", "ms", "share", "memory only, ms"], rows))
    speed = f"{report.copy_gb_per_second:.1f} GB/s"
    out.print(f"one epoch: {report.seconds_per_epoch:.2f} s; memory copy: {speed}")
