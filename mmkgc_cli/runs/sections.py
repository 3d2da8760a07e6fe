"""The sections of a configuration: what decides a run, and what a run records of itself."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmkgc_cli.plugins import BUILT_IN
from mmkgc_cli.sampling.contract import SamplerConfig, SideDraw
from mmkgc_cli.sampling.registry import DEFAULT
from mmkgc_cli.scoring.contract import ScorerConfig
from mmkgc_cli.training.cuda_graph import GraphSetting
from mmkgc_cli.training.losses import LossName, ReductionName
from mmkgc_cli.training.one_vs_all import LOSSES, SmoothingAdds
from mmkgc_cli.training.optimization import OptimizerName, ScheduleName
from mmkgc_cli.training.precision import Precision


class Strict(BaseModel):
    """A section that takes what it knows, in the type it is written in, and no more."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class GraphConfig(Strict):
    """Which graph the run is about; `fingerprint` and `order_id` hold it to that one."""

    path: str = ""
    name: str = ""
    fingerprint: str = ""
    order_id: str = ""


class PluginConfig(Strict):
    """Which file a plugin was; a run without the record is of a built-in one."""

    origin: str = BUILT_IN
    file: str = ""
    sha256: str = ""


# Settings that only say something about sampled negatives.
OF_NEGATIVES = (
    "negatives", "negative_sampling", "negative_side", "negative_reduction", "sampler",
    "adversarial_temperature",
)  # fmt: skip


class FeaturesConfig(BaseModel):
    """Stores of vectors by modality, as ``image = "image.h5"``, and what stands for their gaps."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, str]

    fill: Literal["none", "zero", "mean", "random", "one"] = Field(
        "none", description="what stands for entities without a vector; none: they are an error"
    )
    allow_other_train: bool = Field(
        False, description="take vectors that were fitted on another train split"
    )

    @property
    def paths(self) -> dict[str, str]:
        """Stores by modality."""
        return dict(self.__pydantic_extra__ or {})


class StoreConfig(Strict):
    """What a run was given of one modality; see `features.metadata` for what it says of itself.

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


