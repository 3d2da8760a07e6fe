"""The networks of MACO: structure, generator, discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmkgc_cli.completion.maco.settings import MacoSettings
from mmkgc_cli.nn.projections import Projection
from mmkgc_cli.nn.rgcn import RelationalEncoder
from mmkgc_cli.ops import MessageGraph, lookup
from mmkgc_cli.state.rng import generator as stream


def linear(width_in: int, width_out: int, rng: torch.Generator) -> Projection:
    """W x + b, all numbers uniform in +-1/sqrt(width_in) at first."""
    return Projection(width_in, width_out, bound=max(1, width_in) ** -0.5, bias=True, generator=rng)


class Generator(nn.Module):
    """G(s, z) = W_2 leaky(W_1 [s; z] + b_1) + b_2 (eq. 2); without s where it is unconditional."""

    def __init__(self, width: int, settings: MacoSettings, rng: torch.Generator) -> None:
        """`width` is that of vectors, and of structure."""
        super().__init__()
        hidden = settings.generator_hidden or settings.hidden
        self.conditional = settings.condition
        # W_1 [s; z] as two products: structure meets many noises.
        self.of_structure = linear(width, hidden, rng) if self.conditional else None
        self.of_noise = linear(settings.noise, hidden, rng)
        self.last = linear(hidden, width, rng)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, structure: Tensor, noise: Tensor) -> Tensor:
        """Vectors ``[..., F]`` from structure ``[..., F]`` and noise ``[..., Z]``."""
        x = self.of_noise(noise)
        if self.of_structure is not None:
            x = x + self.of_structure(structure)
        made: Tensor = self.last(self.dropout(nn.functional.leaky_relu(x)))
        return made


class Discriminator(nn.Module):
    """D(s, v), the logit of a vector being that of the entity.

    ``paper``: W_4 [leaky(W_3 s + b_3); v] + b_4 (eq. 3). ``released``: v goes through the hidden
    layer and s does not, with two classes, whose difference is the logit. Both add something of s
    to something of v and cannot say whether the two fit; ``joint`` can:
    W_4 leaky(W_3 [s; v] + b_3) + b_4.
    """

    def __init__(self, width: int, settings: MacoSettings, rng: torch.Generator) -> None:
        """`width` is that of vectors, and of structure."""
        super().__init__()
        self.kind = settings.discriminator
        joint, classes = self.kind == "joint", 2 if self.kind == "released" else 1
        self.first = linear(2 * width if joint else width, settings.hidden, rng)
        self.last = linear(settings.hidden + (0 if joint else width), classes, rng)

    def forward(self, structure: Tensor, vectors: Tensor) -> Tensor:
        """Logits ``[...]`` of structure ``[..., F]`` and vectors ``[..., F]``."""
        structure = structure.expand_as(vectors)
        if self.kind == "joint":
            x = nn.functional.leaky_relu(self.first(torch.cat([structure, vectors], -1)))
        else:
            through, beside = structure, vectors
            if self.kind == "released":
                through, beside = vectors, structure
            x = torch.cat([nn.functional.leaky_relu(self.first(through)), beside], -1)
        logits: Tensor = self.last(x)
        return logits[..., 0] if self.kind != "released" else logits[..., 1] - logits[..., 0]


class Embeddings(nn.Module):
    """A row for each entity in place of what an R-GCN makes of the graph."""

    def __init__(self, entities: int, width: int, rng: torch.Generator) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(entities, width))
        nn.init.xavier_uniform_(self.rows, generator=rng)

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Rows ``[n, F]``; all when None."""
        return lookup(self.rows, rows)


class Maco(nn.Module):
    """The three networks over the train triples of a graph."""

    def __init__(
        self, triples: Tensor, entities: int, relations: int, width: int, settings: MacoSettings
    ) -> None:
        """Takes train `triples` [n, 3]; `width` is F, that of the vectors to be made."""
        super().__init__()
        self.settings = settings
        rng = stream(settings.seed, "initial values")
        self.structure: nn.Module
        if settings.encoder == "embedding":
            self.structure = Embeddings(entities, width, rng)
        else:
            two = settings.both_directions
            graph = MessageGraph.from_triples(
                triples, entities, relations, inverse=two, normalize=two, self_relation=not two
            )
            self.structure = RelationalEncoder(
                graph,
                (settings.input_width, settings.encoder_hidden, width),
                settings.bases or None,
                None if two else (torch.tanh, torch.relu),
                rng,
            )
            self.structure.input.requires_grad_(settings.learnt_input)
        self.generator = Generator(width, settings, rng)
        self.discriminator = Discriminator(width, settings, rng)
