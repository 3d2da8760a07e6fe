"""Memory and disk that a training needs, and what is free."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.scoring import Scorer
from mmkgc_cli.state.tensors import kept_tensors


def state_mib(config: RunConfig, scorer: Scorer) -> tuple[float, float]:
    """MiB of the weights, and of a checkpoint with the state of the optimizer."""
    trained = sum(p.numel() * p.element_size() for p in scorer.parameters()) / 2**20
    whole = sum(t.numel() * t.element_size() for t in kept_tensors(scorer).values()) / 2**20
    moments = 1 if config.optimizer.name == "adagrad" else 2
    return whole, trained * (1 + moments + bool(config.optimizer.average))


def check_room(config: RunConfig, scorer: Scorer, run: Path, device: torch.device) -> None:
    """Compares the memory and disk that a training needs with what is free.

    Args:
        config: all settings.
        scorer: a new scorer; its tensors may lack memory (`shapes.shapes_of`).
        run: where the training writes.
        device: where it computes.

    Raises:
        MmkgcError: when one does not suffice.
    """
    if not list(scorer.parameters()):
        return
    _, needed = state_mib(config, scorer)
    # Gradients exist for one table at a time.
    needed += sum(p.numel() * p.element_size() for p in scorer.parameters() if p.is_meta) / 2**20
    free = free_memory_mib(device)
    if free is not None and needed > free:
        raise MmkgcError(
            f"training needs about {needed:,.0f} MiB of memory, {free:,.0f} MiB are free",
            fix="lower model.dim, or set optimizer.name=adagrad, which needs half as much",
        )
    disk, free_disk = disk_mib(config, scorer), free_disk_mib(run)
    if disk > free_disk:
        raise MmkgcError(
            f"{run}: weights and checkpoints need about {disk:,.0f} MiB of disk, "
            f"{free_disk:,.0f} MiB are free",
            fix="free disk space, or set checkpoints.keep=1",
        )


def disk_mib(config: RunConfig, scorer: Scorer) -> float:
    """Maximum MiB of the files of a run; a new file exists before the old one is removed."""
    weights, checkpoint = state_mib(config, scorer)
    return 2 * weights + (config.checkpoints.keep + 1) * checkpoint


def free_disk_mib(path: Path) -> float:
    """Free MiB on the disk of `path`, which need not exist."""
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free / 2**20


def free_memory_mib(device: torch.device) -> float | None:
    """Free memory in MiB; None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**20
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        used_pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    import resource

    sizes = dict(line.split(":", 1) for line in lines)
    free = [int(sizes[name].split()[0]) / 2**10 for name in ("MemAvailable",) if name in sizes]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]  # set by `ulimit -v`
    if limit != resource.RLIM_INFINITY:
        free.append(max(0.0, (limit - used_pages * resource.getpagesize()) / 2**20))
    return min(free, default=None)
