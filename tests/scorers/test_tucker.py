from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli.scoring import Scorer, Side, load_scorer

N, R = 5, 2


def make(seed: int = 0, **config: Any) -> Any:
    scorer_class: Any = load_scorer("tucker")
    settings = {"dim": 4, "relation_dim": 3, **config}
    rng = torch.Generator().manual_seed(seed)
    return scorer_class(scorer_class.Config(**settings), N, R, rng).double()


NO_DROPOUT: dict[str, Any] = {"input_dropout": 0.0, "relation_dropout": 0.0, "output_dropout": 0.0}


def by_hand() -> Scorer:
    """Entities (1, 2), (3, -1), relations (1, 0), (0, 1) and inverses; batch norms do nothing."""
    scorer_class: Any = load_scorer("tucker")
    scorer: Any = scorer_class(
        scorer_class.Config(dim=2, relation_dim=2), 2, 1, torch.Generator()
    ).double()
    with torch.no_grad():
        scorer.entities.copy_(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
        scorer.relations.copy_(torch.tensor([[2.0, 1.0], [0.0, 1.0]]))
        scorer.core.copy_(torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, -1.0], [5.0, 1.0]]]))
        for norm in (scorer.input_norm, scorer.output_norm):
            norm.running_var.fill_(1 - norm.eps)
    assert isinstance(scorer, Scorer)
    return scorer.eval()


def test_score_is_the_core_times_relation_head_and_tail() -> None:
    # M_r = 2 [[1, 2], [3, 4]] + [[0, -1], [5, 1]] = [[2, 3], [11, 9]]; (1, 2) M_r = (24, 21).
    score = by_hand().score(torch.tensor([[0, 0, 1]]))
    assert score.item() == pytest.approx(24 * 3 - 21)


def test_heads_are_the_tails_of_the_inverse_relation() -> None:
    # (3, -1) [[0, -1], [5, 1]] = (-5, -4), against (1, 2) and (3, -1).
    scores = by_hand().score_all(torch.tensor([1]), torch.tensor([0]), Side.head)
    assert scores[0].tolist() == pytest.approx([-5 - 8, -15 + 4])


def test_evaluation_uses_the_running_statistics() -> None:
    scorer: Any = by_hand()
    with torch.no_grad():
        scorer.input_norm.running_mean.copy_(torch.tensor([1.0, 1.0]))
        scorer.output_norm.bias.copy_(torch.tensor([10.0, 0.0]))
    # (0, 1) M_r = (11, 9), then (21, 9).
    score = scorer.score(torch.tensor([[0, 0, 1]]))
    assert score.item() == pytest.approx(21 * 3 - 9)


def queries() -> tuple[Tensor, Tensor]:
    entities, relations = torch.cartesian_prod(torch.arange(N), torch.arange(2 * R)).unbind(1)
    order = torch.randperm(len(entities), generator=torch.Generator().manual_seed(1))
    return entities[order], relations[order]


def test_grouped_and_per_row_matrices_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = make(**NO_DROPOUT)
    entities, relations = queries()
    x = scorer.entities[entities]
    torch.testing.assert_close(scorer._grouped(x, relations), scorer._each(x, relations))
    # A few relations at once, and no queries at all.
    monkeypatch.setitem(type(scorer)._grouped.__globals__, "AT_ONCE", 16)
    torch.testing.assert_close(scorer._grouped(x, relations), scorer._each(x, relations))
    assert scorer._grouped(x[:0], relations[:0]).shape == (0, 4)


def test_training_normalizes_by_the_batch_and_updates_statistics() -> None:
    scorer = make(**NO_DROPOUT)
    entities, relations = queries()
    rows = scorer.tail_query(entities, relations)
    torch.testing.assert_close(rows.mean(0), torch.zeros(4).double(), atol=1e-9, rtol=0)
    assert scorer.output_norm.num_batches_tracked == 1
    assert not torch.equal(scorer.eval().tail_query(entities, relations), rows)


def test_a_batch_of_one_query_uses_the_running_statistics() -> None:
    scorer = make(**NO_DROPOUT)
    one = torch.tensor([1]), torch.tensor([2])
    scorer.tail_query(*queries())
    trained = scorer.tail_query(*one)
    assert torch.equal(trained, scorer.eval().tail_query(*one))
    assert scorer.output_norm.num_batches_tracked == 1


@pytest.mark.parametrize("layer", NO_DROPOUT)
def test_each_dropout_acts_in_training_only(layer: str) -> None:
    scorer = make(**{**NO_DROPOUT, layer: 0.5})
    entities, relations = queries()
    torch.manual_seed(0)
    assert not torch.equal(*(scorer.tail_query(entities, relations) for _ in range(2)))
    scorer.eval()
    assert torch.equal(*(scorer.tail_query(entities, relations) for _ in range(2)))


def test_the_core_starts_as_configured() -> None:
    uniform, xavier = make(), make(core_init="xavier")
    assert uniform.core.abs().max() <= 1
    assert uniform.core.abs().max() > 0.8
    # sqrt(6 / (fan in + fan out)) with fans of 4 x 4 and 3 x 4.
    assert 0.35 < xavier.core.abs().max() <= (6 / 28) ** 0.5
    assert torch.equal(uniform.entities, xavier.entities)
