"""The commands that are killed, their inputs, and the share of the kills of each group."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import h5py
import numpy as np

from mmkgc_cli.completion.strategies import STRATEGIES
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from tests.features.small import write
from tests.kg.texts import upstream


class Run(Protocol):
    """Runs an mmkgc command to its end."""

    def __call__(
        self, arguments: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})
    ) -> None: ...


# Kills per group, in percent.
SHARES = {
    "prepare": 8, "extract": 9, "complete": 12, "train": 32, "eval": 7, "batch": 7,
    "features": 14, "texts": 3, "runs": 3, "config": 2, "scorers": 1, "plugins": 2,
}  # fmt: skip

SMALL = ("training.batch_size=256", "training.threads=1", "validation.every=5",
         "validation.patience=0", "checkpoints.seconds=0.1")  # fmt: skip
# Each scorer, optimizer, sampler, schedule and loss is used at least once.
TRAININGS: dict[str, tuple[str, ...]] = {
    "rotate": ("model.dim=16",),
    "rotate adamw cosine": ("model.dim=16", "optimizer.name=adamw", "schedule.name=cosine"),
    "rotate entropy-weighted": ("model.dim=16", "loss.name=entropy-weighted"),
    "transe adagrad margin": ("model.dim=16", "optimizer.name=adagrad", "loss.name=margin-inside"),
    "transe alternating": ("model.dim=16", "negatives.corrupted_side=alternating"),
    "distmult lazy-adam softmax": ("model.dim=16", "optimizer.name=lazy-adam", "loss.name=softmax"),
    "distmult averaged": ("model.dim=16", "optimizer.average=0.9", "schedule.name=exponential"),
    "pairre shared uniform": (
        "model.dim=16", "negatives.sampler=shared", "negatives.sampling=uniform",
    ),
    "complex 1-vs-all": ("model.dim=16", "training.candidates=all", "loss.name=softmax"),
    "complex bce linear": ("model.dim=16", "loss.name=bce", "schedule.name=linear"),
    "tucker 1-N": ("model.dim=8", "training.candidates=all", "loss.name=bce"),
    "frequency": (),
    "ikrl": ("model.dim=16",),
    "tbkgc margin-outside": ("model.dim=16", "loss.name=margin-outside"),
    "rsme 1-vs-all": ("model.dim=16", "training.candidates=all", "loss.name=softmax"),
    "mocme": ("model.dim=8", "loss.name=entropy-weighted"),
}  # fmt: skip
MODALITIES = {
    "ikrl": ("image",), "tbkgc": ("image", "text"), "rsme": ("image",), "mocme": ("image", "text"),
}  # fmt: skip
MACO = (
    "maco.hidden=16", "maco.input_width=8", "maco.encoder_hidden=8", "maco.candidates=8",
    "validation.every=10", "checkpoints.seconds=0.1", "training.threads=1",
)  # fmt: skip
TRAINING_RECIPE = """[batch]
graphs = ["{graph}"]
scorers = ["transe", "distmult"]
seeds = [0]

[settings]
training.epochs = 10
training.batch_size = 256
model.dim = 16
checkpoints.seconds = 0.1
"""
COMPLETION_RECIPE = """[batch]
graphs = ["{graph}"]
scorers = ["ikrl"]
seeds = [0]

[features]
image = "{vectors}"

[mask]
rates = [0.4]

[complete]
strategies = ["mean", "maco"]

[complete.maco]
epochs = 3
hidden = 16
input_width = 8
encoder_hidden = 8
candidates = 8

[settings]
training.epochs = 5
training.batch_size = 256
model.dim = 16
checkpoints.seconds = 0.1
"""


@dataclass
class Job:
    """A command, the folder that it writes to, and its name in the report.

    Attributes:
        name: of one job; the first word is its group.
        arguments: of mmkgc.
        folder: that it writes to; contains what it has before the command.
        is_resumed: whether a user continues it with ``--resume RUN``.
        environment: variables of the command that differ from those of the harness.
    """

    name: str
    arguments: list[str]
    folder: Path
    is_resumed: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The group of jobs that share kills."""
        return self.name.split()[0]

    @property
    def trains(self) -> bool:
        """Whether the command trains, so that a kill may cost epochs."""
        return self.is_resumed or self.is_batch

    @property
    def is_batch(self) -> bool:
        """Whether the command starts processes."""
        return self.group == "batch"

    def next_arguments(self) -> list[str]:
        """The arguments that a user would type now: the command, or --resume if a run exists."""
        begun = (self.folder / "config.toml").is_file()
        if self.is_resumed and begun and "--resume" not in self.arguments:
            return [self.arguments[0], "--resume", str(self.folder)]
        return self.arguments


