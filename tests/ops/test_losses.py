"""Properties that all losses share."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkgc_cli.ops import AdversarialForm, NegativeReduction, library
from tests.ops.conftest import native
from tests.ops.losses import LOSSES, Loss, adversarial, problem, with_gradients

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def assert_agrees(
    loss: Loss, batch: int, n: int, dtype: torch.dtype, seed: int, kept: float
) -> None:
    positive, negative, mask = problem(batch, n, dtype, seed, kept)
    scores = (positive, negative)
    for some_mask in (mask, None):
        actual = with_gradients(loss.ours(positive, negative, some_mask), scores)
        expected = with_gradients(loss.reference(positive, negative, some_mask), scores)
        rtol = 1e-12 if dtype == torch.float64 else 2e-5
        for a, b in zip(actual, expected, strict=True):
            assert a.dtype == dtype
            assert torch.allclose(a, b, rtol=rtol, atol=rtol / 100 / max(1, batch))


@native
@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_native_and_reference_agree_on_a_grid(loss: Loss, dtype: torch.dtype) -> None:
    for batch in (0, 1, 15, 16, 17, 151):
        for n in (0, 1, 2, 7, 16, 33, 129, 151):
            assert_agrees(loss, batch, n, dtype, 7 * batch + n, 0.8)


@native
@every_loss
@settings(max_examples=30)
@given(
    batch=st.integers(0, 40),
    n=st.integers(0, 70),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
    kept=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
)
def test_native_and_reference_agree(
    loss: Loss, batch: int, n: int, dtype: torch.dtype, seed: int, kept: float
) -> None:
    assert_agrees(loss, batch, n, dtype, seed, kept)


@native
@every_loss
def test_results_are_bitwise_equal_for_any_number_of_threads(loss: Loss) -> None:
    positive, negative, mask = problem(1001, 37, torch.float32)
    results = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        results.append(with_gradients(loss.ours(positive, negative, mask), (positive, negative)))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@every_loss
@pytest.mark.parametrize("layout", ["slices", "transposed", "broadcast"])
def test_layout_does_not_matter(backend: str, loss: Loss, layout: str) -> None:
    positive, negative, mask = problem(37, 21, torch.float32)
    if layout == "slices":
        scores = torch.cat([positive[:, None], negative], 1).detach().requires_grad_()
        together = torch.cat([mask[:, :1], mask], 1)
        views = scores[:, 0], scores[:, 1:], together[:, 1:]
    elif layout == "transposed":
        views = positive, negative.detach().T.contiguous().T.requires_grad_(), mask.T.contiguous().T
    else:
        negative = negative.detach()[:1].expand(37, 21).requires_grad_()
        views = positive, negative, mask[:1].expand(37, 21)
    copies = tuple(x.detach().clone(memory_format=torch.contiguous_format) for x in views)
    copies[0].requires_grad_()
    copies[1].requires_grad_()
    actual = with_gradients(loss.ours(*views), views[:2])
    expected = with_gradients(loss.ours(*copies), copies[:2])
    if backend == "native":
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert all(torch.allclose(a, b) for a, b in zip(actual, expected, strict=True))


@every_loss
def test_gradients_scale_with_that_of_the_loss(backend: str, loss: Loss) -> None:
    positive, negative, mask = problem()
    _, *once = with_gradients(loss.ours(positive, negative, mask), (positive, negative))
    _, *scaled = with_gradients(-3 * loss.ours(positive, negative, mask), (positive, negative))
    for a, b in zip(once, scaled, strict=True):
        assert torch.allclose(-3 * a, b, rtol=1e-14)


@every_loss
def test_positives_or_negatives_may_need_no_gradient(backend: str, loss: Loss) -> None:
    positive, negative, mask = problem()
    expected = with_gradients(loss.ours(positive, negative, mask), (positive, negative))
    alone = loss.ours(positive.detach(), negative, mask)
    assert torch.equal(torch.autograd.grad(alone, negative)[0], expected[2])
    alone = loss.ours(positive, negative.detach(), mask)
    assert torch.equal(torch.autograd.grad(alone, positive)[0], expected[1])
    assert not loss.ours(positive.detach(), negative.detach(), mask).requires_grad


@every_loss
@pytest.mark.parametrize("spoiler", [50.0, -math.inf, math.inf, math.nan])
def test_masked_negatives_are_ignored(backend: str, loss: Loss, spoiler: float) -> None:
    positive, negative, mask = problem()
    spoiled = negative.detach().masked_fill(~mask, spoiler).requires_grad_()
    actual = with_gradients(loss.ours(positive, spoiled, mask), (positive, spoiled))
    expected = with_gradients(loss.ours(positive, negative, mask), (positive, negative))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert not actual[2][~mask].any()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_nan_is_never_hidden(backend: str, loss: Loss, dtype: torch.dtype) -> None:
    for n in (1, 5, 40):
        positive, negative, _ = problem(3, n, dtype)
        for sign in (1.0, -1.0):
            nan = torch.tensor(math.nan, dtype=dtype).copysign(torch.tensor(sign, dtype=dtype))
            spoiled = negative.detach().clone()
            spoiled[1, n // 2] = nan
            assert loss.ours(positive, spoiled, None).isnan()
            spoiled = positive.detach().clone()
            spoiled[2] = nan
            assert loss.ours(spoiled, negative, None).isnan()


@every_loss
def test_infinity_on_the_wrong_side_is_not_finite(backend: str, loss: Loss) -> None:
    positive, negative, _ = problem(3, 20, torch.float32)
    spoiled = negative.detach().clone()
    spoiled[1, 3] = math.inf
    assert not loss.ours(positive, spoiled, None).isfinite()
    spoiled = positive.detach().clone()
    spoiled[1] = -math.inf
    assert not loss.ours(spoiled, negative, None).isfinite()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_large_scores_do_not_overflow(backend: str, loss: Loss, dtype: torch.dtype) -> None:
    negative = torch.tensor(
        [[1e4, -1e4, 0.0], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]], dtype=dtype
    ).requires_grad_()
    positive = torch.tensor([-1e4, 1e4, 1e4], dtype=dtype).requires_grad_()
    actual = with_gradients(loss.ours(positive, negative, None), (positive, negative))
    expected = with_gradients(loss.reference(positive, negative, None), (positive, negative))
    for a, b in zip(actual, expected, strict=True):
        assert a.isfinite().all()
        assert torch.allclose(a, b)


@every_loss
def test_without_rows_the_loss_is_zero(backend: str, loss: Loss) -> None:
    for n in (0, 5):
        positive, negative, mask = problem(0, n)
        actual = with_gradients(loss.ours(positive, negative, mask), (positive, negative))
        assert actual[0] == 0
        assert actual[1].shape == (0,)
        assert actual[2].shape == (0, n)


@native
def test_softplus_is_accurate_to_float_precision() -> None:
    loss = LOSSES["adversarial, temperature 0"].ours
    certain = torch.tensor([1e4])  # its own term is 0
    # 32 equal values fill vectors, and their sums have no rounding. Without clones, values are
    # added one after another, which rounds.
    vectors = library().build["clones"] != "none"
    points = torch.cat([torch.linspace(-85, 85, 1001), torch.logspace(-6, 0, 50)])
    for x in points:
        x64 = x.double()
        expected = float(x64.clamp_min(0) + torch.exp(-x64.abs()).log1p())
        for alike, tolerance in ((1, 4e-7), (32, 4e-7 if vectors else 6e-7)):
            actual = 2 * float(loss(certain, x.expand(1, alike), None))
            assert abs(actual - expected) < tolerance * expected


@native
def test_sigmoid_is_accurate_to_float_precision() -> None:
    loss = LOSSES["adversarial, temperature 0"].ours
    positive = torch.linspace(-70, 70, 100_003).requires_grad_()
    none = torch.zeros(len(positive), 0)
    (slopes,) = torch.autograd.grad(2 * len(positive) * loss(positive, none, None), positive)
    expected = torch.sigmoid(-positive.detach().double())
    assert float(((-slopes - expected) / expected).abs().max()) < 5e-7


@native
def test_softmax_weights_are_accurate_to_float_precision() -> None:
    # In this form the gradient of a negative is its weight.
    loss = adversarial(AdversarialForm.margin_outside, 1.0, 1e6).ours
    for lowest in (-1e-3, -1.0, -80.0):
        negative = torch.linspace(lowest, 0, 1003)[None].requires_grad_()
        (weights,) = torch.autograd.grad(loss(torch.zeros(1), negative, None), negative)
        expected = negative.detach().double().softmax(1)
        assert float(((weights - expected) / expected).abs().max()) < 1e-6


@native
@every_loss
def test_opcheck(loss: Loss) -> None:
    positive, negative, mask = problem(3, 4)
    name = loss.ours.func.__name__  # type: ignore[attr-defined]
    if name == "self_adversarial_loss":
        rest: tuple[Any, ...] = (1.3, int(AdversarialForm.log_sigmoid), 2.0)
    else:
        rest = (3.4, 1.1, [0.5, 1.5, 1.2], int(NegativeReduction.mean), 1.0, True)
    op = getattr(torch.ops.mmkgc, name).default
    for some_mask in (mask, None):
        # Gradients come from an autograd function around the op.
        torch.library.opcheck(op, (positive.detach(), negative.detach(), some_mask, *rest))
