"""Fuzz targets of recipes, configurations, the files of runs, and sources of plugins."""

from __future__ import annotations

import atexit
import functools
import io
import json
import re
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from mmkgc_cli.commands import _runs_view, _shell
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.plugins.kinds import Plugin
from mmkgc_cli.plugins.source import outline
from mmkgc_cli.runs import completion_config, config
from mmkgc_cli.runs.batches.plan import plan
from mmkgc_cli.runs.batches.recipe import read_recipe
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.listing import list_runs
from mmkgc_cli.runs.plugins import config_and_change
from mmkgc_cli.runs.status import inspect
from mmkgc_cli.runs.version_0_1 import upgrade
from mmkgc_cli.scoring.registry import SCORERS
from tests.fuzz.hdf5_files import graph
from tests.fuzz.store_targets import checkpoint_examples, weights_examples

ROOT = Path(__file__).parent.parent.parent
_FILES = (
    "config.toml", "environment.json", "trace.jsonl", "results.json", "model.safetensors",
    "checkpoints/000000000007.safetensors",
)  # fmt: skip


def recipe(data: bytes, folder: Path) -> None:
    """A recipe of a batch, and its jobs."""
    path = folder / "recipe.toml"
    path.write_bytes(data.replace(b"GRAPH", str(_graph_folder()).encode()))
    jobs = plan(read_recipe(path))
    names = [job.name for job in jobs]
    assert len(names) == len(set(names))


def run_config(data: bytes, folder: Path) -> None:
    """``config.toml`` of a run; what is read can be written and read again."""
    path = folder / "config.toml"
    path.write_bytes(data)

    first, _ = config_and_change(RunDirectory(folder))
    path.write_text(config.to_toml(first), encoding="utf-8")
    assert config_and_change(RunDirectory(folder))[0] == first


def config_upgrade(data: bytes, folder: Path) -> None:
    """A file of version 0.1; upgrading it twice equals upgrading it once."""
    path = folder / "old.toml"
    path.write_bytes(data)
    if upgrade(path):
        once = path.read_bytes()
        assert not upgrade(path)
        assert path.read_bytes() == once


def completion(data: bytes, folder: Path) -> None:
    """``config.toml`` of a completion."""
    path = folder / "config.toml"
    path.write_bytes(data)
    first = completion_config.read_completion(path)
    path.write_text(completion_config.to_toml(first), encoding="utf-8")
    assert completion_config.read_completion(path) == first


def run_files(data: bytes, folder: Path) -> None:
    """The first byte selects a file of a run; ``runs list`` and ``runs show`` read all of them."""
    chosen = data[0] % len(_FILES) if data else 0
    (folder / "run" / "checkpoints").mkdir(parents=True)
    for i, (name, content) in enumerate(_run_contents()):
        (folder / "run" / name).write_bytes(data[1:] if i == chosen else content)
    runs = list_runs(folder)
    details = _runs_view.details(inspect(folder / "run"))
    json.dumps([*map(_runs_view.as_object, runs), details], allow_nan=False)
    stream = io.StringIO()
    with mock.patch("sys.stdout", stream), mock.patch("sys.stderr", stream):
        for output in (_shell.out, _shell.log):
            vars(output).pop("console", None)
        _runs_view.print_list(runs, 2e9)
        _runs_view.print_details(details, 2e9)
    shown = stream.getvalue()
    assert all(c.isprintable() or c in "\n\x1b" for c in shown), repr(shown)


def plugin_source(data: bytes, folder: Path) -> None:
    """A plugin is listed from its source, which never runs."""
    path = folder / "plugin.py"
    path.write_bytes(data)
    found = outline(Plugin("plugin", "./scorers", path), "SCORER")
    assert len(found.problem.splitlines()) <= 1
    assert len(found.summary.splitlines()) <= 1


# Valid files that are changed


@functools.cache
def _graph_folder() -> Path:
    """A prepared graph, for ``GRAPH`` in a recipe."""
    folder = Path(tempfile.mkdtemp(prefix="mmkgc-graph-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_graph(graph(), folder)
    return folder


def recipe_examples() -> list[bytes]:
    recipes = (ROOT / "recipes" / name for name in ("demo.toml", "batch-elements.toml"))
    return [
        b'[batch]\ngraphs = ["GRAPH"]\nscorers = ["transe", "rotate"]\nseeds = [0, 1]\n'
        b"[settings.training]\nepochs = 3\n[scorer.rotate.model]\ndim = 8\n"
        b"[grid.optimizer]\nlr = [0.1, 0.01]\n[[exclude]]\nscorer = 'transe'\nseed = 1\n",
        *(re.sub(rb"(demo|graphs)/elements", b"GRAPH", path.read_bytes()) for path in recipes),
    ]


@functools.cache
def config_examples() -> list[bytes]:
    return [
        config.to_toml(config.resolve(name, SCORERS.load(name).Config)).encode()
        for name in ("rotate", "ikrl", "complex")
    ]


def upgrade_examples() -> list[bytes]:
    return [
        b'scorer = "rotate"\n\n[training]\nepochs = 3  # few\nlr = 0.1\nloss_margin = 6.0\n'
        b'loss = "margin"\n[model]\ndim = 8\n',
        b'[batch]\nname = "x"\ngraphs = ["g"]\nscorers = ["rotate"]\n[grid.training]\n'
        b"lr = [0.1]\n[scorer.rotate.training]\nloss = 'margin'\npatience = 3\n"
        b'[[include]]\ntraining = {lr = 1}\n[[expect]]\n"training.lr" = 3\n',
    ]


@functools.cache
def completion_examples() -> list[bytes]:
    section = completion_config.CompletionSection(
        modality="image", store="image.h5", out="image-maco.h5"
    )
    resolved = completion_config.resolve_completion(section, "paper", {}, [])
    return [completion_config.to_toml(resolved).encode()]


@functools.cache
def _run_contents() -> list[tuple[str, bytes]]:
    events = [
        {"event": "start", "seconds": 0.0, "scorer": "rotate", "graph": "ring"},
        {"event": "epoch", "seconds": 1.0, "epoch": 1, "loss": 0.5, "triples_per_second": 9.0,
         "valid": {"mrr": 0.5}, "improved": True},
        {"event": "end", "seconds": 2.0, "epochs": 1, "stopped": "all epochs", "valid_mrr": 0.5},
    ]  # fmt: skip
    metrics = {"both": {"realistic": {"mrr": 0.5, "mean_rank": 2.0, "hits@1": 0.1}}}
    results = {"version": 1, "model": {"sha256": "0" * 64}, "metrics": {"test": metrics}}
    environment = {"mmkgc": "0.2", "command": ["mmkgc", "train"], "python": "3.11", "native": {}}
    contents = (
        config_examples()[0], json.dumps(environment).encode(),
        "".join(json.dumps(event) + "\n" for event in events).encode(),
        json.dumps(results).encode(), weights_examples()[0], checkpoint_examples()[0],
    )  # fmt: skip
    return list(zip(_FILES, contents, strict=True))


def run_examples() -> list[bytes]:
    return [bytes([i]) + content for i, (_, content) in enumerate(_run_contents())]


def plugin_examples() -> list[bytes]:
    return [(ROOT / "scorers" / name).read_bytes()[:3000] for name in ("rotate.py", "transe.py")]
