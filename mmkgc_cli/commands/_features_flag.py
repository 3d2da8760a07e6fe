"""``--features MODALITY=STORE``, once for each, or several pairs behind one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mmkgc_cli.errors import UsageError

FLAG = "--features"

FeaturesOption = Annotated[
    list[str] | None,
    typer.Option(
        FLAG,
        metavar="MODALITY=STORE",
        help="Vectors of a modality, for scorers that take them; several may follow.",
    ),
]


class WithFeatures(TyperCommand):
    """A command that takes ``--features image=a.h5 text=b.h5``, which options alone cannot."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeats the flag before each further pair."""
        spread: list[str] = []
        after = False
        for i, argument in enumerate(args):
            first = i > 0 and args[i - 1] == FLAG
            pair = "=" in argument and not argument.startswith("-")
            if pair and after and not first:
                spread.append(FLAG)
            after = argument == FLAG or (pair and after)
            spread.append(argument)
        return super().parse_args(ctx, spread)


def stores(pairs: Sequence[str] | None) -> dict[str, str]:
    """Paths by modality.

    Raises:
        UsageError: for what is no pair, or a modality twice.
    """
    found: dict[str, str] = {}
    for pair in pairs or ():
        modality, separator, path = pair.partition("=")
        if not (separator and modality and path):
            raise UsageError(f"{FLAG} {pair}: expected MODALITY=STORE, such as image=image.h5")
        if modality in found:
            raise UsageError(f"{FLAG} {pair}: {modality} is {found[modality]!r} already")
        found[modality] = path
    return found
