"""Estimators of the mutual information of pairs of views (MoCME eq. 2).

Views that are functions of one vector have infinite mutual information, and estimates of it would
only measure the batch size. So each view is first encoded as a narrow code of unit variance, and
estimators of densities add noise of unit variance. Two equal views then share a finite amount:
C/2 log(4/3) nats where codes are Gaussian. The networks of all views run as one batched product.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmkgc_cli.nn.projections import xavier

HIDDEN, STATISTICS = 64, 128  # hidden widths of encoders and of statistics networks
DRAWS = 4  # noise samples that a pointwise estimate averages
DECAY = 0.99  # decay of running means
TINY = 1e-5


class Information(nn.Module):
    """Estimates the mutual information I(i; j) of `pairs` (i, j) of views by trained networks.

    A subclass implements `bound` and `pointwise`. Noise comes from torch's global generator, like
    dropout.
    """

    width: ClassVar[int] = 8  # of a code

    def __init__(self, views: int, pairs: Tensor, dim: int, generator: torch.Generator) -> None:
        """Creates encoders for V views of width `dim`; `pairs` is [P, 2]."""
        super().__init__()
        self.register_buffer("pairs", pairs)
        self.pairs: Tensor
        self.first = xavier(views, dim, HIDDEN, generator=generator)
        self.first_bias = nn.Parameter(torch.zeros(views, 1, HIDDEN))
        self.second = xavier(views, HIDDEN, self.width, generator=generator)

    def codes(self, rows: Tensor, present: Tensor, n_training: int | None = None) -> Tensor:
        """Codes ``[V, n, C]`` of `rows` [V, n, d], each coordinate with mean 0 and variance 1.

        Mean and variance are those of the first `n_training` rows (None: all) that are `present`
        [V, n].
        """
        encoded = torch.baddbmm(self.first_bias, rows, self.first).relu() @ self.second
        counts = present[:, :n_training, None].to(encoded.dtype)
        total = counts.sum(1, keepdim=True).clamp_min(1)
        mean = (encoded[:, :n_training] * counts).sum(1, keepdim=True) / total
        centred = encoded - mean
        variance = (centred[:, :n_training].square() * counts).sum(1, keepdim=True) / total
        return centred * (variance + TINY).rsqrt()

    def have_both(self, present: Tensor) -> Tensor:
        """Which rows have both views of a pair, ``[P, n]``, from `present` [V, n]."""
        return present[self.pairs].all(1)

    def pair_codes(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes ``[P, n, C]`` of the first and of the second view of each pair."""
        return codes[self.pairs[:, 0]], codes[self.pairs[:, 1]]

    def bound(self, codes: Tensor, present: Tensor, *, learning: bool = False) -> Tensor:
        """The estimate ``[P]`` of the information, in nats, from `codes` [V, n, C].

        With `learning`, the value has the gradient that trains the networks.
        """
        raise NotImplementedError

    def pointwise(self, codes: Tensor, present: Tensor) -> Tensor:
        """The contribution of each row to the bound, ``[P, n]``, up to a constant per pair."""
        raise NotImplementedError


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Means ``[P]`` of `values` [P, n] where `mask` [P, n] is set; 0 where it never is."""
    selected = torch.where(mask, values, 0)
    return selected.sum(1) / mask.sum(1).clamp_min(1)


def log_mean_exp(values: Tensor, mask: Tensor) -> Tensor:
    """log mean exp ``[P]`` of `values` where `mask` [P, n] is set; 0 where it never is."""
    count = mask.sum(1)
    # Rows without any set entry keep their values: the gradient of an empty maximum is NaN.
    selected = values.masked_fill(~mask & (count > 0)[:, None], -torch.inf)
    result = selected.logsumexp(1) - count.clamp_min(1).to(values.dtype).log()
    return torch.where(count > 0, result, 0)


def shuffle(second: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Assigns each row of `second` [P, n, C] in `mask` [P, n] another such row.

    For each pair, the rows in the mask are rotated by a random number of positions, so that no row
    is assigned to itself.

    Returns:
        The shuffled rows ``[P, n, C]``, and the mask ``[P, n]`` of rows with another row.
    """
    counts = mask.sum(1, keepdim=True)
    # Positions of the rows in the mask first, then of the others, both in order.
    position = torch.where(mask, mask.cumsum(1), counts + (~mask).cumsum(1)) - 1
    rows = torch.arange(mask.shape[1], device=mask.device).expand_as(position)
    order = torch.empty_like(position).scatter_(1, position, rows)
    step = 1 + (torch.rand(len(mask), 1, device=mask.device) * (counts - 1)).long()
    partner = order.gather(1, (position + step) % counts.clamp_min(1))
    sources = torch.where(mask, partner, rows)
    return second.gather(1, sources[..., None].expand_as(second)), mask & (counts > 1)


