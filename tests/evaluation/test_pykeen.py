"""Our ranks against PyKEEN's evaluator: filtered, both sides, all three tie policies."""

from __future__ import annotations

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

# PyKEEN and what it imports warn of their own accord.
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
def test_ranks_on_a_grid_of_eighths_are_exactly_pykeens(
    scorer_class: type[Scorer], interaction: object, seed: int
) -> None:
    scorer = of(scorer_class, GRAPH, seed)
    parameters = dict(scorer.named_parameters())
    model = peer.build_model(GRAPH, interaction, parameters["entities"], parameters["relations"])
    theirs = peer.evaluate(model, GRAPH, len(GRAPH.test))
    found = ours(scorer, GRAPH)
    for side in Side:
        for tie in TIES:
            expected = theirs.ranks[side.name, tie]
            assert np.array_equal(getattr(found[side], tie), expected), (side, tie)
        assert np.array_equal(found[side].candidates, theirs.candidates[side.name])
    assert (found[Side.tail].optimistic < found[Side.tail].pessimistic).any(), "no ties to test"
    report = side_metrics(found)
    for side in ("both", "head", "tail"):
        for tie in TIES:
            names = {
                "mrr": "inverse_harmonic_mean_rank",
                "mr": "arithmetic_mean_rank",
                "amri": "adjusted_arithmetic_mean_rank_index",
                **{f"hits@{k}": f"hits_at_{k}" for k in (1, 3, 10)},
            }
            for metric, name in names.items():
                expected = theirs.metrics[f"{side}.{tie}.{name}"]
                assert report[side][tie][metric] == pytest.approx(expected, rel=1e-5, abs=1e-6), (
                    name
                )


def test_rotate_scores_agree_and_ranks_differ_only_inside_the_gap() -> None:
    scorer_class = load_scorer("rotate")
    rng = torch.Generator().manual_seed(0)
    n, r = len(GRAPH.entities), len(GRAPH.relations)
    scorer = scorer_class(scorer_class.Config(dim=16), n, r, rng).eval()
    re, im = scorer.entities.detach().chunk(2, -1)
    rotations = torch.polar(torch.ones(()), scorer.phases.detach())
    model = peer.build_model(GRAPH, peer.SumOfModuli(), torch.complex(re, im), rotations)
    theirs = peer.evaluate(model, GRAPH, len(GRAPH.test))
    found = ours(scorer, GRAPH)
    test = torch.from_numpy(GRAPH.test).long()
    gap = 1e-4
    with torch.no_grad():
        own = scorer.score(test) - scorer.margin
        torch.testing.assert_close(own, model.score_hrt(test)[:, 0], atol=gap, rtol=0)
        tails = scorer.score_vectors(
            scorer.query(test[:, 0], test[:, 1], Side.tail)[:, None], scorer.candidates(None)[None]
        )
        torch.testing.assert_close(
            tails - scorer.margin, model.score_t(test[:, :2]), atol=gap, rtol=0
        )
        heads = model.score_h(test[:, 1:])
    for side, scores in ((Side.tail, tails - scorer.margin), (Side.head, heads)):
        inside = ((scores - own[:, None]).abs() <= 2 * gap).sum(1).numpy() - 1
        for tie in TIES:
            difference = np.abs(getattr(found[side], tie) - theirs.ranks[side.name, tie])
            assert (difference <= inside).all(), (side, tie)
