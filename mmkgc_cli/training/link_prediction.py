"""The link-prediction step: positives against what a sampler draws."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from mmkgc_cli.ops import SideChoice, path_of
from mmkgc_cli.scoring.contract import Scorer
from mmkgc_cli.scoring.paths import extra_losses
from mmkgc_cli.state.rng import generator, stream_seed
from mmkgc_cli.training.drawn_scores import batch_of, drawn_loss
from mmkgc_cli.training.losses import LossSettings, make_loss
from mmkgc_cli.training.optimization import Optimization, OptimizationSettings
from mmkgc_cli.training.precision import Precision, forward, products
from mmkgc_cli.training.samplers import Sampler, SamplerConfig, SamplingTask
from mmkgc_cli.training.sampling.filtered import FilteredNegatives


@dataclass(frozen=True)
class LinkPredictionSettings:
    """What one step needs to know; see `TrainingConfig` for the meaning of the fields."""

    batch_size: int
    negatives: int
    negative_sampling: Literal["bernoulli", "uniform"]
    negative_side: SideChoice
    seed: int
    loss: LossSettings = field(default_factory=LossSettings)
    precision: Precision = "float32"
    sampler: type[Sampler] = FilteredNegatives
    sampler_config: SamplerConfig = field(default_factory=SamplerConfig)


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
        task = SamplingTask(
            triples,
            scorer.n_entities,
            scorer.n_relations,
            settings.negatives,
            settings.negative_sampling,
            settings.negative_side,
            stream_seed(settings.seed, "negatives"),
        )
        self._loss = make_loss(settings.loss)
        self.sampler = settings.sampler(settings.sampler_config, task, scorer).to(device)
        self.optimization = Optimization(
            scorer, optimization, self.steps_per_epoch, epochs, self.sampler.parameter_groups()
        )
        self._whole_tables = optimization.optimizer != "lazy-adam"
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

    @property
    def full_batch(self) -> int:
        """Triples in every batch but a smaller last one."""
        return min(self.settings.batch_size, len(self.triples))

    def step(self, index: int) -> dict[str, Tensor]:
        """Trains on batch `index` of the pass.

        Returns the loss, the scorer's own terms in it, and the norm of the gradient, unread.
        """
        return self.train_on(self.begin_step(index))

    def begin_step(self, index: int) -> Tensor:
        """Counts the step and sets its rate; the positives [B, 3] of batch `index`."""
        self.optimization.begin_step()
        size = self.settings.batch_size
        return self.triples[self._order[index * size : (index + 1) * size]]

    def train_on(self, positives: Tensor) -> dict[str, Tensor]:
        """What the device does in a step, see `training.captured`; as `step` returns."""
        with self.watch("negatives"):
            drawn = self.sampler.draw(positives, self.scorer)
            self.sampler.counter += 1
        precision, device = self.settings.precision, positives.device
        with self.optimization.collecting(), products(precision, device):
            with self.watch("loss"), forward(precision, device):
                loss = drawn_loss(self.scorer, positives, drawn, self._loss, self._whole_tables)
                terms = extra_losses(self.scorer, batch_of(positives, drawn))
                loss = sum(terms.values(), loss)
            with self.watch("gradients"):
                loss.backward()  # type: ignore[no-untyped-call]
        with self.watch("update"):
            norm = self.optimization.step()
            with torch.no_grad():
                self.scorer.constrain()
        traced = {name: term.detach() for name, term in terms.items()}
        return {"loss": loss.detach(), **traced, "gradient_norm": norm}

    def why_not_captured(self) -> str | None:
        """Why a CUDA graph cannot replay the step; None when it can."""
        if not self.scorer.capturable:
            return f"{type(self.scorer).__name__} does not do the same in every step"
        if not self.sampler.capturable:
            return f"the sampler {self.settings.sampler.__name__} counts its steps on the host"
        for op in ("filtered_negatives", "table_adam"):
            path, why = path_of(op, self.triples.device.type)
            if path != "native":  # the twins wait for the device
                return f"{op} runs in torch: {why}"
        return self.optimization.why_not_captured()

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, sampler, and where each random stream is."""
        return {
            "scorer": self.scorer.state_dict(),
            "optimization": self.optimization.state_dict(),
            # An order is drawn again, which takes less room than keeping it.
            "permutation": {"order": self._before_order, "next": self._order_rng.get_state()},
            "negatives": self.sampler.step,
            "sampler": self.sampler.state_dict(),
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
        self.sampler.step = state["negatives"]
        # Checkpoints from before samplers had a state have none.
        self.sampler.load_state_dict(state.get("sampler", {}))
