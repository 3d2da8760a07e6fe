"""Penalties of factorization scorers, as loss terms."""

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
        "none", description="Penalty: l3 of both tables, or n3 of the rows of the batch."
    )
    regularization_weight: float = Field(0.0, ge=0, le=1e6, description="Weight of the penalty.")

    @model_validator(mode="after")
    def _both_or_neither(self) -> RegularizedConfig:
        if (self.regularization == "none") == (self.regularization_weight > 0):
            raise ValueError(
                "regularization and regularization_weight need each other; set both or neither"
            )
        return self


def penalty(
    config: RegularizedConfig,
    entities: Tensor,
    relations: Tensor,
    triples: Tensor,
    *,
    modulus: bool = False,
) -> dict[str, Tensor]:
    """The configured loss term by its name; empty without a regularization.

    ``l3``: weight x sum of ``|x|^3`` over all elements of both tables, for any batch (as in the
    code of Sun et al. 2019). ``n3``: weight x mean over triples of the sum of ``|x|^3`` over the
    rows of head, relation and tail (Lacroix et al. 2018, eq. 4, scaled as in their code).

    Args:
        config: the kind of penalty and its weight.
        entities: ``[E, d]``.
        relations: ``[R, d]``.
        triples: ``[B, 3]`` of the batch.
        modulus: for complex rows ``[re | im]``; n3 then uses moduli.
    """
    if config.regularization == "none":
        return {}
    if config.regularization == "l3":
        total = cubes(entities) + cubes(relations)
    else:
        h, r, t = triples.unbind(1)
        factors = lookup(entities, h), lookup(relations, r), lookup(entities, t)
        sums = torch.stack([cubes(factor, modulus=modulus) for factor in factors])
        total = sums.sum() / max(1, len(triples))
    return {config.regularization: config.regularization_weight * total}


def cubes(rows: Tensor, *, modulus: bool = False) -> Tensor:
    """The sum of ``|x|^3`` over all elements; with `modulus`, over complex ones [re | im]."""
    if not modulus:
        return rows.abs().pow(3).sum()
    re, im = rows.chunk(2, -1)
    # Without a root, which has an infinite gradient at 0.
    return (re.square() + im.square()).pow(1.5).sum()
