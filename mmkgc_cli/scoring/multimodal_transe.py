"""TransE between several vectors of an entity: the common part of IKRL and TBKGC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.nn.embeddings import NO_FEATURES, Features
from mmkgc_cli.nn.functional import uniform, unit
from mmkgc_cli.ops import Metric, Pair, lookup
from mmkgc_cli.scoring.contract import Scorer
from mmkgc_cli.scoring.types import ScorerConfig
from mmkgc_cli.sides import Side


class MultimodalTransEConfig(ScorerConfig):
    """Hyper-parameters of `MultimodalTransE`."""

    dim: int = Field(128, ge=1, le=2**16, description="Width of entities and relations.")
    margin: float = Field(6.0, ge=0, le=1e6, description="Margin of each distance.")
    variant: Literal["paper", "released"] = "paper"


class MultimodalTransE(Scorer):
    """score = sum over (a, b) in `terms_of_blocks` of w (margin - |a(h) + r - b(t)|_1).

    All vectors have length 1. Under the variant ``paper``, w is 1; under ``released``, the score
    is the mean of the terms. A subclass sets `terms_of_blocks` and returns `blocks` in
    `candidates`; after super().__init__ it creates the modules that compute them.
    """

    metric = Metric.l1
    # The blocks of a candidate row, and the terms: pairs of a query block and a candidate block.
    n_blocks: ClassVar[int]
    terms_of_blocks: ClassVar[tuple[tuple[int, int], ...]]

    def __init__(
        self,
        config: MultimodalTransEConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
        features: Mapping[str, Features] = NO_FEATURES,
    ) -> None:
        """Creates rows with a length near 1."""
        super().__init__(config, n_entities, n_relations, generator, features)
        self.released = config.variant == "released"
        n_terms = len(self.terms_of_blocks)
        self._weight = 1 / n_terms if self.released else 1.0
        self._margin = config.margin * n_terms * self._weight
        bound = (3 / config.dim) ** 0.5
        self.entities = uniform(n_entities, config.dim, bound=bound, generator=generator)
        self.relations = uniform(n_relations, config.dim, bound=bound, generator=generator)

    @property
    def margin(self) -> float:
        """The weighted sum of the margins of all terms."""
        return self._margin

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """Blocks a + r for tails, and a - r for heads."""
        r = unit(lookup(self.relations, relations)).repeat(1, self.n_blocks)
        known = self.candidates(entities)
        assert isinstance(known, Tensor)
        return known + r if side is Side.tail else known - r

    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        """The terms, of equal weight."""
        d = query_width // self.n_blocks
        return [Pair(q * d, c * d, d, self._weight) for q, c in self.terms_of_blocks]
