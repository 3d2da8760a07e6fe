"""``mmkgc profile``: where a training step's time goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from mmkgc_cli.commands._features_flag import FeaturesOption, stores
from mmkgc_cli.commands._shell import Device, JsonFlag, out, print_json, table
from mmkgc_cli.errors import UsageError


def profile(
    scorer: Annotated[str, typer.Argument(help="Which scorer.")],
    graph: Annotated[Path, typer.Option(help="Folder of a prepared graph.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML with [model], [training], [sampler] and [features]; flags win over it."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="How many to take the time of.")] = 50,
    device: Annotated[Device | None, typer.Option(help="training.device")] = None,
    features: FeaturesOption = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting; repeat as needed."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Time the parts of a training step against what memory alone would take; writes nothing."""
    from mmkgc_cli.kg.storage import load_graph
    from mmkgc_cli.runs.config import resolve
    from mmkgc_cli.runs.toml_file import NO_FILE, read_toml
    from mmkgc_cli.scoring import load_scorer

    flags: dict[tuple[str, str], Any] = {
        ("features", modality): path for modality, path in stores(features).items()
    }
    if device is not None:
        flags["training", "device"] = device.value
    scorer_class = load_scorer(scorer)
    file = read_toml(config) if config else NO_FILE
    resolved = resolve(
        scorer,
        scorer_class.Config,
        file.values,
        file.name,
        flags,
        overrides or [],
        lines=file.lines,
    )
    loaded = load_graph(graph)
    from mmkgc_cli.runs import profiling  # torch: after the settings are checked

    try:
        found = profiling.profile(resolved, loaded, steps)
    except profiling.NothingToTrain:
        raise UsageError(f"{scorer} has no parameters, so there are no steps to time") from None
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    rows = [
        (p.name, f"{p.ms:.2f}", f"{100 * p.ms / found.step_ms:.0f} %", f"{p.floor_ms:.2f}")
        for p in found.parts
    ]
    rest = max(0.0, found.step_ms - sum(part.ms for part in found.parts))
    rows.append(("the rest", f"{rest:.2f}", f"{100 * rest / found.step_ms:.0f} %", ""))
    rows.append(("a step", f"{found.step_ms:.2f}", "", ""))
    out.print(table("step", ["part", "ms", "share", "memory alone, ms"], rows))
    speed = f"{found.copy_gb_per_second:.1f} GB/s"
    out.print(f"an epoch: {found.seconds_per_epoch:.2f} s; a copy in memory: {speed}")
