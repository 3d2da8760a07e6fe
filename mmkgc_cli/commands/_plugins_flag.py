"""The option ``--trust-plugins`` of commands that run the code of plugins."""

from __future__ import annotations

from typing import Annotated

import typer

FLAG = "--trust-plugins"


def _allow(value: bool) -> bool:
    if value:
        from mmkgc_cli.plugins import trust

        trust.allow_all()
    return value


# Its callback applies it to this command and its child processes; commands do not read it.
TrustPluginsFlag = Annotated[
    bool,
    typer.Option(FLAG, callback=_allow, help="Run plugin files that are not trusted."),
]
