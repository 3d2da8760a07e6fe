"""A RotatE step with `rotate_loss` or other ops, against the reference, eager and compiled.

    python -m benchmarks.scoring

Sizes of FB15K-237: 14,541 entities, 237 relations, 1,024 positives with 32 negatives each, 128
complex dimensions, float32, two threads. A step is forward, the self-adversarial loss, backward and
Adam (fused Adam of torch, or `table_adam` with ours). Two other combinations of ops are
measured: `sampled_loss` on queries computed in torch, and `rotate_score` with
`self_adversarial_loss`.
Contestants alternate in turns of twenty steps, and medians are compared, so that other load on the
machine affects all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.ops import (
    Metric,
    SelfAdversarial,
    backend_of,
    rotate_loss,
    rotate_score,
    sampled_loss,
    self_adversarial_loss,
    whole_row,
)
from mmkgc_cli.ops.rotate_score import reference
from mmkgc_cli.sides import Side
from mmkgc_cli.state.memory import frozen_gc, keep_freed_memory
from mmkgc_cli.training.optimizers import Adam

ENTITIES, RELATIONS, BATCH, NEGATIVES, DIM = 14_541, 237, 1024, 32, 128
MARGIN, TEMPERATURE = 9.0, 1.0
Loss = Callable[..., Tensor]


def rotated(
    table: Tensor, phases: Tensor, heads: Tensor, relations: Tensor, tails: Tensor
) -> tuple[Tensor, Tensor]:
    """Queries of RotatE for tails and for heads, in torch."""
    embedding = torch.nn.functional.embedding
    theta = embedding(relations, phases)
    cos, sin = theta.cos(), theta.sin()
    hr, hi = embedding(heads, table).chunk(2, -1)
    tr, ti = embedding(tails, table).chunk(2, -1)
    for_tail = torch.cat([hr * cos - hi * sin, hr * sin + hi * cos], -1)
    return for_tail, torch.cat([tr * cos + ti * sin, ti * cos - tr * sin], -1)


def explicit(table: Tensor, phases: Tensor, *batch: Tensor) -> Tensor:
    """RotatE on real and imaginary parts, written for a compiler."""
    heads, relations, tails, ids, side = batch
    for_tail, for_head = rotated(table, phases, heads, relations, tails)
    queries = torch.where(side[..., None] == 0, for_tail[:, None], for_head[:, None])
    re, im = (queries - torch.nn.functional.embedding(ids, table)).chunk(2, -1)
    return -(re.square() + im.square() + 1e-20).sqrt().sum(-1)


def by_queries(table: Tensor, phases: Tensor, *batch: Tensor) -> Tensor:
    """Computes queries in torch, and the loss of their scores with `sampled_loss`."""
    heads, relations, tails, ids, side, order = batch
    queries = torch.stack(rotated(table, phases, heads, relations, tails))
    return sampled_loss(
        queries, table, ids, side, Metric.modulus, whole_row(2 * DIM), mask=None,
        loss=SelfAdversarial(TEMPERATURE), offset=MARGIN, order=order,
    )  # fmt: skip


def ours(*tables_and_batch: Tensor) -> Tensor:
    """Computes the loss from the two tables in one op."""
    table, phases, heads, relations, tails, ids, side, order = tables_and_batch
    return rotate_loss(
        table, phases, heads, relations, tails, ids=ids, corrupted_side=side, mask=None,
        loss=SelfAdversarial(TEMPERATURE), offset=MARGIN, order=order,
    )  # fmt: skip


def in_two_ops(*tables_and_batch: Tensor) -> Tensor:
    """Computes the loss from scores."""
    *known, ids, side, order = tables_and_batch
    scores = MARGIN + rotate_score(*known, ids=ids, corrupted_side=side, order=order)
    return self_adversarial_loss(scores[:, 0], scores[:, 1:], None, TEMPERATURE)


def theirs(score: Callable[..., Tensor]) -> Loss:
    """Builds the same loss in torch, which does not use the sorted order."""

    def loss(*tables_and_batch: Tensor) -> Tensor:
        scores = MARGIN + score(*tables_and_batch[:-1])
        positive, negative = scores[:, 0], scores[:, 1:]
        weights = (TEMPERATURE * negative.detach()).softmax(1)
        hardness = (weights * logsigmoid(-negative)).sum(1)
        return -0.5 * (logsigmoid(positive) + hardness).mean()

    return loss


class Contest:
    """A model with its optimizer, batches, and a step with a loss function."""

    def __init__(self, loss: Loss, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        self.loss = loss
        rng = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.empty(ENTITIES, 2 * DIM))
        self.phases = torch.nn.Parameter(torch.empty(RELATIONS, DIM))
        with torch.no_grad():
            self.table.uniform_(-0.086, 0.086, generator=rng)
            self.phases.uniform_(-3.14, 3.14, generator=rng)
        self.optimizer = optimizer([self.table, self.phases], lr=1e-3, fused=True)
        # With a single batch, gradients would vanish; subnormal numbers are slow.
        self.batches = itertools.cycle([self.draw(rng) for _ in range(50)])

    @staticmethod
    def draw(rng: torch.Generator) -> tuple[Tensor, ...]:
        ids = torch.randint(ENTITIES, (BATCH, NEGATIVES + 3), generator=rng)
        relations = torch.randint(RELATIONS, (BATCH,), generator=rng)
        side = torch.randint(2, (BATCH, NEGATIVES + 1), generator=rng, dtype=torch.int8)
        known = ids[:, 0].contiguous(), relations, ids[:, 1].contiguous()
        # The sampler provides the order, for ops that can use it.
        order = ids[:, 2:].flatten().argsort(stable=True)
        return (*known, ids[:, 2:].contiguous(), side, order)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        of = self.optimizer
        with of.deferring() if isinstance(of, Adam) else contextlib.nullcontext():
            loss = self.loss(self.table, self.phases, *next(self.batches))
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


class PyKEEN:
    """A step of PyKEEN: RotatE as a sum of moduli, its NSSA loss, fused Adam of torch."""

    def __init__(self) -> None:
        from pykeen.losses import NSSALoss

        from benchmarks import peer

        start = Contest(in_two_ops, torch.optim.Adam)
        re, im = start.table.detach().chunk(2, -1)
        rotations = torch.polar(torch.ones(()), start.phases.detach())
        triples = np.zeros((1, 3), dtype=np.int32)
        graph = Graph("", [""] * ENTITIES, [""] * RELATIONS, triples, triples, triples)
        self.model = peer.build_model(
            graph, peer.SumOfModuli(), torch.complex(re, im), rotations
        ).train()
        self.loss = NSSALoss(margin=MARGIN, adversarial_temperature=TEMPERATURE)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.batches = start.batches

    def step(self) -> None:
        heads, relations, tails, ids, side, _ = next(self.batches)
        # The first candidate is the positive, as in the other steps.
        heads = torch.where(side == Side.head, ids, heads[:, None])
        tails = torch.where(side == Side.tail, ids, tails[:, None])
        triples = torch.stack([heads, relations[:, None].expand_as(ids), tails], -1)
        self.optimizer.zero_grad(set_to_none=True)
        positive = self.model.score_hrt(triples[:, 0])
        negative = self.model.score_hrt(triples[:, 1:].reshape(-1, 3)).view(BATCH, NEGATIVES)
        loss = self.loss.process_slcwa_scores(positive, negative)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def compete(contestants: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contestant in each round, after three warm-up rounds."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 3):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if turn >= 3:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def copy_bandwidth() -> float:
    """GB/s of copying an array that is larger than the caches."""
    source = torch.zeros(64 << 20)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    times = compete({"copy": copy}, 5)["copy"]
    return 2 * source.numel() * 4 / statistics.median(times) / 1e6


# By name, so that a separate process can construct each.
CONTESTANTS: dict[str, Callable[[], Contest | PyKEEN]] = {
    "ours": lambda: Contest(ours, Adam),
    "ours, sampled_loss": lambda: Contest(by_queries, Adam),
    "ours, in two ops": lambda: Contest(in_two_ops, Adam),
    "ours, torch's Adam": lambda: Contest(in_two_ops, torch.optim.Adam),
    "reference, eager": lambda: Contest(theirs(reference), torch.optim.Adam),
    "reference, compiled": lambda: Contest(torch.compile(theirs(reference)), torch.optim.Adam),
    "PyKEEN": PyKEEN,
    "explicit, compiled": lambda: Contest(torch.compile(theirs(explicit)), torch.optim.Adam),
}


def contestant(name: str, threads: int, turns: Connection) -> None:
    """Receives numbers of steps and sends the milliseconds per step, until it receives 0."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # like frozen_gc below, as in `mmkgc train`
    step = CONTESTANTS[name]().step
    for _ in range(5):
        step()
    with frozen_gc():
        turns.send(0.0)
        while steps := turns.recv():
            step()  # fills the caches after the turns of other contestants
            start = time.perf_counter()
            for _ in range(steps):
                step()
            turns.send(1000 * (time.perf_counter() - start) / steps)


