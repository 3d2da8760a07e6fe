"""A small scorer for each extension of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmkgc_cli.ops import Metric, Pair
from mmkgc_cli.scoring import Features, Scorer, ScorerConfig, Side
from mmkgc_cli.scoring.contract import NO_FEATURES, Batch, ParameterGroup, Reciprocal, Rows


class Small(ScorerConfig):
    dim: int = Field(4, ge=2, description="width")


class Tables(Scorer):
    """Two tables from the generator."""

    Config = Small
    citation: ClassVar[str] = "A scorer of the tests, published nowhere."
    entity_blocks: ClassVar[int] = 1
    relation_blocks: ClassVar[int] = 1

    def __init__(
        self,
        config: Small,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
        features: Mapping[str, Features] = NO_FEATURES,
    ) -> None:
        super().__init__(config, n_entities, n_relations, generator, features)
        self.dim = config.dim

        def table(rows: int, width: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, width, generator=generator))

        self.entities = table(n_entities, self.entity_blocks * config.dim)
        self.relations = table(self.n_rows, self.relation_blocks * config.dim)
        self.generator = generator

    @property
    def n_rows(self) -> int:
        return self.n_relations

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Rows:
        return self.entities if entities is None else self.entities[entities]


class DistMult(Tables):
    metric = Metric.dot

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return self.entities[entities] * self.relations[relations]


class TransE(Tables):
    metric = Metric.l1

    @property
    def margin(self) -> float:
        return 3.0

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        sign = 1 if side is Side.tail else -1
        return self.entities[entities] + sign * self.relations[relations]


class PairRE(Tables):
    """margin - |h r_h - t r_t|: a scale for each query."""

    metric = Metric.l1
    relation_blocks = 2

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return self.entities[entities] * self.relations[relations].chunk(2, 1)[side]

    def scale(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return self.relations[relations].chunk(2, 1)[1 - side]


class Roles(Tables):
    """|A h + r - B t|_1: heads and tails are mapped by matrices of their own."""

    metric = Metric.l1
    roles = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        maps = torch.randn(2, self.dim, self.dim, generator=self.generator)
        self.maps = nn.Parameter(maps)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Rows:
        assert side is not None
        assert relation is None
        return (self.entities if entities is None else self.entities[entities]) @ self.maps[side]

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        sign = 1 if side is Side.tail else -1
        return self.entities[entities] @ self.maps[1 - side] + sign * self.relations[relations]


class PerRelation(Tables):
    """<W_r h, W_r t> with a diagonal W that is squashed by the relation."""

    metric = Metric.dot
    per_relation = True

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Rows:
        assert side is None
        rows = self.entities if entities is None else self.entities[entities]
        return torch.tanh(rows * self.relations[relation])

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return self.candidates(entities, relations)


class PerRelationAndRole(PerRelation):
    roles = True
    relation_blocks = 2

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Rows:
        assert side is not None
        rows = self.entities if entities is None else self.entities[entities]
        return torch.tanh(rows * self.relations[relation].chunk(2, -1)[side])

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return self.candidates(entities, relations, Side(1 - side))


class Branches(Tables):
    """The mean of two sigmoids: of a dot product and of a distance."""

    metric = (Metric.dot, Metric.l1)
    relation_blocks = 2

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        known, (factor, shift) = self.entities[entities], self.relations[relations].chunk(2, 1)
        return [known * factor, known + (1 if side is Side.tail else -1) * shift]

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Rows:
        rows = self.entities if entities is None else self.entities[entities]
        return [rows, rows]

    def combine(self, scores: list[Tensor]) -> Tensor:
        return torch.stack([s.sigmoid() for s in scores]).mean(0)


class ScaledBranches(Branches):
    """Branches with a scale each, and pairs in the second."""

    def scale(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        both = torch.ones(len(entities), self.dim).to(self.entities)
        return [2 * both, both]

    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        if branch == 0:
            return super().pairs(query_width)
        half = self.dim // 2
        return [Pair(0, 0, half, 0.5), Pair(half, half, self.dim - half, 2.0)]


class FourTerms(Tables):
    """IKRL's form: l1 between [h + r, m_h + r] and [t, m_t], all four pairs."""

    metric = Metric.l1
    entity_blocks = 2

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        sign = 1 if side is Side.tail else -1
        return self.entities[entities] + sign * self.relations[relations].repeat(1, 2)

    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        d = self.dim
        return [Pair(a, b, d) for a in (0, d) for b in (0, d)]


class Mirrored(Reciprocal, Tables):
    """DistMult with reciprocal relations."""

    metric = Metric.dot

    @property
    def n_rows(self) -> int:
        return self.relation_rows

    def tail_query(self, entities: Tensor, relations: Tensor) -> Rows:
        return self.entities[entities] * self.relations[relations]


class WholeTriples(Tables):
    """A network over the triple: the generic path."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.weight = nn.Parameter(torch.randn(3 * self.dim, generator=self.generator))

    def score(self, triples: Tensor) -> Tensor:
        h, r, t = triples.unbind(1)
        rows = torch.cat([self.entities[h], self.relations[r], self.entities[t]], 1)
        return torch.tanh(rows * self.weight).sum(1)


class WithImage(Tables):
    """TransE on [structure, projected image]; missing images have a vector of their own."""

    metric = Metric.l2
    modalities = ("image",)
    uses_mask = True

    def __init__(
        self,
        config: Small,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
        features: Mapping[str, Features] = NO_FEATURES,
    ) -> None:
        super().__init__(config, n_entities, n_relations, generator, features)
        image = features["image"]
        width = image.vectors.shape[1]
        self.project = nn.Parameter(torch.randn(width, self.dim, generator=self.generator))
        self.missing = nn.Parameter(torch.randn(self.dim, generator=self.generator))
        self.register_buffer("image", image.vectors)
        self.register_buffer("observed", image.observed)
        self.image: Tensor
        self.observed: Tensor

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Rows:
        images = torch.where(self.observed[:, None], self.image @ self.project, self.missing)
        rows = torch.cat([self.entities, images], 1)
        return rows if entities is None else rows[entities]

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        rows = self.candidates(entities)
        assert isinstance(rows, Tensor)
        sign = 1 if side is Side.tail else -1
        return rows + sign * self.relations[relations].repeat(1, 2)


class Hooked(DistMult):
    """All hooks: an N3 term, rates by group, work an epoch, unit norms."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("epochs", torch.zeros(()))
        self.epochs: Tensor

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([self.entities]), ParameterGroup([self.relations], 0.5)]

    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        rows = self.entities[batch.triples[:, 0]]
        return {"n3": 0.1 * rows.abs().pow(3).sum(1).mean()}

    def start_epoch(self, epoch: int) -> None:
        self.epochs.fill_(epoch)

    def constrain(self) -> None:
        self.entities.div_(self.entities.norm(dim=1, keepdim=True))


EXTENDED: tuple[type[Scorer], ...] = (
    DistMult, TransE, PairRE, Roles, PerRelation, PerRelationAndRole, Branches, ScaledBranches,
    FourTerms, Mirrored, WholeTriples, WithImage, Hooked,
)  # fmt: skip
