"""The scorer under test, with a small synthetic graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from mmkgc_cli.scoring import Features, Scorer, ScorerConfig, Side

# Numbers of entities and relations, and feature width; all differ, so that swapped axes fail.
ENTITIES, RELATIONS, WIDTH = 17, 3, 7
TRIPLES = 60
# Hyper-parameters with these words in their names are set to SMALL.
SIZES = ("dim", "width", "rank", "hidden")
SMALL = 6
NOISE = 0.1


def small_config(config_class: type[ScorerConfig]) -> ScorerConfig:
    """Builds the default configuration with small sizes, if the class accepts them."""
    sizes = {
        name: SMALL
        for name, field in config_class.model_fields.items()
        if field.annotation is int
        and any(word in name for word in SIZES)
        and isinstance(field.default, int)
        and field.default > SMALL
    }
    try:
        return config_class(**sizes)
    except ValidationError:
        return config_class()


@dataclass(frozen=True)
class Subject:
    """A scorer class with hyper-parameters, and the triples and features of a synthetic graph."""

    scorer_class: type[Scorer]
    explicit_config: ScorerConfig | None = None

    @property
    def config(self) -> ScorerConfig:
        """The explicit configuration, or the defaults with small sizes."""
        if self.explicit_config is not None:
            return self.explicit_config
        return small_config(self.scorer_class.Config)

    @property
    def triples(self) -> Tensor:
        """Distinct triples ``[n, 3]`` that contain every entity and relation."""
        n = ENTITIES * RELATIONS * ENTITIES
        rng = torch.Generator().manual_seed(1)
        keys = torch.randperm(n, generator=rng)[:TRIPLES]
        ends = keys.div(RELATIONS * ENTITIES, rounding_mode="floor"), keys % ENTITIES
        rows = torch.stack(
            [ends[0], keys.div(ENTITIES, rounding_mode="floor") % RELATIONS, ends[1]], 1
        )
        # A triple from an entity to itself, and one with the last ids.
        last = torch.tensor([[0, 0, 0], [ENTITIES - 1, RELATIONS - 1, ENTITIES - 1]])
        distinct: Tensor = torch.unique(torch.cat([rows, last]), dim=0)
        return distinct

    def features(self, seed: int = 0) -> Mapping[str, Features]:
        """Random vectors of every modality that the scorer needs; a third are missing."""
        features = {}
        for i, name in enumerate(self.scorer_class.modalities_of(self.config)):
            rng = torch.Generator().manual_seed(seed + i)
            vectors = torch.randn(ENTITIES, WIDTH, generator=rng)
            observed = torch.arange(ENTITIES) % 3 != i % 3
            features[name] = Features(vectors * observed[:, None], observed)
        return features

    def construct(self, seed: int = 0, features: Mapping[str, Features] | None = None) -> Scorer:
        """Constructs a scorer as training does."""
        keywords: dict[str, Any] = {}
        if self.scorer_class.modalities_of(self.config):
            keywords["features"] = self.features() if features is None else features
        rng = torch.Generator().manual_seed(seed)
        return self.scorer_class(self.config, ENTITIES, RELATIONS, rng, **keywords)

    def make(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Scorer:
        """Constructs and fits a scorer in eval mode, with noise added to its initial weights."""
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
        """Known entities, relations and answers of the triples, each ``[n]``."""
        heads, relations, tails = self.triples.unbind(1)
        return (heads, relations, tails) if side is Side.tail else (tails, relations, heads)


def scores_of_triples(subject: Subject, scorer: Scorer) -> Tensor:
    """Scores ``[2, n]`` of the triples from both sides; the reference for other methods."""
    return torch.stack([scorer.score_answers(*subject.queries(side), side) for side in Side])
