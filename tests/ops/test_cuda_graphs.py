"""Tests that need a GPU: steps in CUDA graphs, real sizes, two devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkgc_cli.ops import (
    MessageGraph,
    Metric,
    SideChoice,
    filtered_negatives,
    rank_candidates,
    rgcn_propagate,
    rotate_score,
    self_adversarial_loss,
    whole_row,
)
from mmkgc_cli.ops.filtered_negatives import KnownAnswers
from mmkgc_cli.training.optimizers import Adam
from tests.ops import ranks, test_rotate_score
from tests.ops.conftest import DEVICE, to_device

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE.type != "cuda", reason="there is no GPU"),
]

ENTITIES, RELATIONS, DIM = 500, 7, 34


class Training:
    """Steps of RotatE with negatives, loss and Adam on the device."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(0)
        bounds = torch.tensor([ENTITIES, RELATIONS, ENTITIES])
        rows = (torch.rand(3000, 3, generator=rng) * bounds).long()
        head, relation, tail = rows.unbind(1)
        tails = KnownAnswers.from_pairs(relation * ENTITIES + head, tail, ENTITIES)
        heads = KnownAnswers.from_pairs(relation * ENTITIES + tail, head, ENTITIES)
        self.known = to_device([tails, heads])
        self.batch = rows[:256].to(DEVICE)
        self.share = torch.rand(RELATIONS, generator=rng).to(DEVICE)
        self.table = nn.Parameter(torch.randn(ENTITIES, 2 * DIM, generator=rng).to(DEVICE))
        self.phases = nn.Parameter(torch.randn(RELATIONS, DIM, generator=rng).to(DEVICE))
        self.optimizer = Adam([self.table, self.phases], lr=0.01, capturable=True, fused=True)
        self.counter = torch.zeros(1, dtype=torch.int64, device=DEVICE)
        self.loss = torch.zeros((), device=DEVICE)

    def step(self) -> None:
        ids, corrupted_side, mask, order = filtered_negatives(
            self.batch, self.share, *self.known, entities=ENTITIES, n=32,
            choice=SideChoice.per_negative, rounds=4, with_positive=True, seed=5, step=0,
            counter=self.counter,
        )  # fmt: skip
        with self.optimizer.deferring():
            scores = 6 + rotate_score(
                self.table, self.phases, *self.batch.unbind(1), ids=ids,
                corrupted_side=corrupted_side, order=order,
            )  # fmt: skip
            loss = self_adversarial_loss(scores[:, 0], scores[:, 1:], mask[:, 1:], 1.0)
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.counter += 1
        self.loss.copy_(loss.detach())


def replayed(step: Callable[[], None]) -> Callable[[], None]:
    """Captures `step` after three runs on a side stream, as torch requires."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def test_a_captured_step_gives_the_same_numbers() -> None:
    plain, captured = Training(), Training()

    def state(of: Training) -> list[Tensor]:
        moments = [x for p in of.optimizer.state.values() for x in p.values()]
        return [of.table.data, of.phases.data, of.counter, *moments]

    for _ in range(3):
        plain.step()
    replay = replayed(captured.step)
    assert all(torch.equal(a, b) for a, b in zip(state(plain), state(captured), strict=True))
    for _ in range(20):
        plain.step()
        replay()
        assert torch.equal(plain.loss, captured.loss)
    assert all(torch.equal(a, b) for a, b in zip(state(plain), state(captured), strict=True))
    assert int(plain.counter) == 23


def test_ranking_and_neighbour_sums_can_be_captured() -> None:
    p = to_device(ranks.problem(130, 300, 20, 0))
    x = torch.randn(300, 64, device=DEVICE)
    a = torch.randn(9, 2, device=DEVICE)
    rows = torch.randint(300, (2000, 3), generator=torch.Generator().manual_seed(0))
    rows[:, 1] %= 4
    graph = to_device(MessageGraph.from_triples(rows, 300, 4, self_relation=True))
    actual: dict[str, Any] = {}

    def run() -> None:
        actual["ranks"] = rank_candidates(**p)
        actual["sums"] = rgcn_propagate(x, a, graph)

    run()
    expected = dict(actual)
    replay = replayed(run)
    for value in (*actual["ranks"], actual["sums"]):
        value.fill_(-7)
    replay()
    assert ranks.same(actual["ranks"], expected["ranks"])
    assert torch.equal(actual["sums"], expected["sums"])


@pytest.mark.parametrize(("dim", "n"), [(128, 32), (250, 128)])
def test_real_sizes_agree_with_the_cpu(dim: int, n: int) -> None:
    p = test_rotate_score.problem(14541, 237, 1024, n, dim, torch.float32)
    there = to_device(p)
    actual, expected = rotate_score(**there), rotate_score(**p)
    assert torch.allclose(actual.cpu(), expected, rtol=1e-4, atol=1e-3)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    for name in ("table", "phases"):
        left = torch.autograd.grad(actual, there[name], weights.to(DEVICE), retain_graph=True)[0]
        right = torch.autograd.grad(expected, p[name], weights, retain_graph=True)[0]
        assert torch.allclose(left.cpu(), right, rtol=1e-3, atol=1e-3)


def test_many_ranks_agree_with_the_cpu() -> None:
    p = ranks.problem(3000, 14541, 64, 0)
    actual = to_device(rank_candidates(**to_device(p)), torch.device("cpu"))
    assert ranks.same(actual, rank_candidates(**p))
    rng = torch.Generator().manual_seed(1)
    p |= {"metric": Metric.modulus, "pairs": whole_row(64)}
    p["queries"] = torch.randn(3000, 64, generator=rng)
    p["table"] = torch.randn(14541, 64, generator=rng)
    better, equal, nonfinite = to_device(rank_candidates(**to_device(p)), torch.device("cpu"))
    expected = rank_candidates(**p)
    # Scores that differ by rounding may be ordered differently.
    assert float((better - expected[0]).abs().double().mean()) < 0.5
    # Of 40 million float32 scores a dozen are equal by chance, others on each device.
    assert int((equal - expected[1]).abs().sum()) <= 100
    assert torch.equal(nonfinite, expected[2])


def test_tensors_on_two_devices_raise() -> None:
    p = to_device(test_rotate_score.problem())
    with pytest.raises(RuntimeError, match="ids and table must be on the same device"):
        rotate_score(**{**p, "ids": p["ids"].cpu()})


def test_kernels_run_on_the_current_stream() -> None:
    """A kernel on another stream than its inputs would read them too early."""
    p = to_device(test_rotate_score.problem(2000, 5, 512, 64, 128, torch.float32))
    expected = rotate_score(**p)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        moved = {**p, "table": p["table"].detach() * 1.0}
        actual = rotate_score(**moved)
    stream.synchronize()
    assert torch.equal(actual, expected)
