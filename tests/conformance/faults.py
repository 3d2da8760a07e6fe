"""Scorers with one fault each, which breaks one property only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mmkgc_cli.ops import Metric, Pair, RowLoss, backend_of
from mmkgc_cli.scoring import Scorer, Side
from mmkgc_cli.scoring.contract import Batch, Candidates, ParameterGroup, Rows
from tests.scoring.extended import (
    Branches,
    DistMult,
    FourTerms,
    Mirrored,
    PerRelation,
    Small,
    TransE,
    WholeTriples,
    WithImage,
)

Entities = Tensor | None
Relation = int | Tensor | None


class NoCitation(DistMult):
    citation = ""


class NoBase(DistMult):
    def __init__(self, config: Any, n_entities: int, n_relations: int, generator: Any) -> None:
        nn.Module.__init__(self)


class NothingDefined(Scorer):
    citation = DistMult.citation


class OtherArguments(DistMult):
    def __init__(self, config: Small) -> None:
        raise AssertionError


class LooseConfig(DistMult):
    class Config(Small):
        model_config = ConfigDict(extra="allow")


class NoDefault(DistMult):
    class Config(Small):
        needed: int


class ForeignConfig(DistMult):
    class Config(BaseModel):
        dim: int = 4


class FlatQuery(DistMult):
    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return super().query(entities, relations, side).sum(1)  # type: ignore[union-attr]


class FewCandidates(DistMult):
    def candidates(self, entities: Entities, relation: Relation = None, side: Any = None) -> Rows:
        return self.entities[:5]


class OutsideTheRow(FourTerms):
    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        return [Pair(0, 0, query_width), Pair(1, 0, query_width)]


class NarrowCandidates(DistMult):
    def candidates(self, entities: Entities, relation: Relation = None, side: Any = None) -> Rows:
        rows = super().candidates(entities)
        assert isinstance(rows, Tensor)
        return rows[:, 1:]


class OddBlock(DistMult):
    metric = Metric.modulus

    class Config(Small):
        dim: int = Field(5, description="odd")


class DoubleRows(DistMult):
    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return super().query(entities, relations, side).double()  # type: ignore[union-attr]


class ShortScores(WholeTriples):
    def score(self, triples: Tensor) -> Tensor:
        return super().score(triples)[:, None]


class OneBranch(Branches):
    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return super().query(entities, relations, side)[0]


class JoinedToOne(Branches):
    def combine(self, scores: list[Tensor]) -> Tensor:
        return super().combine(scores).sum(1)


class Crashing(DistMult):
    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return self.entities[entities] @ self.relations[relations]


class LogarithmOfZero(DistMult):
    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        rows = super().query(entities, relations, side)
        assert isinstance(rows, Tensor)
        return rows + (self.entities[0, 0] * 0).log()


class GlobalSeed(DistMult):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.relations = nn.Parameter(torch.randn(self.relations.shape))


class Noisy(DistMult):
    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        rows = super().query(entities, relations, side)
        assert isinstance(rows, Tensor)
        return rows + 1e-13 * torch.randn_like(rows)


class TableNormalised(DistMult):
    def candidates(self, entities: Entities, relation: Relation = None, side: Any = None) -> Rows:
        rows = super().candidates(entities)
        assert isinstance(rows, Tensor)
        return rows / rows.norm() if entities is None else rows

    def score_all(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        raise AssertionError("is not called after the rows property failed")


class OnlyOneRelation(PerRelation):
    def candidates(self, entities: Entities, relation: Relation = None, side: Any = None) -> Rows:
        if isinstance(relation, Tensor):
            relation = int(relation[0])
        return super().candidates(entities, relation, side)

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return super().candidates(entities, relations)


class WrongSign(TransE):
    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return self.entities[entities] + self.relations[relations]


class ForgottenInverse(Mirrored):
    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return self.tail_query(entities, relations)


class OtherTripleScore(TransE):
    def score(self, triples: Tensor) -> Tensor:
        return super().score(triples) - self.margin


class OtherScoreOfAll(DistMult):
    def score_all(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        return super().score_all(entities, relations, side).softmax(1)


class NoMarginInTraining(TransE):
    def score_sampled(self, *args: Any) -> Tensor:
        return super().score_sampled(*args) - self.margin


class DetachedInTraining(DistMult):
    def score_sampled(self, *args: Any) -> Tensor:
        scores = super().score_sampled(*args)
        return scores.detach() + 0 * scores


class IgnoresMask(DistMult):
    def loss_sampled(self, positives: Tensor, candidates: Candidates, loss: RowLoss) -> Tensor:
        unmasked = dataclasses.replace(candidates, mask=None)
        return super().loss_sampled(positives, unmasked, loss)


class LostWhileDeferred(DistMult):
    """Ignores that an optimizer may defer the gradient of the relations."""

    def loss_sampled(self, *args: Any) -> Tensor:
        loss = super().loss_sampled(*args)
        deferred = hasattr(self.relations, "deferred_gradients")
        return loss.detach() + 0 * loss if deferred else loss


class BiasOutsideRows(DistMult):
    """Adds a bias of candidates to all scores but to no row."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.bias = nn.Parameter(torch.randn(self.n_entities, generator=self.generator))

    def score_answers(
        self, entities: Tensor, relations: Tensor, answers: Tensor, side: Side
    ) -> Tensor:
        scores = super().score_answers(entities, relations, answers, side)
        return scores + self.bias[entities] + self.bias[answers]

    def score_sampled(self, positives: Tensor, candidates: Candidates) -> Tensor:
        tails = candidates.corrupted_side == Side.tail
        known = torch.where(tails, positives[:, :1], positives[:, 2:])
        scores = super().score_sampled(positives, candidates)
        return scores + self.bias[known] + self.bias[candidates.ids]

    def score_all(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        return (
            super().score_all(entities, relations, side) + self.bias + self.bias[entities][:, None]
        )


class LaterIsBetter(Branches):
    def combine(self, scores: list[Tensor]) -> Tensor:
        joined = super().combine(scores)
        return joined + 1e-12 * torch.arange(joined.shape[-1])


class HidesNaN(DistMult):
    def candidates(self, entities: Entities, relation: Relation = None, side: Any = None) -> Rows:
        return super().candidates(entities).nan_to_num()  # type: ignore[union-attr]

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return super().query(entities, relations, side).nan_to_num()  # type: ignore[union-attr]


class ForgottenBlock(FourTerms):
    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        return list(super().pairs(query_width))[:1]


class LooksAtTheBackend(TransE):
    """Rows that depend on whether kernels are used."""

    @property
    def row_scale(self) -> float:
        return 1.5 if backend_of("sampled_score", "cpu")[0] == "native" else 1.0

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return self.row_scale * super().query(entities, relations, side)  # type: ignore[operator]

    def candidates(self, entities: Entities, relation: Relation = None, side: Any = None) -> Rows:
        return self.row_scale * super().candidates(entities)  # type: ignore[operator]


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 2 * grads[0]


class WrongBackward(DistMult):
    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        rows: Tensor = _Doubled.apply(super().query(entities, relations, side))
        return rows


class LossByRow(DistMult):
    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"n3": self.entities.abs().pow(3).sum(1)}


