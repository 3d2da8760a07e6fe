"""One RotatE step by `rotate_score` and by `sampled_score`, against the twin, eager and compiled.

    python -m benchmarks.scoring

FB15K-237's shapes: 14,541 entities, 237 relations, 1,024 positives with 32 negatives each, 128
complex dimensions, float32, two threads. A step is forward, a log-sigmoid loss, backward and Adam:
torch's fused one, or with ours `table_adam`. Ours and one peer take turns of four steps, round
after round, and medians are compared, so that what else the machine does hits both of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mmkgc_cli.ops import Metric, path_of, rotate_score, sampled_score, whole_row
from mmkgc_cli.ops.rotate_score import twin
from mmkgc_cli.state.memory import keep_freed_memory, settled_objects
from mmkgc_cli.training.optimizers import Adam

ENTITIES, RELATIONS, BATCH, NEGATIVES, DIM = 14_541, 237, 1024, 32, 128
Score = Callable[..., Tensor]


def rotated(
    table: Tensor, phases: Tensor, heads: Tensor, relations: Tensor, tails: Tensor
) -> tuple[Tensor, Tensor]:
    """RotatE's queries for tails and for heads, in torch."""
    embedding = torch.nn.functional.embedding
    theta = embedding(relations, phases)
    cos, sin = theta.cos(), theta.sin()
    hr, hi = embedding(heads, table).chunk(2, -1)
    tr, ti = embedding(tails, table).chunk(2, -1)
    for_tail = torch.cat([hr * cos - hi * sin, hr * sin + hi * cos], -1)
    return for_tail, torch.cat([tr * cos + ti * sin, ti * cos - tr * sin], -1)


def explicit(
    table: Tensor, phases: Tensor, heads: Tensor, relations: Tensor, tails: Tensor, ids: Tensor,
    side: Tensor,
) -> Tensor:  # fmt: skip
    """RotatE on real and imaginary parts, as one writes it for a compiler."""
    for_tail, for_head = rotated(table, phases, heads, relations, tails)
    queries = torch.where(side[..., None] == 0, for_tail[:, None], for_head[:, None])
    re, im = (queries - torch.nn.functional.embedding(ids, table)).chunk(2, -1)
    return -(re.square() + im.square() + 1e-20).sqrt().sum(-1)


def by_queries(
    table: Tensor, phases: Tensor, heads: Tensor, relations: Tensor, tails: Tensor, ids: Tensor,
    side: Tensor,
) -> Tensor:  # fmt: skip
    """RotatE's queries in torch, their scores by `sampled_score`."""
    queries = torch.stack(rotated(table, phases, heads, relations, tails))
    return sampled_score(queries, table, ids, side, Metric.modulus, whole_row(2 * DIM))


class Contest:
    """A model with its optimizer, a batch, and a step with a scoring function."""

    def __init__(self, score: Score, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        self.score = score
        rng = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.empty(ENTITIES, 2 * DIM))
        self.phases = torch.nn.Parameter(torch.empty(RELATIONS, DIM))
        with torch.no_grad():
            self.table.uniform_(-0.086, 0.086, generator=rng)
            self.phases.uniform_(-3.14, 3.14, generator=rng)
        self.optimizer = optimizer([self.table, self.phases], lr=1e-3, fused=True)
        ids = torch.randint(ENTITIES, (BATCH, NEGATIVES + 3), generator=rng)
        relations = torch.randint(RELATIONS, (BATCH,), generator=rng)
        side = torch.randint(2, (BATCH, NEGATIVES + 1), generator=rng, dtype=torch.int8)
        known = ids[:, 0].contiguous(), relations, ids[:, 1].contiguous()
        # The sampler brings this along, for those that can use it.
        self.order = (ids[:, 2:].flatten().argsort(stable=True),) if score is rotate_score else ()
        self.batch = (*known, ids[:, 2:].contiguous(), side)

    def step(self) -> None:
        scores = 9 + self.score(self.table, self.phases, *self.batch, *self.order)
        loss = -torch.nn.functional.logsigmoid(scores).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def compete(
    contestants: dict[str, Callable[[], None]], rounds: int, in_a_row: int = 1
) -> dict[str, list[float]]:
    """Milliseconds a run of each contestant in each round, after three rounds that do not count.

    With `in_a_row` above 1 a turn is that many runs and one before them that does not count: it
    finds the caches full of the others' data, which a step in training never does.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 3):
        for name, run in contestants.items():
            if in_a_row > 1:
                run()
            start = time.perf_counter()
            for _ in range(in_a_row):
                run()
            if turn >= 3:
                times[name].append(1000 * (time.perf_counter() - start) / in_a_row)
    return times


def copy_bandwidth() -> float:
    """GB/s of copying a table larger than the caches."""
    source = torch.zeros(64 << 20)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    times = compete({"copy": copy}, 5)["copy"]
    return 2 * source.numel() * 4 / statistics.median(times) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # this and settled_objects as `mmkgc train` does; peers profit too
    peers: dict[str, tuple[Score, type[torch.optim.Optimizer]]] = {
        "ours, sampled_score": (by_queries, Adam),
        "ours, torch's Adam": (rotate_score, torch.optim.Adam),
        "twin, eager": (twin, torch.optim.Adam),
        "twin, compiled": (torch.compile(lambda *args: twin(*args)), torch.optim.Adam),
        "explicit, compiled": (torch.compile(explicit), torch.optim.Adam),
    }
    median, fastest, ratio = {}, {}, {}
    ours = Contest(rotate_score, Adam)
    for name, (score, optimizer) in peers.items():
        # In pairs: compiled code brings an OpenMP of its own, whose idle threads spin for a while.
        contestants = {"ours": ours.step, name: Contest(score, optimizer).step}
        with settled_objects():
            times = compete(contestants, options.rounds, 4)
        median[name] = [round(statistics.median(times[who]), 2) for who in ("ours", name)]
        fastest[name] = [round(min(times[who]), 2) for who in ("ours", name)]
        ratio[name] = round(median[name][1] / median[name][0], 1)
    step = statistics.median(of for of, _ in median.values())
    # Forward, query gradient and table gradient each read a row a candidate; Adam reads and writes
    # three tables.
    moved = 3 * BATCH * (NEGATIVES + 1) * 8 * DIM + 6 * ENTITIES * 8 * DIM
    print(
        json.dumps(
            {
                "path": path_of("rotate_score", "cpu")[0],
                "ours_and_peer_ms": median,
                "fastest_ms": fastest,
                "ratio": ratio,
                "copy_gb_per_s": round(copy_bandwidth(), 1),
                "step_gb_per_s": round(moved / step / 1e6, 1),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
