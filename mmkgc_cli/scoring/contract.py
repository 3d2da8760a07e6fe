"""The scorer contract: the base class of scorer plugins.

A score is a metric between a *query* row, computed from the known entity and the relation, and a
*candidate* row, computed from an entity:

    score(h, r, t) = metric(query(h, r, tail), candidate(t))
                   = metric(query(t, r, head), candidate(h))      (two-way scorers)

A plugin computes rows; the core trains, ranks and predicts. A class variable or one more method
declares extensions: scales, candidates by side or relation, branches, scores of whole triples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmkgc_cli.nn.embeddings import NO_FEATURES, Features, FeatureTable
from mmkgc_cli.ops import Metric, Pair, RowLoss, loss_of_scores, score_rows, whole_row
from mmkgc_cli.scoring.faults import ScorerFault, fault
from mmkgc_cli.scoring.scores import (
    all_scores,
    answer_scores,
    branches,
    has_branches,
    join,
    metrics,
    sampled_loss_of,
    sampled_scores,
    terms,
)
from mmkgc_cli.scoring.types import (
    Auxiliary,
    Batch,
    Candidates,
    MixtureWeights,
    ParameterGroup,
    Rows,
    ScorerConfig,
    check_features,
)
from mmkgc_cli.sides import Side

__all__ = [
    "NO_FEATURES",
    "Auxiliary",
    "Batch",
    "Candidates",
    "Features",
    "MixtureWeights",
    "ParameterGroup",
    "Reciprocal",
    "Rows",
    "Scorer",
    "ScorerConfig",
    "ScorerFault",
    "Side",
]


class Scorer(nn.Module):
    """Base class of all scorers.

    A subclass sets `metric`, `citation` and `Config`, takes ``(config, n_entities, n_relations,
    generator)`` and implements `query` and `candidates`; or `score` alone, which is slower.
    """

    Config: ClassVar[type[ScorerConfig]] = ScorerConfig
    # A tuple of metrics declares branches: `query` and `candidates` then return a list, with the
    # rows of each branch.
    metric: Metric | tuple[Metric, ...]
    citation: ClassVar[str]
    # Whether both equations above hold; with reciprocal relations the second does not.
    two_way: ClassVar[bool] = True
    # Whether heads and tails are transformed differently: `candidates` then takes the side.
    roles: ClassVar[bool] = False
    # Whether `candidates` depends on the relation, and takes it as an argument.
    per_relation: ClassVar[bool] = False
    # Whether all training steps run the same operations on the device, so that a CUDA graph can
    # replay them; see `training.cuda_graph`.
    capturable: ClassVar[bool] = True
    # The modalities that the constructor can take (see `modalities_of`), and whether the scorer
    # distinguishes observed vectors from others.
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
        """Creates a scorer with all initial values drawn from `generator`.

        `features` has the modalities of `modalities_of(config)`; the argument is passed only when
        there are any. Features that are kept unchanged should be buffers with
        ``persistent=False``: weights contain them, checkpoints do not.

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
        """A constant that is added to every score, as in margin - distance."""
        return 0.0

    @classmethod
    def scores_triples_only(cls) -> bool:
        """Whether the scorer has no queries: every triple is scored by itself, which is slower."""
        return cls.query is Scorer.query

    @classmethod
    def modalities_of(cls, config: ScorerConfig) -> tuple[str, ...]:
        """The modalities that a scorer with these hyper-parameters needs; by default all."""
        return cls.modalities

    @property
    def is_two_way(self) -> bool:
        """`two_way`; a subclass may make it depend on hyper-parameters."""
        return self.two_way

    def trains_features(self, modality: str) -> bool:
        """Whether `modality` initializes a trained table; by default if a `FeatureTable` does."""
        return any(isinstance(m, FeatureTable) and not m.frozen for m in self.modules())

    @classmethod
    def adds_losses(cls) -> bool:
        """Whether the scorer adds loss terms of its own."""
        return cls.extra_losses is not Scorer.extra_losses

    def is_plain(self) -> bool:
        """Whether one candidate table serves all queries, without scale, under one metric."""
        declared = self.roles or self.per_relation or self.scores_triples_only()
        scaled = type(self).scale is not Scorer.scale
        return not (declared or scaled or has_branches(self))

    # Rows

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        """Query rows ``[B, Dq]`` of `entities` [B] and `relations` [B] for answers on `side`."""
        raise fault(self, "query", "a definition", "none", fix="define query, or score alone")

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Rows:
        """Candidate rows ``[n, Dc]`` of `entities` [n], or of all entities in order when None.

        Args:
            entities: ids, which may repeat.
            relation: passed when `per_relation` is set: one for all rows, or ``[n]``, one per row
                (``weight[relation]`` works for both where the result is broadcast against rows).
            side: passed when `roles` is set: the side that the entities are on.
        """
        raise fault(
            self, "candidates", "a definition, as query has one", "none", fix="define candidates"
        )

    def scale(self, entities: Tensor, relations: Tensor, side: Side) -> Rows | None:
        """Factors ``[B, Dc]`` of the candidate rows for each query; by default none.

        The arguments are those of `query`. Scales may be zero: never divide by them.
        """
        return None

    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        """The blocks that the metric compares, with weights; by default the whole rows."""
        return whole_row(query_width)

    def combine(self, scores: list[Tensor]) -> Tensor:
        """Joins the scores of the branches, element by element; by default their sum.

        All scores have the same shape, of any rank. An element of the result must depend only on
        that element of the scores: they are joined tile by tile.
        """
        total = scores[0]
        for other in scores[1:]:
            total = total + other
        return total

    # Hooks

    def fit(self, triples: Tensor) -> None:
        """Takes the train triples ``[n, 3]`` (h, r, t) once before training; a no-op by default."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """Groups of parameters with their factors of the learning rate; by default one group.

        Parameters of `auxiliaries` belong to no group.
        """
        excluded = {id(p) for auxiliary in self.auxiliaries() for p in auxiliary.parameters}
        return [ParameterGroup([p for p in self.parameters() if id(p) not in excluded])]

    def auxiliaries(self) -> list[Auxiliary]:
        """Parameters with losses of their own, stepped after the scorer; none by default."""
        return []

    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Additional loss terms by name: scalars, weights included; none by default.

        They are added to the loss of the scores, and each is traced under its name.
        """
        return {}

    def start_epoch(self, epoch: int) -> None:
        """Called before the steps of each epoch, counted from 1; a no-op by default.

        A resume within an epoch calls it before the weights are read: values computed from
        weights belong in buffers, which are restored with them.
        """

    def constrain(self) -> None:
        """Constrains weights after each step, without gradients; a no-op by default."""

    def mixture_weights(self) -> list[MixtureWeights]:
        """Weights of the scorer's parts, for `mmkgc inspect`; none by default."""
        return []

    # Scores

    def score_vectors(self, queries: Rows, vectors: Rows, scale: Rows | None = None) -> Tensor:
        """Scores ``[B, N]`` of candidates given as rows instead of ids.

        Args:
            queries: ``[B, N or 1, Dq]``; with branches a list, and likewise below.
            vectors: ``[B, N, Dc]``.
            scale: ``[B, N or 1, Dc]``, or None.
        """
        scales = None if scale is None else branches(scale)
        parts = []
        for i, (q, v) in enumerate(zip(branches(queries), branches(vectors), strict=True)):
            pairs = terms(self, i, q.shape[-1], v.shape[-1])
            parts.append(
                score_rows(q, v, metrics(self)[i], pairs, None if scales is None else scales[i])
            )
        return self.margin + join(self, parts)

    def score_sampled(self, positives: Tensor, candidates: Candidates) -> Tensor:
        """Scores ``[B, N]`` of candidates that replace an entity of their positive.

        Differentiable. A scorer with a fused op may override this method; the scores must be the
        same.

        Args:
            positives: ``[B, 3]`` triples.
            candidates: ids, and which side of the positive each replaces; the mask is ignored.
        """
        return sampled_scores(self, positives, candidates)

    def loss_sampled(self, positives: Tensor, candidates: Candidates, loss: RowLoss) -> Tensor:
        """The loss of the scores of `score_sampled`, a scalar.

        One op computes scores and loss, unless a scorer overrides `score_sampled`. A scorer may
        override this method too; the loss and its gradients must be the same.

        Args:
            positives: ``[B, 3]`` triples.
            candidates: the positive in the first column, then its negatives.
            loss: of a positive and N - 1 negatives per row.
        """
        if type(self).score_sampled is not Scorer.score_sampled or not self.is_plain():
            scores = self.score_sampled(positives, candidates)
            return loss_of_scores(loss, scores, candidates.mask)
        return sampled_loss_of(self, positives, candidates, loss)

    def score_all(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """Scores ``[B, E]`` of all entities as answers to queries ``[B]``, with gradients."""
        return all_scores(self, entities, relations, side)

    def score_answers(
        self, entities: Tensor, relations: Tensor, answers: Tensor, side: Side
    ) -> Tensor:
        """Scores ``[B]`` of one answer [B], on `side`, to each query."""
        return answer_scores(self, entities, relations, answers, side)

    def score(self, triples: Tensor) -> Tensor:
        """Scores ``[B]`` of triples ``[B, 3]``, by the tail query."""
        if self.scores_triples_only():
            raise fault(
                self,
                "score",
                "definitions of query and candidates, or of score",
                "none",
                fix="define query and candidates, or score alone",
            )
        heads, relations, tails = triples.unbind(1)
        return self.score_answers(heads, relations, tails, Side.tail)


class Reciprocal(Scorer):
    """A scorer with 2R relations: the head query of r is the tail query of r + R.

    A subclass implements `tail_query` instead of `query`.
    """

    two_way: ClassVar[bool] = False

    @property
    def relation_rows(self) -> int:
        """2R: the relations, followed by their inverses."""
        return 2 * self.n_relations

    def tail_query(self, entities: Tensor, relations: Tensor) -> Rows:
        """Query rows ``[B, Dq]`` for tails, with `relations` [B] within 0..2R-1."""
        raise fault(self, "tail_query", "a definition", "none", fix="define tail_query")

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows:
        """The tail query of the relation; for heads, of its inverse."""
        inverse = self.n_relations if side is Side.head else 0
        return self.tail_query(entities, relations + inverse)
