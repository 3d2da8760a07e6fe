"""Tiny jobs of every command that the simulation disturbs, run in this process."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.runs import directory
from mmkgc_cli.runs.batches import processes, running
from mmkgc_cli.state import atomic, files, interrupts
from tests.features.small import write
from tests.simulation.disk import SimulatedDisk

_SETTINGS = ("training.batch_size=64", "training.threads=1", "checkpoints.seconds=1e-9",
             "validation.every=1")  # fmt: skip
_RECIPE = """[batch]
graphs = ["{graph}"]
scorers = ["transe"]
seeds = [0]

[settings]
training.epochs = 1
training.batch_size = 64
model.dim = 4
checkpoints.seconds = 1e-9
"""


@dataclass(frozen=True)
class Job:
    """A command; it writes below `folder` only. A run is continued with --resume."""

    name: str
    arguments: list[str]
    folder: Path
    is_run: bool = False

    def next_arguments(self) -> list[str]:
        """What a user types now: the command, or --resume if there is a run."""
        if self.is_run and (self.folder / "config.toml").is_file():
            return [self.arguments[0], "--resume", str(self.folder)]
        return self.arguments


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    output: str


class _Ended:
    """A process that has ended."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        return self.code

    def send_signal(self, sig: int) -> None: ...

    def kill(self) -> None: ...


def run(arguments: Sequence[str]) -> Outcome:
    """Runs ``mmkgc ARGUMENTS`` in this process."""
    from mmkgc_cli.app import app
    from mmkgc_cli.commands._shell import guarded

    output = io.StringIO()
    code = 0
    handlers = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    with (
        contextlib.redirect_stdout(output), contextlib.redirect_stderr(output),
        mock.patch.object(sys, "argv", ["mmkgc", *arguments]),
    ):  # fmt: skip
        try:
            guarded(app)
        except SystemExit as error:
            code = int(error.code or 0)
        finally:  # a command that ends ignores signals
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Outcome(code, output.getvalue())


def _start(arguments: Sequence[str], variables: Any, log: int, locks: Any) -> _Ended:
    """A step of a batch, in this process."""
    outcome = run(arguments)
    os.write(log, outcome.output.encode())
    return _Ended(outcome.code)


def _token(disk: SimulatedDisk) -> str:
    return f"{disk.random.getrandbits(32):08x}"


@contextlib.contextmanager
def simulated(disk: SimulatedDisk) -> Iterator[None]:
    """Puts `disk` under all writes; processes of batches become calls."""
    with (
        mock.patch.object(files, "disk", disk),
        mock.patch.object(atomic, "_token", partial(_token, disk)),
        mock.patch.object(directory, "_git", mock.Mock(return_value=None)),
        mock.patch.object(processes.Server, "is_supported", staticmethod(lambda: False)),
        mock.patch.object(running, "start_process", _start),
        mock.patch.object(running, "LOOK", 0.0),
        mock.patch.object(running, "LOOK_AT_OTHERS", 0.0),
    ):
        yield


def all_jobs(work: Path) -> dict[str, Job]:
    """The jobs by name; inputs lie in ``work/inputs``, results in ``work/disk``."""
    inputs, target = work / "inputs", work / "disk" / "results"
    inputs.mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"e{i}" for i in range(24)]
    rows = {tuple(row) for row in random.integers(0, (24, 3, 24), (120, 3)).tolist()}
    tsv = inputs / "triples.tsv"
    tsv.write_text("".join(f"e{h}\tr{r}\te{t}\n" for h, r, t in sorted(rows)))
    graph = inputs / "graph"
    prepare = ["prepare", "mine", "--source", str(tsv), "--format", "hrt",
               "--split", "0.8,0.1,0.1", "--out"]  # fmt: skip
    _require(run([*prepare, str(graph)]))
    values = random.standard_normal((24, 6)).astype(np.float32)
    store = write(inputs / "image.h5", names, values, metadata=Metadata("image"))
    parts = [write(inputs / "a.h5", names[:16], values[:16]),
             write(inputs / "b.h5", names[12:], values[12:])]  # fmt: skip
    np.save(inputs / "vectors.npy", values)
    (inputs / "ids.txt").write_text("".join(f"{name}\n" for name in names))
    texts = inputs / "text.tsv"
    texts.write_text("entity\ttext\n" + "".join(f"{n}\tabout {n}\n" for n in names))
    recipe = inputs / "recipe.toml"
    recipe.write_text(_RECIPE.format(graph=graph))
    settings = [part for value in _SETTINGS for part in ("--set", value)]
    maco = [part for value in ("hidden=8", "input_width=4", "encoder_hidden=4", "candidates=2")
            for part in ("--set", f"maco.{value}")]  # fmt: skip
    maco += [part for value in ("checkpoints.seconds=1e-9", "training.threads=1",
             "validation.every=1") for part in ("--set", value)]  # fmt: skip
    complete = ["complete", "image", "--graph", str(graph), "--features", str(store),
                "--missing-rate", "0.4"]  # fmt: skip
    out = str(target / "image.h5")
    jobs = [
        Job("train", ["train", "transe", "--graph", str(graph), "--run", str(target), "--epochs",
            "3", "--set", "model.dim=4", *settings], target, is_run=True),
        Job("complete-maco", [*complete, "--strategy", "maco", "--run", str(target), "--out",
            str(target / "vectors.h5"), "--epochs", "2", *maco], target, is_run=True),
        Job("complete", [*complete, "--strategy", "mean", "--out", out], target),
        Job("extract", ["extract", "text", "--graph", str(graph), "--encoder", "hashed-ngrams",
            "--input", str(texts), "--batch-size", "8", "--out", out], target),
        Job("features-merge", ["features", "merge", *map(str, parts), "--prefer", "first", "--out",
            out], target),
        Job("features-import", ["features", "import", str(inputs / "vectors.npy"), "--modality",
            "image", "--ids", str(inputs / "ids.txt"), "--out", out], target),
        Job("features-mask", ["features", "mask", str(store), "--rate", "0.4", "--out", out],
            target),
        Job("features-export", ["features", "export", str(store), str(target / "image.npy")],
            target),
        Job("prepare", [*prepare, str(target)], target),
        Job("batch", ["batch", str(recipe), "--jobs", "1", "--threads", "1", "--retry-failed",
            "--out", str(target)], target),
    ]  # fmt: skip
    return {job.name: job for job in jobs}


def _require(outcome: Outcome) -> None:
    if outcome.code:
        raise AssertionError(outcome.output)
