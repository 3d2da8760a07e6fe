"""Settings of MACO: those of the paper, and those of its released code."""

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
    """The paper's, by default; what it leaves open is as its released code has it.

    Its ablations (table 1): `condition` False is "w/o MA", `encoder` "embedding" is "w/o SE", and
    `alpha` 0 "w/o CL".
    """

    encoder: Literal["rgcn", "embedding"] = Field(
        default="rgcn",
        description="what structure comes from; embedding: a learnt row for each entity",
    )
    input_width: int = Field(
        default=128, ge=1, le=10**5, description="of what the R-GCN starts from"
    )
    encoder_hidden: int = Field(
        default=256,
        ge=1,
        le=10**5,
        description="width of its first layer; the second has the vectors'",
    )
    bases: int = Field(
        default=2,
        ge=0,
        le=10**4,
        description="of the R-GCN's matrices; 0: a matrix for each relation",
    )
    learnt_input: bool = Field(default=True, description="whether what it starts from is learnt")
    both_directions: bool = Field(
        default=True, description="inverse relations, and means over the neighbours of a relation"
    )
    condition: bool = Field(default=True, description="the generator sees the structure")
    noise: int = Field(default=128, ge=1, le=10**5, description="width of the noise")
    hidden: int = Field(
        default=256, ge=1, le=10**5, description="width within generator and discriminator"
    )
    generator_hidden: int = Field(
        default=0,
        ge=0,
        le=10**5,
        description="within the generator, where it has another; 0: as hidden",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in the generator")
    discriminator: Literal["paper", "released", "joint"] = Field(
        default="paper", description="what it sees together; joint alone can say whether two fit"
    )
    alpha: float = Field(default=0.01, ge=0, le=1e6, description="weight of the contrastive loss")
    tau: float = Field(default=2.0, gt=0, le=1e6, description="temperature of the contrastive loss")
    regression: float = Field(
        default=0.0, ge=0, le=1e6,
        description="weight of the squared error of vectors made for observed entities; not MACO's",
    )  # fmt: skip
    batch_size: int = Field(default=128, ge=1, le=10**7, description="entities in a step")
    epochs: int = Field(default=500, ge=1, le=10**9, description="passes over the entities")
    lr: float = Field(
        default=1e-4, gt=0, le=1e6, description="learning rate of each of the three Adams"
    )
    candidates: int = Field(
        default=512, ge=1, le=10**6, description="generated for an entity, judged and averaged (K)"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of all that is drawn")


PAPER = MacoSettings()
# Noise alone, wider and with dropout; vectors, not structure, through the discriminator's hidden
# layer; sums over forward edges and a relation to itself; a random input that is not learnt.
RELEASED = replace(
    PAPER, condition=False, generator_hidden=1024, dropout=0.5, discriminator="released",
    both_directions=False, learnt_input=False,
)  # fmt: skip
PRESETS: Mapping[str, MacoSettings] = MappingProxyType({"paper": PAPER, "released": RELEASED})
