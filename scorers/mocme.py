"""MoCME: RotatE on vectors that experts of several modalities make together, each as it is new."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, cast, get_args

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from mmkgc_cli.nn.complementarity import Complementarity, Weighting
from mmkgc_cli.nn.embeddings import FeatureTable, begin_from
from mmkgc_cli.nn.experts import Experts, LinearExperts, MlpExperts, weighted
from mmkgc_cli.nn.functional import complex_product, uniform
from mmkgc_cli.nn.fusion import FUSIONS
from mmkgc_cli.nn.projections import Projector
from mmkgc_cli.ops import Metric, lookup, rotate_score
from mmkgc_cli.scoring.contract import (
    NO_FEATURES,
    Auxiliary,
    Batch,
    Features,
    ParameterGroup,
    Scorer,
    ScorerConfig,
    Shares,
    Side,
)

Modality = Literal["image", "text", "numeric", "audio", "video"]


class MoCMEConfig(ScorerConfig):
    """Hyper-parameters of MoCME; the defaults are the paper's, or what docs/mocme.md argues for."""

    dim: int = Field(256, ge=1, le=2**15, description="complex width, 2 x dim real numbers")
    margin: float = Field(
        12.0,
        ge=0,
        le=1e6,
        description="score of distance 0; 0 is the paper's formula to the letter",
    )
    use_modalities: list[Modality] = Field(
        ["image", "text"],
        description="beside structure; each has a store, and none is fine",
    )
    backbone: Literal["experts", "mlp", "linear"] = Field(
        "experts", description="what makes views of a modality; mlp and linear are a single one"
    )
    experts: int = Field(3, ge=1, le=16, description="experts of each modality")
    expert_form: Literal["linear", "mlp"] = Field("linear", description="what an expert is")
    fusion: Literal["complementarity", "gate", "product", "concat"] = Field(
        "complementarity", description="what makes one vector of the modalities'"
    )
    weights: Literal["entity", "global"] = Field(
        "entity",
        description="whether each entity has weights of its own; global is faster, and makes one "
        "matrix of a modality's linear experts",
    )
    intra: bool = Field(True, description="weigh experts by what they do not share, or equally")
    inter: bool = Field(True, description="weigh modalities by what they do not share, or equally")
    estimator: Literal["mine", "softbin", "club"] = Field(
        "mine", description="of the information that two views share"
    )
    estimator_lr: float = Field(1e-3, gt=0, le=1e6, description="learning rate of the estimator")
    estimator_batch: int = Field(
        1024, ge=2, le=2**20, description="entities that it learns from in a step"
    )
    estimator_every: int = Field(
        1, ge=1, le=10**6, description="steps of the model to one of the estimator"
    )
    warmup: int = Field(
        500, ge=0, le=10**9, description="its steps before its weights are used, one epoch at least"
    )
    temperature: float = Field(1.0, gt=0, le=1e6, description="of the weights; more evens them out")
    weight_slope: bool = Field(False, description="let the loss act through the weights, slower")
    information_penalty: float = Field(
        0.0, ge=0, le=1e6, description="of the information that views share, as a term of the loss"
    )
    mask: bool = Field(
        True, description="leave a modality out where an entity lacks it; otherwise its row counts"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="of what experts see")
    layer_rate: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="share of the learning rate at which projectors, experts and a fusion move",
    )
    init: Literal["xavier", "rotate", "structure"] = Field(
        "xavier",
        description="how rows of entities start: Xavier, uniform in +-(margin + 2) / dim, or from "
        "a store of structure",
    )

    @field_validator("use_modalities")
    @classmethod
    def _each_once(cls, value: list[Modality]) -> list[Modality]:
        if len(set(value)) < len(value):
            raise ValueError("expected each modality once")
        return value

    @property
    def beside(self) -> tuple[Modality, ...]:
        """`use_modalities` in an order that does not depend on how they are written down."""
        return tuple(name for name in get_args(Modality) if name in self.use_modalities)


