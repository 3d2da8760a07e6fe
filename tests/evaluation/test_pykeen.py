"""Compares filtered ranks with the evaluator of PyKEEN: both sides, all three tie policies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmkgc_cli.evaluation.known import KnownTriples
from mmkgc_cli.evaluation.metrics import TIES, side_metrics
from mmkgc_cli.evaluation.ranker import rank
from mmkgc_cli.evaluation.ranks import SideRanks
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.scoring import Scorer, Side, load_scorer
from tests.conftest import random_graph
from tests.scoring.small import DistMult, TransE, of

pytest.importorskip("pykeen")
from pykeen.nn.modules import DistMultInteraction, TransEInteraction

from benchmarks import peer

# PyKEEN and its dependencies emit warnings.
pytestmark = pytest.mark.filterwarnings("ignore")
GRAPH = random_graph(60, 4, 600, seed=11)


def ours(scorer: Scorer, graph: Graph) -> dict[Side, SideRanks]:
    known = KnownTriples(list(graph.splits.values()), len(graph.entities), len(graph.relations))
    return rank(scorer, graph.test, known)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("scorer_class", "interaction"),
    [(DistMult, DistMultInteraction()), (TransE, TransEInteraction(p=1))],
)
def test_ranks_with_exact_scores_equal_pykeen(
    scorer_class: type[Scorer], interaction: object, seed: int
) -> None:
    scorer = of(scorer_class, GRAPH, seed)
    parameters = dict(scorer.named_parameters())
    model = peer.build_model(GRAPH, interaction, parameters["entities"], parameters["relations"])
    theirs = peer.evaluate(model, GRAPH, len(GRAPH.test))
    ranks = ours(scorer, GRAPH)
    for side in Side:
        for tie in TIES:
            expected = theirs.ranks[side.name, tie]
            assert np.array_equal(getattr(ranks[side], tie), expected), (side, tie)
        assert np.array_equal(ranks[side].candidates, theirs.candidates[side.name])
    assert (ranks[Side.tail].optimistic < ranks[Side.tail].pessimistic).any(), "no ties to test"
    report = side_metrics(ranks)
    for side_name in ("both", "head", "tail"):
        for tie in TIES:
            names = {
                "mrr": "inverse_harmonic_mean_rank",
                "mr": "arithmetic_mean_rank",
                "amri": "adjusted_arithmetic_mean_rank_index",
                **{f"hits@{k}": f"hits_at_{k}" for k in (1, 3, 10)},
            }
            for metric, name in names.items():
                value = theirs.metrics[f"{side_name}.{tie}.{name}"]
                assert report[side_name][tie][metric] == pytest.approx(value, rel=1e-5, abs=1e-6), (
                    name
                )


def test_rotate_scores_agree_and_ranks_differ_within_the_tolerance_only() -> None:
    scorer_class: Any = load_scorer("rotate")
    rng = torch.Generator().manual_seed(0)
    n, r = len(GRAPH.entities), len(GRAPH.relations)
    scorer = scorer_class(scorer_class.Config(dim=16), n, r, rng).eval()
    re, im = scorer.entities.detach().chunk(2, -1)
    rotations = torch.polar(torch.ones(()), scorer.phases.detach())
    model = peer.build_model(GRAPH, peer.SumOfModuli(), torch.complex(re, im), rotations)
    theirs = peer.evaluate(model, GRAPH, len(GRAPH.test))
    ranks = ours(scorer, GRAPH)
    test = torch.from_numpy(GRAPH.test).long()
    tolerance = 1e-4
    with torch.no_grad():
        true_scores = scorer.score(test) - scorer.margin
        torch.testing.assert_close(true_scores, model.score_hrt(test)[:, 0], atol=tolerance, rtol=0)
        tails = scorer.score_vectors(
            scorer.query(test[:, 0], test[:, 1], Side.tail)[:, None], scorer.candidates(None)[None]
        )
        torch.testing.assert_close(
            tails - scorer.margin, model.score_t(test[:, :2]), atol=tolerance, rtol=0
        )
        heads = model.score_h(test[:, 1:])
    for side, scores in ((Side.tail, tails - scorer.margin), (Side.head, heads)):
        inside = ((scores - true_scores[:, None]).abs() <= 2 * tolerance).sum(1).numpy() - 1
        for tie in TIES:
            difference = np.abs(getattr(ranks[side], tie) - theirs.ranks[side.name, tie])
            assert (difference <= inside).all(), (side, tie)
