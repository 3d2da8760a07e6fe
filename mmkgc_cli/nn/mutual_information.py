"""Estimators of the mutual information of pairs of views (MoCME eq. 2).

Views that are functions of one vector have infinite information of one another, and estimates of it
would say how large a batch is. So each view is first brought into a narrow code at unit variance,
to which noise of unit variance is added where an estimator wants a density: two views that are the
same then share a limited amount, C/2 log(4/3) nats where codes are Gaussian. All nets of all views
run as one batched product.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmkgc_cli.nn.projections import xavier

HIDDEN, STATISTICS = 64, 128  # widths within heads and statistics networks
DRAWS = 4  # of the noise, averaged in what is told of one row
DECAY = 0.99  # of the running partition function
TINY = 1e-5


class Information(nn.Module):
    """Information I(i; j) of `pairs` (i, j) of views, with nets that go up a bound on it.

    A subclass says what `bound` and `pointwise` are. Where random numbers are drawn they come from
    torch's generator, as those of dropout.
    """

    width: ClassVar[int] = 8  # of a code

    def __init__(self, views: int, pairs: Tensor, dim: int, generator: torch.Generator) -> None:
        """Takes V views that are `dim` wide and `pairs` [P, 2] of them."""
        super().__init__()
        self.register_buffer("pairs", pairs)
        self.pairs: Tensor
        self.first = xavier(views, dim, HIDDEN, generator=generator)
        self.first_bias = nn.Parameter(torch.zeros(views, 1, HIDDEN))
        self.second = xavier(views, HIDDEN, self.width, generator=generator)

    def codes(self, rows: Tensor, present: Tensor, known: int | None = None) -> Tensor:
        """Codes ``[V, n, C]`` of `rows` [V, n, d], each coordinate at mean 0 and variance 1.

        `present` [V, n] bool says which rows count; mean and variance are those of the first
        `known` of them.
        """
        made = torch.baddbmm(self.first_bias, rows, self.first).relu() @ self.second
        counts = present[:, :known, None].to(made.dtype)
        total = counts.sum(1, keepdim=True).clamp_min(1)
        mean = (made[:, :known] * counts).sum(1, keepdim=True) / total
        centred = made - mean
        variance = (centred[:, :known].square() * counts).sum(1, keepdim=True) / total
        return centred * (variance + TINY).rsqrt()

    def both(self, present: Tensor) -> Tensor:
        """Which rows have both views of a pair, ``[P, n]``, of `present` [V, n]."""
        return present[self.pairs].all(1)

    def ends(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes ``[P, n, C]`` of the first and of the second view of each pair."""
        return codes[self.pairs[:, 0]], codes[self.pairs[:, 1]]

    def bound(self, codes: Tensor, present: Tensor, learning: bool = False) -> Tensor:
        """What is known of the information, in nats, ``[P]``, of `codes` [V, n, C].

        `learning` asks for the slope that the nets are to go up.
        """
        raise NotImplementedError

    def pointwise(self, codes: Tensor, present: Tensor) -> Tensor:
        """What each row adds to the bound, ``[P, n]``, up to a constant a pair."""
        raise NotImplementedError


def mean_over(values: Tensor, counts: Tensor) -> Tensor:
    """Means ``[P]`` of `values` [P, n] where `counts` [P, n] is set; 0 where it never is."""
    kept = torch.where(counts, values, 0)
    return kept.sum(1) / counts.sum(1).clamp_min(1)


def log_mean_exp(values: Tensor, counts: Tensor) -> Tensor:
    """Logarithms ``[P]`` of the means of e^values where `counts` [P, n] is set; 0 if never."""
    number = counts.sum(1)
    # Rows that count nowhere get a number, since a maximum of nothing has no slope.
    shown = values.masked_fill(~counts & (number > 0)[:, None], -torch.inf)
    found = shown.logsumexp(1) - number.clamp_min(1).to(values.dtype).log()
    return torch.where(number > 0, found, 0)


