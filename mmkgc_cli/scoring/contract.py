"""What a scorer plugin provides, and what the core makes of it.

A score is a metric between a *query* row, made from the known entity and the relation, and a
*candidate* row, made from an entity:

    score(h, r, t) = metric(query(h, r, tail), candidate(t))
                   = metric(query(t, r, head), candidate(h))      (two-way scorers)

Training, ranking and prediction are the core's: a plugin only says how rows are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from mmkgc_cli.ops import (
    Metric,
    Pair,
    RowLoss,
    path_of,
    sampled_loss,
    sampled_score,
    score_rows,
    whole_row,
)
from mmkgc_cli.sides import Side

__all__ = ["ParameterGroup", "Scorer", "ScorerConfig", "Side"]


class ScorerConfig(BaseModel):
    """Hyper-parameters of a scorer; subclasses add typed fields with defaults and help."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that move at `rate` times the learning rate."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0


class Scorer(nn.Module):
    """Base of all scorers.

    A subclass sets `metric`, `citation` and `Config`, takes ``(config, n_entities, n_relations,
    generator)`` and implements `query` and `candidates`.
    """

    Config: ClassVar[type[ScorerConfig]] = ScorerConfig
    metric: Metric
    citation: ClassVar[str]
    # Whether the two equations above both hold; reciprocal relations break the second.
    two_way: ClassVar[bool] = True
    # Whether `candidates` depends on the relation: one table per distinct relation.
    per_relation: ClassVar[bool] = False
    # Whether a training step is the same work on the device each time, so that a CUDA graph can
    # replay it: no randomness or counting on the host, no shapes that depend on values.
    capturable: ClassVar[bool] = True

    def __init__(
        self,
        config: ScorerConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Creates a scorer whose initial values come from `generator` alone."""
        super().__init__()
        self.config = config
        self.n_entities = n_entities
        self.n_relations = n_relations

    @property
    def margin(self) -> float:
        """Added to every score: distances enter as margin - distance."""
        return 0.0

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """Query rows ``[B, Dq]`` of known `entities` [B] under `relations` [B], seeking `side`."""
        raise NotImplementedError(f"{type(self).__name__} defines no query")

    def candidates(
        self, entities: Tensor | None, relation: int | None = None, side: Side | None = None
    ) -> Tensor:
        """Candidate rows ``[n, Dc]`` of `entities` [n], or of all in order when None.

        `relation` and `side` are given when `per_relation` is set, and None otherwise.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no candidates")

    def pairs(self, query_width: int) -> Sequence[Pair]:
        """The terms of the score; by default one that spans the rows."""
        return whole_row(query_width)

    def fit(self, triples: Tensor) -> None:
        """Sees the train triples ``[n, 3]`` (h, r, t) once before training; nothing by default."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """Which parameters move at which share of the learning rate; by default all at it."""
        return [ParameterGroup(list(self.parameters()))]

    def score_vectors(self, queries: Tensor, vectors: Tensor) -> Tensor:
        """Scores ``[B, N]`` of candidate rows `vectors` [B, N, Dc] for queries [B, N or 1, Dq]."""
        terms = self.pairs(queries.shape[-1])
        return self.margin + score_rows(queries, vectors, self.metric, terms)

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
        queries = self._both_queries(heads, relations, tails)
        terms = self.pairs(queries.shape[-1])
        queries, table = _as_the_op_takes(queries, self.candidates(None))
        scores = sampled_score(queries, table, ids, side, self.metric, terms, order=order)
        return self.margin + scores

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
        if type(self).score_sampled is not Scorer.score_sampled:
            scores = self.score_sampled(heads, relations, tails, ids, side, order)
            return loss(scores[:, 0], scores[:, 1:], None if usable is None else usable[:, 1:])
        queries = self._both_queries(heads, relations, tails)
        queries, table = _as_the_op_takes(queries, self.candidates(None))
        return sampled_loss(
            queries, table, ids, side, usable, self.metric,
            self.pairs(queries.shape[-1]), loss, self.margin, order,
        )  # fmt: skip

    def _both_queries(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """Queries ``[2, B, Dq]``, in the order of `Side`."""
        return torch.stack(
            [self.query(heads, relations, Side.tail), self.query(tails, relations, Side.head)]
        )

    def score(self, triples: Tensor) -> Tensor:
        """Scores ``[B]`` of triples ``[B, 3]``, along the tail query."""
        heads, relations, tails = triples.unbind(1)
        queries = self.query(heads, relations, Side.tail)
        return self.score_vectors(queries[:, None], self.candidates(tails)[:, None])[:, 0]


def _as_the_op_takes(queries: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Rows for `sampled_score` where autocast made some in bfloat16: it computes in float32.

    A table stays as it is where a kernel reads it so, which is half as much to read.
    """
    if torch.bfloat16 not in (queries.dtype, table.dtype):
        return queries, table
    device = table.device.type
    reads_low = device == "cuda" and path_of("sampled_score", device)[0] == "native"
    return queries.float(), table if reads_low else table.float()
