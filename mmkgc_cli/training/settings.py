"""The settings of a training: one class per section, or per method that a section selects.

This module does not import torch, so that settings are checked and listed quickly. The class of a
method has only the settings that affect it; others are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A section of a configuration: typed fields, no others, no type conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Precision = Literal["float32", "tf32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]


class TrainingSettings(Section):
    """``[training]``: duration, batches, device and precision."""

    epochs: int = Field(100, ge=1, le=10**9, description="Passes over the train triples.")
    batch_size: int = Field(
        1024,
        ge=1,
        le=10**7,
        description="Positives per step; queries per step when all entities are candidates.",
    )
    candidates: Literal["sampled", "all"] = Field(
        "sampled",
        description="Score sampled negatives, or all entities (1-vs-all).",
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="Random seed: initial values, triple order, negatives."
    )
    device: Device = Field("auto", description="Device to train on.")
    precision: Precision = Field(
        "float32",
        description="Precision of matrix products in training steps on a GPU. `tf32` rounds their "
        "inputs to 10 bits; `bf16` computes dense modules of the scorer in bfloat16. Tables, ops, "
        "losses, optimizers and ranking stay in float32.",
    )
    cuda_graph: Literal["auto", "off"] = Field(
        "auto",
        description="On a GPU, `auto` replays training steps from a CUDA graph where possible, "
        "with bit-identical results; `off` launches each kernel.",
    )
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 keeps the default of torch.")


class NegativesSettings(Section):
    """``[negatives]``: negative sampling; only if ``training.candidates`` is ``sampled``."""

    count: int = Field(32, ge=1, le=10**6, description="Negatives per positive.")
    sampler: str = Field(
        "filtered", description="Sampler: `filtered`, `shared`, or a plugin of your own."
    )
    sampling: Literal["bernoulli", "uniform"] = Field(
        "bernoulli",
        description="Probability of corrupting the head: `bernoulli` uses tails per head and heads "
        "per tail of the relation (Wang et al., 2014); `uniform` is one half.",
    )
    corrupted_side: Literal["per-negative", "per-positive", "alternating"] = Field(
        "per-negative",
        description="Corrupted side: random per negative, random per positive, or alternating "
        "between tail and head.",
    )


class LossSettings(Section):
    """``[loss]``: the base of all losses; `name` selects the class."""

    name: str


def _needs(section: LossSettings, field: str, condition: bool, default: Any, where: str) -> None:
    """Sets an optional field to `default` if `condition` holds, and refuses a value otherwise."""
    if condition and getattr(section, field) is None:
        object.__setattr__(section, field, default)
    if not condition and getattr(section, field) is not None:
        raise ValueError(f"{field} has no effect unless {where}; leave it out")


class SelfAdversarialLoss(LossSettings):
    """Log-sigmoid loss with self-adversarial weights (Sun et al., 2019)."""

    name: Literal["self-adversarial"] = "self-adversarial"
    temperature: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="Temperature of the weights of negatives; 0 weights all negatives equally, "
        "larger values concentrate on hard negatives.",
    )


class MarginLoss(LossSettings):
    """Margin loss, with the hinge inside or outside the weighted sum over negatives (MACO)."""

    name: Literal["margin-inside", "margin-outside"]
    margin: float = Field(
        1.0, ge=0, le=1e6, description="Margin between the scores of a positive and its negatives."
    )
    temperature: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="Temperature of the weights of negatives; 0 weights all negatives equally.",
    )


class _ReducedLoss(LossSettings):
    """A loss with a reduction over the negatives of a positive."""

    reduction: Literal["mean", "sum", "self-adversarial"] = Field(
        "mean", description="Reduction of the terms of the negatives of a positive."
    )
    temperature: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description='Temperature of `reduction = "self-adversarial"` (default 1.0); '
        "refused for other reductions.",
    )

    @model_validator(mode="after")
    def _check_temperature(self) -> Self:
        adversarial = self.reduction == "self-adversarial"
        _needs(self, "temperature", adversarial, 1.0, "loss.reduction is self-adversarial")
        return self


class EntropyWeightedLoss(_ReducedLoss):
    """Binary cross-entropy with weights by the entropy of negatives (MoCME, eq. 6 to 8)."""

    name: Literal["entropy-weighted"]
    thresholds: list[float] = Field(
        [0.2, 0.8],
        min_length=2,
        max_length=2,
        description="Entropy in bits: negatives below the first are easy, from the second on hard.",
    )
    weights: list[float] = Field(
        [0.5, 1.5, 1.2],
        min_length=3,
        max_length=3,
        description="Weights of easy, ambiguous and hard negatives. [0.5, 1.2, 1.5] is the order "
        "that the text of the paper requires; [1, 1, 1] is `bce`.",
    )
    one_sided: bool = Field(
        False,
        description="Count negatives with a positive score as hard. Entropy is low on both sides, "
        "so by default a negative that the model is sure is true counts as easy.",
    )

    @model_validator(mode="after")
    def _check_buckets(self) -> Self:
        easy, hard = self.thresholds
        if easy > hard:
            raise ValueError(f"thresholds must ascend, got {easy:g} before {hard:g}")
        if min(self.weights) < 0:
            raise ValueError(f"weights must be 0 or more, got {min(self.weights):g}")
        return self


class BceLoss(_ReducedLoss):
    """Binary cross-entropy of a positive and its negatives."""

    name: Literal["bce"]


class SoftmaxLoss(LossSettings):
    """Cross-entropy of the positive among itself and its negatives."""

    name: Literal["softmax"]


class OneVsAllLoss(LossSettings):
    """A loss over all entities: ``bce`` (1-N) or ``softmax`` (1-vs-all)."""

    name: Literal["bce", "softmax"]
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share that is subtracted from the label of true answers."
    )
    label_smoothing_adds: Literal["one", "epsilon"] | None = Field(
        None,
        description="Amount that smoothing distributes over the E entities: `one` (1/E each, as in "
        "the code of TuckER; the default) or `epsilon` (label_smoothing/E each). Refused when "
        "label_smoothing is 0.",
    )

    @model_validator(mode="after")
    def _check_smoothing(self) -> Self:
        smooths = self.label_smoothing > 0
        _needs(self, "label_smoothing_adds", smooths, "one", "loss.label_smoothing is above 0")
        return self


class OptimizerSettings(Section):
    """``[optimizer]``: the base of all optimizers; `name` selects the class."""

    name: str
    lr: float = Field(1e-3, gt=0, le=1e6, description="Learning rate.")
    clip_norm: float = Field(
        0.0, ge=0, description="Maximum L2 norm of the gradient; 0 disables clipping."
    )
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of the exponential moving average of the weights, which is then ranked "
        "and saved; 0 disables averaging.",
    )


class DenseOptimizer(OptimizerSettings):
    """Adam, AdamW or Adagrad of torch."""

    name: Literal["adam", "adamw", "adagrad"] = "adam"
    weight_decay: float = Field(
        0.0, ge=0, le=1e6, description="Weight decay; decoupled under `adamw`."
    )


class LazyAdamOptimizer(OptimizerSettings):
    """Adam that updates only the rows of a batch, for very large tables; no weight decay."""

    name: Literal["lazy-adam"]


class ScheduleSettings(Section):
    """``[schedule]``: the learning rate over time; `name` selects the class."""

    name: str
    warmup_epochs: float = Field(
        0.0, ge=0, le=1e9, description="Epochs of linear warm-up; fractions are allowed."
    )


class PlainSchedule(ScheduleSettings):
    """Constant, or decreasing to 0 at the last step: linear, or half a cosine."""

    name: Literal["constant", "linear", "cosine"] = "constant"


class ExponentialSchedule(ScheduleSettings):
    """The learning rate is multiplied by `decay` each epoch."""

    name: Literal["exponential"]
    decay: float = Field(0.99, gt=0, le=1, description="Factor of the learning rate per epoch.")


class ValidationSettings(Section):
    """``[validation]``: when valid triples are ranked, and when training stops early."""

    every: int = Field(
        5, ge=1, description="Epochs between validations; the last epoch is always validated."
    )
    sample: int = Field(
        0,
        ge=0,
        description="Valid triples in a fixed sample for selection; 0 uses all, as published "
        "results do.",
    )
    patience: int = Field(
        5,
        ge=0,
        description="Validations without improvement of the valid MRR before training stops; 0 "
        "disables early stopping.",
    )


class CheckpointsSettings(Section):
    """``[checkpoints]``: how often checkpoints are written and how many are kept."""

    seconds: float = Field(
        60.0, ge=0, description="Seconds between checkpoints; 0 writes one after every step."
    )
    keep: int = Field(2, ge=1, description="Number of checkpoints that are kept.")


# Sections with several classes: by candidates for the loss, then by `name`.
LOSSES: Mapping[str, tuple[type[LossSettings], ...]] = {
    "sampled": (SelfAdversarialLoss, MarginLoss, EntropyWeightedLoss, BceLoss, SoftmaxLoss),
    "all": (OneVsAllLoss,),
}
OPTIMIZERS: tuple[type[OptimizerSettings], ...] = (DenseOptimizer, LazyAdamOptimizer)
SCHEDULES: tuple[type[ScheduleSettings], ...] = (PlainSchedule, ExponentialSchedule)
DEFAULT_NAMES = {"loss": "self-adversarial", "optimizer": "adam", "schedule": "constant"}


def names_of(classes: tuple[type[Section], ...]) -> dict[str, type[Section]]:
    """Maps each value of `name` to its class."""
    return {
        name: section
        for section in classes
        for name in get_args(section.model_fields["name"].annotation)
    }


def variants(section: str, candidates: str = "sampled") -> dict[str, type[Section]]:
    """Returns the classes of a section by `name`; empty for a section with one class."""
    if section == "loss":
        return names_of(LOSSES.get(candidates, LOSSES["sampled"]))
    if section == "optimizer":
        return names_of(OPTIMIZERS)
    return names_of(SCHEDULES) if section == "schedule" else {}
