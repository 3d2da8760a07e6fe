"""The neighbour sums of an R-GCN with basis decomposition, with gradients.

The op aggregates before the transformation: Z_b[i] = sum over edges (j -> i, r) of
norm * a_rb * x[j], with one gather of x for all bases. A layer multiplies the result by one matrix,
so that no message is stored for an edge.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops._autograd import first_order, register
from mmkgc_cli.ops.message_graph import MessageGraph

try:  # the extra [scatter]
    from torch_scatter import segment_csr
except ImportError:
    segment_csr = None

NAME = "rgcn_propagate"
_CHECKS = Checks(NAME)


def rgcn_propagate(
    x: Tensor,
    coefficients: Tensor,
    graph: MessageGraph,
    rows: Tensor | None = None,
    sources: Tensor | None = None,
) -> Tensor:
    """Sums over neighbours for each basis (MACO eq. 1 with Schlichtkrull et al. 2018, eq. 3).

    Args:
        x: ``[E, d]`` float32 or float64, or ``[len(sources), d]``. The CUDA kernel
            also accepts float16 and bfloat16; all tensors but `x` and its gradient are then
            float32.
        coefficients: ``[R, bases]`` a_rb of the same dtype; R counts inverse relations.
        graph: edges with norms; `norm` must have the dtype of `coefficients`.
        rows: ``[n]`` int64, distinct entities to compute the sums of; all when None.
        sources: ``[s]`` int64, distinct entities of the rows of `x`; all when None.
            `MessageGraph.with_neighbours` returns those that `rows` need.

    Returns:
        ``[n, bases * d]``, one block of columns per basis, differentiable in `x` and
        `coefficients`.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids, or when a source is missing.
    """
    args = (
        x, coefficients, graph.ptr, graph.source, graph.relation, graph.norm,
        graph.back_ptr, graph.back_target, graph.back_relation, graph.back_norm, rows, sources,
    )  # fmt: skip
    if _native.has_kernel(NAME, x.device.type):
        result: Tensor = torch.ops.mmkgc.rgcn_propagate(*args)
        return result
    return reference(*args)


def reference(
    x: Tensor,
    coefficients: Tensor,
    ptr: Tensor,
    source: Tensor,
    relation: Tensor,
    norm: Tensor,
    back_ptr: Tensor,
    back_target: Tensor,
    back_relation: Tensor,
    back_norm: Tensor,
    rows: Tensor | None = None,
    sources: Tensor | None = None,
) -> Tensor:
    """`rgcn_propagate` in torch, with torch-scatter where it is installed, else `index_add`.

    Autograd keeps one message per edge and basis for the backward pass.
    """
    graph = MessageGraph(
        ptr, source, relation, norm, back_ptr, back_target, back_relation, back_norm,
        coefficients.shape[0],
    )  # fmt: skip
    _check_arguments(x, coefficients, graph, rows, sources)
    edge, row = graph.edges_into(rows)
    n = graph.entities if rows is None else rows.numel()
    source_row = source[edge]
    if sources is not None:
        row_of_entity = torch.full((graph.entities,), -1, device=x.device)
        row_of_entity[sources] = torch.arange(sources.numel(), device=x.device)
        rows_of_sources = row_of_entity[source_row]
        missing = (rows_of_sources < 0).nonzero().flatten()
        if missing.numel():
            entity = int(source_row[missing[0]])
            _CHECKS.require(False, missing_source(entity))
        source_row = rows_of_sources
    weights = norm.detach()[edge, None] * coefficients[relation[edge]]
    gathered = x[source_row]
    sums = [
        _sum_rows(gathered * weights[:, b : b + 1], row, n) for b in range(coefficients.shape[1])
    ]
    return torch.cat(sums, 1) if sums else x.new_zeros(n, 0)


def missing_source(entity: int) -> str:
    """The message for an entity with an edge into `rows` that `sources` lacks."""
    return f"entity {entity} has an edge into rows, but is missing from sources"


def _check_arguments(
    x: Tensor,
    coefficients: Tensor,
    graph: MessageGraph,
    rows: Tensor | None,
    sources: Tensor | None,
) -> None:
    c = _CHECKS
    c.matrix("x", x)
    c.real("x", x)
    c.matrix("coefficients", coefficients)
    c.same_dtype("coefficients", coefficients, "x", x)
    ptr, source, relation, norm = graph.ptr, graph.source, graph.relation, graph.norm
    for index in (ptr, source, relation):
        c.index("source", index)
    edges = source.numel()
    c.require(ptr.numel() >= 1, "source has no row pointers")
    c.require(
        relation.numel() == edges and norm.dim() == 1 and norm.numel() == edges,
        f"source has {edges} edges, expected as many relations and norms",
    )
    c.same_dtype("norm", norm, "x", x)
    first, last = int(ptr[0]), int(ptr[-1])
    c.require(
        first == 0 and last == edges,
        f"source rows run from {first} to {last}, expected 0 to {edges}",
    )
    falls = (ptr[1:] < ptr[:-1]).nonzero().flatten()
    if falls.numel():
        c.require(False, f"source decreases at entry {int(falls[0]) + 1}")
    c.ids("source", source, graph.entities)
    c.ids("relation", relation, coefficients.shape[0])
    check_rows(c, x, graph, rows, sources)
    c.require(
        graph.back_ptr.numel() == ptr.numel() and graph.back_target.numel() == edges,
        "back_ptr and back_target must have the lengths of ptr and source",
    )


def check_rows(
    checks: Checks, x: Tensor, graph: MessageGraph, rows: Tensor | None, sources: Tensor | None
) -> None:
    """`rows` and `sources` list distinct entities, and `x` has one row per source."""
    checks.distinct("rows", rows, graph.entities)
    checks.distinct("sources", sources, graph.entities)
    expected = graph.entities if sources is None else sources.numel()
    checks.require(x.shape[0] == expected, f"x has {x.shape[0]} rows, expected {expected}")


def _sum_rows(messages: Tensor, row: Tensor, n: int) -> Tensor:
    """``[n, d]`` sums of ``[edges, d]`` messages with ascending `row`."""
    if segment_csr is None:
        return messages.new_zeros(n, messages.shape[1]).index_add(0, row, messages)
    counts = torch.bincount(row, minlength=n)
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    sums: Tensor = segment_csr(messages, ptr, reduce="sum")
    return sums


def _fake(x: Tensor, coefficients: Tensor, ptr: Tensor, *rest: Any) -> Tensor:
    rows = rest[7] if len(rest) > 7 else None
    n = ptr.shape[0] - 1 if rows is None else rows.shape[0]
    return coefficients.new_empty(n, coefficients.shape[1] * x.shape[1])


def _fake_backward(
    grad: Tensor, x: Tensor, coefficients: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    need_x, need_coefficients = rest[6:8]
    return (
        x.new_empty(x.shape) if need_x else x.new_empty(0),
        coefficients.new_empty(coefficients.shape if need_coefficients else 0),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, coefficients, *_, rows, sources = inputs
    ctx.save_for_backward(x, coefficients, *inputs[6:10], rows, sources)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    need_x, need_coefficients = ctx.needs_input_grad[:2]
    d_x, d_coefficients = torch.ops.mmkgc.rgcn_propagate_backward(
        grad, *ctx.saved_tensors, need_x, need_coefficients
    )
    gradients = (d_x if need_x else None, d_coefficients if need_coefficients else None)
    return *first_order(NAME, gradients, (grad, *ctx.saved_tensors)), *[None] * 10


register(NAME, {"": _fake, "_backward": _fake_backward}, _backward, _setup)
