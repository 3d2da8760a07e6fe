from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmkgc_cli.ops import NegativeReduction, _losses, entropy_cut, entropy_weighted_loss
from mmkgc_cli.ops.entropy_weighted_loss import reference
from tests.ops.conftest import native
from tests.ops.losses import THRESHOLDS, WEIGHTS, problem, with_gradients

REDUCTIONS = list(NegativeReduction)
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS, ids=lambda kind: kind.name)


def loss_of(positive: Tensor, negative: Tensor, mask: Tensor | None, **changes: Any) -> Tensor:
    settings = {"thresholds": THRESHOLDS, "weights": WEIGHTS, "temperature": 0.7, **changes}
    return entropy_weighted_loss(positive, negative, mask, **settings)


def entropy(s: float) -> float:
    """The binary entropy of a probability in bits."""
    p = 1 / (1 + math.exp(-s))
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p) if 0 < p < 1 else 0.0


def by_definition(
    positive: Tensor,
    negative: Tensor,
    mask: Tensor,
    reduction: NegativeReduction,
    one_sided: bool = False,
) -> Tensor:
    """The formula of the paper with entropies, one negative at a time."""
    losses = []
    for b in range(len(positive)):
        own = mask[b].nonzero().flatten().tolist()
        share = torch.softmax(0.7 * negative.detach()[b, own], 0)
        loss = -logsigmoid(positive[b])
        for i, softmax in zip(own, share, strict=True):
            bits = entropy(float(negative.detach()[b, i]))
            easy, ambiguous, hard = WEIGHTS
            factor = easy if bits < THRESHOLDS[0] else ambiguous if bits < THRESHOLDS[1] else hard
            if one_sided and negative[b, i] > 0:
                factor = hard
            weight = {
                NegativeReduction.mean: 1 / len(own),
                NegativeReduction.sum: 1.0,
                NegativeReduction.self_adversarial: softmax,
            }[reduction]
            loss = loss - factor * weight * logsigmoid(-negative[b, i])
        losses.append(loss)
    return torch.stack(losses).mean()


