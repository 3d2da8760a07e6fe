"""Kills mmkgc with SIGKILL at random times, goes on, and shows that nothing is lost.

    python -m tests.kill.run [--kills 100] [--seed 0]          prepare, train and eval
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
from pathlib import Path

from mmkgc_cli.errors import MmkgcError
from tests.kill.contents import Broken
from tests.kill.killer import Job, Tally, torment

TRAINING = [
    "training.batch_size=256", "training.eval_every=5", "model.dim=16",
    "training.patience=0", "training.checkpoint_seconds=0.1", "training.threads=1",
]  # fmt: skip


def usual_jobs(work: Path, epochs: int = 120) -> list[tuple[Job, float]]:
    """A graph, a training on it and its evaluation, and the share of the kills for each."""
    graph, run = work / "graph", work / "run"
    settings = ["--epochs", str(epochs)]
    settings += [part for value in TRAINING for part in ("--set", value)]
    return [
        (Job(["prepare", "elements", "--out", str(graph)], graph), 0.25),
        (Job(["train", "rotate", "--graph", str(graph), "--run", str(run), *settings], run), 0.5),
        (Job(["eval", str(run)], run), 0.25),
    ]


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
