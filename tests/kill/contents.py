"""Contents of a folder that mmkgc writes: whether each file can be read, and which contents must be
equal however often the work was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.state.atomic import read_json, read_text
from mmkgc_cli.state.checkpoints import Checkpoints, pack, unpack
from mmkgc_cli.state.trace import read_trace
from mmkgc_cli.state.weights import checksum, load_weights

TIMES = ("seconds", "epoch_seconds", "triples_per_second", "entities_per_second", "memory_mib")
CHECKPOINTS = "checkpoints"
# Files that are rewritten or grow, or describe the machine; others are written once.
GROWING = (
    "trace.jsonl", "model.safetensors", "environment.json", "log.txt", "effort.json", "ending.json",
)  # fmt: skip
# Contents that depend on the number of interruptions.
HISTORY = ("environment.json", "log.txt", "effort.json")


class Violation(Exception):
    """A property that must hold does not."""


def is_temporary(path: Path) -> bool:
    """Whether `path` is a file that `state.atomic` writes before it renames it."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def files(folder: Path) -> dict[str, Path]:
    """Every file under its final name, by its name within `folder`."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_temporary(path) and path.name != ".lock"
    }


def leftovers(folder: Path) -> list[Path]:
    """The temporary files in a folder."""
    return [path for path in folder.rglob(".*.tmp") if is_temporary(path)]


def run_folders(folder: Path) -> list[Path]:
    """The run directories within a folder."""
    return sorted({path.parent for path in folder.rglob("config.toml")})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_removable(name: str) -> bool:
    """Whether an unfinished or finished command may remove the file."""
    return CHECKPOINTS in Path(name).parts or name.endswith(".part")


def last_state(run: Path) -> dict[str, Any] | None:
    """The state in the newest checkpoint of a run, without its times, as `pack` lays it out."""
    found = Checkpoints(run / CHECKPOINTS, 1).latest()
    if found is None:
        return None
    state = found[1]
    del state["trace"], state["progress"]["seconds"]
    return pack(state)


def epochs(trace: Path) -> list[dict[str, Any]]:
    """The epochs in a trace, without times."""
    return [
        {key: value for key, value in event.items() if key not in TIMES}
        for event in read_trace(trace)
        if event["event"] == "epoch"
    ]


def contents_of(folder: Path) -> dict[str, str]:
    """The contents of finished work by file, as texts; equal whenever nothing was lost."""
    found = {}
    for name, path in files(folder).items():
        if CHECKPOINTS in Path(name).parts:
            continue  # the clock decides when they are written; only the last is compared
        if path.name == "trace.jsonl":
            found[name] = json.dumps(epochs(path))
        elif path.name in HISTORY:
            found[name] = "present"
        elif path.name == "ending.json":
            found[name] = json.dumps(read_json(path)["state"])
        else:
            found[name] = digest(path)
    for run in run_folders(folder):
        state = last_state(run)
        if state is not None:
            checkpoints = run.relative_to(folder) / CHECKPOINTS
            found[f"{checkpoints}, the last"] = checksum(state)
    return found


def read_everything(folder: Path) -> None:
    """Opens every file as its reader would.

    Raises:
        Violation: names the first file that cannot be read.
    """
    for name, path in files(folder).items():
        try:
            _read(path)
        except (DataError, ValueError, KeyError) as error:
            raise Violation(f"{name} cannot be read: {error}") from error


def _read(path: Path) -> None:
    if path.suffix == ".safetensors":
        if path.parent.name == CHECKPOINTS:
            unpack(load_weights(path)[0])
        elif path.name == "model.safetensors":
            load_weights(path)
        else:
            from safetensors import numpy

            numpy.load_file(path)
    elif path.suffix == ".h5" and path.name != "graph.h5":
        with FeatureStore(path) as store:
            store.verify()
    elif path.suffix == ".h5":
        load_graph(path)
    elif path.suffix == ".json":
        read_json(path)
    elif path.suffix == ".jsonl":
        read_trace(path)
    elif path.suffix == ".toml":
        tomllib.loads(read_text(path))
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".parquet":
        from pyarrow import parquet

        parquet.read_table(path)
    elif path.suffix == ".tsv" and not read_text(path).endswith("\n"):
        raise DataError("its last line is cut off", fix="write it again")


def progress(run: Path) -> tuple[int, int]:
    """Steps in the newest checkpoint, and the epoch of the best weights; -1 where there is none."""
    steps = [int(path.stem) for path in (run / CHECKPOINTS).glob("[0-9]*.safetensors")]
    weights = run / "model.safetensors"
    epoch = int(load_weights(weights)[1]["epoch"]) if weights.is_file() else -1
    return max(steps, default=-1), epoch


def unsaved_epochs(run: Path) -> int:
    """The number of epochs in the trace of a killed training that its newest checkpoint lacks.

    A training looks at the clock after each epoch. If an epoch ends at least an interval after the
    first unsaved epoch, a checkpoint is written before the next; only the last may be unsaved.

    Raises:
        Violation: when there are more of them than the interval allows.
    """
    trace, config = run / "trace.jsonl", run / "config.toml"
    if not trace.is_file() or not config.is_file():
        return 0
    interval = float(tomllib.loads(read_text(config))["checkpoints"]["seconds"])
    found = Checkpoints(run / CHECKPOINTS, 1).latest()
    position = found[1]["trace"][0] if found else 0
    data = trace.read_bytes()
    if len(data) < position:
        raise Violation(f"trace.jsonl is shorter than when {found and found[0].name} was written")
    lines = data[position:].decode().split("\n")[:-1]  # the text after the last newline is torn
    events = [event for event in map(json.loads, lines) if event["event"] == "epoch"]
    ends = [event["seconds"] for event in events]
    if len(ends) > 1 and ends[-2] - ends[0] >= (interval + 0.001 if interval else 0):
        raise Violation(
            f"{len(ends)} epochs ({events[0]['epoch']} to {events[-1]['epoch']}) over "
            f"{ends[-1] - ends[0]:.3f} s are lost, with a checkpoint every {interval} s"
        )
    return len(ends)
