"""How sure a scorer is of the negatives that it is trained on: what entropy weights act on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmkgc_cli.ops import entropy_cut
from mmkgc_cli.sampling.contract import SamplerConfig, SamplingTask
from mmkgc_cli.sampling.samplers.filtered import FilteredNegatives
from mmkgc_cli.scoring.contract import Scorer

POSITIVES = 1024


@dataclass(frozen=True)
class Certainty:
    """Shares of negatives, by the binary entropy of sigmoid(s) (MoCME eq. 7).

    `easy`, `ambiguous` and `hard` make 1. Of all, `held_true` have s > 0, and `surely_true` are
    so with as little entropy as the easy ones.
    """

    easy: float
    ambiguous: float
    hard: float
    held_true: float
    surely_true: float


class CertaintyProbe:
    """Negatives of a fixed sample of train triples, as `filtered` draws them, to ask again."""

    def __init__(
        self,
        task: SamplingTask,
        thresholds: tuple[float, float],
        scorer: Scorer,
        one_sided: bool = False,
    ) -> None:
        """Draws with the seed of `task`; `thresholds` are bits, `one_sided` as in the loss."""
        rng = torch.Generator().manual_seed(task.seed)
        chosen = torch.randperm(len(task.triples), generator=rng)[:POSITIVES]
        self._positives = task.triples[chosen.to(task.triples.device)]
        sampler = FilteredNegatives(SamplerConfig(), task, scorer).to(task.triples.device)
        self._drawn = sampler.draw(self._positives, scorer)
        self._cuts = entropy_cut(thresholds[0]), entropy_cut(thresholds[1])
        self._one_sided = one_sided

    @torch.no_grad()
    def __call__(self, scorer: Scorer) -> Certainty:
        """What `scorer`, in whatever mode it is, makes of them."""
        drawn = self._drawn
        heads, relations, tails = self._positives.unbind(1)
        scores = scorer.score_sampled(
            heads, relations, tails, drawn.entities, drawn.side, drawn.order
        )
        return certainty_of(scores[:, 1:][drawn.usable[:, 1:]], self._cuts, self._one_sided)


def certainty_of(scores: Tensor, cuts: tuple[float, float], one_sided: bool = False) -> Certainty:
    """Shares of `scores` [n] of negatives; cuts are on their size, as in the loss.

    `one_sided` has those above 0 hard, however large.
    """
    easy_above, hard_upto = cuts
    size, count = scores.abs(), max(1, scores.numel())
    sure = size > easy_above
    easy, hard = sure, size <= hard_upto
    if one_sided:
        easy, hard = sure & (scores <= 0), (hard | (scores > 0))

    def share(of: Tensor) -> float:
        return int(of.sum()) / count

    return Certainty(
        easy=share(easy),
        ambiguous=share(~easy & ~hard),
        hard=share(hard & ~easy),
        held_true=share(scores > 0),
        surely_true=share(sure & (scores > 0)),
    )
