"""The link-prediction step: positives against what a sampler draws."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from mmkgc_cli.ops import SideChoice
from mmkgc_cli.sampling.contract import Sampler, SamplerConfig, SamplingTask
from mmkgc_cli.sampling.samplers.filtered import FilteredNegatives
from mmkgc_cli.scoring.contract import Scorer
from mmkgc_cli.state.rng import stream_seed
from mmkgc_cli.training.losses import make_loss
from mmkgc_cli.training.negative_scores import batch_of, drawn_loss
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
    """A step over a batch of train triples, the positives, and their negatives."""

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
        sampler: type[Sampler] = FilteredNegatives,
        sampler_config: SamplerConfig | None = None,
    ) -> None:
        """Takes train `triples` [n, 3] on the scorer's device."""
        task = sampling_task(triples, scorer, negatives, stream_seed(training.seed, "negatives"))
        self._loss = make_loss(loss)
        config = sampler.Config() if sampler_config is None else sampler_config
        self.sampler = sampler(config, task, scorer).to(triples.device)
        self._whole_tables = optimizer.name != "lazy-adam"
        super().__init__(
            scorer,
            triples,
            training=training,
            optimizer=optimizer,
            schedule=schedule,
            extra_groups=self.sampler.parameter_groups(),
        )

    def train_on(self, batch: Tensor) -> dict[str, Tensor]:
        """Draws negatives of the positives `batch` [B, 3], and steps."""
        with self.watch("negatives"):
            drawn = self.sampler.draw(batch, self.scorer)
            self.sampler.counter += 1

        return self.descend(
            lambda: drawn_loss(self.scorer, batch, drawn, self._loss, self._whole_tables),
            lambda: batch_of(batch, drawn),
        )

    def why_not_captured(self) -> str | None:
        """Why a CUDA graph cannot replay the step; None when it can."""
        if self.scorer.capturable and not self.sampler.capturable:
            return f"the sampler {type(self.sampler).__name__} counts its steps on the host"
        return super().why_not_captured()

    def weights(self) -> dict[str, Tensor]:
        """Those of the sampler too."""
        return {**self.sampler.state_dict(prefix="sampler."), **super().weights()}

    def state_dict(self) -> dict[str, Any]:
        """With the sampler and where its random stream is."""
        return {
            **super().state_dict(),
            "negatives": self.sampler.step,
            "sampler": self.sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        super().load_state_dict(state)
        self.sampler.step = state["negatives"]
        # Checkpoints from before samplers had a state have none.
        self.sampler.load_state_dict(state.get("sampler", {}))
