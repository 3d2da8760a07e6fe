"""``mmkgc scorers check``: conformance checks of one scorer."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from mmkgc_cli.commands._plugins_flag import TrustPluginsFlag
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, say, table
from mmkgc_cli.errors import UsageError


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the scorer.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="model.KEY=VALUE",
            help="Setting of the scorer; without any, the check uses small sizes.",
        ),
    ] = None,
    trust_plugins: TrustPluginsFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Check that scorer NAME follows the scorer contract.

    Exit code 1 when a property fails.
    """
    from mmkgc_cli.conformance import check_scorer
    from mmkgc_cli.runs.config import resolve
    from mmkgc_cli.scoring import load_scorer

    for override in overrides or []:
        if not override.startswith("model."):
            raise UsageError(
                f"--set {override}: expected model.KEY=VALUE",
                fix=f"pass a setting of the scorer; list them with mmkgc scorers show {name}",
            )
    scorer = load_scorer(name)
    config = resolve(name, scorer.Config, overrides=overrides).model if overrides else None
    findings = check_scorer(scorer, config)
    failed = [finding for finding in findings if finding.outcome == "failed"]
    if as_json:
        print_json(
            {
                "scorer": name,
                "passed": not failed,
                "findings": [dataclasses.asdict(finding) for finding in findings],
            }
        )
    else:
        rows = [[f.name, f.outcome, f.detail if f.outcome == "skipped" else ""] for f in findings]
        out.print(table("", ["property", "", ""], rows, texts=3))
        for finding in failed:
            out.print()
            out.print(f"{finding.name} failed: {finding.detail}")
            out.print(f"  means: {finding.meaning}")
            out.print(f"  fix: {finding.mend}")
        out.print()
        out.print(f"{name}: {_summary(len(failed), [f.outcome for f in findings])}")
    if failed:
        raise typer.Exit(1)
    say(f"next: mmkgc train {name} --graph GRAPH")


def _summary(failed: int, outcomes: list[str]) -> str:
    passed, skipped = outcomes.count("passed"), outcomes.count("skipped")
    start = f"{failed} of {len(outcomes)} properties failed" if failed else "no property failed"
    return f"{start}; {passed} passed, {skipped} skipped"
