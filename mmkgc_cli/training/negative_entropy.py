"""Entropy of the scores of negatives: the shares of easy, ambiguous and hard negatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmkgc_cli.ops import entropy_cut
from mmkgc_cli.sampling.contract import SamplerConfig, SamplingTask
from mmkgc_cli.sampling.samplers.filtered import FilteredSampler
from mmkgc_cli.scoring.contract import Scorer

POSITIVES = 1024


@dataclass(frozen=True)
class NegativeEntropy:
    """Shares of negatives by the binary entropy of sigmoid(score) (MoCME eq. 6 and 7).

    `easy`, `ambiguous` and `hard` sum to 1. `held_true` is the share with a score above 0,
    `surely_true` the share of these with as little entropy as easy negatives.
    """

    easy: float
    ambiguous: float
    hard: float
    held_true: float
    surely_true: float


class NegativeEntropyProbe:
    """Measures `NegativeEntropy` on fixed negatives of a fixed sample of train triples."""

    def __init__(
        self,
        task: SamplingTask,
        thresholds: tuple[float, float],
        scorer: Scorer,
        *,
        one_sided: bool = False,
    ) -> None:
        """Samples negatives with the seed of `task`, by the sampler `filtered`.

        `thresholds` are in bits; `one_sided` as in the loss.
        """
        rng = torch.Generator().manual_seed(task.seed)
        sample = torch.randperm(len(task.triples), generator=rng)[:POSITIVES]
        self._positives = task.triples[sample.to(task.triples.device)]
        sampler = FilteredSampler(SamplerConfig(), task, scorer).to(task.triples.device)
        self._candidates = sampler.draw(self._positives, scorer)
        self._cuts = entropy_cut(thresholds[0]), entropy_cut(thresholds[1])
        self._one_sided = one_sided

    @torch.no_grad()
    def __call__(self, scorer: Scorer) -> NegativeEntropy:
        """The shares for `scorer`, in its current mode (train or eval)."""
        scores = scorer.score_sampled(self._positives, self._candidates)
        negatives = scores[:, 1:][self._candidates.full_mask[:, 1:]]
        return negative_entropy(negatives, self._cuts, one_sided=self._one_sided)


def negative_entropy(
    scores: Tensor, cuts: tuple[float, float], *, one_sided: bool = False
) -> NegativeEntropy:
    """Shares of the `scores` [n] of negatives; `cuts` apply to absolute scores, as in the loss.

    With `one_sided`, all scores above 0 are hard.
    """
    easy_above, hard_upto = cuts
    size, count = scores.abs(), max(1, scores.numel())
    certain = size > easy_above
    easy, hard = certain, size <= hard_upto
    if one_sided:
        easy, hard = certain & (scores <= 0), (hard | (scores > 0))

    def share(selected: Tensor) -> float:
        return int(selected.sum()) / count

    return NegativeEntropy(
        easy=share(easy),
        ambiguous=share(~easy & ~hard),
        hard=share(hard & ~easy),
        held_true=share(scores > 0),
        surely_true=share(certain & (scores > 0)),
    )
