"""The training step with all entities as candidates: 1-N and 1-vs-all training."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkgc_cli.ops import KnownAnswers
from mmkgc_cli.scoring.contract import Batch, Reciprocal, Scorer, Side
from mmkgc_cli.training.program import ScorerProgram
from mmkgc_cli.training.settings import (
    OneVsAllLoss,
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)


class AllCandidates(ScorerProgram):
    """A training step over a batch of queries, scored against all entities.

    Under ``bce``, an epoch contains each distinct query of train once, tails of (h, r) and heads
    of (r, t), with all its answers as labels (1-N: Dettmers et al. 2018; Balazevic et al. 2019).
    Under ``softmax``, it contains both queries of each train triple, with one answer each
    (1-vs-all: Lacroix et al. 2018). Head queries of a `Reciprocal` scorer are tail queries of the
    inverse relation, in the same batches, as in these papers.
    """

    def __init__(
        self,
        scorer: Scorer,
        triples: Tensor,
        *,
        training: TrainingSettings,
        loss: OneVsAllLoss,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
    ) -> None:
        """Takes train `triples` [n, 3] on the scorer's device."""
        self.loss = loss
        self._entities, self._relations = scorer.n_entities, scorer.n_relations
        self._reciprocal = isinstance(scorer, Reciprocal)
        heads, relations, tails = triples.unbind(1)
        # A query is one number: (relation, or relation + R for heads) x E + known entity.
        queries = torch.cat([relations, relations + self._relations]) * self._entities
        queries += torch.cat([heads, tails])
        answers = torch.cat([tails, heads])
        self._known = KnownAnswers.from_pairs(queries, answers, self._entities)
        self._counts = self._known.ptr.diff()
        self._max_answers = int(self._counts.max()) if len(self._counts) else 0
        self._tails_of_batch: list[int] = []
        self._tails = 0
        rows = torch.stack([queries, answers], 1) if loss.name == "softmax" else self._rows(1)
        super().__init__(scorer, rows, training=training, optimizer=optimizer, schedule=schedule)

    def _rows(self, epoch: int) -> Tensor:
        """The distinct queries, each with one of its answers, another one in each epoch.

        The scorer's own loss terms use these answers as true triples.
        """
        known = self._known
        answers = known.answers[known.ptr[:-1] + epoch % self._counts]
        return torch.stack([known.keys, answers], 1)

    def _permute(self) -> None:
        super()._permute()
        if self.loss.name == "bce":
            self.rows = self._rows(self.epoch)
        if not self._reciprocal:
            # Tail queries come first in each batch: the two sides are scored separately.
            batch = torch.arange(len(self.rows), device=self.rows.device) // self.batch_size
            heads = self._is_head(self.rows[self._order, 0])
            self._order = self._order[(2 * batch + heads).argsort(stable=True)]
            tails = torch.bincount(batch[~heads], minlength=self.steps_per_epoch)
            self._tails_of_batch = tails.tolist()

    def _is_head(self, queries: Tensor) -> Tensor:
        """Which of the queries are head queries."""
        return queries >= self._relations * self._entities

    def begin_step(self, index: int) -> Tensor:
        """Counts the step and sets its rate; returns queries with an answer each, [B, 2]."""
        if not self._reciprocal:
            self._tails = self._tails_of_batch[index]
        return super().begin_step(index)

    def train_on(self, batch: Tensor) -> dict[str, Tensor]:
        """Scores all entities for the queries of `batch` [B, 2], and updates the weights."""
        queries, answers = batch.T.contiguous().unbind(0)

        def loss() -> Tensor:
            scores = self._scores(queries).float()
            softmax = self.loss.name == "softmax"
            return self._softmax(scores, answers) if softmax else self._bce(scores, queries)

        return self.descend(loss, lambda: Batch(self._triples(queries, answers)))

    def _scores(self, queries: Tensor) -> Tensor:
        """Scores [B, E] of all entities."""
        relations, known = queries // self._entities, queries % self._entities
        if self._reciprocal:
            return self.scorer.score_all(known, relations, Side.tail)
        n = self._tails
        tails = self.scorer.score_all(known[:n], relations[:n], Side.tail)
        heads = self.scorer.score_all(known[n:], relations[n:] - self._relations, Side.head)
        return torch.cat([tails, heads])

    def _triples(self, queries: Tensor, answers: Tensor) -> Tensor:
        """True triples [B, 3] from queries and answers."""
        relations, known = queries // self._entities % self._relations, queries % self._entities
        is_head = self._is_head(queries)
        heads, tails = torch.where(is_head, answers, known), torch.where(is_head, known, answers)
        return torch.stack([heads, relations, tails], 1)

    def labels(self, queries: Tensor) -> Tensor:
        """Labels ``[B, E]``: 1 where an entity answers a query in train, else 0."""
        known = self._known
        rows = torch.searchsorted(known.keys, queries)
        # Every query gets the maximum number of answers: shapes do not depend on the batch, so no
        # step waits for the device. Positions past a query's answers go to an extra column.
        columns = torch.arange(self._max_answers, device=queries.device)
        positions = known.ptr[rows][:, None] + columns
        inside = positions < known.ptr[rows + 1][:, None]
        ids = known.answers[positions.clamp(max=len(known.answers) - 1)]
        labels = torch.zeros(len(queries), self._entities + 1, device=queries.device)
        labels.scatter_(1, torch.where(inside, ids, self._entities), 1.0)
        return labels[:, : self._entities]

    @property
    def _spread(self) -> float:
        """The probability mass that label smoothing distributes over all entities."""
        eps = self.loss.label_smoothing
        return 1.0 if eps and self.loss.label_smoothing_adds == "one" else eps

    def _bce(self, scores: Tensor, queries: Tensor) -> Tensor:
        """Mean cross-entropy over queries and entities with y' = (1 - eps) y + spread / E."""
        targets = (1 - self.loss.label_smoothing) * self.labels(queries)
        targets += self._spread / self._entities
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, targets)

    def _softmax(self, scores: Tensor, answers: Tensor) -> Tensor:
        """Mean cross-entropy over queries with the same y', where y is 1 at the answer only."""
        logs = scores.log_softmax(1)
        at_answer = logs.gather(1, answers[:, None])[:, 0]
        return -((1 - self.loss.label_smoothing) * at_answer + self._spread * logs.mean(1)).mean()

    def why_not_captured(self) -> str | None:
        """The reason why a CUDA graph cannot replay the step; None when it can."""
        if not self._reciprocal:
            return "the number of head queries varies between batches"
        return super().why_not_captured()