def shuffled(second: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    """Another row's `second` [P, n, C] for each row of `both` [P, n], and where there is one.

    Rows meet rows of `both` alone. Each pair moves on among these by a number of places of its own,
    so that no row meets itself.
    """
    counts = both.sum(1, keepdim=True)
    # Those that count keep their order in front, the others theirs behind.
    place = torch.where(both, both.cumsum(1), counts + (~both).cumsum(1)) - 1
    rows = torch.arange(both.shape[1], device=both.device).expand_as(place)
    order = torch.empty_like(place).scatter_(1, place, rows)
    step = 1 + (torch.rand(len(both), 1, device=both.device) * (counts - 1)).long()
    partner = order.gather(1, (place + step) % counts.clamp_min(1))
    at = torch.where(both, partner, rows)
    return second.gather(1, at[..., None].expand_as(second)), both & (counts > 1)


class PairByPair(torch.autograd.Function):
    """T of `Mine` on a processor, whose hidden numbers never leave a core's cache.

    A product over all pairs writes and reads them from memory many times, which takes longer than
    to make them again on the way back.
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, inner: Tensor, bias: Tensor, outer: Tensor
    ) -> Tensor:
        """T ``[P, n]`` of `first` and `second` [P, n, C], under networks of each pair."""
        ctx.save_for_backward(first, second, inner, bias, outer)
        made = first.new_empty(first.shape[:2])
        for out, a, b, to_hidden, shift, to_one in zip(made, first, second, inner, bias, outer,
                                                      strict=True):  # fmt: skip
            hidden = torch.addmm(shift, torch.cat([a, b, a * b], -1), to_hidden).relu_()
            torch.mv(hidden, to_one[:, 0], out=out)
        return made

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, ...]:
        """Slopes of the arguments of `forward`."""
        first, second, inner, bias, outer = ctx.saved_tensors
        slopes = tuple(torch.empty_like(t) for t in (first, second, inner, bias, outer))
        width = first.shape[-1]
        for at, (g, a, b, to_hidden, shift, to_one) in enumerate(
            zip(slope, first, second, inner, bias, outer, strict=True)
        ):
            of_first, of_second, of_inner, of_bias, of_outer = (t[at] for t in slopes)
            seen = torch.cat([a, b, a * b], -1)
            hidden = torch.addmm(shift, seen, to_hidden).relu_()
            torch.mv(hidden.T, g, out=of_outer[:, 0])
            on = hidden.sign_()  # the slope of the relu; that of `hidden` is g on outer^T
            torch.mv(on.T, g, out=of_bias[0]).mul_(to_one[:, 0])
            torch.mm((seen * g[:, None]).T, on, out=of_inner).mul_(to_one.T)
            of_seen = (on @ (to_hidden * to_one.T).T).mul_(g[:, None])
            alone, other, both = of_seen.split(width, -1)
            torch.addcmul(alone, both, b, out=of_first)
            torch.addcmul(other, both, a, out=of_second)
        return slopes


class Mine(Information):
    """The Donsker-Varadhan bound on noisy codes (Belghazi et al. 2018).

    I >= mean T(z_i, z_j) - log mean exp T(z_i, z_j'), z = code + N(0, 1), T a network of a pair
    that sees z_i, z_j and their product. The slope of the second term has the running mean of its
    partition function below it, which takes the bias off small batches.
    """

    def __init__(self, views: int, pairs: Tensor, dim: int, generator: torch.Generator) -> None:
        super().__init__(views, pairs, dim, generator)
        n = len(pairs)
        self.inner = xavier(n, 3 * self.width, STATISTICS, generator=generator)
        self.inner_bias = nn.Parameter(torch.zeros(n, 1, STATISTICS))
        self.outer = xavier(n, STATISTICS, 1, generator=generator)
        self.register_buffer("log_partition", torch.zeros(n))
        self.log_partition: Tensor

    def statistic(self, first: Tensor, second: Tensor) -> Tensor:
        """T ``[P, n]`` of `first` and `second` [P, n, C]."""
        if first.device.type != "cpu":
            return self.statistic_at_once(first, second)
        nets = self.inner, self.inner_bias, self.outer
        made: Tensor = PairByPair.apply(first, second, *nets)  # type: ignore[no-untyped-call]
        return made

    def statistic_at_once(self, first: Tensor, second: Tensor) -> Tensor:
        """The same by a product over all pairs, for GPUs."""
        seen = torch.cat([first, second, first * second], -1)
        hidden = torch.baddbmm(self.inner_bias, seen, self.inner).relu()
        # From this side: products of stacks with a single column take eight times as long.
        return (self.outer.mT @ hidden.mT).squeeze(-2)

    def between(self, first: Tensor, second: Tensor, both: Tensor, learning: bool) -> Tensor:
        """The bound ``[P]`` of `first` and `second` [P, n, C] as they are, where `both` [P, n].

        0 with no slope where a pair is that of fewer than two rows.
        """
        moved, apart = shuffled(second, both)
        known = apart.any(1)
        joint = mean_over(self.statistic(first, second), both)
        partition = log_mean_exp(self.statistic(first, moved), apart)
        if not learning:
            return torch.where(known, joint - partition, 0)
        with torch.no_grad():
            held = math.log(DECAY) + self.log_partition
            new = torch.logaddexp(held, math.log(1 - DECAY) + partition)
            self.log_partition.copy_(torch.where(known, new, self.log_partition))
            share = (partition - self.log_partition).exp()
        # The value is that of the bound; the slope of the second term is d Z / running Z.
        slope = joint - partition.detach() - share * (partition - partition.detach())
        return torch.where(known, slope, 0)

    def bound(self, codes: Tensor, present: Tensor, learning: bool = False) -> Tensor:
        """See the base."""
        first, second = self.ends(codes + torch.randn_like(codes))
        return self.between(first, second, self.both(present), learning)

    def pointwise(self, codes: Tensor, present: Tensor) -> Tensor:
        """T of each row with itself, a mean over draws of the noise."""
        draws = []
        for _ in range(DRAWS):
            draws.append(self.statistic(*self.ends(codes + torch.randn_like(codes))))
        return torch.stack(draws).mean(0)


class SoftBin(Information):
    """The information of soft bins: sum_cd P_cd log( P_cd / (P_c P_d) ) (MoCME eq. 2, literally).

    A code is a softmax over bins, P the mean of the products of two codes, made symmetric. Nothing
    is drawn. Bins tell less than what they are made from, so this too is a bound to go up.
    """

    width: ClassVar[int] = 16

    def table(self, codes: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """P and log( P_cd / (P_c P_d) ), each ``[P, C, C]``."""
        first, second = self.ends(codes.softmax(-1))
        both = self.both(present)[..., None].to(codes.dtype)
        joint = (first * both).mT @ second / both.sum(1, keepdim=True).clamp_min(1)
        joint = ((joint + joint.mT) / 2).clamp_min(1e-12)
        own = joint.sum(-1)
        return joint, joint.log() - own[:, :, None].log() - own[:, None, :].log()

    def bound(self, codes: Tensor, present: Tensor, learning: bool = False) -> Tensor:
        """See the base."""
        joint, ratio = self.table(codes, present)
        return (joint * ratio).sum((-2, -1))

    def pointwise(self, codes: Tensor, present: Tensor) -> Tensor:
        """The same sum under the bins of each row."""
        _, ratio = self.table(codes, present)
        first, second = self.ends(codes.softmax(-1))
        return ((first @ ratio) * second).sum(-1)


class Club(Information):
    """The contrastive upper bound on noisy codes (Cheng et al. 2020), as MoMoK has it.

    I <= mean log q(z_j | z_i) - mean log q(z_j' | z_i), q a Gaussian whose mean and logarithm of
    variance a network makes of z_i. The networks go up log q itself, the variance included, which
    MoMoK's code leaves out.
    """

    def __init__(self, views: int, pairs: Tensor, dim: int, generator: torch.Generator) -> None:
        super().__init__(views, pairs, dim, generator)
        n = len(pairs)
        self.inner = xavier(n, self.width, HIDDEN, generator=generator)
        self.inner_bias = nn.Parameter(torch.zeros(n, 1, HIDDEN))
        self.outer = xavier(n, HIDDEN, 2 * self.width, generator=generator)

    def likelihood(self, first: Tensor, second: Tensor) -> Tensor:
        """log q(second | first) ``[P, n]``, up to a constant."""
        made = torch.baddbmm(self.inner_bias, first, self.inner).relu() @ self.outer
        mean, variance = made.chunk(2, -1)
        variance = variance.tanh()  # of its logarithm, as MoMoK bounds it
        return -0.5 * ((second - mean).square() * (-variance).exp() + variance).sum(-1)

    def bound(self, codes: Tensor, present: Tensor, learning: bool = False) -> Tensor:
        """The bound; for the nets, the likelihood."""
        first, second = self.ends(codes + torch.randn_like(codes))
        both = self.both(present)
        likely = mean_over(self.likelihood(first, second), both)
        if learning:
            return likely
        moved, apart = shuffled(second, both)
        return likely - mean_over(self.likelihood(first, moved), apart)

    def pointwise(self, codes: Tensor, present: Tensor) -> Tensor:
        """How much likelier each row is than with another's second view."""
        both, found = self.both(present), []
        for _ in range(DRAWS):
            first, second = self.ends(codes + torch.randn_like(codes))
            moved, _ = shuffled(second, both)
            found.append(self.likelihood(first, second) - self.likelihood(first, moved))
        return torch.stack(found).mean(0)


ESTIMATORS: dict[str, type[Information]] = {"mine": Mine, "softbin": SoftBin, "club": Club}
