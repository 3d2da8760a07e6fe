"""The step in which every entity is a candidate: 1-N and 1-vs-all training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mmkgc_cli.ops import KnownAnswers
from mmkgc_cli.scoring.contract import Batch, Reciprocal, Scorer, Side
from mmkgc_cli.training.optimization import OptimizationSettings
from mmkgc_cli.training.program import ScorerProgram, StepSettings

AllCandidatesLoss = Literal["bce", "softmax"]
SmoothingAdds = Literal["one", "epsilon"]
LOSSES: tuple[str, ...] = get_args(AllCandidatesLoss)


@dataclass(frozen=True, kw_only=True)
class AllCandidatesSettings(StepSettings):
    """What one step needs to know; see `TrainingConfig` for the meaning of the fields."""

    loss: AllCandidatesLoss
    smoothing: float = 0.0
    smoothing_adds: SmoothingAdds = "one"


class AllCandidates(ScorerProgram):
    """A step over a batch of queries, scored against all entities; true answers are those of train.

    Under ``bce`` an epoch goes once over the distinct queries of train, tails of (h, r) and heads
    of (r, t), with all their answers as labels (1-N: Dettmers et al. 2018; Balazevic et al. 2019).
    Under ``softmax`` it goes over the train triples on both sides, each with its one answer
    (1-vs-all: Lacroix et al. 2018). Head queries of a `Reciprocal` scorer are tail queries of the
    inverse relation, in one batch with the others, as in these papers.
    """

    def __init__(
        self,
        scorer: Scorer,
        triples: Tensor,
        settings: AllCandidatesSettings,
        optimization: OptimizationSettings,
        epochs: int,
    ) -> None:
        """Takes train `triples` [n, 3] on the scorer's device; `epochs` is for the schedule."""
        self.settings = settings
        self._entities, self._relations = scorer.n_entities, scorer.n_relations
        self._reciprocal = isinstance(scorer, Reciprocal)
        heads, relations, tails = triples.unbind(1)
        # A query is a number: relation, or relation + R where heads are sought, and known entity.
        queries = torch.cat([relations, relations + self._relations]) * self._entities
        queries += torch.cat([heads, tails])
        answers = torch.cat([tails, heads])
        self._known = KnownAnswers.from_pairs(queries, answers, self._entities)
        self._counts = self._known.ptr.diff()
        self._most = int(self._counts.max()) if len(self._counts) else 0
        self._tails_of_batch: list[int] = []
        self._tails = 0
        rows = torch.stack([queries, answers], 1) if settings.loss == "softmax" else self._rows(1)
        super().__init__(scorer, rows, settings, optimization, epochs)

    def _rows(self, epoch: int) -> Tensor:
        """The distinct queries, each with one of its answers, which take turns from epoch to epoch.

        Terms that a scorer adds to the loss are about true triples: these.
        """
        known = self._known
        answers = known.answers[known.ptr[:-1] + epoch % self._counts]
        return torch.stack([known.keys, answers], 1)

    def _draw_order(self) -> None:
        super()._draw_order()
        if self.settings.loss == "bce":
            self.rows = self._rows(self.epoch)
        if not self._reciprocal:
            # Tail queries first in each batch, and how many: sides are scored one after the other.
            batch = torch.arange(len(self.rows), device=self.rows.device) // self.batch_size
            heads = self._is_head(self.rows[self._order, 0])
            self._order = self._order[(2 * batch + heads).argsort(stable=True)]
            tails = torch.bincount(batch[~heads], minlength=self.steps_per_epoch)
            self._tails_of_batch = tails.tolist()

    def _is_head(self, queries: Tensor) -> Tensor:
        """Which of the queries seek heads."""
        return queries >= self._relations * self._entities

    def begin_step(self, index: int) -> Tensor:
        """Counts the step and sets its rate; query and an answer [B, 2] of batch `index`."""
        if not self._reciprocal:
            self._tails = self._tails_of_batch[index]
        return super().begin_step(index)

    def train_on(self, batch: Tensor) -> dict[str, Tensor]:
        """Scores all entities for the queries of `batch` [B, 2], and steps."""
        queries, answers = batch.T.contiguous().unbind(0)

        def loss_of() -> Tensor:
            scores = self._scores(queries).float()
            softmax = self.settings.loss == "softmax"
            return self._softmax(scores, answers) if softmax else self._bce(scores, queries)

        return self.descend(loss_of, lambda: Batch(self._triples(queries, answers)))

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
        """True triples [B, 3]: the queries with their answers put in."""
        relations, known = queries // self._entities % self._relations, queries % self._entities
        heads = self._is_head(queries)
        ends = torch.where(heads, answers, known), torch.where(heads, known, answers)
        return torch.stack([ends[0], relations, ends[1]], 1)

    def labels(self, queries: Tensor) -> Tensor:
        """1 where an entity answers a query in train, else 0: ``[B, E]``."""
        known = self._known
        at = torch.searchsorted(known.keys, queries)
        # As many places as the query with most answers needs: no size depends on the batch, so
        # nothing waits for the device. Places past a query's answers go to a column of their own.
        places = known.ptr[at][:, None] + torch.arange(self._most, device=queries.device)
        inside = places < known.ptr[at + 1][:, None]
        ids = known.answers[places.clamp(max=len(known.answers) - 1)]
        labels = torch.zeros(len(queries), self._entities + 1, device=queries.device)
        labels.scatter_(1, torch.where(inside, ids, self._entities), 1.0)
        return labels[:, : self._entities]

    @property
    def _spread(self) -> float:
        """What smoothing shares out among all entities."""
        eps = self.settings.smoothing
        return 1.0 if eps and self.settings.smoothing_adds == "one" else eps

    def _bce(self, scores: Tensor, queries: Tensor) -> Tensor:
        """Cross-entropy with y' = (1 - eps) y + spread / E, a mean over queries and entities."""
        targets = (1 - self.settings.smoothing) * self.labels(queries)
        targets += self._spread / self._entities
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, targets)

    def _softmax(self, scores: Tensor, answers: Tensor) -> Tensor:
        """Mean over queries of the cross-entropy with those y', y being 1 at the answer alone."""
        logs = scores.log_softmax(1)
        own = logs.gather(1, answers[:, None])[:, 0]
        return -((1 - self.settings.smoothing) * own + self._spread * logs.mean(1)).mean()

    def why_not_captured(self) -> str | None:
        """Why a CUDA graph cannot replay the step; None when it can."""
        if not self._reciprocal:
            return "how many of a batch's queries seek heads changes from step to step"
        return super().why_not_captured()
