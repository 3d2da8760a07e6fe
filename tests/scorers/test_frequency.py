from __future__ import annotations

import pytest
import torch

from mmkgc_cli.scoring import Scorer, Side, load_scorer

TRIPLES = torch.tensor([[0, 0, 1], [2, 0, 1], [2, 1, 3], [0, 0, 3]])


@pytest.fixture
def scorer() -> Scorer:
    scorer_class = load_scorer("frequency")
    scorer = scorer_class(scorer_class.Config(), 4, 2, torch.Generator())
    scorer.fit(TRIPLES)
    return scorer


def test_score_is_the_count_on_that_side_of_the_relation(scorer: Scorer) -> None:
    of_all = {
        (side, relation): scorer.score_all(
            torch.tensor([3]), torch.tensor([relation]), side
        ).tolist()
        for side in Side
        for relation in range(2)
    }
    assert of_all == {
        (Side.tail, 0): [[0, 2, 0, 1]],
        (Side.head, 0): [[2, 0, 1, 0]],
        (Side.tail, 1): [[0, 0, 0, 1]],
        (Side.head, 1): [[0, 0, 1, 0]],
    }


def test_candidates_need_the_relation_and_the_side(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="frequency: relation or side is None"):
        scorer.candidates(None)


def test_without_train_triples_every_score_is_zero() -> None:
    scorer_class = load_scorer("frequency")
    scorer = scorer_class(scorer_class.Config(), 4, 2, torch.Generator())
    scorer.fit(TRIPLES[:0])
    assert not scorer.score_all(torch.tensor([0]), torch.tensor([1]), Side.tail).any()
