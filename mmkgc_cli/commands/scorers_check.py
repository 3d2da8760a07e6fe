"""``mmkgc scorers check``: whether a scorer holds what training and ranking build on."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from mmkgc_cli.commands._shell import JsonFlag, out, print_json, say, table
from mmkgc_cli.errors import UsageError


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the scorer.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="model.KEY=VALUE",
            help="Check it with this setting; without any, sizes are made small.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check that scorer NAME keeps the contract, and say what each failure means.

    Exit code 1 when a property fails.
    """
    from mmkgc_cli.conformance import check_scorer
    from mmkgc_cli.runs.config import resolve
    from mmkgc_cli.scoring import load_scorer

    for override in overrides or []:
        if not override.startswith("model."):
            raise UsageError(f"--set {override}: expected model.KEY=VALUE, a setting of the scorer")
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
        rows = [
            [of.name, of.outcome, of.detail if of.outcome == "skipped" else ""] for of in findings
        ]
        out.print(table("", ["property", "", ""], rows, texts=3))
        for finding in failed:
            out.print()
            out.print(f"{finding.name} failed: {finding.detail}")
            out.print(f"  means: {finding.meaning}")
            out.print(f"  to mend: {finding.mend}")
        out.print()
        out.print(f"{name}: {_summary(len(failed), [f.outcome for f in findings])}")
    if failed:
        raise typer.Exit(1)
    say(f"next: mmkgc train {name} --graph GRAPH")


def _summary(failed: int, outcomes: list[str]) -> str:
    held, skipped = outcomes.count("passed"), outcomes.count("skipped")
    start = f"{failed} of {len(outcomes)} properties failed" if failed else "nothing failed"
    return f"{start}; {held} hold, {skipped} do not apply or were not checked"
