"""The R-GCN encoder (Schlichtkrull et al., 2018; MACO eq. 1), for all entities or some rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmkgc_cli.ops import MessageGraph, lookup, rgcn_propagate, rgcn_transform

Activation = Callable[[Tensor], Tensor]


class RelationalLayer(nn.Module):
    """A layer s_i' = act( sum_r sum_{j in N_i^r} norm W_r s_j + W_0 s_i ).

    Args:
        width_in: width d of the states s.
        width_out: width d' of the states s'.
        relations: number of relations R, inverse relations included.
        bases: number of bases V_b in W_r = sum_b a_rb V_b; None: a full matrix per relation.
        activation: the function act.
        generator: source of the initial values, Xavier-uniform per matrix; None: the global one.

    Raises:
        ValueError: when there is no basis.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        relations: int,
        bases: int | None = 2,
        activation: Activation = torch.relu,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if bases is not None and bases < 1:
            raise ValueError(f"bases is {bases}, expected 1 or more, or None for full matrices")
        self.width_in, self.width_out, self.bases = width_in, width_out, bases
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(bases or relations, width_in, width_out))
        self.coefficients = None if bases is None else nn.Parameter(torch.empty(relations, bases))
        self.own = nn.Parameter(torch.empty(width_in, width_out))
        # One matrix at a time: for a stack, Xavier's rule would count all matrices in the fans.
        for matrix in (*self.weight.unbind(), self.own, self.coefficients):
            if matrix is not None:
                nn.init.xavier_uniform_(matrix.data, generator=generator)

    def forward(
        self,
        x: Tensor,
        graph: MessageGraph,
        rows: Tensor | None = None,
        sources: Tensor | None = None,
    ) -> Tensor:
        """States of `rows` (None: all) from the states `x` of `sources` (None: all).

        `sources` are ascending and contain `rows` and their neighbours
        (`MessageGraph.with_neighbours`).
        """
        receivers = x
        if rows is not None:
            receivers = lookup(x, rows if sources is None else torch.searchsorted(sources, rows))
        messages = self._messages(x, graph, rows, sources)
        return self.activation(torch.addmm(messages, receivers, self.own))

    def _messages(
        self, x: Tensor, graph: MessageGraph, rows: Tensor | None, sources: Tensor | None
    ) -> Tensor:
        if self.coefficients is None:
            return rgcn_transform(x, self.weight, graph, rows, sources)
        if self.weight.shape[0] * self.width_out >= self.width_in:
            sums = rgcn_propagate(x, self.coefficients, graph, rows, sources)
            return sums @ self.weight.flatten(0, 1)
        # Narrow outputs: transformed rows are cheaper to gather.
        parts = [
            rgcn_propagate(x @ basis, self.coefficients[:, [b]], graph, rows, sources)
            for b, basis in enumerate(self.weight)
        ]
        return torch.stack(parts).sum(0)


class RelationalEncoder(nn.Module):
    """R-GCN layers on a trained input embedding.

    Args:
        graph: message graph of the train triples.
        widths: widths of the input and of each layer's output.
        bases: as in `RelationalLayer`.
        activations: one per layer; None: ReLU.
        generator: source of the initial values; None: the global one.
    """

    def __init__(
        self,
        graph: MessageGraph,
        widths: Sequence[int],
        bases: int | None = 2,
        activations: Sequence[Activation] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.input = nn.Parameter(torch.empty(graph.entities, widths[0]))
        nn.init.xavier_uniform_(self.input, generator=generator)
        steps = list(itertools.pairwise(widths))
        self.layers = nn.ModuleList(
            RelationalLayer(a, b, graph.relations, bases, activation, generator)
            for (a, b), activation in zip(
                steps, activations or [torch.relu] * len(steps), strict=True
            )
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RelationalEncoder:
        # The graph follows the parameters to another device or type.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.graph = self.graph.map(fn)
        return self

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """States ``[n, widths[-1]]`` of `rows`, equal to these rows of the states of all entities.

        Each layer computes only the states that the next layer needs. Rows may repeat.
        """
        if rows is not None:
            unique_rows, positions = torch.unique(rows, return_inverse=True)
            if unique_rows.numel() < rows.numel():
                states: Tensor = self(unique_rows)
                return states[positions]
        needed = [rows]
        for _ in self.layers:
            last = needed[-1]
            needed.append(None if last is None else self.graph.with_neighbours(last))
        needed.reverse()
        x = lookup(self.input, needed[0])
        for layer, sources, targets in zip(self.layers, needed[:-1], needed[1:], strict=True):
            x = layer(x, self.graph, targets, sources)
        return x
