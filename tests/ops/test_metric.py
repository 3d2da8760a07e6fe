from __future__ import annotations

import pytest
import torch

from mmkgc_cli.ops import Metric, Pair, modulus, score_rows, whole_row


def test_closed_form_values() -> None:
    q, c = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[4.0, 2.0, 7.0, 0.0]])
    expected = {
        Metric.dot: 4 + 4 + 21 + 0,
        Metric.l1: -(3 + 0 + 4 + 4),
        Metric.l2: -((9 + 16 + 16) ** 0.5),
        Metric.modulus: -(5 + 4),  # (1, 3) - (4, 7) = (-3, -4); (2, 4) - (2, 0) = (0, 4)
    }
    for metric, value in expected.items():
        assert score_rows(q, c, metric, whole_row(4)).item() == pytest.approx(value)


@pytest.mark.parametrize("metric", [Metric.dot, Metric.l1, Metric.modulus])
def test_a_sum_of_pairs_is_the_sum_of_its_terms(metric: Metric) -> None:
    q, c = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    pairs = [Pair(0, 4, 4, 0.5), Pair(2, 0, 2, 2.0)]
    parts = [
        p.weight
        * score_rows(
            q[:, p.query : p.query + p.width],
            c[:, p.candidate : p.candidate + p.width],
            metric,
            whole_row(p.width),
        )
        for p in pairs
    ]
    torch.testing.assert_close(score_rows(q, c, metric, pairs), parts[0] + parts[1])


def test_each_l2_pair_has_its_own_root() -> None:
    q, c = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
    assert score_rows(q, c, Metric.l2, [Pair(0, 0, 1), Pair(1, 1, 1)]).item() == -7
    assert score_rows(q, c, Metric.l2, whole_row(2)).item() == -5


@pytest.mark.parametrize("metric", Metric)
def test_gradcheck(metric: Metric) -> None:
    torch.manual_seed(0)
    q = torch.randn(3, 1, 6, dtype=torch.float64, requires_grad=True)
    c = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    scale = torch.randn(3, 1, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *x: score_rows(x[0], x[1], metric, whole_row(6), x[2]), (q, c, scale)
    )


@pytest.mark.parametrize("metric", [Metric.l2, Metric.modulus])
def test_the_gradient_at_distance_zero_is_zero(metric: Metric) -> None:
    q = torch.ones(2, 4, requires_grad=True)
    score_rows(q, torch.ones(2, 4), metric, whole_row(4)).sum().backward()
    assert q.grad is not None
    assert torch.equal(q.grad, torch.zeros(2, 4))


def test_modulus_pairs_first_half_with_second() -> None:
    assert modulus(torch.tensor([3.0, 0.0, 4.0, 2.0])).tolist() == [5.0, 2.0]
