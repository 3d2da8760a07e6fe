"""Prints SHA-256 hashes of the outputs of thirty commands, to compare two versions of mmkgc.

    python -m benchmarks.behaviour --out after.json
    python -m benchmarks.behaviour --out before.json --settings 0.1 --python OLD/bin/python
    python -m benchmarks.behaviour --compare before.json after.json

Trainings take at most three epochs on the built-in graph. The hashes cover the bytes of tensors in
``model.safetensors``, of vectors in feature stores and of files of ranks, which refactoring must
not change. Commands use one thread, so that both versions sum in the same order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from safetensors import safe_open

ROOT = Path(__file__).resolve().parent.parent

# Settings with another name in 0.1: the present name and that of 0.1.
NAMES_OF_0_1 = {
    "negatives.count": "training.negatives",
    "negatives.sampler": "training.sampler",
    "negatives.sampling": "training.negative_sampling",
    "negatives.corrupted_side": "training.negative_side",
    "loss.name": "training.loss",
    "loss.margin": "training.loss_margin",
    "loss.temperature": "training.adversarial_temperature",
    "loss.reduction": "training.negative_reduction",
    "loss.one_sided": "training.entropy_one_sided",
    "loss.label_smoothing": "training.label_smoothing",
    "loss.label_smoothing_adds": "training.label_smoothing_adds",
    "optimizer.name": "training.optimizer",
    "optimizer.lr": "training.lr",
    "optimizer.weight_decay": "training.weight_decay",
    "optimizer.clip_norm": "training.clip_norm",
    "optimizer.average": "training.average",
    "schedule.name": "training.schedule",
    "schedule.warmup_epochs": "training.warmup_epochs",
    "schedule.decay": "training.decay",
    "validation.every": "training.eval_every",
    "validation.sample": "training.eval_sample",
}

IMAGE = "image=graph/features/image.h5"
TEXT = "text=graph/features/text.h5"
# Trainings by name: the scorer, a recipe, and settings that override it.
TRAININGS: dict[str, tuple[str, str | None, dict[str, object], list[str]]] = {
    "rotate": ("rotate", "rotate-elements", {}, []),
    "rotate-alternating": (
        "rotate",
        "rotate-elements",
        {"negatives.corrupted_side": "alternating", "negatives.sampling": "uniform"},
        [],
    ),
    "rotate-entropy": (
        "rotate",
        "rotate-elements",
        {"loss.name": "entropy-weighted", "loss.reduction": "self-adversarial"},
        [],
    ),
    "transe-shared": (
        "transe",
        None,
        {"negatives.sampler": "shared", "loss.name": "margin-outside", "loss.margin": 2.0},
        [],
    ),
    "distmult-shared": (
        "distmult",
        None,
        {"negatives.sampler": "shared", "sampler.chunk": 32, "loss.name": "softmax"},
        [],
    ),
    "pairre-cosine": (
        "pairre",
        None,
        {
            "schedule.name": "cosine",
            "schedule.warmup_epochs": 0.5,
            "optimizer.name": "adamw",
            "optimizer.weight_decay": 0.01,
        },
        [],
    ),
    "distmult-lazy": (
        "distmult",
        None,
        {
            "optimizer.name": "lazy-adam",
            "schedule.name": "exponential",
            "schedule.decay": 0.9,
            "loss.name": "bce",
            "loss.reduction": "sum",
        },
        [],
    ),
    "transe-averaged": (
        "transe",
        None,
        {"optimizer.average": 0.9, "optimizer.clip_norm": 0.1, "validation.sample": 100},
        [],
    ),
    "complex": ("complex", "complex-elements", {}, []),
    "tucker": ("tucker", "tucker-elements", {}, []),
    "tucker-bce": ("tucker", "tucker-elements", {"loss.name": "bce"}, []),
    "ikrl": ("ikrl", "ikrl-elements", {}, [IMAGE]),
    "tbkgc": ("tbkgc", "tbkgc-elements", {}, [IMAGE, TEXT]),
    "rsme": ("rsme", "rsme-elements", {}, [IMAGE]),
    "mocme": ("mocme", "mocme-elements", {}, [IMAGE, TEXT]),
    "mocme-global": (
        "mocme",
        "mocme-elements",
        {"model.weights": "global", "loss.one_sided": True},
        [IMAGE, TEXT],
    ),
    "frequency": ("frequency", None, {}, []),
}
STRATEGIES = ("random", "neighbours", "propagation", "ridge", "kernel", "auto")
MODALITIES = {"image": "colour-grid", "text": "hashed-ngrams", "numeric": ""}


def commands(recipes: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """A name, the arguments of mmkgc, and its output files that are compared."""
    yield "prepare", ["prepare", "elements", "--out", "graph"], []
    for modality, encoder in MODALITIES.items():
        source = f"graph/modalities/{modality}.tsv"
        arguments = ["extract", modality, "--graph", "graph", "--input", source]
        arguments += ["--encoder", encoder] if encoder else []
        yield f"extract {modality}", arguments, [f"graph/features/{modality}.h5"]
    for name, (scorer, recipe, settings, stores) in TRAININGS.items():
        run = f"runs/{name}"
        arguments = ["train", scorer, "--graph", "graph", "--run", run, "--epochs", "3"]
        arguments += ["--config", str(recipes / f"{recipe}.toml")] if recipe else []
        arguments += ["--features", *stores] if stores else []
        for key, value in {"validation.every": 2, "training.threads": 1, **settings}.items():
            arguments += ["--set", f"{key}={json.dumps(value)}"]
        yield f"train {name}", arguments, [f"{run}/model.safetensors"]
        yield f"eval {name}", ["eval", run], [f"{run}/ranks-test.tsv"]
    for strategy in STRATEGIES:
        out = f"completed/{strategy}.h5"
        arguments = ["complete", "image", "--graph", "graph", "--strategy", strategy, "--out", out]
        yield f"complete {strategy}", arguments, [out]
    for preset in ("paper", "released"):
        out, run = f"completed/maco-{preset}.h5", f"runs/maco-{preset}"
        arguments = ["complete", "image", "--graph", "graph", "--strategy", "maco", "--out", out]
        arguments += ["--run", run, "--preset", preset, "--epochs", "3", "--missing-rate", "0.3"]
        for key, value in (("maco.hidden", 32), ("maco.candidates", 16), ("training.threads", 1)):
            arguments += ["--set", f"{key}={value}"]
        yield f"complete maco-{preset}", arguments, [out, f"{run}/model.safetensors"]


def in_0_1(arguments: list[str]) -> list[str]:
    """Returns the command with the 0.1 names of settings."""
    renamed = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        renamed.append(NAMES_OF_0_1.get(key, key) + equals + value)
    return renamed


def contents(path: Path) -> str:
    """SHA-256 of the tensors, vectors or text in a file, without its metadata."""
    digest = hashlib.sha256()
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
                digest.update(np.ascontiguousarray(tensor).tobytes())
    elif path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            for name in sorted(file):
                values = file[name][()]
                digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
                digest.update(b"\n".join(values) if values.dtype == object else values.tobytes())
    else:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(python: str, recipes: Path, old: bool) -> dict[str, str]:
    """Runs all commands in a temporary folder; returns a hash per output.

    Raises:
        SystemExit: when a command fails.
    """
    hashes = {}
    with tempfile.TemporaryDirectory() as folder:
        # The order of sums in OpenBLAS and OpenMP depends on the number of threads.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MMKGC_HOME": f"{folder}/home"}
        for name, arguments, files in commands(recipes):
            command = [python, "-P", "-m", "mmkgc_cli", *(in_0_1(arguments) if old else arguments)]
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{name}: exit code {done.returncode}\n{done.stderr}")
            for file in files:
                hashes[f"{name}: {Path(file).name}"] = contents(Path(folder, file))
                print(f"{hashes[f'{name}: {Path(file).name}'][:16]}  {name}: {file}", flush=True)
    return hashes


def compare(before: Path, after: Path) -> int:
    """Prints both hashes of each output; returns how many differ."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    differ = 0
    for name in sorted(old.keys() | new.keys()):
        hashes = [found.get(name, "-" * 16)[:16] for found in (old, new)]
        equal = hashes[0] == hashes[1]
        differ += not equal
        print(f"{hashes[0]}  {hashes[1]}  {'equal    ' if equal else 'DIFFERENT'}  {name}")
    print(f"{len(old.keys() | new.keys())} outputs, {differ} differ")
    return differ


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="Python interpreter with mmkgc")
    parser.add_argument("--recipes", type=Path, default=ROOT / "recipes", help="folder of recipes")
    parser.add_argument(
        "--settings", default="now", choices=["now", "0.1"], help="names of settings"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--compare", nargs=2, type=Path, help="two files of --out")
    options = parser.parse_args()
    if options.compare:
        sys.exit(bool(compare(*options.compare)))
    hashes = run(options.python, options.recipes.resolve(), options.settings == "0.1")
    if options.out:
        options.out.write_text(json.dumps(hashes, indent=2) + "\n")


if __name__ == "__main__":
    main()
