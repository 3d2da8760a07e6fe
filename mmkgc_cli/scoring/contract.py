"""What a scorer plugin provides, and what the core makes of it.

A score is a metric between a *query* row, made from the known entity and the relation, and a
*candidate* row, made from an entity:

    score(h, r, t) = metric(query(h, r, tail), candidate(t))
                   = metric(query(t, r, head), candidate(h))      (two-way scorers)

Training, ranking and prediction are the core's: a plugin only says how rows are made. What plain
scorers do without (scales, tables by side or relation, branches, scores of whole triples) is
declared by a class variable or by overriding one more method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmkgc_cli.nn.embeddings import NO_FEATURES, Features, FeatureTable
from mmkgc_cli.ops import Metric, Pair, RowLoss, loss_of_scores, score_rows, whole_row
from mmkgc_cli.scoring import scores as paths
from mmkgc_cli.scoring.faults import ScorerFault, fault
from mmkgc_cli.scoring.types import (
    Auxiliary,
    Batch,
    ParameterGroup,
    Rows,
    ScorerConfig,
    Shares,
    check_features,
)
from mmkgc_cli.sides import Side

__all__ = [
    "NO_FEATURES",
    "Auxiliary",
    "Batch",
    "Features",
    "ParameterGroup",
    "Reciprocal",
    "Rows",
    "Scorer",
    "ScorerConfig",
    "ScorerFault",
    "Shares",
    "Side",
]


class Scorer(nn.Module):
    """Base of all scorers.

    A subclass sets `metric`, `citation` and `Config`, takes ``(config, n_entities, n_relations,
    generator)`` and implements `query` and `candidates`; or `score` alone, which is slower.
    """

    Config: ClassVar[type[ScorerConfig]] = ScorerConfig
    # A tuple of metrics makes branches: `query` and `candidates` then give a list, rows for each.
    metric: Metric | tuple[Metric, ...]
    citation: ClassVar[str]
    # Whether the two equations above both hold; reciprocal relations break the second.
    two_way: ClassVar[bool] = True
    # Whether heads and tails are transformed differently: `candidates` is told the side.
    roles: ClassVar[bool] = False
    # Whether `candidates` depends on the relation, which it is then told.
    per_relation: ClassVar[bool] = False
    # Whether a training step is the same work on the device each time; see `training.captured`.
    capturable: ClassVar[bool] = True
    # Which features it is constructed with (at most; see `modalities_of`), and whether it looks at
    # which of them are observed.
    modalities: ClassVar[tuple[str, ...]] = ()
    uses_mask: ClassVar[bool] = False

    def __init__(
        self,
        config: ScorerConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
        features: Mapping[str, Features] = NO_FEATURES,
    ) -> None:
        """Creates a scorer whose initial values come from `generator` alone.

        `features` are those of `modalities_of(config)`, and given only where there are some. What
        is kept of them as it is becomes a buffer with ``persistent=False``: weights hold it,
        checkpoints need not.

        Raises:
            DataError: when features are missing or do not belong to these entities.
        """
        super().__init__()
        check_features(type(self), self.modalities_of(config), features, n_entities)
        self.config = config
        self.n_entities = n_entities
        self.n_relations = n_relations

    @property
    def margin(self) -> float:
        """Added to every score: distances enter as margin - distance."""
        return 0.0

    @classmethod
    def scores_triples_only(cls) -> bool:
        """Whether it has no queries: then every triple is scored by itself, which takes longer."""
        return cls.query is Scorer.query

    @classmethod
    def modalities_of(cls, config: ScorerConfig) -> tuple[str, ...]:
        """Which of `modalities` it needs with these hyper-parameters; by default all."""
        return cls.modalities

    @property
    def is_two_way(self) -> bool:
        """`two_way`, which may depend on hyper-parameters."""
        return self.two_way

    def trains_features(self, modality: str) -> bool:
        """Whether features of `modality` begin a table that is trained: if a `FeatureTable` is."""
        return any(isinstance(m, FeatureTable) and not m.frozen for m in self.modules())

    @classmethod
    def adds_losses(cls) -> bool:
        """Whether it has terms of the loss of its own."""
        return cls.extra_losses is not Scorer.extra_losses

    def is_plain(self) -> bool:
        """Whether one table of candidates serves all queries, unscaled, under one metric."""
        declared = self.roles or self.per_relation or self.scores_triples_only()
        scaled = type(self).scale is not Scorer.scale
        return not (declared or scaled or paths.has_branches(self))

    # Rows

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        """Query rows ``[B, Dq]`` of known `entities` [B] under `relations` [B], seeking `side`."""
        raise fault(self, "query", "a definition", "none")

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Rows:
        """Candidate rows ``[n, Dc]`` of `entities` [n], or of all in order when None.

        Args:
            entities: ids, which may repeat.
            relation: given when `per_relation` is set: one for all rows, or ``[n]``, one a row
                (``weight[relation]`` serves both where the result is broadcast against rows).
            side: given when `roles` is set: what the entities stand for.
        """
        raise fault(self, "candidates", "a definition, as query has one", "none")

    def scale(self, entities: Tensor, relations: Tensor, side: Side) -> Rows | None:
        """``[B, Dc]`` multiplied into the candidates that meet a query; nothing by default.

        The arguments are those of `query`. Scales may be zero, so never divide by them.
        """
        return None

    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        """The terms of the score; by default one that spans the rows."""
        return whole_row(query_width)

    def combine(self, scores: list[Tensor]) -> Tensor:
        """Joins the scores of the branches, element by element; by default their sum.

        All have one shape, whatever it is. An element of the result must depend on that element of
        the scores alone: they come tile by tile.
        """
        total = scores[0]
        for other in scores[1:]:
            total = total + other
        return total

    # Hooks

    def fit(self, triples: Tensor) -> None:
        """Sees the train triples ``[n, 3]`` (h, r, t) once before training; nothing by default."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """Which parameters move at which share of the learning rate; by default all at it.

        Those of `auxiliaries` are in none.
        """
        apart = {id(p) for of in self.auxiliaries() for p in of.parameters}
        return [ParameterGroup([p for p in self.parameters() if id(p) not in apart])]

    def auxiliaries(self) -> list[Auxiliary]:
        """Parameters that go down losses of their own after each step; none by default."""
        return []

    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Further terms of the loss by name, scalars with their weights in; none by default.

        They are added to the loss of the scores, and each is traced under its name.
        """
        return {}

    def start_epoch(self, epoch: int) -> None:
        """Called before the steps of each epoch, counted from 1; nothing by default.

        After a resume in the middle of an epoch it is called before the weights are read: what it
        makes of weights belongs into buffers, which come back with them.
        """

    def constrain(self) -> None:
        """Called without gradients after each step, to bring weights back; nothing by default."""

    def shares(self) -> list[Shares]:
        """What its parts weigh, for `mmkgc inspect`; nothing by default."""
        return []

    # Scores

    def score_vectors(self, queries: Rows, vectors: Rows, scale: Rows | None = None) -> Tensor:
        """Scores of candidates that are given as rows instead of ids, ``[B, N]``.

        Args:
            queries: ``[B, N or 1, Dq]``; with branches a list, and so on below.
            vectors: ``[B, N, Dc]``.
            scale: ``[B, N or 1, Dc]``, or None.
        """
        factors = None if scale is None else paths.branches(scale)
        both = zip(paths.branches(queries), paths.branches(vectors), strict=True)
        parts = []
        for i, (q, v) in enumerate(both):
            pairs = paths.terms(self, i, q.shape[-1], v.shape[-1])
            factor = None if factors is None else factors[i]
            parts.append(score_rows(q, v, paths.metrics(self)[i], pairs, factor))
        return self.margin + paths.join(self, parts)

    def score_sampled(
        self,
        heads: Tensor,
        relations: Tensor,
        tails: Tensor,
        ids: Tensor,
        side: Tensor,
        order: Tensor | None = None,
    ) -> Tensor:
        """Scores ``[B, N]`` of sampled candidates of each positive, with gradients.

        A scorer for which a fused op exists may override this; it must then score alike.

        Args:
            heads: ``[B]``, known where a candidate stands for a tail.
            relations: ``[B]``.
            tails: ``[B]``, known where a candidate stands for a head.
            ids: ``[B, N]`` candidates.
            side: ``[B, N]`` int8 values of `Side`: what each candidate stands for.
            order: ``[B * N]`` positions of `ids` sorted by id, if the sampler has made it.
        """
        return paths.sampled_scores(self, heads, relations, tails, ids, side, order)

    def loss_sampled(
        self,
        heads: Tensor,
        relations: Tensor,
        tails: Tensor,
        ids: Tensor,
        side: Tensor,
        usable: Tensor | None,
        loss: RowLoss,
        order: Tensor | None = None,
    ) -> Tensor:
        """The loss of what `score_sampled` gives: the first of N candidates is the positive.

        In one op, unless a scorer has its own way to score; one that overrides this must give the
        same.

        Args:
            heads: ``[B]``.
            relations: ``[B]``.
            tails: ``[B]``.
            ids: ``[B, N]`` candidates.
            side: ``[B, N]`` int8 values of `Side`.
            usable: ``[B, N]`` bool: negatives that are not have no part. None: all are.
            loss: of one positive and N - 1 negatives a row.
            order: ``[B * N]`` positions of `ids` sorted by id, if the sampler has made it.
        """
        if type(self).score_sampled is not Scorer.score_sampled or not self.is_plain():
            scores = self.score_sampled(heads, relations, tails, ids, side, order)
            return loss_of_scores(loss, scores, usable)
        return paths.sampled_loss_of(self, heads, relations, tails, ids, side, usable, loss, order)

    def score_all(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """Scores ``[B, E]`` of all entities as answers to queries ``[B]``, with gradients."""
        return paths.all_scores(self, entities, relations, side)

    def score_answers(
        self, entities: Tensor, relations: Tensor, answers: Tensor, side: Side
    ) -> Tensor:
        """Scores ``[B]`` of one answer [B] to each query, on `side`."""
        return paths.answer_scores(self, entities, relations, answers, side)

    def score(self, triples: Tensor) -> Tensor:
        """Scores ``[B]`` of triples ``[B, 3]``, along the tail query."""
        if self.scores_triples_only():
            raise fault(self, "score", "definitions of query and candidates, or of score", "none")
        heads, relations, tails = triples.unbind(1)
        return self.score_answers(heads, relations, tails, Side.tail)


class Reciprocal(Scorer):
    """A scorer with 2R relations: the head query of r is the tail query of r + R.

    A subclass implements `tail_query` in place of `query`.
    """

    two_way: ClassVar[bool] = False

    @property
    def relation_rows(self) -> int:
        """2R: relations with their inverses behind them."""
        return 2 * self.n_relations

    def tail_query(self, entities: Tensor, relations: Tensor) -> Rows:
        """Query rows ``[B, Dq]`` for tails, of `relations` [B] within 0..2R-1."""
        raise fault(self, "tail_query", "a definition", "none")

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        """The tail query of the relation, or of its inverse."""
        inverse = self.n_relations if side is Side.head else 0
        return self.tail_query(entities, relations + inverse)
