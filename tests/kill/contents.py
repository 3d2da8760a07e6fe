"""What lies in a folder that mmkgc writes: whether every file is what its name says, and what of it
must come out the same whenever the work is done again or goes on after a kill.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.state.atomic import read_json, read_text
from mmkgc_cli.state.checkpoints import Checkpoints, pack, unpack
from mmkgc_cli.state.trace import read_trace
from mmkgc_cli.state.weights import checksum, load_weights

TIMES = ("seconds", "epoch_seconds", "triples_per_second", "entities_per_second", "memory_mib")
CHECKPOINTS = "checkpoints"
# Files of a training that are rewritten or grow, or tell of the machine; all others come but once.
GROWING = ("trace.jsonl", "model.safetensors", "environment.json")


class Broken(Exception):
    """Something that must hold does not."""


def is_temporary(path: Path) -> bool:
    """Whether `path` is what `state.atomic` writes before it renames."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def files(folder: Path) -> dict[str, Path]:
    """Every file under its final name, by its name within `folder`."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_temporary(path) and path.name != ".lock"
    }


def leftovers(folder: Path) -> list[Path]:
    """The temporary files that killed processes left."""
    return [path for path in folder.rglob(".*.tmp") if is_temporary(path)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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


def remains(folder: Path) -> dict[str, str]:
    """What finished work leaves, as one text a file: equal where nothing was lost."""
    found = {}
    for name, path in files(folder).items():
        if path.parent.name == CHECKPOINTS:
            continue  # when they are made is the clock's business; the last one counts
        if path.name == "trace.jsonl":
            found[name] = json.dumps(epochs(path))
        elif path.name == "environment.json":
            found[name] = "there"
        else:
            found[name] = digest(path)
    state = last_state(folder)
    if state is not None:
        found[f"{CHECKPOINTS}, the last"] = checksum(state)
    return found


def read_everything(folder: Path) -> None:
    """Opens every file as its reader would.

    Raises:
        Broken: naming the first that cannot be read.
    """
    for name, path in files(folder).items():
        try:
            _read(path)
        except (DataError, ValueError, KeyError) as error:
            raise Broken(f"{name} cannot be read: {error}") from error


def _read(path: Path) -> None:
    if path.suffix == ".safetensors":
        tensors, _ = load_weights(path)
        if path.parent.name == CHECKPOINTS:
            unpack(tensors)
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
    elif path.suffix == ".tsv" and not read_text(path).endswith("\n"):
        raise DataError("its last line is cut off")


def progress(run: Path) -> tuple[int, int]:
    """Steps in the newest checkpoint, and the epoch of the best weights; -1 where there is none."""
    steps = [int(path.stem) for path in (run / CHECKPOINTS).glob("[0-9]*.safetensors")]
    weights = run / "model.safetensors"
    epoch = int(load_weights(weights)[1]["epoch"]) if weights.is_file() else -1
    return max(steps, default=-1), epoch


def unsaved_epochs(run: Path) -> int:
    """How many epochs in the trace of a killed training its newest checkpoint lacks.

    A training looks at the clock after each epoch. So once one ends an interval after the first
    unsaved, a checkpoint comes before the next: only the very last may lie beyond.

    Raises:
        Broken: when there are more of them than the interval allows.
    """
    trace, config = run / "trace.jsonl", run / "config.toml"
    if not trace.is_file() or not config.is_file():
        return 0
    interval = float(tomllib.loads(read_text(config))["checkpoints"]["seconds"])
    found = Checkpoints(run / CHECKPOINTS, 1).latest()
    position = found[1]["trace"][0] if found else 0
    data = trace.read_bytes()
    if len(data) < position:
        raise Broken(f"trace.jsonl is shorter than when {found and found[0].name} was made")
    lines = data[position:].decode().split("\n")[:-1]  # what follows the last newline is torn
    events = [event for event in map(json.loads, lines) if event["event"] == "epoch"]
    ends = [event["seconds"] for event in events]
    if len(ends) > 1 and ends[-2] - ends[0] >= (interval + 0.001 if interval else 0):
        raise Broken(
            f"{len(ends)} epochs ({events[0]['epoch']} to {events[-1]['epoch']}) over "
            f"{ends[-1] - ends[0]:.3f} s are lost, with a checkpoint every {interval} s"
        )
    return len(ends)
