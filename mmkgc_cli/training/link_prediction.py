"""The training step with negative sampling: positives against the negatives of a sampler."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from mmkgc_cli.ops import SideChoice
from mmkgc_cli.sampling.contract import Sampler, SamplerConfig, SamplingTask
from mmkgc_cli.sampling.samplers.filtered import FilteredSampler
from mmkgc_cli.scoring.contract import Scorer
from mmkgc_cli.state.rng import stream_seed
from mmkgc_cli.training.losses import make_loss
from mmkgc_cli.training.negative_scores import make_batch, negative_loss
from mmkgc_cli.training.program import ScorerProgram
from mmkgc_cli.training.settings import (
    LossSettings,
    NegativesSettings,
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)


def sampling_task(
    triples: Tensor, scorer: Scorer, negatives: NegativesSettings, seed: int
) -> SamplingTask:
    """The task of a sampler: train `triples` [n, 3], the sizes of the graph and its settings."""
    return SamplingTask(
        triples,
        scorer.n_entities,
        scorer.n_relations,
        negatives.count,
        negatives.sampling,
        SideChoice[negatives.corrupted_side.replace("-", "_")],
        seed,
    )


class LinkPrediction(ScorerProgram):
    """A training step over a batch of train triples, the positives, and their negatives."""

    ops: ClassVar[tuple[str, ...]] = ("filtered_negatives", "table_adam")

    def __init__(
        self,
        scorer: Scorer,
        triples: Tensor,
        *,
        training: TrainingSettings,
        negatives: NegativesSettings,
        loss: LossSettings,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
        sampler: type[Sampler] = FilteredSampler,
        sampler_config: SamplerConfig | None = None,
    ) -> None:
        """Takes train `triples` [n, 3] on the scorer's device."""
        task = sampling_task(triples, scorer, negatives, stream_seed(training.seed, "negatives"))
        self._loss = make_loss(loss)
        config = sampler.Config() if sampler_config is None else sampler_config
        self.sampler = sampler(config, task, scorer).to(triples.device)
        self._dense_grad = optimizer.name != "lazy-adam"
        super().__init__(
            scorer,
            triples,
            training=training,
            optimizer=optimizer,
            schedule=schedule,
            extra_groups=self.sampler.parameter_groups(),
        )

    def train_on(self, batch: Tensor) -> dict[str, Tensor]:
        """Samples negatives of the positives `batch` [B, 3], and updates the weights."""
        with self.watch("negatives"):
            negatives = self.sampler.draw(batch, self.scorer)
            self.sampler.counter += 1

        return self.descend(
            lambda: negative_loss(
                self.scorer, batch, negatives, self._loss, dense_grad=self._dense_grad
            ),
            lambda: make_batch(batch, negatives),
        )

    def why_not_captured(self) -> str | None:
        """The reason why a CUDA graph cannot replay the step; None when it can."""
        if self.scorer.capturable and not self.sampler.capturable:
            return f"the sampler {type(self.sampler).__name__} reads its step counter on the host"
        return super().why_not_captured()

    def weights(self) -> dict[str, Tensor]:
        """The tensors of the scorer and of the sampler."""
        return {**self.sampler.state_dict(prefix="sampler."), **super().weights()}

    def state_dict(self) -> dict[str, Any]:
        """The state of the program, the sampler and its step counter."""
        return {
            **super().state_dict(),
            "negatives": self.sampler.step,
            "sampler": self.sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.sampler.step = state["negatives"]
        # Checkpoints of older versions contain no state of the sampler.
        self.sampler.load_state_dict(state.get("sampler", {}))
