"""The neighbour sums of an R-GCN with basis decomposition, with gradients.

Aggregate, then transform: Z_b[i] = sum over edges (j -> i, r) of norm * a_rb * x[j], one gather of
x for all bases. A layer is one matrix product behind it, and no edge ever holds a message.
`rgcn_propagate` picks the native kernel or the reference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops._autograd import first_order
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
    """Neighbours summed once for each basis (MACO eq. 1 with Schlichtkrull et al. 2018, eq. 3).

    Args:
        x: ``[E, d]`` float32 or float64, or ``[len(sources), d]``. The native kernel of a GPU
            takes float16 and bfloat16 as well: all but `x` and its gradient is float32 then.
        coefficients: ``[R, bases]`` a_rb of the same dtype; R counts inverse relations.
        graph: edges, their norms included; `norm` must have the dtype of `coefficients`.
        rows: ``[n]`` int64, distinct: the entities whose sums are wanted; all when None.
        sources: ``[s]`` int64, distinct: the entities that the rows of `x` stand for; all when
            None. `MessageGraph.with_neighbours` gives what `rows` need.

    Returns:
        ``[n, bases * d]``, basis after basis, differentiable in `x` and `coefficients`.

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


def _check_arguments(
    x: Tensor,
    coefficients: Tensor,
    ptr: Tensor,
    source: Tensor,
    relation: Tensor,
    norm: Tensor,
    rows: Tensor | None,
    sources: Tensor | None,
) -> None:
    """The checks of ``checks/rgcn_arguments.h``, word for word (a test compares them)."""
    c = _CHECKS
    c.matrix("x", x)
    c.real("x", x)
    c.matrix("coefficients", coefficients)
    c.same_dtype("coefficients", coefficients, "x", x)
    for index in (ptr, source, relation):
        c.index("source", index)
    edges = source.numel()
    c.require(ptr.numel() >= 1, "source has no row pointers")
    c.require(
        relation.numel() == edges and norm.dim() == 1 and norm.numel() == edges,
        f"source has {edges} edges, and relations or norms of another number",
    )
    c.same_dtype("norm", norm, "x", x)
    entities = ptr.numel() - 1
    first, last = int(ptr[0]), int(ptr[-1])
    c.require(
        first == 0 and last == edges,
        f"source rows run from {first} to {last}, expected 0 to {edges}",
    )
    falls = (ptr[1:] < ptr[:-1]).nonzero().flatten()
    if falls.numel():
        c.require(False, f"source decreases at entry {int(falls[0]) + 1}")
    c.ids("source", source, entities)
    c.ids("relation", relation, coefficients.shape[0])
    for name, chosen in (("rows", rows), ("sources", sources)):
        c.chosen(name, chosen, entities)
    expected = entities if sources is None else sources.numel()
    c.require(x.shape[0] == expected, f"x has {x.shape[0]} rows, expected {expected}")


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
    """`rgcn_propagate` in torch; sums with torch-scatter where it is installed, else `index_add`.

    A message per edge and basis is held for the backward pass, which `torch` makes.
    """
    _check_arguments(x, coefficients, ptr, source, relation, norm, rows, sources)
    _CHECKS.require(
        back_ptr.numel() == ptr.numel() and back_target.numel() == source.numel(),
        "the edges by source are not as many as those by receiver",
    )
    graph = MessageGraph(
        ptr, source, relation, norm, back_ptr, back_target, back_relation, back_norm,
        coefficients.shape[0],
    )  # fmt: skip
    edge, row = graph.edges_into(rows)
    n = graph.entities if rows is None else rows.numel()
    place = source[edge]
    if sources is not None:
        where = torch.full((graph.entities,), -1, device=x.device)
        where[sources] = torch.arange(sources.numel(), device=x.device)
        found = where[place]
        missing = (found < 0).nonzero().flatten()
        if missing.numel():
            entity = int(place[missing[0]])
            _CHECKS.require(
                False, f"entity {entity} is a source of the rows, but not among sources"
            )
        place = found
    weights = norm.detach()[edge, None] * coefficients[relation[edge]]
    gathered = x[place]
    sums = [
        _sum_rows(gathered * weights[:, b : b + 1], row, n) for b in range(coefficients.shape[1])
    ]
    return torch.cat(sums, 1) if sums else x.new_zeros(n, 0)


def _sum_rows(messages: Tensor, row: Tensor, n: int) -> Tensor:
    """``[n, d]`` sums of ``[edges, d]`` messages, whose rows ascend."""
    if segment_csr is None:
        return messages.new_zeros(n, messages.shape[1]).index_add(0, row, messages)
    counts = torch.bincount(row, minlength=n)
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    summed: Tensor = segment_csr(messages, ptr, reduce="sum")
    return summed


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
    made = (d_x if need_x else None, d_coefficients if need_coefficients else None)
    return *first_order(NAME, made, (grad, *ctx.saved_tensors)), *[None] * 10


if _native.library().loaded:
    torch.library.register_fake(f"mmkgc::{NAME}")(_fake)
    torch.library.register_fake(f"mmkgc::{NAME}_backward")(_fake_backward)
    torch.library.register_autograd(f"mmkgc::{NAME}", _backward, setup_context=_setup)
