"""Networks of MACO: structure encoder, generator, discriminator."""

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
    """G(s, z) = W_2 leaky(W_1 [s; z] + b_1) + b_2 (eq. 2); G(z) if unconditional."""

    def __init__(self, width: int, settings: MacoSettings, rng: torch.Generator) -> None:
        """`width` is F, the width of vectors and of structure."""
        super().__init__()
        hidden = settings.generator_hidden or settings.hidden
        self.conditional = settings.condition
        # W_1 [s; z] as two products, because one structure row is combined with many noise rows.
        self.of_structure = linear(width, hidden, rng) if self.conditional else None
        self.of_noise = linear(settings.noise, hidden, rng)
        self.last = linear(hidden, width, rng)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, structure: Tensor, noise: Tensor) -> Tensor:
        """Vectors ``[..., F]`` from structure ``[..., F]`` and noise ``[..., Z]``."""
        x = self.of_noise(noise)
        if self.of_structure is not None:
            x = x + self.of_structure(structure)
        vectors: Tensor = self.last(self.dropout(nn.functional.leaky_relu(x)))
        return vectors


class Discriminator(nn.Module):
    """D(s, v), the logit that v is the vector of the entity with structure s.

    ``paper``: W_4 [leaky(W_3 s + b_3); v] + b_4 (eq. 3). ``released``: v passes through the hidden
    layer instead of s, and the logit is the difference of two classes. Both are a function of s
    plus a function of v, so they cannot judge whether s and v match. ``joint`` can:
    W_4 leaky(W_3 [s; v] + b_3) + b_4.
    """

    def __init__(self, width: int, settings: MacoSettings, rng: torch.Generator) -> None:
        """`width` is F, the width of vectors and of structure."""
        super().__init__()
        self.variant = settings.discriminator
        joint, classes = self.variant == "joint", 2 if self.variant == "released" else 1
        self.first = linear(2 * width if joint else width, settings.hidden, rng)
        self.last = linear(settings.hidden + (0 if joint else width), classes, rng)

    def forward(self, structure: Tensor, vectors: Tensor) -> Tensor:
        """Logits ``[...]`` of structure ``[..., F]`` and vectors ``[..., F]``."""
        structure = structure.expand_as(vectors)
        if self.variant == "joint":
            x = nn.functional.leaky_relu(self.first(torch.cat([structure, vectors], -1)))
        else:
            transformed, direct = structure, vectors
            if self.variant == "released":
                transformed, direct = vectors, structure
            x = torch.cat([nn.functional.leaky_relu(self.first(transformed)), direct], -1)
        logits: Tensor = self.last(x)
        return logits[..., 0] if self.variant != "released" else logits[..., 1] - logits[..., 0]


class Embeddings(nn.Module):
    """One learnt row per entity, as a replacement for the R-GCN."""

    def __init__(self, entities: int, width: int, rng: torch.Generator) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(entities, width))
        nn.init.xavier_uniform_(self.rows, generator=rng)

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Rows ``[n, F]``; all rows if None."""
        return lookup(self.rows, rows)


class Maco(nn.Module):
    """The three networks of MACO, for one graph."""

    def __init__(
        self, triples: Tensor, entities: int, relations: int, width: int, settings: MacoSettings
    ) -> None:
        """Takes train `triples` ``[n, 3]`` and the `width` F of the generated vectors."""
        super().__init__()
        self.settings = settings
        rng = stream(settings.seed, "initial values")
        self.structure: nn.Module
        if settings.encoder == "embedding":
            self.structure = Embeddings(entities, width, rng)
        else:
            inverse = settings.both_directions
            graph = MessageGraph.from_triples(
                triples,
                entities,
                relations,
                inverse=inverse,
                normalize=inverse,
                self_relation=not inverse,
            )
            self.structure = RelationalEncoder(
                graph,
                (settings.input_width, settings.encoder_hidden, width),
                settings.bases or None,
                None if inverse else (torch.tanh, torch.relu),
                rng,
            )
            self.structure.input.requires_grad_(settings.learnt_input)
        self.generator = Generator(width, settings, rng)
        self.discriminator = Discriminator(width, settings, rng)
