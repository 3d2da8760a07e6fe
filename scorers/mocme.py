"""MoCME (Li, 2025): RotatE on modality experts fused by complementarity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, cast, get_args

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from mmkgc_cli.nn.complementarity import Complementarity, Weighting
from mmkgc_cli.nn.embeddings import FeatureTable, initialize_from
from mmkgc_cli.nn.experts import Experts, LinearExperts, MlpExperts, weighted_sum
from mmkgc_cli.nn.functional import complex_product, uniform
from mmkgc_cli.nn.fusion import FUSIONS
from mmkgc_cli.nn.projections import Projector
from mmkgc_cli.ops import Metric, lookup, rotate_score
from mmkgc_cli.scoring.contract import (
    NO_FEATURES,
    Auxiliary,
    Batch,
    Candidates,
    Features,
    MixtureWeights,
    ParameterGroup,
    Scorer,
    ScorerConfig,
    Side,
)

Modality = Literal["image", "text", "numeric", "audio", "video"]


class MoCMEConfig(ScorerConfig):
    """Hyper-parameters of MoCME; docs/mocme.md explains defaults that differ from the paper."""

    dim: int = Field(256, ge=1, le=2**15, description="Complex width: 2 x dim real numbers.")
    margin: float = Field(
        12.0,
        ge=0,
        le=1e6,
        description="Margin; 0 gives the formula of the paper.",
    )
    use_modalities: list[Modality] = Field(
        ["image", "text"],
        description="Modalities besides structure, each with a store; may be empty.",
    )
    backbone: Literal["experts", "mlp", "linear"] = Field(
        "experts",
        description="Encoder of a modality: several experts, or a single MLP or linear one.",
    )
    experts: int = Field(3, ge=1, le=16, description="Number of experts per modality.")
    expert_form: Literal["linear", "mlp"] = Field("linear", description="Form of an expert.")
    fusion: Literal["complementarity", "gate", "product", "concat"] = Field(
        "complementarity", description="Fusion of the vectors of the modalities."
    )
    weights: Literal["entity", "global"] = Field(
        "entity",
        description="Weights per entity, or global; global is faster: the linear experts of a "
        "modality become one matrix.",
    )
    intra: bool = Field(True, description="Weigh experts by complementarity; otherwise equally.")
    inter: bool = Field(True, description="Weigh modalities by complementarity; otherwise equally.")
    estimator: Literal["mine", "softbin", "club"] = Field(
        "mine", description="Estimator of the mutual information of two views."
    )
    estimator_lr: float = Field(1e-3, gt=0, le=1e6, description="Learning rate of the estimator.")
    estimator_batch: int = Field(
        1024, ge=2, le=2**20, description="Entities per step of the estimator."
    )
    estimator_every: int = Field(
        1, ge=1, le=10**6, description="Steps of the model per step of the estimator."
    )
    warmup: int = Field(
        500,
        ge=0,
        le=10**9,
        description="Steps of the estimator before its weights are used; at least one epoch.",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Temperature of the weights; higher values give more equal weights.",
    )
    weight_slope: bool = Field(False, description="Backpropagate through the weights; slower.")
    information_penalty: float = Field(
        0.0, ge=0, le=1e6, description="Weight of the mutual information of views as a loss term."
    )
    mask: bool = Field(
        True, description="Leave out modalities that an entity lacks; otherwise use their rows."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of the inputs of experts.")
    layer_rate: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Factor of the learning rate for projectors, experts and fusion.",
    )
    init: Literal["xavier", "rotate", "structure"] = Field(
        "xavier",
        description="Initial entities: Xavier, uniform in +-(margin + 2) / dim, or from a store of "
        "structure.",
    )

    @field_validator("use_modalities")
    @classmethod
    def _each_once(cls, value: list[Modality]) -> list[Modality]:
        if len(set(value)) < len(value):
            raise ValueError("expected each modality once")
        return value

    @property
    def ordered_modalities(self) -> tuple[Modality, ...]:
        """`use_modalities` in a fixed order, independent of the order in the setting."""
        return tuple(name for name in get_args(Modality) if name in self.use_modalities)


class MoCME(Scorer):
    """score = margin - sum_k |joint(h)_k e^(i theta_k) - joint(t)_k|.

    joint(e) = sum_m w_m sum_i w_mi x_m^i (eq. 3-5 of the paper) over structure (the embedding of e)
    and the modalities that e has; x_m^i is the view of expert i of the projected vector.
    `Complementarity` computes the weights, which are constant within a step.
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
        """Initial phases are uniform on the circle; estimators use the generator last."""
        super().__init__(config, n_entities, n_relations, generator, features)
        self.settings = config
        width = 2 * config.dim
        bound = (config.margin + 2) / config.dim
        if config.init != "rotate":
            bound = math.sqrt(6 / (n_entities + width))
        self.entities = uniform(n_entities, width, bound=bound, generator=generator)
        if config.init == "structure":
            initialize_from(features["structure"], self.entities, generator)
        self.phases = uniform(n_relations, config.dim, bound=math.pi, generator=generator)
        self.names = names = config.ordered_modalities
        self.tables = nn.ModuleDict(
            {name: FeatureTable(features[name], frozen=True) for name in names}
        )
        self.projectors = nn.ModuleDict(
            {n: Projector(features[n].vectors.shape[1], width, generator) for n in names}
        )
        single = config.backbone != "experts"
        count = 1 if single else config.experts
        form = config.backbone if single else config.expert_form
        expert_class = LinearExperts if form == "linear" else MlpExperts
        self.experts = nn.ModuleList(
            [expert_class(count, width, generator) for _ in ("structure", *names)]
        )
        self.fusion: nn.Module | None = None
        if config.fusion != "complementarity":
            self.fusion = FUSIONS[config.fusion](1 + len(names), width, generator)
        # Availability of structure, which all entities have, and of the modalities.
        available = [torch.ones(n_entities, dtype=torch.bool)]
        available += [features[n].observed if config.mask else available[0] for n in names]
        for name, observed in zip(names, available[1:], strict=True):
            self.register_buffer(f"with_{name}", observed.nonzero().flatten(), persistent=False)
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
            torch.stack(available, 1),
            width,
            generator,
        )
        # Joint vectors of all entities, with the state that they were computed from.
        self._cache: tuple[tuple[tuple[int, int, int], ...], Tensor] | None = None

    @classmethod
    def modalities_of(cls, config: ScorerConfig) -> tuple[str, ...]:
        """`use_modalities` in a fixed order, and structure if it initializes entities."""
        assert isinstance(config, MoCMEConfig)
        return config.ordered_modalities + ("structure",) * (config.init == "structure")

    def trains_features(self, modality: str) -> bool:
        """True for structure, which initializes entities; other modalities are frozen."""
        return modality == "structure"

    @property
    def margin(self) -> float:
        """The setting `margin`."""
        return self.settings.margin

    # Vectors

    def vectors(self, modality: int, entities: Tensor | None) -> Tensor:
        """Inputs ``[n, d]`` of the experts of a modality; 0 is structure."""
        if modality == 0:
            rows = lookup(self.entities, entities)
        else:
            name = self.names[modality - 1]
            rows = self.projectors[name](self.tables[name](entities))
        return nn.functional.dropout(rows, self.settings.dropout, self.training)

    def views(self, entities: Tensor | None) -> Tensor:
        """The views ``[V, n, d]`` that `Complementarity` weighs: of experts, then of modalities."""
        weights = self.complementarity
        intra, _ = weights.current_weights(entities)
        expert_views, modality_views = [], []
        for m, experts in enumerate(self.experts):
            views = cast(Experts, experts).views(self.vectors(m, entities))
            expert_views.append(views)
            modality_views.append(weighted_sum(views, intra[..., m, :]))
        return torch.cat([
            *(expert_views if weights.weighs_experts else ()),
            *([torch.stack(modality_views)] if weights.weighs_modalities else ()),
        ])  # fmt: skip

    def joint(self, entities: Tensor | None) -> Tensor:
        """Joint vectors ``[n, d]``."""
        complementarity = self.complementarity
        if self.settings.weight_slope and self.training and complementarity.estimator:
            intra, inter = complementarity.differentiable_weights(self.views(entities), entities)
        else:
            intra, inter = complementarity.current_weights(entities)
        if self.fusion is not None:
            return self._fuse(entities, intra)
        total: Tensor | None = None
        for m, experts in enumerate(self.experts):
            owners, positions = self._owners(m, entities)
            weight, expert_weights = inter[:, m, None], intra[..., m, :]
            per_entity = expert_weights.dim() > 1
            if positions is not None:
                weight = weight[positions]
                expert_weights = expert_weights[positions] if per_entity else expert_weights
            vectors, mix = self.vectors(m, owners), cast(Experts, experts).mix
            part = (
                mix(vectors, expert_weights * weight)
                if per_entity
                else mix(vectors, expert_weights) * weight
            )
            if total is None:
                total = part
            elif positions is None:
                total = total + part
            else:
                total = total.index_add(0, positions, part)
        assert total is not None  # structure comes first
        return total

    def _owners(
        self, modality: int, entities: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The entities with a modality, and their positions among `entities`; None: all."""
        if modality == 0:
            return entities, None
        if entities is not None:
            if not self.settings.mask or entities.device.type != "cpu":
                return entities, None
            positions = self.complementarity.available[entities, modality].nonzero().flatten()
            if len(positions) == len(entities):
                return entities, None
            return entities[positions], positions
        owners: Tensor = self.get_buffer(f"with_{self.names[modality - 1]}")
        return (None, None) if len(owners) == self.n_entities else (owners, owners)

    def _fuse(self, entities: Tensor | None, intra: Tensor) -> Tensor:
        rows = [
            cast(Experts, experts).mix(self.vectors(m, entities), intra[..., m, :])
            for m, experts in enumerate(self.experts)
        ]
        available = self.complementarity.available
        assert self.fusion is not None
        fused: Tensor = self.fusion(
            torch.stack(rows, 1), available if entities is None else available[entities]
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
        """Joint vectors; without gradients, those of all entities are computed once and cached."""
        if self.training or torch.is_grad_enabled():
            return self.joint(entities).to(self.phases.dtype)
        # The cache is valid until a parameter or buffer changes, which ranking never does. Fused
        # optimizers and replayed graphs do not change versions; therefore `train` clears it.
        tensors = (*self.parameters(), *self.buffers())
        state = tuple((id(t), t.data_ptr(), t._version) for t in tensors)
        if self._cache is None or self._cache[0] != state:
            self._cache = state, self.joint(None)
        return lookup(self._cache[1], entities)

    def score_sampled(self, positives: Tensor, candidates: Candidates) -> Tensor:
        """The same scores as by `query` and `candidates`, from one table of joint vectors."""
        heads, relations, tails = positives.unbind(1)
        ids, unique_ids = candidates.ids, None
        if ids.device.type == "cpu":  # on a GPU, their number would have to reach the host
            needed = torch.zeros(self.n_entities, dtype=torch.bool)
            for entities in (heads, tails, ids.flatten()):
                needed[entities] = True
            unique_ids = needed.nonzero().flatten()
            position = needed.cumsum(0) - 1
            heads, tails, ids = position[heads], position[tails], position[ids]
        table = self.candidates(unique_ids)
        return self.margin + rotate_score(
            table, self.phases, heads, relations, tails, ids=ids,
            corrupted_side=candidates.corrupted_side, order=candidates.order,
        )  # fmt: skip

    # Hooks

    def train(self, mode: bool = True) -> MoCME:
        """Sets the mode, and clears the cache of joint vectors."""
        self._cache = None
        return super().train(mode)

    def start_epoch(self, epoch: int) -> None:
        """Tells the epoch to `Complementarity`, which starts after the first one."""
        if self.complementarity.estimator is not None:
            self.complementarity.epoch.fill_(epoch)

    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mutual information of the views of a slice, if there is an `information_penalty`."""
        estimator = self.complementarity.estimator
        if not self.settings.information_penalty or estimator is None:
            return {}
        entities, _ = self.complementarity.next_slice()
        present = self.complementarity.present(entities)
        shared = estimator.bound(estimator.codes(self.views(entities), present), present)
        # Negative values are errors of the estimator, which the model must not learn.
        return {"information": self.settings.information_penalty * shared.clamp_min(0).sum()}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Embeddings, and layers at `layer_rate` times the learning rate."""
        modules = [self.projectors, self.experts, *([] if self.fusion is None else [self.fusion])]
        layers = [p for module in modules for p in module.parameters()]
        tables = ParameterGroup([self.entities, self.phases])
        return [tables, ParameterGroup(layers, self.settings.layer_rate)]

    def auxiliaries(self) -> list[Auxiliary]:
        """The estimator, trained on detached views."""
        estimator = self.complementarity.estimator
        if estimator is None:
            return []
        return [
            Auxiliary(
                "estimator",
                list(estimator.parameters()),
                self.settings.estimator_lr,
                self._estimator_loss,
                self.settings.estimator_every,
            )
        ]

    def mixture_weights(self) -> list[MixtureWeights]:
        """Weights of modalities, unless there is another fusion, and of experts in each."""
        weights = self.complementarity
        names = ("structure", *self.names)
        tables = []
        if self.fusion is None and len(names) > 1:
            values = weights.inter.masked_fill(~weights.available, math.nan)
            tables.append(MixtureWeights("modality", names, values))
        experts = [f"expert {i + 1}" for i in range(weights.weighting.experts)]
        for m, name in enumerate(names if len(experts) > 1 else ()):
            if weights.intra.dim() == 2:
                values = weights.intra[m][None]
            else:
                values = weights.intra[weights.available[:, m], m]
            tables.append(MixtureWeights(f"{name}: expert", experts, values))
        return tables

    def _estimator_loss(self, batch: Batch) -> Tensor:
        entities, n_training = self.complementarity.next_slice()
        with torch.no_grad():
            rows = self.views(entities)
        return self.complementarity.estimator_loss(rows, entities, n_training)


SCORER = MoCME
