"""The sections of a configuration: settings of a run, and records of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmkgc_cli.plugins import BUILT_IN
from mmkgc_cli.training.settings import (
    CheckpointsSettings,
    LossSettings,
    NegativesSettings,
    OptimizerSettings,
    ScheduleSettings,
    Section,
    TrainingSettings,
    ValidationSettings,
)

if TYPE_CHECKING:
    from mmkgc_cli.sampling.contract import SamplerConfig
    from mmkgc_cli.scoring.contract import ScorerConfig


class GraphConfig(Section):
    """The graph of a run; `fingerprint` and `order_id` identify it."""

    path: str = ""
    name: str = ""
    fingerprint: str = ""
    order_id: str = ""


class PluginConfig(Section):
    """The record of a plugin's file; a run without it used a built-in plugin."""

    origin: str = BUILT_IN
    file: str = ""
    sha256: str = ""


class FeaturesConfig(BaseModel):
    """``[features]``: feature stores as ``MODALITY = "STORE"``, and the fill of missing vectors."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, str]

    fill: Literal["none", "zero", "mean", "random", "one"] = Field(
        "none",
        description="Value that replaces missing vectors. `random` depends on the seed, the "
        "modality and the entity id. Under `none` missing vectors are an error, unless the scorer "
        "uses the mask.",
    )
    allow_other_train: bool = Field(
        False, description="Accept vectors that were fitted on another train split."
    )

    @property
    def paths(self) -> dict[str, str]:
        """Feature stores by modality."""
        return dict(self.__pydantic_extra__ or {})


class StoreConfig(Section):
    """The record of a feature store in a run; its own metadata is in `features.metadata`.

    `observed`, `generated` and `missing` count entities of the graph.
    """

    sha256: str
    width: int
    entities_id: str
    encoder: str = ""
    revision: str = ""
    preprocess: str = ""
    pooling: str = ""
    source: str = ""
    train_id: str = ""
    observed: int
    generated: int
    missing: int
    fill: str = "none"
    use: Literal["frozen", "trainable"] = "frozen"
    mask: dict[str, Any] = Field(default_factory=dict)
    completion: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of a training and records of its inputs; see `config.resolve`.

    `negatives`, `sampler` and `sampler_plugin` are None when all entities are candidates.
    """

    scorer: str
    graph: GraphConfig
    plugin: PluginConfig  # the scorer's
    sampler_plugin: PluginConfig | None
    model: ScorerConfig
    training: TrainingSettings
    negatives: NegativesSettings | None
    sampler: SamplerConfig | None
    loss: LossSettings
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    validation: ValidationSettings
    checkpoints: CheckpointsSettings
    features: FeaturesConfig
    stores: dict[str, StoreConfig]  # by modality
