"""Fuzzes the readers: python -m tests.fuzz.run TARGET [SECONDS]; requires atheris (make fuzz).

New inputs are written to a temporary folder, crashing inputs as ``crash-…`` to the current one.
Inputs worth keeping are shortened and added to tests/fuzz/corpus/TARGET.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mmkgc_cli", "yaml", "zipfile", "tarfile"]):
    from tests.fuzz.targets import TARGETS, check

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    name = sys.argv[1]
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    if name not in TARGETS:
        raise SystemExit(f"no target {name!r}; known: {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory() as new_inputs:
        arguments = [
            sys.argv[0],
            new_inputs,
            str(CORPUS / name),
            f"-max_total_time={seconds}",
            "-max_len=4096",
            "-timeout=20",
            "-rss_limit_mb=4096",
            "-verbosity=0",
            "-print_final_stats=1",
        ]
        atheris.Setup(arguments, lambda data: check(name, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
