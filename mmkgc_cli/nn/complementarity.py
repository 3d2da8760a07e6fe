"""Complementarity weights: views with less shared information weigh more (MoCME eq. 3-4)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmkgc_cli.nn.mutual_information import DECAY, ESTIMATORS, Information, mean_over

HELD_OUT = 0.1  # share of the entities
FEWEST = 8  # minimum number of entities for an estimator
MEMORY = 0.9  # decay of the running mean per entity: a single estimate is mostly noise


def symmetric(values: Tensor, pairs: Tensor, views: int) -> Tensor:
    """``[n, V, V]``, 0 on the diagonal, from `values` [n, P] of unordered `pairs` [P, 2]."""
    first, second = pairs.unbind(1)
    table = values.new_zeros(len(values), views * views)
    table = table.index_copy(1, first * views + second, values)
    table = table.index_copy(1, second * views + first, values)
    return table.view(-1, views, views)


def complementary_weights(
    information: Tensor, available: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """softmax_i(-sum_{j != i} I(x^i; x^j) / temperature) over the available views.

    Args:
        information: ``[..., V, V]``, 0 on the diagonal.
        available: ``[..., V]`` bool, with at least one True per row. The other views have weight 0
            and are left out of the sums. None: all are available.
        temperature: higher values give more equal weights.

    Returns:
        ``[..., V]``, summing to 1.
    """
    if available is None:
        return (-information.sum(-1) / temperature).softmax(-1)
    shared = torch.where(available[..., None, :], information, 0).sum(-1)
    return (-shared / temperature).masked_fill(~available, -torch.inf).softmax(-1)


@dataclass(frozen=True)
class Weighting:
    """Settings of `Complementarity`; see the settings of MoCME."""

    experts: int
    intra: bool = True
    inter: bool = True
    per_entity: bool = True
    estimator: str = "mine"
    temperature: float = 1.0
    warmup: int = 500
    batch: int = 1024


class Complementarity(nn.Module):
    """Weights of K experts within each of M modalities, and of the modalities, by complementarity.

    The weights are buffers and constant within a step. An estimator is trained beside the model;
    each of its steps updates the weights of a slice of the entities, so that E / batch steps update
    all. A fixed tenth of the entities is held out from its training.

    The information of a pair of views is estimated on held-out entities, since networks overfit to
    the others (which are used where fewer than two held-out entities have the pair), as a running
    mean. The contribution of an entity is its deviation from the mean of its group, held out or
    not.
    """

    def __init__(
        self, weighting: Weighting, available: Tensor, dim: int, generator: torch.Generator
    ) -> None:
        """Starts with equal weights; `available` [E, M] bool says which entity has a modality."""
        super().__init__()
        self.weighting = weighting
        entities, modalities = available.shape
        experts = weighting.experts
        self.weighs_experts = weighting.intra and experts > 1
        self.weighs_modalities = weighting.inter and modalities > 1
        # Views: the experts of the first modality, of the next and so on, then the modalities.
        self._n_expert_views = modalities * experts if self.weighs_experts else 0
        self.n_views = self._n_expert_views + (modalities if self.weighs_modalities else 0)
        pairs = [
            (m * experts + i, m * experts + j)
            for m in range(modalities if self.weighs_experts else 0)
            for i, j in itertools.combinations(range(experts), 2)
        ]
        if self.weighs_modalities:
            first = self._n_expert_views
            pairs += [
                (first + i, first + j) for i, j in itertools.combinations(range(modalities), 2)
            ]
        self.available: Tensor
        self.register_buffer("available", available, persistent=False)
        equal = torch.full((modalities, experts), 1 / experts)
        self.intra: Tensor
        self.register_buffer("intra", equal.expand(entities, -1, -1).clone()
                             if weighting.per_entity else equal)  # fmt: skip
        self.inter: Tensor
        self.register_buffer("inter", available / available.sum(1, keepdim=True))
        self.estimator: Information | None = None
        if not pairs or entities < FEWEST:
            return
        self.estimator = ESTIMATORS[weighting.estimator](
            self.n_views, torch.tensor(pairs), dim, generator
        )
        order = torch.randperm(entities, generator=generator)
        n_held = max(2, round(HELD_OUT * entities))
        for name, buffer in (
            ("held", order[:n_held]),
            ("taught", order[n_held:]),
            ("steps", torch.zeros((), dtype=torch.int64)),
            ("epoch", torch.zeros((), dtype=torch.int64)),
            ("shared", torch.zeros(len(pairs))),
            ("told", torch.zeros(len(pairs))),
            ("added", torch.zeros(entities if weighting.per_entity else 0, len(pairs))),
        ):
            self.register_buffer(name, buffer)
        self.held: Tensor  # held-out entities
        self.taught: Tensor  # the other entities, in the order of their slices
        self.steps: Tensor
        self.epoch: Tensor
        self.shared: Tensor  # running mean of the information of the pairs, in nats
        self.told: Tensor  # number of estimates in that mean
        self.added: Tensor  # running mean of the deviation of each entity
        held_has = self.estimator.have_both(self.present(self.held)).sum(1) > 1
        self.register_buffer("held_has", held_has, persistent=False)
        self.held_has: Tensor  # pairs that held-out entities can estimate
        self._held_have_all = bool(held_has.all())

    def next_slice(self) -> tuple[Tensor, int]:
        """The entities ``[n]`` of the next step, and the number of training ones, which are first.

        The rest is held out.
        """
        parts = []
        for group in (self.taught, self.held):
            n = min(self.weighting.batch, len(group))
            positions = (self.steps * n + torch.arange(n, device=group.device)) % len(group)
            parts.append(group[positions])
        return torch.cat(parts), len(parts[0])

    def present(self, entities: Tensor | None) -> Tensor:
        """Which of the `entities` [n] (None: all) have which view, ``[V, n]`` bool."""
        available = (self.available if entities is None else self.available[entities]).T
        experts = available.repeat_interleave(self.weighting.experts, 0)
        return torch.cat([experts if self.weighs_experts else available[:0],
                          available if self.weighs_modalities else available[:0]])  # fmt: skip

    def estimator_loss(self, rows: Tensor, entities: Tensor, n_training: int) -> Tensor:
        """The estimator's loss on views `rows` [V, n, d] of a slice; updates the slice's weights.

        `entities` and `n_training` come from `next_slice`.
        """
        assert self.estimator is not None
        estimator = self.estimator
        present = self.present(entities)
        codes = estimator.codes(rows, present, n_training)
        loss = -estimator.bound(codes[:, :n_training], present[:, :n_training], learning=True).sum()
        with torch.no_grad():
            self.steps += 1
            self._update_information(codes, present, n_training)
            if self.weighting.per_entity:
                groups = ((codes[:, :n_training], present[:, :n_training]),
                          (codes[:, n_training:], present[:, n_training:]))  # fmt: skip
                new = torch.cat([self.deviations(*group) for group in groups], 1).T
                added = torch.lerp(new, self.added[entities], MEMORY)
                self.added.index_copy_(0, entities, added)
                have_both = estimator.have_both(present)
                self._update_weights(self.entity_information(added.T, have_both), entities)
            else:
                information = self.shared.clamp(0, self._max_information)
                self._update_weights(information[:, None], entities)
        return loss

    def _update_information(self, codes: Tensor, present: Tensor, n_training: int) -> None:
        """Adds the estimates of a slice to the running means of the pairs."""
        assert self.estimator is not None
        estimator = self.estimator

        def estimate(group: slice) -> tuple[Tensor, Tensor]:
            bound = estimator.bound(codes[:, group], present[:, group])
            return bound, estimator.have_both(present[:, group]).sum(1) > 1

        estimates, valid = estimate(slice(n_training, None))
        if not self._held_have_all:
            training_estimates, training_valid = estimate(slice(n_training))
            estimates = torch.where(self.held_has, estimates, training_estimates)
            valid = torch.where(self.held_has, valid, training_valid)
        self.told += valid
        # At first a plain mean, so that the initial 0 has no influence.
        rate = (1 / self.told.clamp_min(1)).clamp_min(1 - DECAY)
        updated = torch.lerp(self.shared, estimates, rate)
        self.shared.copy_(torch.where(valid, updated, self.shared))

    def deviations(self, codes: Tensor, present: Tensor) -> Tensor:
        """Pointwise information of each entity minus the mean of the group, ``[P, n]``."""
        assert self.estimator is not None
        have_both = self.estimator.have_both(present)
        pointwise = self.estimator.pointwise(codes, present)
        mean = mean_over(pointwise.detach(), have_both)
        return torch.where(have_both, pointwise - mean[:, None], 0)

    def entity_information(self, deviations: Tensor, have_both: Tensor) -> Tensor:
        """Information of each entity's pairs of views, ``[P, n]``; 0 where it lacks a view."""
        information = (self.shared[:, None] + deviations).clamp(0, self._max_information)
        return torch.where(have_both, information, 0)

    @property
    def _max_information(self) -> float:
        return math.log(max(2, self.weighting.batch))

    @property
    def ready(self) -> Tensor:
        """Whether the estimator has been trained for `warmup` steps and one epoch."""
        return (self.steps >= self.weighting.warmup) & (self.epoch != 1)

    def compute_weights(self, information: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``[n, M, K]`` and ``[n, M]`` by `information` [P, n] and `available` [n, M].

        With `information` [P, 1], equal for all entities, the first are ``[1, M, K]``.
        """
        assert self.estimator is not None
        settings = self.weighting
        table = symmetric(information.T, self.estimator.pairs, self.n_views)
        modalities = available.shape[1]
        intra = table.new_full((len(table), modalities, settings.experts), 1 / settings.experts)
        if self.weighs_experts:
            shape = (len(table), modalities, settings.experts, modalities, settings.experts)
            experts = table[:, : self._n_expert_views, : self._n_expert_views].reshape(shape)
            blocks = experts.diagonal(dim1=1, dim2=3)  # pairs within one modality
            intra = complementary_weights(blocks.movedim(-1, 1), None, settings.temperature)
        inter = (available / available.sum(1, keepdim=True)).to(table.dtype)
        if self.weighs_modalities:
            between = table[:, self._n_expert_views :, self._n_expert_views :]
            inter = complementary_weights(between, available, settings.temperature)
        return intra, inter

    def _update_weights(self, information: Tensor, entities: Tensor) -> None:
        if not self.weighting.per_entity:
            intra, inter = self.compute_weights(information, self.available)
            self.intra.copy_(torch.where(self.ready, intra[0], self.intra))
            self.inter.copy_(torch.where(self.ready, inter, self.inter))
            return
        weights = self.compute_weights(information, self.available[entities])
        for buffer, new in zip((self.intra, self.inter), weights, strict=True):
            buffer.index_copy_(0, entities, torch.where(self.ready, new, buffer[entities]))

    def differentiable_weights(
        self, rows: Tensor, entities: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The values of `current_weights`, with gradients for the views `rows` [V, n, d].

        The values are the buffers, as in ranking; only the gradient depends on the views.
        """
        assert self.estimator is not None
        current = self.current_weights(entities)
        present = self.present(entities)
        codes = self.estimator.codes(rows, present)
        if self.weighting.per_entity:
            new = self.deviations(codes, present)
            added = self.added if entities is None else self.added[entities]
            information = self.entity_information(
                added.T + new - new.detach(), self.estimator.have_both(present)
            )
        else:
            bound = self.estimator.bound(codes, present)
            information = self.shared + bound - bound.detach()
            information = information.clamp(0, self._max_information)[:, None]
        available = self.available if entities is None else self.available[entities]
        intra, inter = self.compute_weights(information, available)
        differentiable = intra if self.weighting.per_entity else intra[0], inter
        of_experts, of_modalities = (
            torch.where(self.ready, value + slope - slope.detach(), value)
            for value, slope in zip(current, differentiable, strict=True)
        )
        return of_experts, of_modalities

    def current_weights(self, entities: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights ``[n, M, K]``, or ``[M, K]`` where they are equal for all, and ``[n, M]``."""
        intra = self.intra if entities is None or self.intra.dim() == 2 else self.intra[entities]
        return intra, self.inter if entities is None else self.inter[entities]