class Inputs:
    """Files that the jobs read; they lie beside the folders that the jobs write to."""

    def __init__(self, work: Path, run: Run) -> None:
        """Prepares the built-in graph; other inputs are made by the jobs that need them."""
        self.work, self.run = work, run
        self.graph = work / "inputs" / "graph"
        run(["prepare", "elements", "--out", str(self.graph)])
        self.names = [row.split("\t")[0] for row in _elements("entities.tsv")[1:]]
        self.image = self._store("image", 6)
        self.text = self._store("text", 5)

    def _store(self, modality: str, width: int) -> Path:
        path = self.work / "inputs" / f"{modality}.h5"
        values = np.random.default_rng(width).standard_normal((len(self.names), width))
        return write(path, self.names, values.astype(np.float32), metadata=Metadata(modality))

    def folder(self, name: str) -> Path:
        """The folder of a job."""
        return self.work / "jobs" / name.replace(" ", "-")

    def single(self, name: str, arguments: Sequence[str | Path], target: str) -> Job:
        """A job that writes one file, which is its --out or last argument."""
        folder = self.folder(name)
        return Job(name, [*map(str, arguments), str(folder / target)], folder)

    def trained(self, name: str, epochs: int = 5) -> Path:
        """A finished run."""
        path = self.work / "inputs" / name
        if not path.exists():
            self.run(self.training("rotate", path, epochs))
        return path

    def training(self, name: str, run: Path, epochs: int) -> list[str]:
        """The command of a training of `TRAININGS`."""
        scorer = name.split()[0]
        arguments = ["train", scorer, "--graph", str(self.graph), "--run", str(run)]
        for modality in MODALITIES.get(scorer, ()):
            store = {"image": self.image, "text": self.text}[modality]
            arguments += ["--features", f"{modality}={store}"]
        settings: tuple[str, ...] = ("checkpoints.seconds=0.1",)
        if scorer != "frequency":
            arguments += ["--epochs", str(epochs)]
            settings = (*SMALL, *TRAININGS[name])
        return arguments + [part for value in settings for part in ("--set", value)]


def all_jobs(work: Path, run: Run) -> list[Job]:
    """Every command that writes files, with its inputs below `work`.

    Args:
        work: an empty folder.
        run: runs a command to its end.
    """
    inputs = Inputs(work, run)
    groups = (_prepare, _extract, _complete, _train, _eval, _batch, _features, _texts, _runs,
              _config, _scorers, _plugins)  # fmt: skip
    jobs = [job for group in groups for job in group(inputs)]
    for job in jobs:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
    return jobs


def few_jobs(work: Path, run: Run, epochs: int) -> list[Job]:
    """One job of each kind, for the tests."""
    inputs = Inputs(work, run)
    jobs = [
        next(_prepare(inputs)), next(_train(inputs, epochs)), next(_eval(inputs)),
        maco(inputs, epochs), merge(inputs),
    ]  # fmt: skip
    for job in jobs:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
    return jobs


def _elements(name: str) -> list[str]:
    text = (files("mmkgc_cli.kg.elements") / name).read_text(encoding="utf-8")
    return text.splitlines()


def _prepare(inputs: Inputs) -> Iterator[Job]:
    folder = inputs.folder("prepare elements")
    yield Job("prepare elements", ["prepare", "elements", "--out", str(folder)], folder)
    triples = [row.split("\t") for row in _elements("triples.tsv")[1:]]
    tsv = inputs.work / "inputs" / "triples.tsv"
    tsv.write_text("".join("\t".join(row) + "\n" for row in triples), encoding="utf-8")
    nt = inputs.work / "inputs" / "triples.nt"
    lines = (" ".join(f"<urn:x:{part.replace(' ', '_')}>" for part in row) for row in triples)
    nt.write_text("".join(f"{line} .\n" for line in lines), encoding="utf-8")
    split = ["--split", "0.8,0.1,0.1"]
    for name, source in (("tsv", tsv), ("ntriples", nt)):
        folder = inputs.folder(f"prepare {name}")
        code = "hrt" if name == "tsv" else "nt"
        arguments = ["prepare", "mine", "--source", str(source), "--format", code, *split]
        yield Job(f"prepare {name}", [*arguments, "--out", str(folder)], folder)
    folder = inputs.folder("prepare overwrite")
    rows = np.array([[0, 0, 1], [1, 0, 2], [2, 0, 0]], dtype=np.int32)
    write_graph(Graph("old", ["a", "b", "c"], ["r"], rows, rows[:0], rows[:0]), folder)
    arguments = ["prepare", "mine", "--source", str(tsv), "--format", "hrt", *split]
    yield Job("prepare overwrite", [*arguments, "--overwrite", "--out", str(folder)], folder)


