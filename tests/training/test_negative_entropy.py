from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.ops import SideChoice, entropy_cut
from mmkgc_cli.sampling.contract import SamplingTask
from mmkgc_cli.scoring import Side, load_scorer
from mmkgc_cli.scoring.contract import Candidates
from mmkgc_cli.training.negative_entropy import (
    NegativeEntropy,
    NegativeEntropyProbe,
    negative_entropy,
)

CUTS = entropy_cut(0.2), entropy_cut(0.8)


def test_shares_follow_the_entropy_of_positive_and_negative_scores() -> None:
    """Cuts are 3.438 and 1.136: four of ten scores are easy, two of them above 0."""
    scores = torch.tensor([-9.0, -4, 5, 3.5, -3, -2, 2, 1, 0, -1])
    actual = negative_entropy(scores, CUTS)
    assert actual == NegativeEntropy(
        easy=0.4, ambiguous=0.3, hard=0.3, held_true=0.4, surely_true=0.2
    )
    actual = negative_entropy(scores, CUTS, one_sided=True)
    assert actual == NegativeEntropy(
        easy=0.2, ambiguous=0.2, hard=0.6, held_true=0.4, surely_true=0.2
    )


def test_shares_of_no_scores_are_zero() -> None:
    assert negative_entropy(torch.zeros(0), CUTS) == NegativeEntropy(0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_probe_scores_the_same_negatives_again_without_known_triples(graph: Graph) -> None:
    scorer_class: Any = load_scorer("rotate")
    n, r = len(graph.entities), len(graph.relations)
    scorer = scorer_class(scorer_class.Config(dim=4), n, r, torch.Generator().manual_seed(0))
    triples = torch.from_numpy(graph.train).long()
    task = SamplingTask(triples, n, r, 8, "bernoulli", SideChoice.per_negative, 5)
    probe = NegativeEntropyProbe(task, (0.2, 0.8), scorer)
    first = probe(scorer)
    assert probe(scorer) == first
    assert first.easy + first.ambiguous + first.hard == pytest.approx(1)
    # Train triples score 10, others -10: the probe must not contain train triples.
    known = {tuple(row) for row in triples.tolist()}

    def score_sampled(positives: Tensor, candidates: Candidates) -> Tensor:
        ids, is_head = candidates.ids, candidates.corrupted_side == Side.head
        h = torch.where(is_head, ids, positives[:, :1])
        t = torch.where(is_head, positives[:, 2:], ids)
        rows = torch.stack([h, positives[:, 1:2].expand_as(ids), t], -1).view(-1, 3)
        true = torch.tensor([tuple(row) in known for row in rows.tolist()])
        return (20.0 * true - 10).view_as(ids)

    scorer.score_sampled = score_sampled
    assert probe(scorer) == NegativeEntropy(1.0, 0.0, 0.0, 0.0, 0.0)
