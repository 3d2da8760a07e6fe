"""The option ``--features MODALITY=STORE``, which accepts several pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mmkgc_cli.commands._help import Command
from mmkgc_cli.errors import UsageError

FLAG = "--features"

FeaturesOption = Annotated[
    list[str] | None,
    typer.Option(
        FLAG,
        metavar="MODALITY=STORE",
        help="Feature stores by modality, for scorers that use them.",
    ),
]


class WithFeatures(Command):
    """A command that accepts ``--features image=a.h5 text=b.h5``, unlike plain options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Inserts the flag before each further pair."""
        spread: list[str] = []
        after = False
        for i, argument in enumerate(args):
            is_first = i > 0 and args[i - 1] == FLAG
            pair = "=" in argument and not argument.startswith("-")
            if pair and after and not is_first:
                spread.append(FLAG)
            after = argument == FLAG or (pair and after)
            spread.append(argument)
        return super().parse_args(ctx, spread)


def stores(pairs: Sequence[str] | None) -> dict[str, str]:
    """Parses the pairs to paths by modality.

    Raises:
        UsageError: a value is not a pair, or a modality is repeated.
    """
    paths: dict[str, str] = {}
    for pair in pairs or ():
        modality, separator, path = pair.partition("=")
        if not (separator and modality and path):
            raise UsageError(
                f"{FLAG} {pair}: expected MODALITY=STORE", fix=f"write {FLAG} image=image.h5"
            )
        if modality in paths:
            raise UsageError(
                f"{FLAG} {pair}: {modality} is {paths[modality]!r} already",
                fix="give one store per modality",
            )
        paths[modality] = path
    return paths
