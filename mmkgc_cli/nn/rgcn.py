"""The R-GCN encoder (MACO eq. 1; Schlichtkrull et al. 2018), whole or for the rows one needs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmkgc_cli.ops import MessageGraph, lookup, rgcn_propagate, rgcn_transform

Activation = Callable[[Tensor], Tensor]


class RelationalLayer(nn.Module):
    """s_i' = act( sum_r sum_{j in N_i^r} norm W_r s_j + W_0 s_i ).

    Args:
        width_in: d.
        width_out: d'.
        relations: R, inverse relations included.
        bases: W_r = sum_b a_rb V_b; None gives each relation a matrix of its own.
        activation: act.
        generator: of the initial values, Xavier-uniform for each matrix; the global one when None.

    Raises:
        ValueError: for fewer than one basis.
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
        # One matrix at a time: of a stack, Xavier's rule would count all of them in the fans.
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
        """States of `rows` (all when None) from the states `x` of `sources` (all when None).

        `sources` ascend and hold `rows` and their neighbours (`MessageGraph.with_neighbours`).
        """
        own = x
        if rows is not None:
            own = lookup(x, rows if sources is None else torch.searchsorted(sources, rows))
        return self.activation(torch.addmm(self._received(x, graph, rows, sources), own, self.own))

    def _received(
        self, x: Tensor, graph: MessageGraph, rows: Tensor | None, sources: Tensor | None
    ) -> Tensor:
        if self.coefficients is None:
            return rgcn_transform(x, self.weight, graph, rows, sources)
        if self.weight.shape[0] * self.width_out >= self.width_in:
            sums = rgcn_propagate(x, self.coefficients, graph, rows, sources)
            return sums @ self.weight.flatten(0, 1)
        # Narrow outputs: rows that were transformed already are cheaper to gather.
        parts = [
            rgcn_propagate(x @ basis, self.coefficients[:, [b]], graph, rows, sources)
            for b, basis in enumerate(self.weight)
        ]
        return torch.stack(parts).sum(0)


class RelationalEncoder(nn.Module):
    """Layers of an R-GCN over a learnable input.

    Args:
        graph: of the train triples.
        widths: of the input and of each layer's output.
        bases: as in `RelationalLayer`.
        activations: one a layer; ReLU when None.
        generator: of the initial values; the global one when None.
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
        """States ``[n, widths[-1]]`` of `rows`, equal to those rows of the whole graph's states.

        Each layer is computed for what the next one needs and no more. Rows may repeat.
        """
        if rows is not None:
            distinct, place = torch.unique(rows, return_inverse=True)
            if distinct.numel() < rows.numel():
                states: Tensor = self(distinct)
                return states[place]
        wanted = [rows]
        for _ in self.layers:
            last = wanted[-1]
            wanted.append(None if last is None else self.graph.with_neighbours(last))
        wanted.reverse()
        x = lookup(self.input, wanted[0])
        for layer, sources, targets in zip(self.layers, wanted[:-1], wanted[1:], strict=True):
            x = layer(x, self.graph, targets, sources)
        return x
