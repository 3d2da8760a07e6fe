"""CPU seconds of commands that compute little, against importing what they need.

    python -m benchmarks.startup
    python -m benchmarks.startup --before OLD_CHECKOUT

Each command runs in a process of its own, alternating with the same command of an older checkout
(with its native library built in place) and with ``import numpy, h5py, typer, pydantic, rich``.
Printed are medians of user and system time, children included.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = "import numpy, h5py, typer, pydantic, rich"
RECIPE = """[batch]
graphs = ["g"]
scorers = ["rotate", "transe"]
seeds = [0, 1]

[settings]
training.epochs = 3
model.dim = 16
"""
STORE = "g/features/image.h5"
COMMANDS = {
    "--help": ["--help"],
    "runs show": ["runs", "show", "{run}"],
    "features show": ["features", "show", STORE],
    "train typo": ["train", "rotat", "--graph", "g"],
    "--set model.dmi=1": ["train", "rotate", "--graph", "g", "--set", "model.dmi=1"],
    "batch results": ["batch", "results", "{batch}"],
}


def cpu_seconds(arguments: list[str], root: Path, folder: Path) -> float:
    """User and system time of a process and its children; output is discarded."""
    with tempfile.TemporaryDirectory() as site:
        # An installed package would hide the scorers of the checkout.
        Path(site, "mmkgc_scorers").symlink_to(root / "scorers")
        environment = os.environ | {
            "PYTHONPATH": f"{root}{os.pathsep}{site}",
            "MMKGC_HOME": str(folder / "home"),
            "OMP_NUM_THREADS": "1",
        }
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=folder, env=environment, check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="older checkout")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    versions = {"after": ROOT} | ({"before": options.before.resolve()} if options.before else {})
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.toml").write_text(RECIPE)

        def run(arguments: list[str], version: str) -> float:
            return cpu_seconds(["-m", "mmkgc_cli", *arguments], versions[version], folder)

        run(["prepare", "elements", "--out", "g"], "after")
        picture = ["--input", "g/modalities/image.tsv", "--encoder", "colour-grid"]
        run(["extract", "image", "--graph", "g", *picture], "after")
        for version in versions:
            short = ["--run", f"run-{version}", "--epochs", "1"]
            run(["train", "rotate", "--graph", "g", *short], version)
            run(["batch", "run", "recipe.toml", "--out", f"batch-{version}"], version)
        for number in range(options.rounds):
            alone = cpu_seconds(["-c", IMPORTS], ROOT, folder)
            times.setdefault(("imports alone", "after"), []).append(alone)
            for title, command in COMMANDS.items():
                for version in versions:
                    filled = [
                        part.format(run=f"run-{version}", batch=f"batch-{version}")
                        for part in command
                    ]
                    times.setdefault((title, version), []).append(run(filled, version))
            for version in versions if number < 2 else ():
                batch = ["batch", "run", "recipe.toml", "--out", f"again-{version}-{number}"]
                times.setdefault(("batch of four jobs", version), []).append(run(batch, version))
    medians = {key: statistics.median(values) for key, values in times.items()}
    alone = medians["imports alone", "after"]
    for title, version in medians:
        if version != "after":
            continue
        after, before = medians[title, "after"], medians.get((title, "before"))
        ratio = f"{after / before:8.2f} of {before:.2f} s before" if before else ""
        print(f"{title:20} {after:6.2f} s {after / alone:8.2f} x imports alone {ratio}")


if __name__ == "__main__":
    main()
