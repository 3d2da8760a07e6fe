"""Settings of MACO: presets for the paper and for its released code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(
    frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False), kw_only=True
)
class MacoSettings:
    """Hyper-parameters of MACO; the defaults are the paper's.

    Values that the paper does not state are taken from its released code. Ablations (table 1):
    `condition` False is "w/o MA", `encoder` "embedding" is "w/o SE", `alpha` 0 is "w/o CL".
    """

    encoder: Literal["rgcn", "embedding"] = Field(
        default="rgcn",
        description="Structure encoder: an R-GCN, or one learnt embedding per entity.",
    )
    input_width: int = Field(
        default=128, ge=1, le=10**5, description="Width of the input of the R-GCN."
    )
    encoder_hidden: int = Field(
        default=256,
        ge=1,
        le=10**5,
        description="Output width of the first R-GCN layer; the second outputs the vector width.",
    )
    bases: int = Field(
        default=2,
        ge=0,
        le=10**4,
        description="Number of basis matrices of the R-GCN; 0 uses one matrix per relation.",
    )
    learnt_input: bool = Field(default=True, description="Train the input of the R-GCN.")
    both_directions: bool = Field(
        default=True, description="Add inverse relations, and average over the neighbours of each."
    )
    condition: bool = Field(default=True, description="Condition the generator on structure.")
    noise: int = Field(default=128, ge=1, le=10**5, description="Width of the noise.")
    hidden: int = Field(
        default=256, ge=1, le=10**5, description="Hidden width of generator and discriminator."
    )
    generator_hidden: int = Field(
        default=0,
        ge=0,
        le=10**5,
        description="Hidden width of the generator; 0 uses maco.hidden.",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout rate in the generator.")
    discriminator: Literal["paper", "released", "joint"] = Field(
        default="paper", description="Architecture; only joint can judge whether s and v match."
    )
    alpha: float = Field(default=0.01, ge=0, le=1e6, description="Weight of the contrastive loss.")
    tau: float = Field(
        default=2.0, gt=0, le=1e6, description="Temperature of the contrastive loss."
    )
    regression: float = Field(
        default=0.0, ge=0, le=1e6,
        description="Weight of a squared error on observed entities; not part of MACO.",
    )  # fmt: skip
    batch_size: int = Field(default=128, ge=1, le=10**7, description="Entities per step.")
    epochs: int = Field(default=500, ge=1, le=10**9, description="Passes over the entities.")
    lr: float = Field(
        default=1e-4, gt=0, le=1e6, description="Learning rate of the three Adam optimizers."
    )
    candidates: int = Field(
        default=512,
        ge=1,
        le=10**6,
        description="Candidates per entity that are filtered and averaged (K).",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Random seed.")


PAPER = MacoSettings()
# The generator takes noise only, is wider and has dropout. The hidden layer of the discriminator
# takes vectors instead of structure. The R-GCN sums over forward edges, has a self-relation, and
# its random input is not trained.
RELEASED = replace(
    PAPER, condition=False, generator_hidden=1024, dropout=0.5, discriminator="released",
    both_directions=False, learnt_input=False,
)  # fmt: skip
PRESETS: Mapping[str, MacoSettings] = MappingProxyType({"paper": PAPER, "released": RELEASED})