class PairwiseStatistic(torch.autograd.Function):
    """T of `Mine` on a CPU, one pair at a time, so that hidden activations stay in the cache.

    A batched product over all pairs writes them to memory and reads them several times, which is
    slower than to recompute them in backward.
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, inner: Tensor, bias: Tensor, outer: Tensor
    ) -> Tensor:
        """T ``[P, n]`` of `first` and `second` [P, n, C] by the network of each pair."""
        ctx.save_for_backward(first, second, inner, bias, outer)
        statistic = first.new_empty(first.shape[:2])
        for out, a, b, to_hidden, shift, to_one in zip(statistic, first, second, inner,
                                                      bias, outer, strict=True):  # fmt: skip
            hidden = torch.addmm(shift, torch.cat([a, b, a * b], -1), to_hidden).relu_()
            torch.mv(hidden, to_one[:, 0], out=out)
        return statistic

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the arguments of `forward`."""
        first, second, inner, bias, outer = ctx.saved_tensors
        grads = tuple(torch.empty_like(t) for t in (first, second, inner, bias, outer))
        width = first.shape[-1]
        for i, (g, a, b, to_hidden, shift, to_one) in enumerate(
            zip(grad, first, second, inner, bias, outer, strict=True)
        ):
            d_first, d_second, d_inner, d_bias, d_outer = (t[i] for t in grads)
            inputs = torch.cat([a, b, a * b], -1)
            hidden = torch.addmm(shift, inputs, to_hidden).relu_()
            torch.mv(hidden.T, g, out=d_outer[:, 0])
            # The derivative of the ReLU; the gradient of `hidden` is g active outer^T.
            active = hidden.sign_()
            torch.mv(active.T, g, out=d_bias[0]).mul_(to_one[:, 0])
            torch.mm((inputs * g[:, None]).T, active, out=d_inner).mul_(to_one.T)
            d_inputs = (active @ (to_hidden * to_one.T).T).mul_(g[:, None])
            d_a, d_b, d_product = d_inputs.split(width, -1)
            torch.addcmul(d_a, d_product, b, out=d_first)
            torch.addcmul(d_b, d_product, a, out=d_second)
        return grads


