"""Penalties on long rows, as terms that a factorising scorer adds to its loss."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mmkgc_cli.ops import lookup
from mmkgc_cli.scoring.types import ScorerConfig


class RegularizedConfig(ScorerConfig):
    """Settings of `penalty`."""

    regularization: Literal["none", "l3", "n3"] = Field(
        "none", description="l3 of both tables, or n3 of the rows that a step met"
    )
    regularization_weight: float = Field(0.0, ge=0, le=1e6, description="of the penalty")

    @model_validator(mode="after")
    def _both_or_neither(self) -> RegularizedConfig:
        if (self.regularization == "none") == (self.regularization_weight > 0):
            raise ValueError(
                "regularization and regularization_weight go together; set both, or neither"
            )
        return self


def penalty(
    config: RegularizedConfig,
    entities: Tensor,
    relations: Tensor,
    triples: Tensor,
    modulus: bool = False,
) -> dict[str, Tensor]:
    """The term to add to the loss, by its name; none without a regularization.

    ``l3``: weight x sum of ``|x|^3`` over all numbers of both tables, whatever the step met (as the
    code of Sun et al. 2019). ``n3``: weight x sum of ``|x|^3`` over the rows of head, relation and
    tail, a mean over triples (Lacroix et al. 2018, eq. 4, as their code weighs it).

    Args:
        config: which, and its weight.
        entities: ``[E, d]``.
        relations: ``[R, d]``.
        triples: ``[B, 3]``, those of the step.
        modulus: rows are complex, ``[re | im]``, and n3 takes the moduli.
    """
    if config.regularization == "none":
        return {}
    if config.regularization == "l3":
        total = cubes(entities) + cubes(relations)
    else:
        h, r, t = triples.unbind(1)
        factors = lookup(entities, h), lookup(relations, r), lookup(entities, t)
        each = torch.stack([cubes(factor, modulus) for factor in factors])
        total = each.sum() / max(1, len(triples))
    return {config.regularization: config.regularization_weight * total}


def cubes(rows: Tensor, modulus: bool = False) -> Tensor:
    """Sum of ``|x|^3`` over all numbers, or over complex ones laid out [re | im]."""
    if not modulus:
        return rows.abs().pow(3).sum()
    re, im = rows.chunk(2, -1)
    # Not by way of a root, whose slope at 0 is infinite.
    return (re.square() + im.square()).pow(1.5).sum()
