"""Step programs with small settings, and sections of settings by name."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmkgc_cli.sampling.contract import Sampler
from mmkgc_cli.sampling.samplers.filtered import FilteredSampler
from mmkgc_cli.scoring import Scorer
from mmkgc_cli.training.link_prediction import LinkPrediction
from mmkgc_cli.training.one_vs_all import AllCandidates
from mmkgc_cli.training.settings import (
    NegativesSettings,
    OneVsAllLoss,
    TrainingSettings,
    variants,
)

SCHEDULE = ("schedule", "warmup_epochs", "decay")


def loss_of(name: str = "self-adversarial", **fields: Any) -> Any:
    section: Any = variants("loss")[name]
    return section(name=name, **fields)


def optimizer_of(optimizer: str = "adam", **fields: Any) -> Any:
    section: Any = variants("optimizer")[optimizer]
    return section(name=optimizer, **fields)


def schedule_of(schedule: str = "constant", **fields: Any) -> Any:
    section: Any = variants("schedule")[schedule]
    return section(name=schedule, **fields)


def optimization_of(**fields: Any) -> dict[str, Any]:
    """The optimizer and the schedule, from settings of both."""
    schedule = {key: value for key, value in fields.items() if key in SCHEDULE}
    optimizer = {key: value for key, value in fields.items() if key not in SCHEDULE}
    return {"optimizer": optimizer_of(**optimizer), "schedule": schedule_of(**schedule)}


def link_prediction(
    scorer: Scorer,
    triples: Tensor,
    *,
    sampler: type[Sampler] = FilteredSampler,
    batch_size: int = 64,
    negatives: int = 4,
    epochs: int = 30,
    optimization: dict[str, Any] | None = None,
    **training: Any,
) -> LinkPrediction:
    return LinkPrediction(
        scorer,
        triples,
        training=TrainingSettings(epochs=epochs, batch_size=batch_size, **training),
        negatives=NegativesSettings(count=negatives),
        loss=loss_of(),
        sampler=sampler,
        **optimization_of(**(optimization or {})),
    )


def one_vs_all(
    scorer: Scorer, triples: Tensor, *, loss: str = "bce", batch_size: int = 32, **smoothing: Any
) -> AllCandidates:
    return AllCandidates(
        scorer,
        triples,
        training=TrainingSettings(epochs=30, batch_size=batch_size),
        loss=OneVsAllLoss(name=loss, **smoothing),  # type: ignore[arg-type]
        **optimization_of(lr=0.02),
    )
