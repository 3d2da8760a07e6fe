"""The commands of the page, in their order, as a reader would type them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Outcome

PAGE = (ROOT / "docs" / "writing-a-scorer.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]
# The same commands, in less time.
QUICKER = {"--epochs": "2", "--dim": "8"}


def test_the_commands_of_the_page_work(mmkgc: Callable[..., Outcome], tmp_path: Path) -> None:
    shown: dict[str, str] = {}
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        for flag, value in QUICKER.items():
            if flag in arguments:
                arguments[arguments.index(flag) + 1] = value
        if "bench" in arguments:
            arguments += ["--turns", "1", "--steps", "1", "--ranked", "8"]
        if program == "mmkgc":
            outcome = mmkgc(*arguments)
            assert outcome.code == 0, f"{command}: {outcome.err}"
            shown[command] = outcome.out
        else:
            assert program == "python", command
            subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True)
    # What the page promises: the same properties, in the same words but for GPUs and kernels, ...
    (printed,) = re.findall(r"```\n(property\n.*?)```", PAGE, re.DOTALL)
    for ours, theirs in zip(lines(printed), lines(shown["mmkgc scorers check mine"]), strict=True):
        if ours.split("  ")[0] not in ("native ops", "devices"):
            assert ours == theirs
    # ... and a table with a valid and a test MRR of each.
    table = {line.split()[0]: line for line in shown["mmkgc runs list"].splitlines()}
    for name in ("frequency", "rotate", "mine"):
        assert table[name].count("%") == 2, table[name]


def lines(text: str) -> list[str]:
    """Without the last, which counts, and spaces at the ends."""
    return [line.rstrip() for line in text.rstrip().splitlines()[:-1]]


@pytest.mark.parametrize("word", ["scorers new", "train", "eval", "runs list", "scorers bench"])
def test_the_page_goes_all_the_way(word: str) -> None:
    assert any(command.startswith(f"mmkgc {word} ") or command == f"mmkgc {word}"
               for command in COMMANDS)  # fmt: skip
