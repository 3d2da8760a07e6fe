from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkgc_cli.ops import MessageGraph, rgcn_propagate, rgcn_transform
from mmkgc_cli.ops.rgcn_propagate import reference
from tests.ops.conftest import native, skip_unread


@pytest.fixture(params=["index_add", "torch-scatter"])
def reduction(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Selects the sum of rows in the reference."""
    if request.param == "torch-scatter":
        pytest.importorskip("torch_scatter", reason="torch-scatter is not installed")
    else:
        module = importlib.import_module("mmkgc_cli.ops.rgcn_propagate")
        monkeypatch.setattr(module, "segment_csr", None)
    return str(request.param)


def triples(entities: int, relations: int, n: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    draw = torch.rand(n, 3, generator=rng, dtype=torch.float64)
    # Squares make a few entities hubs.
    bounds = torch.tensor([entities, relations, entities], dtype=torch.float64)
    return (draw.square() * bounds).long()


def problem(
    entities: int = 11,
    relations: int = 3,
    n: int = 40,
    width: int = 5,
    bases: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **options: Any,
) -> tuple[Tensor, Tensor, MessageGraph]:
    graph = MessageGraph.from_triples(
        triples(entities, relations, n, seed), entities, relations, dtype=dtype, **options
    )
    rng = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(entities, width, generator=rng, dtype=dtype).requires_grad_()
    a = torch.randn(graph.relations, bases, generator=rng, dtype=dtype).requires_grad_()
    return x, a, graph


def arguments(
    graph: MessageGraph,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        graph.ptr, graph.source, graph.relation, graph.norm,
        graph.back_ptr, graph.back_target, graph.back_relation, graph.back_norm,
    )  # fmt: skip


def by_definition(x: Tensor, a: Tensor, rows: Tensor, relations: int) -> Tensor:
    """Dense adjacency matrices of a set of triples with inverses: sum_r a_rb A_r x / |N_i^r|."""
    out = []
    for b in range(a.shape[1]):
        total = torch.zeros_like(x)
        for r in range(relations):
            adjacency = torch.zeros(len(x), len(x), dtype=x.dtype)
            of = rows[rows[:, 1] == r]
            adjacency[of[:, 2], of[:, 0]] = 1
            for matrix, relation in ((adjacency, r), (adjacency.T, r + relations)):
                mean = matrix / matrix.sum(1, keepdim=True).clamp_min(1)
                total = total + a[relation, b] * (mean @ x)
        out.append(total)
    return torch.cat(out, 1)


def gradients(out: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype, device=out.device)
    weights = weights.view(out.shape)
    return torch.autograd.grad(out, of, weights)


def test_sums_and_gradients_are_those_of_the_adjacency_matrices(backend: str) -> None:
    x, a, graph = problem()
    actual = rgcn_propagate(x, a, graph)
    expected = by_definition(x, a, triples(11, 3, 40), 3)
    assert torch.allclose(actual, expected, atol=1e-12)
    for left, right in zip(gradients(actual, x, a), gradients(expected, x, a), strict=True):
        assert torch.allclose(left, right, atol=1e-12)


def test_both_sums_of_the_reference_agree(reduction: str) -> None:
    x, a, graph = problem(entities=40, n=500)
    actual = reference(x, a, *arguments(graph))
    expected = by_definition(x, a, triples(40, 3, 500), 3)
    assert torch.allclose(actual, expected, atol=1e-12)
    for left, right in zip(gradients(actual, x, a), gradients(expected, x, a), strict=True):
        assert torch.allclose(left, right, atol=1e-11)


@native
@settings(max_examples=60)
@given(
    entities=st.integers(1, 60),
    n=st.integers(0, 400),
    width=st.sampled_from([1, 3, 16, 31, 64, 129]),
    bases=st.integers(0, 5),
    restricted=st.booleans(),
    inverse=st.booleans(),
    seed=st.integers(0, 100),
)
def test_float32_agrees_with_the_reference(
    entities: int, n: int, width: int, bases: int, restricted: bool, inverse: bool, seed: int
) -> None:
    x, a, graph = problem(entities, 4, n, width, bases, torch.float32, seed, inverse=inverse)
    rows = sources = None
    if restricted:
        rng = torch.Generator().manual_seed(seed)
        rows = torch.randperm(entities, generator=rng)[: entities // 2]
        sources = graph.with_neighbours(rows)
        x = x.detach()[sources].requires_grad_()
    actual = rgcn_propagate(x, a, graph, rows, sources)
    expected = reference(x, a, *arguments(graph), rows, sources)
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-4)
    if bases:
        for left, right in zip(gradients(actual, x, a), gradients(expected, x, a), strict=True):
            assert torch.allclose(left, right, rtol=1e-3, atol=1e-3 * max(1.0, n) ** 0.5)


@native
def test_a_hub_longer_than_a_segment_is_summed() -> None:
    """An entity with edges to and from 2,500 entities: its row is cut into three segments."""
    spokes = torch.arange(1, 2501)
    rows = torch.stack([spokes, spokes % 3, torch.zeros_like(spokes)], 1)
    graph = MessageGraph.from_triples(rows, 2501, 3, dtype=torch.float64)
    x = torch.randn(2501, 4, dtype=torch.float64).requires_grad_()
    a = torch.randn(6, 3, dtype=torch.float64).requires_grad_()
    actual, expected = rgcn_propagate(x, a, graph), reference(x, a, *arguments(graph))
    assert torch.allclose(actual, expected, atol=1e-12)
    for left, right in zip(gradients(actual, x, a), gradients(expected, x, a), strict=True):
        assert torch.allclose(left, right, atol=1e-10)


def edges_of(degrees: list[int]) -> Tensor:
    """Triples in which entity i has `degrees[i]` random neighbours."""
    rng = torch.Generator().manual_seed(len(degrees))
    rows = [
        torch.stack([torch.randperm(len(degrees), generator=rng)[:n], torch.full((n,), i)], 1)
        for i, n in enumerate(degrees)
    ]
    ends = torch.cat(rows)
    relation = torch.randint(3, (len(ends), 1), generator=rng)
    return torch.cat([ends[:, :1], relation, ends[:, 1:]], 1)


# Rows that start and end near the cuts of the CUDA kernels (every 256 edges), and elsewhere.
DEGREES = [256, 256, 0, 512, 1, 255, 257, 0, 900, 123, 1, 256, 600, *[0] * 900, 33, 32, 31]


@native
@pytest.mark.parametrize("receive", [True, False])
@pytest.mark.parametrize("restricted", [False, True])
def test_rows_of_any_length_and_start_are_summed(receive: bool, restricted: bool) -> None:
    rows = edges_of(DEGREES)
    # The forward pass cuts the rows of receivers, the backward pass those of senders.
    graph = MessageGraph.from_triples(
        rows if receive else rows.flip(1), len(DEGREES), 3, inverse=False, dtype=torch.float64
    )
    ptr = graph.ptr if receive else graph.back_ptr
    assert (ptr[1:] - ptr[:-1]).tolist() == DEGREES
    chosen = sources = None
    if restricted:
        chosen = torch.tensor([12, 0, 8, 914, 3])
        sources = graph.with_neighbours(chosen)
    rng = torch.Generator().manual_seed(0)
    n = len(DEGREES) if sources is None else len(sources)
    x = torch.randn(n, 3, generator=rng, dtype=torch.float64).requires_grad_()
    a = torch.randn(3, 2, generator=rng, dtype=torch.float64).requires_grad_()
    actual = rgcn_propagate(x, a, graph, chosen, sources)
    expected = reference(x, a, *arguments(graph), chosen, sources)
    assert torch.allclose(actual, expected, atol=1e-12)
    for left, right in zip(gradients(actual, x, a), gradients(expected, x, a), strict=True):
        assert torch.allclose(left, right, atol=1e-11)


@native
@pytest.mark.parametrize(
    ("dtype", "width"),
    [
        *((torch.float32, n) for n in (0, 1, 127, 128, 132)),
        *((torch.float64, n) for n in (31, 64, 130)),
    ],
)
@pytest.mark.parametrize("bases", range(10))
def test_any_width_and_number_of_bases(dtype: torch.dtype, width: int, bases: int) -> None:
    x, a, graph = problem(6, 2, 25, width, bases, dtype)
    actual, expected = rgcn_propagate(x, a, graph), reference(x, a, *arguments(graph))
    atol = 1e-5 if dtype is torch.float32 else 1e-13
    assert torch.allclose(actual, expected, atol=atol)
    if bases:
        for left, right in zip(gradients(actual, x, a), gradients(expected, x, a), strict=True):
            assert torch.allclose(left, right, rtol=1e-4, atol=20 * atol)
    else:
        assert not torch.any(gradients(actual, x)[0])


def test_infinity_reaches_only_rows_with_its_edges(backend: str) -> None:
    """Entities outside of `rows` and sources without edges do not change other sums."""
    rows = torch.tensor([[0, 0, 1], [2, 1, 3], [2, 0, 4]])
    graph = MessageGraph.from_triples(rows, 5, 3, inverse=False, dtype=torch.float64)
    x = torch.ones(5, 40, dtype=torch.float64)
    x[2] = torch.inf
    x.requires_grad_()
    a = torch.ones(3, 3, dtype=torch.float64).requires_grad_()
    out = rgcn_propagate(x, a, graph, torch.tensor([1, 4]))
    assert torch.equal(out, torch.tensor([1.0, torch.inf], dtype=x.dtype)[:, None].expand(2, 120))
    d_x, d_a = torch.autograd.grad(rgcn_propagate(x, a, graph, torch.tensor([1])), (x, a), out[:1])
    assert d_x.sum(1).tolist() == [120, 0, 0, 0, 0]
    assert d_a.tolist() == [[40.0] * 3, [0.0] * 3, [0.0] * 3]


@native
@pytest.mark.parametrize("restricted", [False, True])
def test_opcheck_and_gradcheck(restricted: bool) -> None:
    x, a, graph = problem(entities=6, relations=2, n=9, width=3)
    rows = sources = None
    if restricted:
        rows = torch.tensor([4, 1])
        sources = graph.with_neighbours(rows)
        x = x.detach()[sources].requires_grad_()
    torch.library.opcheck(
        torch.ops.mmkgc.rgcn_propagate.default, (x, a, *arguments(graph), rows, sources)
    )
    assert torch.autograd.gradcheck(lambda x, a: rgcn_propagate(x, a, graph, rows, sources), (x, a))


@pytest.mark.parametrize("op", [rgcn_propagate, rgcn_transform])
def test_restricted_rows_are_rows_of_the_whole(op: Callable[..., Tensor], backend: str) -> None:
    x, a, graph = problem(entities=30, n=60)
    weights = a if op is rgcn_propagate else torch.randn(6, 5, 4, dtype=x.dtype)
    whole = op(x, weights, graph)
    for rows in (torch.tensor([7]), torch.randperm(30)[:12], torch.empty(0, dtype=torch.int64)):
        assert torch.allclose(op(x, weights, graph, rows), whole[rows], atol=1e-13)
        sources = graph.with_neighbours(rows)
        some = op(x[sources], weights, graph, rows, sources)
        assert torch.allclose(some, whole[rows], atol=1e-13)
        target = torch.linspace(-1, 1, some.numel(), dtype=x.dtype).view(some.shape)
        assert torch.allclose(
            torch.autograd.grad(some, x, target, retain_graph=True)[0],
            torch.autograd.grad(whole, x, torch.zeros_like(whole).index_copy(0, rows, target),
                                retain_graph=True)[0],
            atol=1e-12,
        )  # fmt: skip


@native
def test_results_are_bitwise_equal_for_any_number_of_threads() -> None:
    # A hub with more edges than a segment, and other entities.
    rows = torch.cat(
        [triples(3000, 5, 6000), torch.arange(3000)[:, None] * torch.tensor([1, 0, 0])]
    )
    graph = MessageGraph.from_triples(rows, 3000, 5)
    assert int((graph.ptr[1:] - graph.ptr[:-1]).max()) > 2 * 1024
    x, a = torch.randn(3000, 33).requires_grad_(), torch.randn(10, 3).requires_grad_()
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        out = rgcn_propagate(x, a, graph)
        results.append((out, *gradients(out, x, a)))
    for other in results[1:]:
        assert all(torch.equal(p, q) for p, q in zip(results[0], other, strict=True))


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_gradients_that_are_not_needed_are_omitted(wanted: tuple[bool, bool], backend: str) -> None:
    x, a, graph = problem()
    both = gradients(rgcn_propagate(x, a, graph), x, a)
    for asked, one, expected in zip(wanted, (x, a), both, strict=True):
        one.requires_grad_(asked)
        if asked:
            only = expected
    (actual,) = gradients(rgcn_propagate(x, a, graph), *[t for t in (x, a) if t.requires_grad])
    assert torch.allclose(actual, only, atol=1e-13)


def test_dense_and_strided_inputs_have_equal_results(backend: str) -> None:
    x, a, graph = problem()
    wide = torch.zeros(22, 10, dtype=x.dtype)
    wide[::2, ::2] = x.detach()
    assert torch.equal(rgcn_propagate(wide[::2, ::2], a.T.contiguous().T, graph),
                       rgcn_propagate(x, a, graph))  # fmt: skip


def test_one_basis_per_relation_equals_full_matrices(backend: str) -> None:
    x, _, graph = problem()
    weights = torch.randn(6, 5, 4, dtype=x.dtype).requires_grad_()
    whole = rgcn_propagate(x, torch.eye(6, dtype=x.dtype), graph) @ weights.flatten(0, 1)
    actual = rgcn_transform(x, weights, graph)
    assert torch.allclose(actual, whole, atol=1e-12)
    for left, right in zip(
        gradients(actual, x, weights), gradients(whole, x, weights), strict=True
    ):
        assert torch.allclose(left, right, atol=1e-12)


def test_gradcheck_of_full_matrices() -> None:
    x, _, graph = problem(entities=6, relations=2, n=9, width=3)
    weights = torch.randn(4, 3, 2, dtype=x.dtype).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: rgcn_transform(x, w, graph), (x, weights))


def change(graph: MessageGraph, **changes: Tensor) -> MessageGraph:
    return MessageGraph(**{**vars(graph), **changes})


BASE = problem()
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "x dims": ({"x": torch.zeros(5)}, "x has 1 dimensions, expected 2"),
    "x dtype": ({"x": torch.zeros(11, 5).long()}, "x must be float32 or float64"),
    "x rows": ({"x": torch.zeros(9, 5, dtype=torch.float64)}, "x has 9 rows, expected 11"),
    "coefficients": ({"coefficients": torch.zeros(6, 2)}, "coefficients and x must have the same"),
    "relation": (
        {"coefficients": torch.zeros(2, 2, dtype=torch.float64)}, r"relation\[\d+\] is \d, outside",
    ),
    "norm": ({"graph": problem(dtype=torch.float32)[2]}, "norm and x must have the same dtype"),
    "source": (
        {"graph": change(BASE[2], source=torch.full_like(BASE[2].source, 11))},
        r"source\[0\] is 11, outside 0..10",
    ),
    "ptr": (
        {"graph": change(BASE[2], ptr=BASE[2].ptr.flip(0))},
        r"source rows run from \d+ to 0, expected 0 to",
    ),
    "edges": (
        {"graph": change(BASE[2], relation=BASE[2].relation[1:])},
        r"source has \d+ edges, expected as many relations and norms",
    ),
    "back": (
        {"graph": change(BASE[2], back_ptr=BASE[2].back_ptr[1:])},
        "back_ptr and back_target must have the lengths of ptr and source",
    ),
    "rows": ({"rows": torch.tensor([3, 11])}, r"rows\[1\] is 11, outside 0..10"),
    "twice": ({"rows": torch.tensor([3, 1, 3])}, "rows lists entity 3 twice"),
    "missing": (
        {"x": torch.zeros(1, 5, dtype=torch.float64), "sources": torch.tensor([10])},
        "entity 0 has an edge into rows, but is missing from sources",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_errors_of_arguments_are_equal_on_both_backends(backend: str, what: str) -> None:
    changes, message = WRONG[what]
    skip_unread(backend, message)
    x, coefficients, graph = BASE
    given: dict[str, Any] = {"x": x, "coefficients": coefficients, "graph": graph}
    with pytest.raises(RuntimeError, match="rgcn_propagate: " + message):
        rgcn_propagate(**{**given, **changes})


@pytest.mark.parametrize("op", [rgcn_propagate, rgcn_transform])
@pytest.mark.parametrize(
    ("rows", "message"),
    [([2, 1, 2], "rows lists entity 2 twice"), ([-1], r"rows\[0\] is -1, outside 0..10")],
)
def test_rows_must_be_distinct_and_in_range(
    op: Callable[..., Tensor], rows: list[int], message: str, backend: str
) -> None:
    if op is rgcn_propagate:
        skip_unread(backend, message)
    x, a, graph = problem()
    weights = a if op is rgcn_propagate else torch.randn(6, 5, 4, dtype=x.dtype)
    with pytest.raises(RuntimeError, match=message):
        op(x, weights, graph, torch.tensor(rows))