def _extract(inputs: Inputs) -> Iterator[Job]:
    folder = inputs.graph / "modalities"
    methods = {
        "image": ["--encoder", "colour-grid", "--input", str(folder / "image.tsv")],
        "text": ["--encoder", "hashed-ngrams", "--input", str(folder / "text.tsv")],
        "numeric": ["--input", str(folder / "numeric.tsv")],
        "structure": ["--encoder", "hashed-ngrams"],
    }
    for modality, method in methods.items():
        name = f"extract {modality}"
        arguments: list[str | Path] = [
            "extract",
            modality,
            "--graph",
            inputs.graph,
            "--batch-size",
            "16",
            *method,
        ]
        yield inputs.single(name, [*arguments, "--out"], f"{modality}.h5")


def _complete(inputs: Inputs) -> Iterator[Job]:
    yield maco(inputs, 80)
    sparse = inputs.work / "inputs" / "sparse.h5"
    values = np.random.default_rng(2).standard_normal((len(inputs.names), 6)).astype(np.float32)
    write(sparse, inputs.names, values, np.arange(len(values)) % 3 > 0)
    for strategy in (*STRATEGIES, "auto", "all"):
        arguments: list[str | Path] = [
            "complete",
            "image",
            "--graph",
            inputs.graph,
            "--features",
            sparse,
        ]
        arguments += ["--strategy", strategy, "--missing-rate", "0.4", "--out"]
        yield inputs.single(f"complete {strategy}", arguments, "image.h5")


def maco(inputs: Inputs, epochs: int) -> Job:
    """A trained completion."""
    folder = inputs.folder("complete maco")
    arguments = [
        "complete",
        "image",
        "--graph",
        str(inputs.graph),
        "--strategy",
        "maco",
    ]
    arguments += ["--features", str(inputs.image), "--run", str(folder)]
    arguments += ["--out", str(folder / "vectors.h5"), "--missing-rate", "0.4"]
    arguments += ["--epochs", str(epochs)]
    arguments += [part for value in MACO for part in ("--set", value)]
    return Job("complete maco", arguments, folder, is_resumed=True)


def _train(inputs: Inputs, epochs: int = 40) -> Iterator[Job]:
    for name in TRAININGS:
        folder = inputs.folder(f"train {name}")
        arguments = inputs.training(name, folder, epochs)
        yield Job(f"train {name}", arguments, folder, is_resumed=True)


def _eval(inputs: Inputs) -> Iterator[Job]:
    for split in ("test", "valid"):
        folder = inputs.folder(f"eval {split}")
        shutil.copytree(inputs.trained("rotate"), folder)
        yield Job(f"eval {split}", ["eval", str(folder), "--split", split], folder)


def _batch(inputs: Inputs) -> Iterator[Job]:
    for name, text in (("batch train", TRAINING_RECIPE), ("batch complete", COMPLETION_RECIPE)):
        recipe = inputs.work / "inputs" / f"{name.split()[1]}.toml"
        recipe.write_text(text.format(graph=inputs.graph, vectors=inputs.image))
        folder = inputs.folder(name)
        arguments = ["batch", str(recipe), "--jobs", "2", "--threads", "1", "--retry-failed"]
        yield Job(name, [*arguments, "--out", str(folder)], folder)


