"""The neighbour sums of an R-GCN with a full matrix for each relation, in torch.

Relations are processed one at a time: the edges of a relation are summed by receiver, and one
matrix product transforms the sums. The backward pass recomputes the sums, so that memory holds the
messages of one relation only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops._autograd import first_order
from mmkgc_cli.ops.message_graph import MessageGraph
from mmkgc_cli.ops.rgcn_propagate import check_rows, missing_source

_CHECKS = Checks("rgcn_transform")


def rgcn_transform(
    x: Tensor,
    weights: Tensor,
    graph: MessageGraph,
    rows: Tensor | None = None,
    sources: Tensor | None = None,
) -> Tensor:
    """sum over r and j in N_i^r of norm * W_r x_j (MACO eq. 1; no bases, no self connection).

    Args:
        x: ``[E, d]``, or ``[len(sources), d]``.
        weights: ``[R, d, d_out]``; R counts inverse relations.
        graph: edges with norms.
        rows: ``[n]`` int64, distinct entities to compute; all when None.
        sources: ``[s]`` int64, distinct entities of the rows of `x`; all when None.

    Returns:
        ``[n, d_out]``, differentiable in `x` and `weights`.

    Raises:
        RuntimeError: on wrong shapes, or when a source is missing.
    """
    c = _CHECKS
    c.matrix("x", x)
    c.require(
        weights.shape[:2] == (graph.relations, x.shape[1]) and weights.dim() == 3,
        f"weights must be [{graph.relations}, {x.shape[1]}, d_out], got {list(weights.shape)}",
    )
    check_rows(c, x, graph, rows, sources)
    out: Tensor = _Transform.apply(x, weights, graph, rows, sources)  # type: ignore[no-untyped-call]
    return out


def _row_of_entity(entities: Tensor | None, graph: MessageGraph) -> Tensor | None:
    """The row of each entity of the graph in a list of `entities`, -1 for the others."""
    if entities is None:
        return None
    row = torch.full((graph.entities,), -1, device=entities.device)
    row[entities] = torch.arange(entities.numel(), device=entities.device)
    return row


def _relations(
    graph: MessageGraph, rows: Tensor | None, sources: Tensor | None
) -> Iterator[tuple[int, Tensor, Tensor, Tensor, Tensor]]:
    """For each relation with edges: id, source rows, norms, the sum of each edge, receiver rows."""
    order, targets, starts = graph.by_relation
    row_of, source_of = _row_of_entity(rows, graph), _row_of_entity(sources, graph)
    for relation in range(graph.relations):
        edges = order[starts[relation] : starts[relation + 1]]
        target = targets[starts[relation] : starts[relation + 1]]
        if row_of is not None:
            row = row_of[target]
            in_rows = row >= 0
            edges, target = edges[in_rows], row[in_rows]
        if not edges.numel():
            continue
        source = graph.source[edges]
        if source_of is not None:
            source = source_of[source]
            missing = (source < 0).nonzero().flatten()
            if missing.numel():
                entity = int(graph.source[edges[missing[0]]])
                _CHECKS.require(False, missing_source(entity))
        into, group = torch.unique_consecutive(target, return_inverse=True)
        yield relation, source, graph.norm[edges], group, into


class _Transform(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        graph: MessageGraph,
        rows: Tensor | None,
        sources: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.graph, ctx.rows, ctx.sources = graph, rows, sources
        n = graph.entities if rows is None else rows.numel()
        out = x.new_zeros(n, weights.shape[2])
        for relation, source, norm, group, into in _relations(graph, rows, sources):
            out.index_add_(0, into, _sums(x, source, norm, group, into.numel()) @ weights[relation])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weights = ctx.saved_tensors
        need_x, need_weights = ctx.needs_input_grad[:2]
        d_x = torch.zeros_like(x) if need_x else None
        d_weights = torch.zeros_like(weights) if need_weights else None
        for relation, source, norm, group, into in _relations(ctx.graph, ctx.rows, ctx.sources):
            d_sums = grad[into]
            if d_weights is not None:
                sums = _sums(x, source, norm, group, into.numel())
                d_weights[relation] = sums.T @ d_sums
            if d_x is not None:
                back = d_sums @ weights[relation].T
                d_x.index_add_(0, source, norm[:, None] * back[group])
        gradients = first_order("rgcn_transform", (d_x, d_weights), (grad, x, weights))
        return *gradients, None, None, None


def _sums(x: Tensor, source: Tensor, norm: Tensor, group: Tensor, groups: int) -> Tensor:
    return x.new_zeros(groups, x.shape[1]).index_add_(0, group, norm[:, None] * x[source])