class Mine(Information):
    """The Donsker-Varadhan bound on noisy codes (Belghazi et al. 2018).

    I >= mean T(z_i, z_j) - log mean exp T(z_i, z_j'), with z = code + N(0, 1) and a network T per
    pair on z_i, z_j and their product. The gradient of the second term is divided by the running
    mean of its partition function instead of the batch's, which removes the bias of small batches.
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
            return self.batched_statistic(first, second)
        networks = self.inner, self.inner_bias, self.outer
        statistic: Tensor = PairwiseStatistic.apply(  # type: ignore[no-untyped-call]
            first, second, *networks
        )
        return statistic

    def batched_statistic(self, first: Tensor, second: Tensor) -> Tensor:
        """The same by a batched product over all pairs, for GPUs."""
        inputs = torch.cat([first, second, first * second], -1)
        hidden = torch.baddbmm(self.inner_bias, inputs, self.inner).relu()
        # Transposed: batched products with a single column take eight times as long.
        return (self.outer.mT @ hidden.mT).squeeze(-2)

    def bound_of_pairs(
        self, first: Tensor, second: Tensor, mask: Tensor, *, learning: bool
    ) -> Tensor:
        """The bound ``[P]`` of `first` and `second` [P, n, C], noise included, over `mask` [P, n].

        0 without gradient for pairs with fewer than two rows.
        """
        shuffled, shuffled_mask = shuffle(second, mask)
        valid = shuffled_mask.any(1)
        joint = mean_over(self.statistic(first, second), mask)
        partition = log_mean_exp(self.statistic(first, shuffled), shuffled_mask)
        if not learning:
            return torch.where(valid, joint - partition, 0)
        with torch.no_grad():
            decayed = math.log(DECAY) + self.log_partition
            new = torch.logaddexp(decayed, math.log(1 - DECAY) + partition)
            self.log_partition.copy_(torch.where(valid, new, self.log_partition))
            ratio = (partition - self.log_partition).exp()
        # The value is the bound; the gradient of the second term is dZ / running mean of Z.
        bound = joint - partition.detach() - ratio * (partition - partition.detach())
        return torch.where(valid, bound, 0)

    def bound(self, codes: Tensor, present: Tensor, *, learning: bool = False) -> Tensor:
        """See the base class."""
        first, second = self.pair_codes(codes + torch.randn_like(codes))
        return self.bound_of_pairs(first, second, self.have_both(present), learning=learning)

    def pointwise(self, codes: Tensor, present: Tensor) -> Tensor:
        """T of both views of each row, averaged over the noise."""
        samples = []
        for _ in range(DRAWS):
            samples.append(self.statistic(*self.pair_codes(codes + torch.randn_like(codes))))
        return torch.stack(samples).mean(0)


class SoftBin(Information):
    """The information of soft bins: sum_cd P_cd log(P_cd / (P_c P_d)) (MoCME eq. 2, literally).

    A code is a softmax over bins; P is the mean of the products of two codes, symmetrized. There is
    no noise. Bins contain less information than their inputs, so this is a lower bound too.
    """

    width: ClassVar[int] = 16

    def table(self, codes: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """P and log(P_cd / (P_c P_d)), each ``[P, C, C]``."""
        first, second = self.pair_codes(codes.softmax(-1))
        mask = self.have_both(present)[..., None].to(codes.dtype)
        joint = (first * mask).mT @ second / mask.sum(1, keepdim=True).clamp_min(1)
        joint = ((joint + joint.mT) / 2).clamp_min(1e-12)
        marginal = joint.sum(-1)
        return joint, joint.log() - marginal[:, :, None].log() - marginal[:, None, :].log()

    def bound(self, codes: Tensor, present: Tensor, *, learning: bool = False) -> Tensor:
        """See the base class."""
        joint, ratio = self.table(codes, present)
        return (joint * ratio).sum((-2, -1))

    def pointwise(self, codes: Tensor, present: Tensor) -> Tensor:
        """The same sum with the bins of each row as P_cd."""
        _, ratio = self.table(codes, present)
        first, second = self.pair_codes(codes.softmax(-1))
        return ((first @ ratio) * second).sum(-1)


class Club(Information):
    """The contrastive upper bound CLUB on noisy codes (Cheng et al. 2020), as in MoMoK.

    I <= mean log q(z_j | z_i) - mean log q(z_j' | z_i), where q is a Gaussian; a network computes
    its mean and log-variance from z_i. The networks maximize log q with the variance term, which
    MoMoK's code omits.
    """

    def __init__(self, views: int, pairs: Tensor, dim: int, generator: torch.Generator) -> None:
        super().__init__(views, pairs, dim, generator)
        n = len(pairs)
        self.inner = xavier(n, self.width, HIDDEN, generator=generator)
        self.inner_bias = nn.Parameter(torch.zeros(n, 1, HIDDEN))
        self.outer = xavier(n, HIDDEN, 2 * self.width, generator=generator)

    def likelihood(self, first: Tensor, second: Tensor) -> Tensor:
        """log q(second | first) ``[P, n]``, up to a constant."""
        outputs = torch.baddbmm(self.inner_bias, first, self.inner).relu() @ self.outer
        mean, log_variance = outputs.chunk(2, -1)
        log_variance = log_variance.tanh()  # bounded as in MoMoK
        return -0.5 * ((second - mean).square() * (-log_variance).exp() + log_variance).sum(-1)

    def bound(self, codes: Tensor, present: Tensor, *, learning: bool = False) -> Tensor:
        """The bound; with `learning`, the log-likelihood."""
        first, second = self.pair_codes(codes + torch.randn_like(codes))
        mask = self.have_both(present)
        likelihood = mean_over(self.likelihood(first, second), mask)
        if learning:
            return likelihood
        shuffled, shuffled_mask = shuffle(second, mask)
        return likelihood - mean_over(self.likelihood(first, shuffled), shuffled_mask)

    def pointwise(self, codes: Tensor, present: Tensor) -> Tensor:
        """Log-likelihood of each row minus that with another row's second view."""
        mask, samples = self.have_both(present), []
        for _ in range(DRAWS):
            first, second = self.pair_codes(codes + torch.randn_like(codes))
            shuffled, _ = shuffle(second, mask)
            samples.append(self.likelihood(first, second) - self.likelihood(first, shuffled))
        return torch.stack(samples).mean(0)


ESTIMATORS: dict[str, type[Information]] = {"mine": Mine, "softbin": SoftBin, "club": Club}
