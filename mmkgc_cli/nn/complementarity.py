"""Weights of views by what they do not share (MoCME eq. 3-4)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmkgc_cli.nn.mutual_information import DECAY, ESTIMATORS, Information, mean_over

HELD_OUT = 0.1  # of the entities
FEWEST = 8  # entities that an estimator learns from and is held against
MEMORY = 0.9  # of what an entity adds, from turn to turn: one estimate of it is mostly noise


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
    """softmax_i( -sum_{j != i} I(x^i; x^j) / temperature ), over what is available.

    Args:
        information: ``[..., V, V]``, 0 on the diagonal.
        available: ``[..., V]`` bool: the others have weight 0 and no part in the sums. None: all
            are. One of each row must be.
        temperature: more brings the weights nearer to one another.

    Returns:
        ``[..., V]``, summing to 1.
    """
    if available is None:
        return (-information.sum(-1) / temperature).softmax(-1)
    shared = torch.where(available[..., None, :], information, 0).sum(-1)
    return (-shared / temperature).masked_fill(~available, -torch.inf).softmax(-1)


@dataclass(frozen=True)
class Weighting:
    """How `Complementarity` weighs; see the settings of MoCME for the meaning of the fields."""

    experts: int
    intra: bool = True
    inter: bool = True
    per_entity: bool = True
    estimator: str = "mine"
    temperature: float = 1.0
    warmup: int = 500
    batch: int = 1024


class Complementarity(nn.Module):
    """Weights of K experts within each of M modalities, and between these, by what they share.

    They are buffers, constant within a step: an estimator, which learns beside the model, brings
    those of a slice of entities up to date at each of its turns, so that the whole graph has been
    seen after E / batch of them. Entities of a fixed tenth are never learnt from. The amount that a
    pair of views shares is told from them alone (from the others where two of them have no such
    pair), as a running mean, since networks come to know the others by heart; what one entity adds
    to it is told from its own distance to the mean of those that are like it in this.
    """

    def __init__(
        self, weighting: Weighting, available: Tensor, dim: int, generator: torch.Generator
    ) -> None:
        """Takes which entities have which modality, `available` [E, M] bool; equal weights."""
        super().__init__()
        self.weighting = weighting
        entities, modalities = available.shape
        experts = weighting.experts
        self.of_experts = weighting.intra and experts > 1
        self.of_modalities = weighting.inter and modalities > 1
        # Views: all experts of the first modality, of the next and so on, then the modalities.
        self._between = modalities * experts if self.of_experts else 0
        self.views = self._between + (modalities if self.of_modalities else 0)
        pairs = [
            (m * experts + i, m * experts + j)
            for m in range(modalities if self.of_experts else 0)
            for i, j in itertools.combinations(range(experts), 2)
        ]
        if self.of_modalities:
            both = itertools.combinations(range(modalities), 2)
            pairs += [(self._between + i, self._between + j) for i, j in both]
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
            self.views, torch.tensor(pairs), dim, generator
        )
        order = torch.randperm(entities, generator=generator)
        held = max(2, round(HELD_OUT * entities))
        for name, buffer in (
            ("held", order[:held]),
            ("taught", order[held:]),
            ("steps", torch.zeros((), dtype=torch.int64)),
            ("epoch", torch.zeros((), dtype=torch.int64)),
            ("shared", torch.zeros(len(pairs))),
            ("told", torch.zeros(len(pairs))),
            ("added", torch.zeros(entities if weighting.per_entity else 0, len(pairs))),
        ):
            self.register_buffer(name, buffer)
        self.held: Tensor  # entities that are never learnt from
        self.taught: Tensor  # the others, in the order of their turns
        self.steps: Tensor
        self.epoch: Tensor
        self.shared: Tensor  # running information of the pairs, in nats
        self.told: Tensor  # how often that was told
        self.added: Tensor  # what each entity adds to that, a running mean over its turns
        held_has = self.estimator.both(self.present(self.held)).sum(1) > 1
        self.register_buffer("held_has", held_has, persistent=False)
        self.held_has: Tensor  # which pairs those can tell of
        self._held_tell = bool(held_has.all())

    def turn(self) -> tuple[Tensor, int]:
        """The entities ``[n]`` whose turn it is, and how many of them, from the first, teach."""
        parts = []
        for of in (self.taught, self.held):
            n = min(self.weighting.batch, len(of))
            at = (self.steps * n + torch.arange(n, device=of.device)) % len(of)
            parts.append(of[at])
        return torch.cat(parts), len(parts[0])

    def present(self, entities: Tensor | None) -> Tensor:
        """Which entities have which view, ``[V, n]``."""
        has = (self.available if entities is None else self.available[entities]).T
        experts = has.repeat_interleave(self.weighting.experts, 0)
        return torch.cat([experts if self.of_experts else has[:0],
                          has if self.of_modalities else has[:0]])  # fmt: skip

    def estimate(self, rows: Tensor, entities: Tensor, known: int) -> Tensor:
        """The loss of the estimator on views `rows` [V, n, d] of a `turn`; weighs those anew."""
        assert self.estimator is not None
        of = self.estimator
        present = self.present(entities)
        codes = of.codes(rows, present, known)
        loss = -of.bound(codes[:, :known], present[:, :known], learning=True).sum()
        with torch.no_grad():
            self.steps += 1
            self._tell(codes, present, known)
            if self.weighting.per_entity:
                groups = ((codes[:, :known], present[:, :known]),
                          (codes[:, known:], present[:, known:]))  # fmt: skip
                new = torch.cat([self.offsets(*group) for group in groups], 1).T
                added = torch.lerp(new, self.added[entities], MEMORY)
                self.added.index_copy_(0, entities, added)
                self._weigh(self.amounts(added.T, of.both(present)), entities)
            else:
                self._weigh(self.shared.clamp(0, self._most)[:, None], entities)
        return loss

    def _tell(self, codes: Tensor, present: Tensor, known: int) -> None:
        """Takes what a turn tells of the pairs into the running means."""
        assert self.estimator is not None
        of = self.estimator

        def estimate(turn: slice) -> tuple[Tensor, Tensor]:
            found = of.bound(codes[:, turn], present[:, turn])
            return found, of.both(present[:, turn]).sum(1) > 1

        found, knows = estimate(slice(known, None))
        if not self._held_tell:
            of_taught, taught_knows = estimate(slice(known))
            found = torch.where(self.held_has, found, of_taught)
            knows = torch.where(self.held_has, knows, taught_knows)
        self.told += knows
        # A plain mean at first, so that the 0 it starts from has no part in it.
        share = (1 / self.told.clamp_min(1)).clamp_min(1 - DECAY)
        self.shared.copy_(torch.where(knows, torch.lerp(self.shared, found, share), self.shared))

    def offsets(self, codes: Tensor, present: Tensor) -> Tensor:
        """How far each of a group of entities is from the group in what its views share, [P, n]."""
        assert self.estimator is not None
        both = self.estimator.both(present)
        own = self.estimator.pointwise(codes, present)
        return torch.where(both, own - mean_over(own.detach(), both)[:, None], 0)

    def amounts(self, offsets: Tensor, both: Tensor) -> Tensor:
        """What each shares between the views of each pair, ``[P, n]``; 0 where it lacks one."""
        return torch.where(both, (self.shared[:, None] + offsets).clamp(0, self._most), 0)

    @property
    def _most(self) -> float:
        return math.log(max(2, self.weighting.batch))

    @property
    def ready(self) -> Tensor:
        """Whether the estimator has learnt long enough to be asked."""
        return (self.steps >= self.weighting.warmup) & (self.epoch != 1)

    def weights(self, amounts: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``[n, M, K]`` and ``[n, M]`` of `amounts` [P, n], of `available` [n, M].

        Of `amounts` [P, 1], the same for all, the first are ``[1, M, K]``.
        """
        assert self.estimator is not None
        of = self.weighting
        table = symmetric(amounts.T, self.estimator.pairs, self.views)
        modalities = available.shape[1]
        intra = table.new_full((len(table), modalities, of.experts), 1 / of.experts)
        if self.of_experts:
            split = (len(table), modalities, of.experts, modalities, of.experts)
            among = table[:, : self._between, : self._between].reshape(split)
            blocks = among.diagonal(dim1=1, dim2=3)  # those of one modality with itself
            intra = complementary_weights(blocks.movedim(-1, 1), None, of.temperature)
        inter = (available / available.sum(1, keepdim=True)).to(table.dtype)
        if self.of_modalities:
            between = table[:, self._between :, self._between :]
            inter = complementary_weights(between, available, of.temperature)
        return intra, inter

    def _weigh(self, amounts: Tensor, entities: Tensor) -> None:
        if not self.weighting.per_entity:
            intra, inter = self.weights(amounts, self.available)
            self.intra.copy_(torch.where(self.ready, intra[0], self.intra))
            self.inter.copy_(torch.where(self.ready, inter, self.inter))
            return
        for kept, new in zip(
            (self.intra, self.inter), self.weights(amounts, self.available[entities]), strict=True
        ):
            kept.index_copy_(0, entities, torch.where(self.ready, new, kept[entities]))

    def live(self, rows: Tensor, entities: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights of `entities` as `of` has them, with the slope of their views `rows` [V, n, d].

        Values are the kept ones, which are ranked by; what the views would change about them, a
        turn at a time, is in the slope alone.
        """
        assert self.estimator is not None
        kept = self.of(entities)
        present = self.present(entities)
        codes = self.estimator.codes(rows, present)
        if self.weighting.per_entity:
            own = self.offsets(codes, present)
            added = self.added if entities is None else self.added[entities]
            amounts = self.amounts(added.T + own - own.detach(), self.estimator.both(present))
        else:
            bound = self.estimator.bound(codes, present)
            amounts = (self.shared + bound - bound.detach()).clamp(0, self._most)[:, None]
        available = self.available if entities is None else self.available[entities]
        intra, inter = self.weights(amounts, available)
        live = intra if self.weighting.per_entity else intra[0], inter
        of_views, of_modalities = (
            torch.where(self.ready, value + slope - slope.detach(), value)
            for value, slope in zip(kept, live, strict=True)
        )
        return of_views, of_modalities

    def of(self, entities: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights ``[n, M, K]``, or ``[M, K]`` where all have the same, and ``[n, M]``."""
        intra = self.intra if entities is None or self.intra.dim() == 2 else self.intra[entities]
        return intra, self.inter if entities is None else self.inter[entities]