@every_reduction
@pytest.mark.parametrize("one_sided", [False, True])
def test_loss_and_gradients_are_those_of_the_definition(
    backend: str, reduction: NegativeReduction, one_sided: bool
) -> None:
    positive, negative, mask = problem(8, 12)
    scores = (positive, negative)
    actual = loss_of(*scores, mask, reduction=reduction, one_sided=one_sided)
    expected = by_definition(*scores, mask, reduction, one_sided)
    for a, b in zip(with_gradients(actual, scores), with_gradients(expected, scores), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def test_cuts_of_the_published_thresholds() -> None:
    assert entropy_cut(0.2) == pytest.approx(3.438, abs=5e-4)
    assert entropy_cut(0.8) == pytest.approx(1.136, abs=5e-4)
    assert entropy_cut(0.0) == entropy_cut(-1.0) == math.inf
    assert entropy_cut(1.0) == entropy_cut(2.0) == 0
    with pytest.raises(RuntimeError, match="entropy_weighted_loss: thresholds must not be NaN"):
        entropy_cut(math.nan)


@given(bits=st.floats(1e-9, 1 - 1e-9))
def test_a_cut_is_where_the_entropy_is_the_threshold(bits: float) -> None:
    cut = entropy_cut(bits)
    if cut < 30:  # the probability is not yet rounded to 1
        assert entropy(-cut) == pytest.approx(bits, rel=1e-6)


@given(bits=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_cuts_fall_as_thresholds_rise(bits: tuple[float, float]) -> None:
    low, high = sorted(bits)
    assert entropy_cut(low) >= entropy_cut(high)


def buckets(
    values: list[float], cuts: tuple[float, float], one_sided: bool, backend: str
) -> list[str]:
    """The bucket of each score, from the size of its gradient."""
    negative = torch.tensor([values]).requires_grad_()
    args = (torch.zeros(1), negative, None, *cuts, [1.0, 10.0, 100.0], 1, 1.0, one_sided)
    if backend == "native":
        loss = _losses.apply(torch.ops.mmkgc.entropy_weighted_loss.default, *args)
    else:
        loss = reference(*args)
    (slopes,) = torch.autograd.grad(loss, negative)
    factors = (slopes / torch.sigmoid(negative.detach())).flatten().round().tolist()
    return [{1.0: "easy", 10.0: "ambiguous", 100.0: "hard"}[x] for x in factors]


def test_scores_on_a_cut_are_in_the_harder_bucket(backend: str) -> None:
    values = [-3.5, -3.0, -2.0, -1.0, -0.5, 0.0, 1.0, 2.0, 3.0, 3.5]
    half = ["easy", "ambiguous", "ambiguous", "hard", "hard"]
    assert buckets(values, (3.0, 1.0), False, backend) == half + half[::-1]
    sure = ["hard"] * 4
    assert buckets(values, (3.0, 1.0), True, backend) == [*half, "hard", *sure]


def test_extreme_thresholds_leave_a_bucket_empty(backend: str) -> None:
    values = [-50.0, -2.0, -0.1]
    assert buckets(values, (math.inf, 1.0), False, backend) == ["ambiguous", "ambiguous", "hard"]
    assert buckets(values, (3.0, 0.0), False, backend) == ["easy", "ambiguous", "ambiguous"]
    assert buckets(values, (1.0, 1.0), False, backend) == ["easy", "easy", "hard"]


@native
@every_reduction
def test_gradcheck_away_from_the_cuts(reduction: NegativeReduction) -> None:
    positive, negative, mask = problem(3, 5)
    for cut in map(entropy_cut, THRESHOLDS):
        assert float((negative.detach().abs() - cut).abs().min()) > 1e-3
    # At temperature 0 the softmax weights do not depend on the scores.
    assert torch.autograd.gradcheck(
        lambda p, n: loss_of(p, n, mask, reduction=reduction, temperature=0.0),
        (positive, negative),
    )


@every_reduction
def test_a_row_without_unmasked_negatives_has_the_term_of_its_positive(
    backend: str, reduction: NegativeReduction
) -> None:
    positive, negative, mask = problem(2, 3, kept=0.0)
    for n in (3, 0):
        actual = loss_of(positive, negative[:, :n], mask[:, :n], reduction=reduction)
        slopes = torch.autograd.grad(actual, positive)[0]
        assert actual.item() == pytest.approx(float(-logsigmoid(positive).detach().mean()))
        assert torch.allclose(slopes, -torch.sigmoid(-positive.detach()) / 2)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "positive dims": ({"positive": torch.zeros(2, 3)}, "positive has 2 dimensions, expected 1"),
    "positive dtype": (
        {"positive": torch.zeros(2).long()},
        "positive must be float32 or float64",
    ),
    "negative dims": ({"negative": torch.zeros(2)}, "negative has 1 dimensions, expected 2"),
    "negative dtype": (
        {"negative": torch.zeros(2, 3).double()},
        "negative and positive must have the same dtype",
    ),
    "negative rows": (
        {"negative": torch.zeros(4, 3)},
        r"negative has 4 rows, expected 2 \(one per positive\)",
    ),
    "mask shape": (
        {"mask": torch.ones(2, 2, dtype=torch.bool)},
        "mask must have the shape of negative",
    ),
    "mask dtype": ({"mask": torch.ones(2, 3)}, "mask must be bool"),
    "thresholds": (
        {"thresholds": (0.8, 0.25)},
        "thresholds are 0.8 and 0.25 bits, expected the first at most",
    ),
    "a threshold": ({"thresholds": (math.nan, 0.25)}, "thresholds must not be NaN"),
    "weights": (
        {"weights": (1.0, 2.0)},
        r"weights holds 2 numbers, expected 3 \(easy, ambiguous, hard\)",
    ),
    "reduction": (
        {"reduction": 3},
        r"reduction is 3, expected 0 \(mean\), 1 \(sum\) or 2 \(self_adversarial\)",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_errors_of_arguments_are_equal_on_both_backends(backend: str, what: str) -> None:
    changes, message = WRONG[what]
    right = {"positive": torch.zeros(2), "negative": torch.zeros(2, 3), "mask": None}
    with pytest.raises(RuntimeError, match="entropy_weighted_loss: " + message):
        loss_of(**{**right, **changes})


@pytest.mark.parametrize("cuts", [(1.0, 3.5), (math.nan, 1.0)])
def test_cuts_in_the_wrong_order_raise(backend: str, cuts: tuple[float, float]) -> None:
    message = "entropy_weighted_loss: easy_above is .*, expected at least hard_upto, which is"
    with pytest.raises(RuntimeError, match=message):
        buckets([0.0], cuts, False, backend)
