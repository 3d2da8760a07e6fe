"""Kills mmkgc with SIGKILL at random times, goes on, and shows that nothing is lost.

    python -m tests.kill.run [--kills 100] [--seed 0]      prepare, train, eval and complete
    python -m tests.kill.run --kills 20 -- COMMAND ...         any one command of mmkgc

A kill must leave every file readable and under its final name whole, may cost a training no more
epochs than lie between two checkpoints, and what comes out in the end must be the same as without.
Works on copies: of the folder that COMMAND names with --out, --run or --resume, or as an argument.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np

from mmkgc_cli.errors import MmkgcError
from tests.features.small import write
from tests.kill.contents import Broken
from tests.kill.killer import Job, Tally, torment

TRAINING = [
    "training.batch_size=256", "validation.every=5", "model.dim=16",
    "validation.patience=0", "checkpoints.seconds=0.1", "training.threads=1",
]  # fmt: skip


COMPLETION = [
    "maco.hidden=16", "maco.input_width=8", "maco.encoder_hidden=8", "maco.candidates=8",
    "validation.every=10", "checkpoints.seconds=0.1", "training.threads=1",
]  # fmt: skip


def usual_jobs(work: Path, epochs: int = 120) -> list[tuple[Job, float]]:
    """A graph, a training on it, its evaluation, and a completion; the share of the kills each."""
    graph, run, completion = work / "graph", work / "run", work / "completion"
    settings = ["--epochs", str(epochs)]
    settings += [part for value in TRAINING for part in ("--set", value)]
    complete = ["complete", "image", "--graph", str(graph), "--strategy", "maco"]
    complete += ["--features", str(vectors(work)), "--run", str(completion)]
    complete += ["--out", str(completion / "vectors.h5"), "--missing-rate", "0.4"]
    complete += ["--epochs", str(epochs)]
    complete += [part for value in COMPLETION for part in ("--set", value)]
    return [
        (Job(["prepare", "elements", "--out", str(graph)], graph), 0.2),
        (Job(["train", "rotate", "--graph", str(graph), "--run", str(run), *settings], run), 0.4),
        (Job(["eval", str(run)], run), 0.15),
        (Job(complete, completion), 0.25),
    ]


def vectors(work: Path) -> Path:
    """A store of made-up vectors for the entities of `elements`."""
    rows = (files("mmkgc_cli.kg.elements") / "entities.tsv").read_text().splitlines()
    names = [row.split("\t")[0] for row in rows[1:]]
    path = work / "vectors.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).standard_normal((len(names), 6)).astype(np.float32)
    write(path, names, values, np.ones(len(names), dtype=bool))
    return path


def job_of(arguments: list[str], work: Path) -> Job:
    """Any command, on a copy of its folder.

    Raises:
        SystemExit: when it names none.
    """
    at = next(
        (i + 1 for i, a in enumerate(arguments[:-1]) if a in ("--out", "--run", "--resume")),
        next((i for i, a in enumerate(arguments) if i and Path(a).is_dir()), None),
    )
    if at is None:
        raise SystemExit("say where the command writes: --out, --run, --resume or a folder")
    given, folder = Path(arguments[at]), work / "folder"
    arguments = [*arguments[:at], str(folder), *arguments[at + 1 :]]
    if arguments[0] == "train" and "--resume" not in arguments:  # begins with nothing
        arguments = [a for a in arguments if a != "--overwrite"]
    elif given.is_dir():
        shutil.copytree(given, folder)
    return Job(arguments, folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="decides when to kill")
    parser.add_argument("command", nargs="*", help="of mmkgc, after --")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    work = Path(tempfile.mkdtemp(prefix="mmkgc-kill-"))
    jobs = [(job_of(options.command, work), 1.0)] if options.command else usual_jobs(work)
    left, total = options.kills, 0
    for number, (job, share) in enumerate(jobs):
        kills = left if number == len(jobs) - 1 else round(share * options.kills)
        left -= kills
        tally = Tally(job.arguments[0])
        try:
            torment(job, kills, rng, tally)
        except (Broken, MmkgcError) as error:
            print(f"{tally.name}: after {tally.places.total()} kills: {error}")
            print(f"what was left is in {job.folder}; --seed {options.seed}")
            sys.exit(1)
        total += tally.places.total()
        print(tally, flush=True)
    shutil.rmtree(work)
    print(f"{total} kills, and nothing was lost")


if __name__ == "__main__":
    main()