class MoCME(Scorer):
    """score = margin - sum_k |joint(h)_k e^(i theta_k) - joint(t)_k|.

    joint(e) = sum_m w_m sum_i w_mi x_m^i (eq. 3-5 of the paper) over structure, a row of the
    entity's own, and the modalities that e has; x_m^i is the view of expert i of the projected
    vector. What weighs is in `Complementarity`: weights are constants of a step.
    """

    Config = MoCMEConfig
    metric = Metric.modulus
    modalities: ClassVar[tuple[str, ...]] = (*get_args(Modality), "structure")
    uses_mask: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Lijian Li. Complementarity-driven representation learning for multi-modal knowledge graph "
        "completion. 2025."
    )

    def __init__(
        self,
        config: MoCMEConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
        features: Mapping[str, Features] = NO_FEATURES,
    ) -> None:
        """Phases start uniform over the circle; estimators draw last, so others start alike."""
        super().__init__(config, n_entities, n_relations, generator, features)
        self.settings = config
        width = 2 * config.dim
        bound = (config.margin + 2) / config.dim
        if config.init != "rotate":
            bound = math.sqrt(6 / (n_entities + width))
        self.entities = uniform(n_entities, width, bound=bound, generator=generator)
        if config.init == "structure":
            begin_from(features["structure"], self.entities, generator)
        self.phases = uniform(n_relations, config.dim, bound=math.pi, generator=generator)
        self.beside = names = config.beside
        self.tables = nn.ModuleDict({name: FeatureTable(features[name], True) for name in names})
        self.projectors = nn.ModuleDict(
            {n: Projector(features[n].vectors.shape[1], width, generator) for n in names}
        )
        alone = config.backbone != "experts"
        count = 1 if alone else config.experts
        form = config.backbone if alone else config.expert_form
        make = LinearExperts if form == "linear" else MlpExperts
        self.experts = nn.ModuleList([make(count, width, generator) for _ in ("", *names)])
        self.fusion: nn.Module | None = None
        if config.fusion != "complementarity":
            self.fusion = FUSIONS[config.fusion](1 + len(names), width, generator)
        # Who has what: structure first, which all have.
        has = [torch.ones(n_entities, dtype=torch.bool)]
        has += [features[n].observed if config.mask else has[0] for n in names]
        for name, of in zip(names, has[1:], strict=True):
            self.register_buffer(f"with_{name}", of.nonzero().flatten(), persistent=False)
        self.complementarity = Complementarity(
            Weighting(
                experts=count,
                intra=config.intra,
                inter=config.inter and self.fusion is None,
                per_entity=config.weights == "entity",
                estimator=config.estimator,
                temperature=config.temperature,
                warmup=config.warmup,
                batch=config.estimator_batch,
            ),
            torch.stack(has, 1),
            width,
            generator,
        )
        self._kept: tuple[tuple[tuple[int, int, int], ...], Tensor] | None = None

    @classmethod
    def modalities_of(cls, config: ScorerConfig) -> tuple[str, ...]:
        """Those of the setting, in an order of ours, and what rows begin from."""
        assert isinstance(config, MoCMEConfig)
        return config.beside + ("structure",) * (config.init == "structure")

    def trains_features(self, modality: str) -> bool:
        """Rows that begin from vectors of structure are trained; the others are frozen."""
        return modality == "structure"

    @property
    def margin(self) -> float:
        """Added to minus the distance."""
        return self.settings.margin

    # Vectors

    def vectors(self, modality: int, entities: Tensor | None) -> Tensor:
        """What the experts of a modality see, ``[n, d]``; 0 is structure."""
        if modality == 0:
            rows = lookup(self.entities, entities)
        else:
            name = self.beside[modality - 1]
            rows = self.projectors[name](self.tables[name](entities))
        return nn.functional.dropout(rows, self.settings.dropout, self.training)

    def views(self, entities: Tensor | None) -> Tensor:
        """All that `Complementarity` weighs, ``[V, n, d]``: experts' views, then modalities'."""
        of = self.complementarity
        intra, _ = of.of(entities)
        views, mixed = [], []
        for m, experts in enumerate(self.experts):
            found = cast(Experts, experts).views(self.vectors(m, entities))
            views.append(found)
            mixed.append(weighted(found, intra[..., m, :]))
        return torch.cat([*(views if of.of_experts else ()),
                          *([torch.stack(mixed)] if of.of_modalities else ())])  # fmt: skip

    def joint(self, entities: Tensor | None) -> Tensor:
        """Joint vectors ``[n, d]``."""
        if self.settings.weight_slope and self.training and self.complementarity.estimator:
            intra, inter = self.complementarity.live(self.views(entities), entities)
        else:
            intra, inter = self.complementarity.of(entities)
        if self.fusion is not None:
            return self._fused(entities, intra)
        total: Tensor | None = None
        for m, experts in enumerate(self.experts):
            rows, at = self._having(m, entities)
            weight, shares = inter[:, m, None], intra[..., m, :]
            if at is not None:
                weight = weight[at]
                shares = shares if shares.dim() == 1 else shares[at]
            seen, mixed = self.vectors(m, rows), cast(Experts, experts).mixed
            part = (
                mixed(seen, shares) * weight if shares.dim() == 1 else mixed(seen, shares * weight)
            )
            if total is None:
                total = part
            else:
                total = total + part if at is None else total.index_add(0, at, part)
        assert total is not None
        return total

    def _having(
        self, modality: int, entities: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Which entities to ask for a modality, and their places among all; None: all of them."""
        if modality == 0:
            return entities, None
        if entities is not None:
            if not self.settings.mask or entities.device.type != "cpu":
                return entities, None
            among = self.complementarity.available[entities, modality].nonzero().flatten()
            return (entities, None) if len(among) == len(entities) else (entities[among], among)
        at: Tensor = self.get_buffer(f"with_{self.beside[modality - 1]}")
        return (None, None) if len(at) == self.n_entities else (at, at)

    def _fused(self, entities: Tensor | None, intra: Tensor) -> Tensor:
        rows = [
            cast(Experts, experts).mixed(self.vectors(m, entities), intra[..., m, :])
            for m, experts in enumerate(self.experts)
        ]
        has = self.complementarity.available
        assert self.fusion is not None
        fused: Tensor = self.fusion(
            torch.stack(rows, 1), has if entities is None else has[entities]
        )
        return fused

    # Rows

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """joint o r for tails, joint o conj(r) for heads."""
        theta = lookup(self.phases, relations)
        rotation = torch.cat([theta.cos(), theta.sin()], -1)
        return complex_product(self.candidates(entities), rotation, conjugate=side is Side.head)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """Joint vectors; without gradients those of all are made once, and kept for a while."""
        if self.training or torch.is_grad_enabled():
            return self.joint(entities).to(self.phases.dtype)
        # Until anything that they are made of changes: in ranking, nothing does. What fused
        # optimizers and replayed graphs change counts no version, hence `train`.
        made_of = (*self.parameters(), *self.buffers())
        state = tuple((id(t), t.data_ptr(), t._version) for t in made_of)
        if self._kept is None or self._kept[0] != state:
            self._kept = state, self.joint(None)
        return lookup(self._kept[1], entities)

    def score_sampled(
        self,
        heads: Tensor,
        relations: Tensor,
        tails: Tensor,
        ids: Tensor,
        side: Tensor,
        order: Tensor | None = None,
    ) -> Tensor:
        """The same as by queries and candidates, from a table of joint vectors made once."""
        met = None
        if ids.device.type == "cpu":  # on a GPU nobody could say how many without waiting
            seen = torch.zeros(self.n_entities, dtype=torch.bool)
            for some in (heads, tails, ids.flatten()):
                seen[some] = True
            met = seen.nonzero().flatten()
            place = seen.cumsum(0) - 1
            heads, tails, ids = place[heads], place[tails], place[ids]
        table = self.candidates(met)
        return self.margin + rotate_score(
            table, self.phases, heads, relations, tails, ids=ids, corrupted_side=side, order=order
        )

    # Hooks

    def train(self, mode: bool = True) -> MoCME:
        """As a module's, and forgets joint vectors that were kept for ranking."""
        self._kept = None
        return super().train(mode)

    def start_epoch(self, epoch: int) -> None:
        """Weights are used from the second epoch on, at the earliest."""
        if self.complementarity.estimator is not None:
            self.complementarity.epoch.fill_(epoch)

    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The information that views of a slice of entities share, if it is to be kept low."""
        of = self.complementarity
        if not self.settings.information_penalty or of.estimator is None:
            return {}
        entities, _ = of.turn()
        present = of.present(entities)
        shared = of.estimator.bound(of.estimator.codes(self.views(entities), present), present)
        # Below 0 it says how wrong the estimator is, which is not to be learnt.
        return {"information": self.settings.information_penalty * shared.clamp_min(0).sum()}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Layers move at a rate of their own."""
        layers = [p for of in (self.projectors, self.experts, self.fusion) if of is not None
                  for p in of.parameters()]  # fmt: skip
        tables = ParameterGroup([self.entities, self.phases])
        return [tables, ParameterGroup(layers, self.settings.layer_rate)]

    def auxiliaries(self) -> list[Auxiliary]:
        """The estimator goes up its bound, on views that it does not move."""
        of = self.complementarity.estimator
        if of is None:
            return []
        settings, parameters = self.settings, list(of.parameters())
        return [
            Auxiliary(
                "estimator",
                parameters,
                settings.estimator_lr,
                self._estimate,
                settings.estimator_every,
            )
        ]

    def shares(self) -> list[Shares]:
        """Weights of modalities, unless they are fused otherwise, and of experts within each."""
        of = self.complementarity
        names = ("structure", *self.beside)
        found = []
        if self.fusion is None and len(names) > 1:
            found.append(Shares("modality", names, of.inter.masked_fill(~of.available, math.nan)))
        experts = [f"expert {i + 1}" for i in range(of.weighting.experts)]
        for m, name in enumerate(names if len(experts) > 1 else ()):
            weights = of.intra[m][None] if of.intra.dim() == 2 else of.intra[of.available[:, m], m]
            found.append(Shares(f"{name}: expert", experts, weights))
        return found

    def _estimate(self, batch: Batch) -> Tensor:
        entities, known = self.complementarity.turn()
        with torch.no_grad():
            rows = self.views(entities)
        return self.complementarity.estimate(rows, entities, known)


SCORER = MoCME
