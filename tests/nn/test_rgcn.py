from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from mmkgc_cli.nn.rgcn import RelationalEncoder, RelationalLayer
from mmkgc_cli.ops import MessageGraph
from tests.ops.test_rgcn_propagate import triples


def message_graph() -> MessageGraph:
    return MessageGraph.from_triples(triples(25, 3, 60), 25, 3, dtype=torch.float64)


@pytest.mark.parametrize(("width_in", "width_out"), [(4, 6), (9, 2)])
@pytest.mark.parametrize("bases", [2, None])
def test_a_layer_is_the_equation_of_the_paper(
    bases: int | None, width_in: int, width_out: int
) -> None:
    rows = triples(25, 3, 60)
    graph = message_graph()
    torch.manual_seed(0)
    layer = RelationalLayer(width_in, width_out, graph.relations, bases).double()
    x = torch.randn(25, width_in, dtype=torch.float64)
    matrices: Tensor = layer.weight
    if layer.coefficients is not None:
        matrices = torch.einsum("rb,bio->rio", layer.coefficients, layer.weight)
    expected = x @ layer.own
    for i in range(25):
        for r in range(3):
            for inverse in (False, True):
                ends = {(int(h), int(t)) for h, q, t in rows if q == r}
                near = {a if not inverse else b for a, b in ends if (b, a)[inverse] == i}
                for j in near:
                    message = x[j] @ matrices[r + 3 * inverse]
                    expected[i] = expected[i] + message / len(near)
    assert torch.allclose(layer(x, graph), torch.relu(expected), atol=1e-12)


@pytest.mark.parametrize("bases", [2, None])
def test_rows_of_a_batch_and_their_gradients_are_those_of_the_whole_graph(
    bases: int | None,
) -> None:
    torch.manual_seed(0)
    # Made of floats and moved, graph and all.
    graph = MessageGraph.from_triples(triples(25, 3, 60), 25, 3)
    encoder = RelationalEncoder(graph, [4, 5, 6], bases).double()
    rows = torch.tensor([3, 17, 20, 4, 17])
    actual, expected = encoder(rows), encoder()[rows]
    assert torch.allclose(actual, expected, atol=1e-12)
    weights = torch.randn(5, 6, dtype=torch.float64)
    parameters = list(encoder.parameters())
    for a, b in zip(
        torch.autograd.grad(actual, parameters, weights),
        torch.autograd.grad(expected, parameters, weights),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-11)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("width_in", "width_out"), [(4, 6), (9, 2)])
@pytest.mark.parametrize("bases", [2, None])
def test_a_layer_and_its_gradients_are_those_of_torch_geometric(
    bases: int | None, width_in: int, width_out: int, normalize: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it compiles parts of it by torch.jit
        nn = pytest.importorskip("torch_geometric.nn", reason="torch-geometric is not installed")
    graph = MessageGraph.from_triples(
        triples(25, 3, 60), 25, 3, normalize=normalize, dtype=torch.float64
    )
    torch.manual_seed(0)
    ours = RelationalLayer(width_in, width_out, graph.relations, bases).double()
    # Its "mean" is taken within each relation, as 1 / |N_i^r|.
    aggregation = "mean" if normalize else "sum"
    peer = nn.RGCNConv(
        width_in, width_out, graph.relations, num_bases=bases, aggr=aggregation, bias=False
    ).double()
    pairs = [(peer.weight, ours.weight), (peer.root, ours.own)]
    if ours.coefficients is not None:
        pairs.append((peer.comp, ours.coefficients))
    with torch.no_grad():
        for q, p in pairs:
            q.copy_(p)
    x = torch.randn(25, width_in, dtype=torch.float64, requires_grad=True)
    edges = torch.stack([graph.source, graph.edges_into(None)[1]])
    actual, expected = ours(x, graph), torch.relu(peer(x, edges, graph.relation))
    assert torch.allclose(actual, expected, atol=1e-12)
    weights = torch.randn_like(actual)
    own_gradients = torch.autograd.grad(actual, [x, *(p for _, p in pairs)], weights)
    gradients = torch.autograd.grad(expected, [x, *(q for q, _ in pairs)], weights)
    for a, b in zip(own_gradients, gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_initial_matrices_have_the_scale_of_one_matrix_and_come_from_the_generator() -> None:
    def layer() -> RelationalLayer:
        rng = torch.Generator().manual_seed(3)
        return RelationalLayer(64, 64, 400, None, generator=rng)

    bound = (6 / 128) ** 0.5
    weight = layer().weight.detach()
    assert 0.95 * bound < float(weight.abs().max()) <= bound
    assert torch.equal(weight, layer().weight)


def test_a_layer_without_bases_is_refused() -> None:
    with pytest.raises(ValueError, match="bases is 0, expected 1 or more"):
        RelationalLayer(4, 4, 3, 0)
