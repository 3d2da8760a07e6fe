"""RSME (Wang et al., 2021): ComplEx on entities mixed with images, plus image similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mmkgc_cli.nn.embeddings import FeatureTable
from mmkgc_cli.nn.functional import complex_product, uniform, unit
from mmkgc_cli.nn.projections import Projection
from mmkgc_cli.ops import Metric, Pair, lookup
from mmkgc_cli.scoring.contract import (
    NO_FEATURES,
    Batch,
    Features,
    Scorer,
    ScorerConfig,
    Side,
)
from mmkgc_cli.scoring.regularization import cubes

# Triples per block of image comparisons for the forget gate.
CHUNK = 1024


class RSMEConfig(ScorerConfig):
    """Hyper-parameters of RSME."""

    dim: int = Field(128, ge=1, le=2**15, description="Complex width: 2 x dim real numbers.")
    variant: Literal["paper", "released"] = Field(
        "paper",
        description="released, as in the code of MACO: images concatenated to entities, no inverse "
        "relations, no gate, and a negative weight of image similarity.",
    )
    alpha: float = Field(0.7, ge=0, le=1, description="Weight of the image in a row; paper only.")
    beta: float = Field(
        0.95, ge=0, le=1, description="Weight of ComplEx in the score; 0.99 for released."
    )
    gate: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Ignore images for relations with a mean relative rank of tails by image "
        "similarity of at least this; 1 ignores none; paper only.",
    )
    penalty: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="Weight of N3; for released, of mean squares, with default 1.",
    )
    init: float = Field(0.1, gt=0, le=1e6, description="Initial values are uniform in +- init.")
    modality: Literal["image", "text", "numeric", "structure", "audio", "video"] = Field(
        "image", description="Modality that is used as the images."
    )

    @model_validator(mode="before")
    @classmethod
    def _as_released(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("variant") == "released":
            return {"beta": 0.99, "penalty": 1.0, **values}
        return values


class RSME(Scorer):
    """score = beta Re<e_h, r, conj(e_t)> + (1 - beta) g_r cos(v_h, v_t), e = (1-a) E + a P v.

    Wang et al. 2021, section 4. Images v are frozen. As in the paper's code, training uses only
    the first term, without its weight; ranking adds the second term and the forget gate g_r. The
    paper's filter gate is not implemented: a feature store has one image vector per entity.
    """

    Config = RSMEConfig
    metric = Metric.dot
    two_way = False  # head queries use inverse relations; the variant `released` has none
    modalities: ClassVar[tuple[str, ...]] = (
        "image", "text", "numeric", "structure", "audio", "video",
    )  # fmt: skip
    citation: ClassVar[str] = (
        "Meng Wang, Sen Wang, Han Yang, Zheng Zhang, Xi Chen and Guilin Qi. Is visual context "
        "really helpful for knowledge graph? A representation learning perspective. ACM MM, 2021."
    )

    def __init__(
        self,
        config: RSMEConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
        features: Mapping[str, Features] = NO_FEATURES,
    ) -> None:
        """Rows are laid out [re | im]."""
        super().__init__(config, n_entities, n_relations, generator, features)
        self._released = config.variant == "released"
        self._alpha, self._beta = config.alpha, config.beta
        self._gate_at, self._penalty = config.gate, config.penalty
        d = 2 * config.dim
        self.entities = uniform(n_entities, d, bound=config.init, generator=generator)
        # `released` concatenates images to entities, so relations are twice as wide.
        shape = (n_relations, 2 * d) if self._released else (2 * n_relations, d)
        self.relations = uniform(*shape, bound=config.init, generator=generator)
        self.images = FeatureTable(features[config.modality], frozen=True)
        bound = self.images.width**-0.5 * (1.0 if self._released else config.init)
        self.projection = Projection(
            self.images.width, d, bound=bound, bias=self._released, generator=generator
        )
        self.register_buffer("gates", torch.ones(n_relations))
        self.gates: Tensor

    @classmethod
    def modalities_of(cls, config: ScorerConfig) -> tuple[str, ...]:
        """The setting `modality`."""
        assert isinstance(config, RSMEConfig)
        return (config.modality,)

    def fit(self, triples: Tensor) -> None:
        """Closes the gates of relations with high relative ranks by images."""
        if self._released or self._gate_at == 1:
            return
        ranks = mean_relative_ranks(unit(self.images(None)), triples, self.n_relations)
        self.gates.copy_(ranks < self._gate_at)

    @property
    def is_two_way(self) -> bool:
        """True for the variant `released`."""
        return self._released

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """Blocks [e r | g_r v], with the inverse relation for heads; in training only the first.

        The variant `released` uses the conjugate of r for heads.
        """
        if self._released:
            row, images = self._released_rows(entities)
            r = lookup(self.relations, relations)
            first = complex_product(row, r, conjugate=side is Side.head)
            return torch.cat([first, unit(images)], -1)
        inverse = self.n_relations if side is Side.head else 0
        r = lookup(self.relations, relations + inverse)
        first = complex_product(self._mixed(entities), r)
        if self.training:
            return first
        gates = self.gates[relations][:, None]
        return torch.cat([first, gates * unit(self.images(entities))], -1)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """Blocks [e | v], v normalized to length 1; in training only e."""
        if self._released:
            row, images = self._released_rows(entities)
            return torch.cat([row, unit(images)], -1)
        mixed = self._mixed(entities)
        return mixed if self.training else torch.cat([mixed, unit(self.images(entities))], -1)

    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        """ComplEx and cosine with their weights; both negative for the variant `released`."""
        d = self.relations.shape[1]
        if not self._released and self.training:
            return [Pair(0, 0, d)]
        sign = -1 if self._released else 1
        rest = query_width - d
        return [Pair(0, 0, d, sign * self._beta), Pair(d, d, rest, sign * (1 - self._beta))]

    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The penalty on the rows of the triples of the batch."""
        if not self._penalty:
            return {}
        heads, relations, tails = batch.triples.unbind(1)
        if self._released:
            parts = [lookup(self.relations, relations)]
            for ends in (heads, tails):
                parts += [lookup(self.entities, ends), self.projection(self.images(ends))]
            # The released code has eight parts: re and im of each row, but undivided images.
            weights = (2, 2, 1, 2, 1)
            squares = [w * part.square().mean() for w, part in zip(weights, parts, strict=True)]
            return {"penalty": self._penalty * torch.stack(squares).sum() / 8}
        rows = [self._mixed(heads), self._mixed(tails)]
        rows += [lookup(self.relations, relations + i * self.n_relations) / 2 ** (1 / 3)
                 for i in (0, 1)]  # fmt: skip
        each = torch.stack([cubes(row, modulus=True) for row in rows])
        return {"penalty": self._penalty * each.sum() / len(heads)}

    def _mixed(self, entities: Tensor | None) -> Tensor:
        structure = lookup(self.entities, entities)
        images = self.projection(self.images(entities))
        mixed: Tensor = (1 - self._alpha) * structure + self._alpha * images
        return mixed

    def _released_rows(self, entities: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows [re of entity and image | im of entity and image], and the projected images."""
        structure = lookup(self.entities, entities)
        images = self.projection(self.images(entities))
        parts = zip(structure.chunk(2, -1), images.chunk(2, -1), strict=True)
        return torch.cat([part for pair in parts for part in pair], -1), images


def mean_relative_ranks(images: Tensor, triples: Tensor, n_relations: int) -> Tensor:
    """Mean relative ranks ``[R]``, in 0..1, of tails among all entities by cosine with the head.

    Args:
        images: ``[E, F]``, rows of length 1.
        triples: ``[n, 3]``.
        n_relations: R; the value of relations without triples is 1.
    """
    triples = triples[triples[:, 0].argsort(stable=True)]
    total = images.new_zeros(n_relations, dtype=torch.float64)
    count = torch.zeros_like(total)
    for start in range(0, len(triples), CHUNK):
        part = triples[start : start + CHUNK]
        heads, relations, tails = part.unbind(1)
        unique_heads, rows = torch.unique_consecutive(heads, return_inverse=True)
        similarity = (images[unique_heads] @ images.T)[rows]
        target = similarity.gather(1, tails[:, None])
        # Realistic ranks: the middle of ties.
        ranks = (similarity > target).sum(1) + ((similarity == target).sum(1) + 1) / 2
        total.index_add_(0, relations, ranks.double() / len(images))
        count.index_add_(0, relations, torch.ones_like(ranks, dtype=torch.float64))
    return torch.where(count > 0, total / count, 1.0)


SCORER = RSME
