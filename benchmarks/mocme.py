"""A training step of MoCME against a lower bound: its matrix products plus a step of RotatE.

    python -m benchmarks.mocme --dim 64 --negatives 32

Sizes of DB15K: 12,842 entities, 279 relations, 1,024 positives; random vectors of width 768 for as
many entities as DB15K has images, texts and numbers. The bound is the time of the matrix products
of a step plus a step of RotatE of the same width. The floating-point operations of the products
(forward, backward and estimator) are counted during a step and divided by the measured operations
per second of one expert's product.
Contestants alternate. With one thread, CPU time is measured, which depends less on other load.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.runs.assembly import build_program, build_scorer
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.scoring import Features, load_scorer
from mmkgc_cli.scoring.contract import NO_FEATURES
from mmkgc_cli.state.memory import frozen_gc, keep_freed_memory, peak_mib
from mmkgc_cli.training.program import ScorerProgram

ENTITIES, RELATIONS, BATCH, WIDTH = 12_842, 279, 1024, 768
OBSERVED = {"image": 12_818, "text": 9_078, "numeric": 11_022}
TRIPLES = 20 * BATCH


def graph() -> Graph:
    """A random graph of the size of DB15K."""
    rng = torch.Generator().manual_seed(0)
    columns = [torch.randint(n, (TRIPLES,), generator=rng) for n in (ENTITIES, RELATIONS, ENTITIES)]
    train = torch.stack(columns, 1).int().numpy()
    names = [str(i) for i in range(ENTITIES)]
    return Graph("random", names, names[:RELATIONS], train, train[:1], train[:1])


def program(scorer: str, data: Graph, args: argparse.Namespace, *more: str) -> ScorerProgram:
    settings = [
        f"model.dim={args.dim}", "model.margin=12.0", f"negatives.count={args.negatives}",
        f"negatives.sampler={args.sampler!r}", 'loss.name="entropy-weighted"',
        "optimizer.lr=1e-4", *more,
    ]  # fmt: skip
    features = NO_FEATURES
    if scorer == "mocme":
        settings += ["model.warmup=0", f"model.use_modalities={list(OBSERVED)}"]
        rng = torch.Generator().manual_seed(0)
        features = {
            name: Features(
                torch.randn(ENTITIES, WIDTH, generator=rng),
                torch.randperm(ENTITIES, generator=rng) < n,
            )
            for name, n in OBSERVED.items()
        }
    config = resolve(scorer, load_scorer(scorer).Config, overrides=settings)
    device = torch.device("cpu")
    step_program = build_program(
        config, build_scorer(config, data, device, features), torch.from_numpy(data.train).long()
    )
    step_program.start_epoch()
    return step_program


def count_flops(step_program: ScorerProgram) -> int:
    """Counts the floating-point operations of the matrix products of a step."""
    with FlopCounterMode(display=False) as counter:
        step_program.step(0)
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=64, help="complex width")
    parser.add_argument("--negatives", type=int, default=32)
    parser.add_argument("--sampler", default="filtered", choices=("filtered", "shared"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    clock = time.process_time if args.threads == 1 else time.perf_counter
    data = graph()
    rows, expert = torch.randn(ENTITIES, 2 * args.dim), torch.randn(2 * args.dim, 2 * args.dim)
    steps = {
        "rotate": program("rotate", data, args),
        "entity": program("mocme", data, args),
        "global": program("mocme", data, args, 'model.weights="global"'),
    }
    flops = {name: count_flops(steps[name]) for name in ("entity", "global")}
    product = 2 * rows.shape[0] * rows.shape[1] ** 2
    repeats = max(1, 10**10 // product)

    def products() -> None:
        for _ in range(repeats):
            torch.mm(rows, expert)

    runs: dict[str, Callable[[], object]] = {"products": products}
    runs |= {name: functools.partial(step.step, 1) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    with frozen_gc():
        for turn in range(args.rounds + 2):
            for name, run in runs.items():
                start = clock()
                run()
                if turn >= 2:
                    times[name].append(clock() - start)
    median = {name: statistics.median(values) for name, values in times.items()}
    rate = repeats * product / median["products"]
    results = {}
    for name, count in flops.items():
        floor = count / rate + median["rotate"]
        results[name] = {
            "gflop": count / 1e9,
            "products_ms": 1e3 * count / rate,
            "rotate_ms": 1e3 * median["rotate"],
            "step_ms": 1e3 * median[name],
            "ratio": median[name] / floor,
        }
    print(json.dumps({
        "dim": args.dim, "negatives": args.negatives, "sampler": args.sampler,
        "threads": args.threads,
        "gflop_per_second": rate / 1e9, "peak_mib": peak_mib(torch.device("cpu")), **results,
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