def compete_apart(rounds: int, steps: int, threads: int) -> dict[str, list[float]]:
    """Milliseconds per step of each contestant in each round.

    Each contestant has a separate process and waits for its turn, because the idle OpenMP threads
    of compiled code spin for a while, which would slow other contestants in the same process.
    """
    context = multiprocessing.get_context("spawn")
    turns = {}
    for name in CONTESTANTS:
        turns[name], other_end = context.Pipe()
        context.Process(target=contestant, args=(name, threads, other_end), daemon=True).start()
        turns[name].recv()
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name, turn in turns.items():
            time.sleep(0.1)
            turn.send(steps)
            times[name].append(turn.recv())
    for turn in turns.values():
        turn.send(0)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20, help="steps per turn")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    times = compete_apart(options.rounds, options.steps, options.threads)
    median = {name: statistics.median(values) for name, values in times.items()}
    # Scores read a row per candidate, the table gradient a query; Adam updates three tables.
    moved = 2 * BATCH * (NEGATIVES + 1) * 8 * DIM + 6 * ENTITIES * 8 * DIM
    print(
        json.dumps(
            {
                "backend": backend_of("rotate_loss", "cpu")[0],
                "step_ms": {name: round(value, 2) for name, value in median.items()},
                "fastest_ms": {name: round(min(values), 2) for name, values in times.items()},
                "ratio": {name: round(value / median["ours"], 1) for name, value in median.items()},
                "ratio_of_fastest": {
                    name: round(min(values) / min(times["ours"]), 1)
                    for name, values in times.items()
                },
                "copy_gb_per_s": round(copy_bandwidth(), 1),
                "step_gb_per_s": round(moved / median["ours"] / 1e6, 1),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
