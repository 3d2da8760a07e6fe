from __future__ import annotations

import pytest
import torch

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.ops import SideChoice, entropy_cut
from mmkgc_cli.sampling.contract import SamplingTask
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.training.negative_entropy import Certainty, CertaintyProbe, certainty_of

CUTS = entropy_cut(0.2), entropy_cut(0.8)


def test_shares_are_by_the_entropy_of_both_sides() -> None:
    """Cuts at 3.438 and 1.136: of ten scores two pairs are easy, one of them held to be true."""
    scores = torch.tensor([-9.0, -4, 5, 3.5, -3, -2, 2, 1, 0, -1])
    found = certainty_of(scores, CUTS)
    assert found == Certainty(easy=0.4, ambiguous=0.3, hard=0.3, held_true=0.4, surely_true=0.2)
    found = certainty_of(scores, CUTS, one_sided=True)
    assert found == Certainty(easy=0.2, ambiguous=0.2, hard=0.6, held_true=0.4, surely_true=0.2)


def test_no_scores_have_no_shares() -> None:
    assert certainty_of(torch.zeros(0), CUTS) == Certainty(0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_probe_asks_the_same_negatives_again_and_leaves_known_triples_out(graph: Graph) -> None:
    scorer_class = load_scorer("rotate")
    n, r = len(graph.entities), len(graph.relations)
    scorer = scorer_class(scorer_class.Config(dim=4), n, r, torch.Generator().manual_seed(0))
    triples = torch.from_numpy(graph.train).long()
    task = SamplingTask(triples, n, r, 8, "bernoulli", SideChoice.per_negative, 5)
    probe = CertaintyProbe(task, (0.2, 0.8), scorer)
    first = probe(scorer)
    assert probe(scorer) == first
    assert first.easy + first.ambiguous + first.hard == pytest.approx(1)
    # A score that is sure of train triples, and only of these, is never asked about them.
    known = {tuple(row) for row in triples.tolist()}

    def score_sampled(heads, relations, tails, ids, side, order=None):  # type: ignore[no-untyped-def]
        h = torch.where(side == 1, ids, heads[:, None])
        t = torch.where(side == 1, tails[:, None], ids)
        rows = torch.stack([h, relations[:, None].expand_as(ids), t], -1).view(-1, 3)
        true = torch.tensor([tuple(row) in known for row in rows.tolist()])
        return (20.0 * true - 10).view_as(ids)

    scorer.score_sampled = score_sampled  # type: ignore[method-assign]
    assert probe(scorer) == Certainty(1.0, 0.0, 0.0, 0.0, 0.0)
