"""The scorer under test, on a small made-up graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from mmkgc_cli.scoring import Features, Scorer, ScorerConfig, Side

# Entities, relations and width of features: all different, so that mixed-up axes show.
ENTITIES, RELATIONS, WIDTH = 17, 3, 7
TRIPLES = 60
# Hyper-parameters of these kinds are made small: properties do not depend on size.
SIZES = ("dim", "width", "rank", "hidden")
SMALL = 6
NOISE = 0.1


def small_config(of: type[ScorerConfig]) -> ScorerConfig:
    """The defaults, with sizes made small where the class allows it."""
    sizes = {
        name: SMALL
        for name, field in of.model_fields.items()
        if field.annotation is int
        and any(word in name for word in SIZES)
        and isinstance(field.default, int)
        and field.default > SMALL
    }
    try:
        return of(**sizes)
    except ValidationError:
        return of()


@dataclass(frozen=True)
class Subject:
    """A scorer class with hyper-parameters, and what there is to score."""

    scorer_class: type[Scorer]
    given: ScorerConfig | None = None

    @property
    def config(self) -> ScorerConfig:
        """Those that were given, or the defaults with sizes made small."""
        return small_config(self.scorer_class.Config) if self.given is None else self.given

    @property
    def triples(self) -> Tensor:
        """Distinct triples ``[n, 3]`` in which every entity and relation occurs."""
        n = ENTITIES * RELATIONS * ENTITIES
        rng = torch.Generator().manual_seed(1)
        keys = torch.randperm(n, generator=rng)[:TRIPLES]
        ends = keys.div(RELATIONS * ENTITIES, rounding_mode="floor"), keys % ENTITIES
        rows = torch.stack(
            [ends[0], keys.div(ENTITIES, rounding_mode="floor") % RELATIONS, ends[1]], 1
        )
        # One that leads from an entity to itself, and the last ids.
        last = torch.tensor([[0, 0, 0], [ENTITIES - 1, RELATIONS - 1, ENTITIES - 1]])
        distinct: Tensor = torch.unique(torch.cat([rows, last]), dim=0)
        return distinct

    def features(self, seed: int = 0) -> Mapping[str, Features]:
        """Random vectors of every modality that the scorer needs, a third of them missing."""
        found = {}
        for i, name in enumerate(self.scorer_class.modalities_of(self.config)):
            rng = torch.Generator().manual_seed(seed + i)
            vectors = torch.randn(ENTITIES, WIDTH, generator=rng)
            observed = torch.arange(ENTITIES) % 3 != i % 3
            found[name] = Features(vectors * observed[:, None], observed)
        return found

    def construct(self, seed: int = 0, features: Mapping[str, Features] | None = None) -> Scorer:
        """A fresh scorer as training makes it."""
        told: dict[str, Any] = {}
        if self.scorer_class.modalities_of(self.config):
            told["features"] = self.features() if features is None else features
        rng = torch.Generator().manual_seed(seed)
        return self.scorer_class(self.config, ENTITIES, RELATIONS, rng, **told)

    def make(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Scorer:
        """A fitted scorer in eval mode, its weights moved off whatever they start at."""
        scorer = self.construct(seed)
        scorer.fit(self.triples)
        scorer.to(dtype).eval()
        scorer.start_epoch(1)
        rng = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for parameter in scorer.parameters():
                noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
                parameter.add_((NOISE * noise).to(parameter))
            scorer.constrain()
        return scorer

    def queries(self, side: Side) -> tuple[Tensor, Tensor, Tensor]:
        """Known entities, relations and answers of the triples, ``[n]`` each."""
        heads, relations, tails = self.triples.unbind(1)
        return (heads, relations, tails) if side is Side.tail else (tails, relations, heads)


def scores_of_triples(subject: Subject, scorer: Scorer) -> Tensor:
    """Scores ``[2, n]`` of the triples by both sides: what other paths are held against."""
    return torch.stack([scorer.score_answers(*subject.queries(side), side) for side in Side])