class ReservedName(DistMult):
    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.entities.sum()}


class ForgottenParameter(DistMult):
    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([self.entities])]


class Unregistered(DistMult):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.mix = torch.randn(self.dim, generator=self.generator, dtype=torch.float64)

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        rows = super().query(entities, relations, side)
        assert isinstance(rows, Tensor)
        return rows * self.mix.to(rows)


class LeavesFeaturesOut(WithImage):
    """Needs its feature store for evaluation, because features are not in the state."""

    def __init__(self, *args: Any, **features: Any) -> None:
        super().__init__(*args, **features)
        del self.image
        self.image = features["features"]["image"].vectors.double()

    def candidates(self, entities: Entities, relation: Relation = None, side: Any = None) -> Rows:
        self.image = self.image.to(self.entities)
        return super().candidates(entities, relation, side)


class LooksAtIds(DistMult):
    def candidates(self, entities: Entities, relation: Relation = None, side: Any = None) -> Rows:
        ids = torch.arange(self.n_entities) if entities is None else entities
        return self.entities[ids] + 0.1 * ids[:, None]

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        return self.candidates(entities) * self.relations[relations]


# Property, scorer, and a part of the finding.
FAULTS: tuple[tuple[str, type[Scorer], str], ...] = (
    ("constructor", NoCitation, "NoCitation.citation: expected the publication of the score"),
    ("constructor", NoBase, "got None and None (does __init__ pass them to super().__init__?)"),
    ("constructor", NothingDefined, "expected query and candidates, or score; got none"),
    ("constructor", OtherArguments, "takes 2 positional arguments but 5 were given"),
    ("configuration", LooseConfig, "expected model_config extra='forbid' as in ScorerConfig"),
    ("configuration", ForeignConfig, "expected a subclass of ScorerConfig, got BaseModel"),
    (
        "shapes",
        FlatQuery,
        "FlatQuery.query: expected [62, D], a row for each of 62, got [62] float32",
    ),
    ("shapes", FewCandidates, "FewCandidates.candidates: expected [17, D], a row for each of 17"),
    ("shapes", OutsideTheRow, "OutsideTheRow.pairs: expected blocks within query rows of width 8"),
    (
        "shapes",
        NarrowCandidates,
        "NarrowCandidates.candidates: expected rows as wide as those of query, 4",
    ),
    ("shapes", OddBlock, "expected an even width, complex blocks are [re | im], got 5"),
    ("shapes", DoubleRows, "DoubleRows.query: expected float32 like the weights, got torch.f"),
    ("shapes", ShortScores, "ShortScores.score: expected [62], a score a triple, got [62, 1]"),
    ("shapes", OneBranch, "OneBranch.query: expected a list of 2 (a metric each), got [62, 4]"),
    ("shapes", JoinedToOne, "JoinedToOne.combine: expected [2, 5], got [2] float32"),
    ("shapes", Crashing, "Crashing.query: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ("finite values", LogarithmOfZero, "LogarithmOfZero.query: expected finite scores, got ["),
    ("initial values", GlobalSeed, "expected 'relations' to depend on generator only"),
    ("repeats", Noisy, "Noisy.query: expected the same scores again in eval mode, got a"),
    (
        "rows",
        TableNormalised,
        "TableNormalised.candidates: expected for some entities the same rows",
    ),
    (
        "relation tables",
        OnlyOneRelation,
        "expected the same rows for one relation per row as for relation",
    ),
    (
        "sides",
        WrongSign,
        "WrongSign.query: expected the head query to give the score of the tail query",
    ),
    ("sides", ForgottenInverse, "expected the head query to equal the tail query of r + R"),
    ("triples", OtherTripleScore, "OtherTripleScore.score: expected the score of the tail query"),
    ("one against all", OtherScoreOfAll, "expected the scores of a loop over all entities"),
    ("sampled scores", NoMarginInTraining, "expected the score of each single candidate"),
    ("sampled gradients", DetachedInTraining, "expected the gradient of 'entities' through the"),
    (
        "sampled losses",
        IgnoresMask,
        "expected the self-adversarial loss of the sampled scores, got",
    ),
    ("sampled losses", LostWhileDeferred, "loss while gradients are deferred of the sampled"),
    ("ranks", BiasOutsideRows, "expected tail rank"),
    ("ties", LaterIsBetter, "LaterIsBetter.combine: expected tail rank"),
    ("non-finite scores", HidesNaN, "HidesNaN.query: expected NaN scores from NaN weights"),
    ("blocks", ForgottenBlock, "expected every query column in a pair, got 4 of 8 in none"),
    ("native ops", LooksAtTheBackend, "expected the native scores to equal the reference"),
    ("gradients", WrongBackward, "WrongBackward.query: expected a slope of"),
    ("hooks", LossByRow, "LossByRow.extra_losses: expected a scalar for 'n3', got [17]"),
    ("hooks", ReservedName, "expected names other than loss and gradient_norm, got 'loss'"),
    ("parameter groups", ForgottenParameter, "expected 'relations' in one group, got 0 groups"),
    (
        "state",
        Unregistered,
        "expected the scores of the saved scorer after loading, got a difference",
    ),
    ("state", LeavesFeaturesOut, "expected the scores of the saved scorer after loading, got a"),
    ("permutation", LooksAtIds, "expected the same scores with another numbering of entities"),
)