def _features(inputs: Inputs) -> Iterator[Job]:
    arguments: list[str | Path]
    source = inputs.work / "inputs"
    values = np.random.default_rng(0).standard_normal((len(inputs.names), 512)).astype(np.float32)
    ids = source / "ids.txt"
    ids.write_text("".join(f"{name}\n" for name in inputs.names), encoding="utf-8")
    np.save(source / "vectors.npy", values)
    np.savez(source / "vectors.npz", vectors=values)
    lines = (
        "\t".join([name, *map(str, row[:16])])
        for name, row in zip(inputs.names, values, strict=True)
    )
    (source / "vectors.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    wide = write(source / "wide.h5", inputs.names, values)
    inputs.run(["features", "export", str(wide), str(source / "vectors.safetensors")])
    with h5py.File(source / "vectors.h5", "w") as file:  # of another program
        file["vectors"] = values
    for suffix in ("npy", "npz", "tsv", "safetensors", "h5"):
        arguments = [
            "features",
            "import",
            source / f"vectors.{suffix}",
            "--modality",
            "image",
        ]
        arguments += ["--ids", ids] if suffix in ("npy", "npz", "h5") else []
        yield inputs.single(f"features import {suffix}", [*arguments, "--out"], "image.h5")
    folder = inputs.folder("features import overwrite")
    write(folder / "image.h5", inputs.names, values[:, :3])
    arguments = [
        "features",
        "import",
        source / "vectors.npy",
        "--modality",
        "image",
        "--ids",
        ids,
    ]
    yield inputs.single("features import overwrite", [*arguments, "--overwrite", "--out"],
                        "image.h5")  # fmt: skip
    for suffix in ("npy", "safetensors", "parquet"):
        arguments = ["features", "export", wide]
        yield inputs.single(f"features export {suffix}", arguments, f"image.{suffix}")
    for target in ("image.h5", "image.txt"):
        arguments = ["features", "mask", wide, "--rate", "0.4", "--out"]
        yield inputs.single(f"features mask {Path(target).suffix[1:]}", arguments, target)
    yield merge(inputs)


def merge(inputs: Inputs) -> Job:
    """A merge of two stores; both have vectors for some entities."""
    values = np.random.default_rng(1).standard_normal((len(inputs.names), 256)).astype(np.float32)
    parts = [inputs.work / "inputs" / f"part-{i}.h5" for i in range(2)]
    write(parts[0], inputs.names[:400], values[:400])
    write(parts[1], inputs.names[300:], values[300:])
    arguments: list[str | Path] = ["features", "merge", *parts, "--prefer", "first", "--out"]
    return inputs.single("features merge", arguments, "both.h5")


def _texts(inputs: Inputs) -> Iterator[Job]:
    source = inputs.work / "inputs" / "published"
    items = {f"/m/{i}": upstream.item(f"Q{i}", f"label {i}") for i in range(1, 400)}
    upstream.write(source, items=items)
    names = [f"/m/{i}" for i in range(1, 401)]
    rows = np.array([[i, 0, i + 1] for i in range(399)], dtype=np.int32)
    graph = inputs.work / "inputs" / "mids"
    write_graph(Graph("mids", names, ["r"], rows, rows[:1], rows[1:2]), graph)
    folder = inputs.folder("texts build")
    arguments = ["texts", "build", "fb15k-237", "--graph", str(graph), "--source", str(source)]
    arguments += ["--allow-unverified", "--out", str(folder)]
    yield Job("texts build", arguments, folder)


def _runs(inputs: Inputs) -> Iterator[Job]:
    folder = inputs.folder("runs clean")
    for i in range(12):
        shutil.copytree(inputs.trained("rotate"), folder / str(i))
    yield Job("runs clean", ["runs", "clean", str(folder), "--yes"], folder)


def _config(inputs: Inputs) -> Iterator[Job]:
    archive = Path(__file__).parent.parent / "version_0_1" / "fixtures.tar.xz"
    old = inputs.work / "inputs" / "version-0.1"
    with tarfile.open(archive) as content:
        content.extractall(old, filter="data")
    folder = inputs.folder("config upgrade")
    shutil.copytree(old / "batch", folder / "batch")
    shutil.copytree(old / "finished", folder / "run")
    arguments = ["config", "upgrade", str(folder / "run"), str(folder / "batch")]
    yield Job("config upgrade", arguments, folder)


def _scorers(inputs: Inputs) -> Iterator[Job]:
    folder = inputs.folder("scorers new")
    yield Job("scorers new", ["scorers", "new", "mine", "--folder", str(folder)], folder)


def _plugins(inputs: Inputs) -> Iterator[Job]:
    source = inputs.work / "inputs" / "plugins"
    source.mkdir()
    names = [str(source / f"scorer{i}.py") for i in range(8)]
    for name in names:
        Path(name).write_text(f"# {name}\n")
    for name in ("trust", "revoke"):
        folder = inputs.folder(f"plugins {name}")
        environment = {"XDG_CONFIG_HOME": str(folder)}
        if name == "revoke":
            inputs.run(["plugins", "trust", *names], environment)
        arguments = ["plugins", name, *names[4:]]
        yield Job(f"plugins {name}", arguments, folder, environment=environment)
