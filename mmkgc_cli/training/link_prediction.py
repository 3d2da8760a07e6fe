"""The link-prediction step: positives against filtered negatives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mmkgc_cli.ops import SideChoice, self_adversarial_loss
from mmkgc_cli.scoring.contract import Batch, Scorer
from mmkgc_cli.scoring.paths import extra_losses
from mmkgc_cli.state.rng import generator, stream_seed
from mmkgc_cli.training.negatives import FilteredNegatives
from mmkgc_cli.training.optimization import Optimization, OptimizationSettings


@dataclass(frozen=True)
class LinkPredictionSettings:
    """What one step needs to know; see `TrainingConfig` for the meaning of the fields."""

    batch_size: int
    negatives: int
    negative_sampling: Literal["bernoulli", "uniform"]
    negative_side: SideChoice
    temperature: float
    seed: int


class LinkPrediction:
    """A step program (see `training.loop`): state, and one step over a batch of positives.

    Positives are a fresh permutation of the train triples each epoch; the last, smaller batch is
    used too. Everything lives on the scorer's device and nothing is read back within an epoch.
    """

    def __init__(
        self,
        scorer: Scorer,
        triples: Tensor,
        settings: LinkPredictionSettings,
        optimization: OptimizationSettings,
        epochs: int,
    ) -> None:
        """Takes train `triples` [n, 3] on the scorer's device; `epochs` is for the schedule."""
        device = triples.device
        self.scorer = scorer
        self.triples = triples
        self.settings = settings
        self._order_rng = generator(settings.seed, "permutation", device)
        self._negatives = FilteredNegatives(
            triples,
            scorer.n_entities,
            scorer.n_relations,
            settings.negative_sampling,
            settings.negative_side,
            stream_seed(settings.seed, "negatives"),
        )
        self.optimization = Optimization(scorer, optimization, self.steps_per_epoch, epochs)
        self._order = torch.empty(0, dtype=torch.int64, device=device)
        self._before_order = self._order_rng.get_state()
        # Who wants to know where the time goes puts something else here.
        self.watch: Callable[[str], AbstractContextManager[Any]] = nullcontext

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the triples."""
        return -(-len(self.triples) // self.settings.batch_size)

    def start_epoch(self) -> None:
        """Tells the scorer and draws the order of the next pass."""
        self.scorer.start_epoch(1 + self.optimization.steps // self.steps_per_epoch)
        self._draw_order()

    def _draw_order(self) -> None:
        self._before_order = self._order_rng.get_state()
        self._order = torch.randperm(
            len(self.triples), generator=self._order_rng, device=self.triples.device
        )

    def step(self, index: int) -> dict[str, Tensor]:
        """Trains on batch `index` of the pass.

        Returns the loss, the scorer's own terms in it, and the norm of the gradient, unread.
        """
        size = self.settings.batch_size
        positives = self.triples[self._order[index * size : (index + 1) * size]]
        with self.watch("negatives"):
            drawn = self._negatives.sample(positives, self.settings.negatives, with_positive=True)
        with self.optimization.collecting():
            with self.watch("scores"):
                heads, relations, tails = positives.unbind(1)
                scores = self.scorer.score_sampled(
                    heads, relations, tails, drawn.entities, drawn.side, drawn.order
                )
            with self.watch("loss"):
                positive, negative = scores[:, 0], scores[:, 1:]
                loss = self_adversarial_loss(
                    positive, negative, drawn.usable[:, 1:], self.settings.temperature
                )
                batch = Batch(positives, drawn.entities, drawn.side, drawn.usable)
                terms = extra_losses(self.scorer, batch)
                loss = sum(terms.values(), loss)
            with self.watch("gradients"):
                loss.backward()  # type: ignore[no-untyped-call]
        with self.watch("update"):
            norm = self.optimization.step()
            with torch.no_grad():
                self.scorer.constrain()
        traced = {name: term.detach() for name, term in terms.items()}
        return {"loss": loss.detach(), **traced, "gradient_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, and where each random stream is."""
        return {
            "scorer": self.scorer.state_dict(),
            "optimization": self.optimization.state_dict(),
            # An order is drawn again, which takes less room than keeping it.
            "permutation": {"order": self._before_order, "next": self._order_rng.get_state()},
            "negatives": self._negatives.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave, and draws the order of the pass again."""
        self.optimization.load_state_dict(state["optimization"])
        # What comes of the number alone is back then; what is in buffers comes with the weights.
        self.scorer.start_epoch(1 + self.optimization.steps // self.steps_per_epoch)
        self.scorer.load_state_dict(state["scorer"])
        self._order_rng.set_state(state["permutation"]["order"])
        self._draw_order()
        self._order_rng.set_state(state["permutation"]["next"])
        self._negatives.step = state["negatives"]
