"""Filtered sampling (Wang et al., 2014): random entities that make no train triple.

The side is chosen by relation (`bernoulli`) or at random; `ops.filtered_negatives` samples.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mmkgc_cli.ops import filtered_negatives
from mmkgc_cli.sampling.contract import Candidates, Sampler, SamplerConfig, SamplingTask
from mmkgc_cli.sampling.known_triples import head_probability, known_answers
from mmkgc_cli.scoring.contract import Scorer

# Attempts per negative to avoid a true triple; after the last one, the negative is masked.
ROUNDS = 4


class FilteredSampler(Sampler):
    """Samples negatives that are not train triples.

    The corrupted side is chosen per negative, per positive, or alternates between tail and head.
    Entities that make a train triple are replaced in a fixed number of rounds, so that no step
    waits for the device.
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
        self._head_probability = head_probability(task, self._tails, self._heads)

    def draw(self, positives: Tensor, scorer: Scorer) -> Candidates:
        """Negatives of `positives` [B, 3], independent of the scorer."""
        return Candidates(
            *filtered_negatives(
                positives,
                self._head_probability,
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
        )


SAMPLER = FilteredSampler
