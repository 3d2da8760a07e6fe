"""A coverage-guided fuzzer: python -m tests.fuzz.guided TARGET [SECONDS]; requires atheris.

New inputs are written to a temporary folder, failing inputs as ``crash-…`` to the current one.
Inputs worth keeping are shortened and added to tests/fuzz/corpus/TARGET.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mmkgc_cli", "yaml", "zipfile", "tarfile", "wave"]):
    from tests.fuzz.targets import TARGETS, check, examples
    from tests.fuzz.worker import private_folder


def main() -> None:
    name = sys.argv[1]
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    if name not in TARGETS:
        raise SystemExit(f"no target {name!r}; known: {', '.join(TARGETS)}")
    with (
        tempfile.TemporaryDirectory() as new_inputs,
        tempfile.TemporaryDirectory() as first_inputs,
        private_folder() as folder,
    ):
        for number, data in enumerate(examples(name)):
            (Path(first_inputs) / str(number)).write_bytes(data)
        arguments = [
            sys.argv[0],
            new_inputs,
            first_inputs,
            f"-max_total_time={seconds}",
            "-max_len=8192",
            "-timeout=20",
            "-rss_limit_mb=4096",
            "-verbosity=0",
            "-print_final_stats=1",
        ]

        def run(data: bytes) -> None:
            check(name, data, folder)

        atheris.Setup(arguments, run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
