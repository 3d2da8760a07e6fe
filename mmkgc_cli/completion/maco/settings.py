"""Settings of MACO: those of the paper, and those of its released code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class MacoSettings:
    """The paper's, by default; what it leaves open is as its released code has it.

    Its ablations (table 1): `condition` False is "w/o MA", `encoder` "embedding" is "w/o SE", and
    `alpha` 0 "w/o CL".
    """

    encoder: Literal["rgcn", "embedding"] = "rgcn"
    input_width: int = 128  # of what the R-GCN starts from
    encoder_hidden: int = 256  # of its first layer; the second is as wide as the vectors
    bases: int | None = 2  # None: a matrix for each relation
    learnt_input: bool = True
    both_directions: bool = True  # inverse relations, and means over neighbours by relation
    condition: bool = True  # the generator sees the structure
    noise: int = 128
    hidden: int = 256  # of generator and discriminator
    generator_hidden: int = 0  # of the generator, where it has another; 0: as `hidden`
    dropout: float = 0.0  # in the generator
    discriminator: Literal["paper", "released", "joint"] = "paper"
    alpha: float = 0.01  # of the contrastive loss
    tau: float = 2.0  # its temperature
    batch_size: int = 128
    epochs: int = 500
    lr: float = 1e-4
    candidates: int = 512  # K
    seed: int = 0


PAPER = MacoSettings()
# Noise alone, wider and with dropout; vectors, not structure, through the discriminator's hidden
# layer; sums over forward edges and a relation to itself; a random input that is not learnt.
RELEASED = replace(
    PAPER, condition=False, generator_hidden=1024, dropout=0.5, discriminator="released",
    both_directions=False, learnt_input=False,
)  # fmt: skip