class TrainingConfig(Strict):
    """How to train."""

    epochs: int = Field(100, ge=1, le=10**9, description="passes over the train triples")
    batch_size: int = Field(
        1024, ge=1, le=10**7, description="positives in a step; queries where all are candidates"
    )
    candidates: Literal["sampled", "all"] = Field(
        "sampled", description="whom an answer is told from: sampled negatives, or all entities"
    )
    negatives: int = Field(32, ge=1, le=10**6, description="negatives of each positive")
    negative_sampling: SideDraw = Field(
        "bernoulli", description="how each negative picks the side it replaces"
    )
    loss: LossName = Field("self-adversarial", description="of a positive and its negatives")
    sampler: str = Field(
        DEFAULT, description="where negatives come from: filtered, shared, or one of your own"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="taken off a true answer, where all are candidates"
    )
    label_smoothing_adds: SmoothingAdds = Field(
        "one",
        description="what smoothing shares out among all entities: 1, as TuckER's code, or itself",
    )
    adversarial_temperature: float = Field(
        1.0, ge=0, le=1e6, description="0 weighs all negatives alike, more looks at the hard ones"
    )
    loss_margin: float = Field(1.0, ge=0, le=1e6, description="of margin-inside and margin-outside")
    negative_reduction: ReductionName = Field(
        "mean", description="how negatives add up under entropy-weighted and bce"
    )
    entropy_thresholds: list[float] = Field(
        [0.2, 0.8],
        min_length=2,
        max_length=2,
        description="bits below which a negative is easy, and from which it is hard",
    )
    entropy_weights: list[float] = Field(
        [0.5, 1.5, 1.2],
        min_length=3,
        max_length=3,
        description="of easy, ambiguous and hard negatives",
    )
    entropy_one_sided: bool = Field(
        False, description="a negative that is held to be true is hard, however sure that is"
    )
    negative_side: Literal["per-negative", "per-positive", "alternating"] = Field(
        "per-negative", description="what a draw of the side decides about"
    )
    optimizer: OptimizerName = Field(
        "adam", description="lazy-adam steps only the rows that a batch met, for very large tables"
    )
    lr: float = Field(1e-3, gt=0, le=1e6, description="learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1e6, description="of adam, adamw and adagrad")
    schedule: ScheduleName = Field(
        "constant", description="of the learning rate, after the warm-up"
    )
    warmup_epochs: float = Field(0.0, ge=0, le=1e9, description="of a linear warm-up")
    decay: float = Field(0.99, gt=0, le=1, description="of the rate an epoch, under exponential")
    clip_norm: float = Field(0.0, ge=0, description="longest gradient; 0 does not clip")
    average: float = Field(
        0.0, ge=0, lt=1, description="decay of averaged weights, which are then ranked and kept"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="decides initial values, order and negatives")
    eval_every: int = Field(5, ge=1, description="epochs between validations")
    eval_sample: int = Field(
        0, ge=0, description="valid triples to select on, a fixed sample; 0 takes all"
    )
    patience: int = Field(
        5, ge=0, description="validations without a better valid MRR before stopping; 0 never stops"
    )
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="seconds between checkpoints; 0 keeps one after every step"
    )
    keep_checkpoints: int = Field(2, ge=1, description="how many of the last checkpoints stay")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    precision: Precision = Field(
        "float32", description="of matrix products in training, on a GPU; tables stay float32"
    )
    cuda_graph: GraphSetting = Field(
        "auto", description="auto replays steps from a CUDA graph where that is possible"
    )
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 leaves torch's choice")

    @model_validator(mode="after")
    def _fits_its_candidates(self) -> TrainingConfig:
        """Refuses what has no meaning, or no part, under `candidates`."""
        if self.candidates == "sampled":
            if self.label_smoothing:
                raise ValueError(
                    "label_smoothing is for training.candidates=all; leave it out, or set that"
                )
            return self
        if self.loss not in LOSSES:
            raise ValueError(
                f"loss={self.loss} compares a positive with its negatives, and candidates=all "
                f"draws none; set training.loss to {' or '.join(LOSSES)}"
            )
        for name in OF_NEGATIVES:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} has no part in a training with candidates=all, which draws no "
                    "negatives; leave it out"
                )
        return self

    def unused(self) -> list[str]:
        """One line for each setting off its default that others leave without a part."""
        loss, buckets = f"loss={self.loss}", self.loss == "entropy-weighted"
        adds_up = buckets or self.loss == "bce"
        weighs = adds_up and self.negative_reduction == "self-adversarial"
        reduction = f"negative_reduction={self.negative_reduction}"
        margins = self.loss in ("margin-inside", "margin-outside")
        decays = self.schedule == "exponential"
        parts = {
            "adversarial_temperature": (
                margins or weighs or self.loss == "self-adversarial",
                reduction if adds_up else loss,
            ),
            "loss_margin": (margins, loss),
            "negative_reduction": (adds_up, loss),
            "entropy_thresholds": (buckets, loss),
            "entropy_weights": (buckets, loss),
            "entropy_one_sided": (buckets, loss),
            "label_smoothing_adds": (self.label_smoothing > 0, "label_smoothing=0"),
            "decay": (decays, f"schedule={self.schedule}"),
        }
        return [
            f"training.{name} has no part under training.{under}"
            for name, (used, under) in parts.items()
            if not used and getattr(self, name) != type(self).model_fields[name].default
        ]


class RunConfig(Strict):
    """Everything that decides a run."""

    scorer: str
    graph: GraphConfig = Field(default_factory=GraphConfig)
    plugin: PluginConfig = Field(default_factory=PluginConfig)  # the scorer's
    sampler_plugin: PluginConfig = Field(default_factory=PluginConfig)
    model: ScorerConfig
    training: TrainingConfig
    sampler: SamplerConfig
    features: FeaturesConfig
    stores: dict[str, StoreConfig] = Field(default_factory=dict)  # by modality
