"""Properties of the gradients of all ops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmkgc_cli.ops import (
    MessageGraph,
    Metric,
    SelfAdversarial,
    entropy_weighted_loss,
    rgcn_propagate,
    rgcn_transform,
    rotate_loss,
    rotate_score,
    sampled_loss,
    sampled_score,
    self_adversarial_loss,
    whole_row,
)
from tests.ops.conftest import native

IDS, SIDE = torch.tensor([[0, 2], [1, 1]]), torch.zeros(2, 2, dtype=torch.int8)
GRAPH = MessageGraph.from_triples(torch.tensor([[0, 0, 1], [1, 0, 2]]), 3, 1, dtype=torch.float64)
AT = torch.tensor([0, 1])


def frozen_rows(x: Tensor) -> Tensor:
    """The fused loss with a frozen table, which runs the op itself."""
    loss, pairs = SelfAdversarial(), whole_row(4)
    return sampled_loss(x[None, :2], x.detach(), IDS, SIDE, Metric.l2, pairs, mask=None, loss=loss)


def frozen_entities(x: Tensor) -> Tensor:
    loss = SelfAdversarial()
    return rotate_loss(
        x.detach(), x[:2, :2], AT, AT, AT, ids=IDS, corrupted_side=SIDE, mask=None, loss=loss
    )


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "rotate_score": lambda x: rotate_score(x, x[:2, :2], AT, AT, AT, ids=IDS, corrupted_side=SIDE),
    "sampled_score": lambda x: sampled_score(x[None, :2], x, IDS, SIDE, Metric.l2, whole_row(4)),
    "sampled_loss": frozen_rows,
    "rotate_loss": frozen_entities,
    "rgcn_propagate": lambda x: rgcn_propagate(x, x[:2, :3], GRAPH),
    "rgcn_transform": lambda x: rgcn_transform(x, x[None, :1].expand(2, 4, 4), GRAPH),
    "self_adversarial_loss": lambda x: self_adversarial_loss(x[:, 0], x[:, 1:], None, 1.0),
    "entropy_weighted_loss": lambda x: entropy_weighted_loss(
        x[:, 0], x[:, 1:], None, (0.2, 0.8), (0.5, 1.5, 1.2)
    ),
}


@native
@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives_raise(name: str) -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(FUNCTIONS[name](x.sin()).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(first.square().sum(), x)


@native
@pytest.mark.parametrize("op", ["rotate_score", "sampled_score"])
def test_a_frozen_table_costs_no_gradient(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queries, or the phases, have the same gradient as with a trained table."""
    table = torch.randn(3, 4, dtype=torch.float64)
    other = torch.randn(1, 2, 4, dtype=torch.float64) if op == "sampled_score" else table[:2, :2]

    def gradient(of_table: bool) -> Tensor:
        t, o = table.clone().requires_grad_(of_table), other.clone().requires_grad_()
        if op == "sampled_score":
            scores = sampled_score(o, t, IDS, SIDE, Metric.l1, whole_row(4))
        else:
            scores = rotate_score(t, o, AT, AT, AT, ids=IDS, corrupted_side=SIDE)
        return torch.autograd.grad(scores.sum(), o)[0]

    expected = gradient(True)
    actual = gradient(False)
    assert torch.equal(actual, expected)


@native
def test_nan_reaches_the_gradients_of_its_terms() -> None:
    for metric in (Metric.l2, Metric.modulus):
        for dtype in (torch.float32, torch.float64):
            queries = torch.zeros(1, 1, 4, dtype=dtype)
            queries[0, 0, 1] = torch.nan
            table = torch.ones(2, 4, dtype=dtype, requires_grad=True)
            ids = torch.tensor([[0, 1]])
            scores = sampled_score(
                queries, table, ids, torch.zeros(1, 2, dtype=torch.int8), metric, whole_row(4)
            )
            (gradient,) = torch.autograd.grad(scores.sum(), table)
            concerned = [0, 1, 2, 3] if metric == Metric.l2 else [1, 3]
            assert gradient[:, concerned].isnan().all(), (metric, dtype)
