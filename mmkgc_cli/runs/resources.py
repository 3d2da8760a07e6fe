"""Memory and disk that a training takes, and what there is."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.scoring import Scorer
from mmkgc_cli.state.tensors import kept_tensors


def state_mib(config: RunConfig, scorer: Scorer) -> tuple[float, float]:
    """Size of the weights, and of a checkpoint with what the optimizer keeps of them."""
    trained = sum(p.numel() * p.element_size() for p in scorer.parameters()) / 2**20
    whole = sum(t.numel() * t.element_size() for t in kept_tensors(scorer).values()) / 2**20
    moments = 1 if config.optimizer.name == "adagrad" else 2
    return whole, trained * (1 + moments + bool(config.optimizer.average))


def check_room(config: RunConfig, scorer: Scorer, run: Path) -> None:
    """Holds what a training keeps against what there is; nothing where there is nothing to train.

    Raises:
        MmkgcError: naming what cannot fit, and how to make it.
    """
    if not list(scorer.parameters()):
        return
    _, checkpoint = state_mib(config, scorer)
    # The weights are there; gradients may be as large, and come one table after another.
    needed, free = checkpoint, free_memory_mib(next(scorer.parameters()).device)
    if free is not None and needed > free:
        raise MmkgcError(
            f"training needs some {needed:,.0f} MiB more of memory, {free:,.0f} MiB are free; take "
            "a smaller model.dim, or optimizer.name=adagrad, which keeps half as much"
        )
    disk, free_disk = disk_mib(config, scorer), free_disk_mib(run)
    if disk > free_disk:
        raise MmkgcError(
            f"{run}: weights and checkpoints take some {disk:,.0f} MiB, {free_disk:,.0f} MiB are "
            "free; free some room, or set checkpoints.keep=1"
        )


def disk_mib(config: RunConfig, scorer: Scorer) -> float:
    """What the files of a run take at most; a file is written before the old one goes."""
    weights, checkpoint = state_mib(config, scorer)
    return 2 * weights + (config.checkpoints.keep + 1) * checkpoint


def free_disk_mib(path: Path) -> float:
    """Room on the disk that `path` is or would be on."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free / 2**20


def free_memory_mib(device: torch.device) -> float | None:
    """Memory that can be had; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**20
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes["MemAvailable"].split()[0]) / 2**10 if "MemAvailable" in sizes else None
