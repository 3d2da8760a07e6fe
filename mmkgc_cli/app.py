"""Mounts the commands, nothing else."""

from __future__ import annotations

import typer

from mmkgc_cli.commands import (
    audit,
    batch,
    complete,
    config,
    datasets,
    doctor,
    evaluate,
    extract,
    features,
    inspect,
    prepare,
    profile,
    runs,
    scorers,
    texts,
    train,
)
from mmkgc_cli.commands._features_flag import WithFeatures
from mmkgc_cli.commands._shell import guarded, version_callback

app = typer.Typer(
    name="mmkgc",
    help="Completes knowledge graphs whose entities carry several modalities, some missing.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.callback()(version_callback)
app.command("prepare")(prepare.prepare)
app.command("audit")(audit.audit)
app.command("datasets")(datasets.datasets)
app.add_typer(texts.app, name="texts")
app.command("extract")(extract.extract)
app.add_typer(features.app, name="features")
app.command("complete")(complete.complete)
app.command("train", cls=WithFeatures)(train.train)
app.command("eval")(evaluate.evaluate)
app.add_typer(batch.app, name="batch")
app.add_typer(runs.app, name="runs")
app.add_typer(config.app, name="config")
app.command("inspect")(inspect.inspect)
app.add_typer(scorers.app, name="scorers")
app.command("profile", cls=WithFeatures)(profile.profile)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point of the console script."""
    guarded(app)


if __name__ == "__main__":
    main()
