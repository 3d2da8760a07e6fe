from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmkgc_cli.ops import AdversarialForm, self_adversarial_loss
from mmkgc_cli.ops.self_adversarial_loss import reference
from tests.ops.conftest import native
from tests.ops.losses import problem, with_gradients

FORMS = list(AdversarialForm)
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
MARGIN, TEMPERATURE = 2.0, 1.3


def loss_of(
    scores: tuple[Tensor, Tensor, Tensor | None],
    form: AdversarialForm = AdversarialForm.log_sigmoid,
    temperature: float = TEMPERATURE,
) -> Tensor:
    return self_adversarial_loss(*scores, temperature, form=form, margin=MARGIN)


def with_held_weights(
    positive: Tensor, negative: Tensor, weights: Tensor, form: AdversarialForm
) -> Tensor:
    """The formulas of the papers, row by row."""
    losses = []
    for p, row, w in zip(positive, negative, weights, strict=True):
        if form == AdversarialForm.log_sigmoid:
            losses.append(-0.5 * (logsigmoid(p) + (w * logsigmoid(-row)).sum()))
        elif form == AdversarialForm.margin_inside:
            losses.append((w * (MARGIN - p + row).clamp_min(0)).sum())
        else:
            losses.append((MARGIN - p + (w * row).sum()).clamp_min(0))
    return torch.stack(losses).mean()


@every_form
def test_closed_form_with_weights_that_carry_no_gradient(
    backend: str, form: AdversarialForm
) -> None:
    positive, negative, _ = problem(40, 4)
    positive = (positive.detach() + 3).requires_grad_()
    weights = torch.softmax(TEMPERATURE * negative.detach(), 1)
    actual = with_gradients(loss_of((positive, negative, None), form), (positive, negative))
    expected = with_held_weights(positive, negative, weights, form)
    for a, b in zip(actual, with_gradients(expected, (positive, negative)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
    # Both branches of the hinge occur.
    assert (actual[1] != 0).any()
    assert (actual[1] == 0).any() == (form != AdversarialForm.log_sigmoid)


@pytest.mark.parametrize("form", FORMS[1:], ids=lambda form: form.name)
def test_the_gradient_of_a_hinge_at_zero_is_zero(backend: str, form: AdversarialForm) -> None:
    positive = torch.tensor([MARGIN + 1]).requires_grad_()
    negative = torch.ones(1, 3).requires_grad_()
    actual = with_gradients(loss_of((positive, negative, None), form), (positive, negative))
    assert not any(x.any() for x in actual)


@native
@every_form
def test_gradcheck_where_weights_are_constant(form: AdversarialForm) -> None:
    # At temperature 0 the weights do not depend on the scores.
    positive, negative, mask = problem(4, 5)
    assert torch.autograd.gradcheck(
        lambda p, n: loss_of((p, n, mask), form, temperature=0.0), (positive, negative)
    )


def test_temperature_zero_gives_equal_weights(backend: str) -> None:
    positive, negative, _ = problem()
    expected = -0.5 * (logsigmoid(positive) + logsigmoid(-negative).mean(1)).mean()
    actual = loss_of((positive, negative, None), temperature=0.0)
    assert actual.item() == pytest.approx(expected.item(), rel=1e-12)


@every_form
def test_a_row_without_unmasked_negatives(backend: str, form: AdversarialForm) -> None:
    positive, negative, mask = problem(2, 3, kept=1.0)
    mask[0] = False
    actual = with_gradients(loss_of((positive, negative, mask), form), (positive, negative))
    alone = (positive[1:], negative[1:], mask[1:])
    rest, *_ = with_gradients(loss_of(alone, form), (positive, negative))
    left = -0.5 * logsigmoid(positive[0].detach()) if form == AdversarialForm.log_sigmoid else 0.0
    assert actual[0].item() == pytest.approx(float((rest + left) / 2), rel=1e-12)
    assert (actual[1][0] != 0) == (form == AdversarialForm.log_sigmoid)
    assert not actual[2][0].any()


@every_form
def test_no_negatives_equal_all_masked(backend: str, form: AdversarialForm) -> None:
    positive, negative, mask = problem(3, 4, kept=0.0)
    expected = loss_of((positive, negative, mask), form)
    assert loss_of((positive, negative[:, :0], None), form) == expected


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "positive dims": ({"positive": torch.zeros(2, 3)}, "positive has 2 dimensions, expected 1"),
    "positive dtype": (
        {"positive": torch.zeros(2).half()},
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
        {"mask": torch.ones(3, 2, dtype=torch.bool)},
        "mask must have the shape of negative",
    ),
    "mask dtype": ({"mask": torch.ones(2, 3)}, "mask must be bool"),
    "form": (
        {"form": 3},
        r"form is 3, expected 0 \(log_sigmoid\), 1 \(margin_inside\) or 2 \(margin_outside\)",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_errors_of_arguments_are_equal_on_both_backends(backend: str, what: str) -> None:
    changes, message = WRONG[what]
    right = {
        "positive": torch.zeros(2),
        "negative": torch.zeros(2, 3),
        "mask": None,
        "temperature": 1.0,
    }
    with pytest.raises(RuntimeError, match="self_adversarial_loss: " + message):
        self_adversarial_loss(**{**right, **changes})


def test_the_reference_equals_the_formula_with_masked_logits() -> None:
    positive, negative, mask = problem()
    with torch.no_grad():
        logits = (0.7 * negative).masked_fill(~mask, -torch.inf)
        weights = logits.softmax(1)
    expected = -0.5 * (logsigmoid(positive) + (weights * logsigmoid(-negative)).sum(1)).mean()
    assert torch.allclose(reference(positive, negative, mask, 0.7), expected, rtol=1e-14)


@pytest.mark.parametrize("temperature", [1.3, 0.9, -0.7])
@pytest.mark.parametrize("size", [1e9, 1e12, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_of_any_size_keep_their_weights(
    backend: str, dtype: torch.dtype, size: float, temperature: float
) -> None:
    """Weights sum to 1, so that the loss of a diverged run is large."""
    rng = torch.Generator().manual_seed(0)
    negative = size * torch.rand(50, 7, generator=rng, dtype=dtype)
    positive = torch.zeros(50, dtype=dtype)
    loss = loss_of((positive, negative, None), AdversarialForm.log_sigmoid, temperature)
    hardest = negative.max(1).values if temperature > 0 else negative.min(1).values
    assert float(loss) == pytest.approx(0.5 * float(hardest.mean()), rel=1e-4)
