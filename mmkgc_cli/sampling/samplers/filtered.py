"""`filtered`, the default sampler: `ops.filtered_negatives` on the device."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mmkgc_cli.ops import filtered_negatives
from mmkgc_cli.sampling.contract import Negatives, Sampler, SamplerConfig, SamplingTask
from mmkgc_cli.sampling.known_triples import head_shares, known_answers
from mmkgc_cli.scoring.contract import Scorer

# Rounds in which draws that hit a true triple are drawn again; what still hits is masked out.
ROUNDS = 4


class FilteredNegatives(Sampler):
    """Draws negatives that are not train triples.

    A side is drawn for each negative or for all of a positive, or tails and heads take turns. Draws
    that hit a train triple are repeated a fixed number of rounds, so nothing waits for the device.
    """

    capturable = True
    citation: ClassVar[str] = (
        "Zhen Wang, Jianwen Zhang, Jianlin Feng and Zheng Chen. Knowledge graph embedding by "
        "translating on hyperplanes. AAAI, 2014."
    )

    def __init__(self, config: SamplerConfig, task: SamplingTask, scorer: Scorer) -> None:
        """Indexes the train triples."""
        super().__init__(config, task, scorer)
        self._tails, self._heads = known_answers(task)
        self._head_share = head_shares(task, self._tails, self._heads)

    def draw(self, positives: Tensor, scorer: Scorer) -> Negatives:
        """Corrupts `positives` [B, 3]; which scorer learns from it plays no part."""
        drawn = filtered_negatives(
            positives,
            self._head_share,
            self._tails,
            self._heads,
            entities=self.task.n_entities,
            n=self.task.negatives,
            choice=self.task.choice,
            rounds=ROUNDS,
            with_positive=True,
            seed=self.task.seed,
            step=0,
            counter=self.counter,
        )
        return Negatives(*drawn)


SAMPLER = FilteredNegatives
