from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkgc_cli.ops import (
    AdversarialForm,
    EntropyWeighted,
    Metric,
    NegativeReduction,
    Pair,
    RowLoss,
    SelfAdversarial,
    sampled_loss,
    sampled_score,
    whole_row,
)
from mmkgc_cli.ops._arguments import flat_pairs
from mmkgc_cli.ops._native import has_kernel
from mmkgc_cli.ops.sampled_loss import reference
from mmkgc_cli.training.optimizers import Adam

ROW_LOSSES: dict[str, RowLoss] = {
    **{form.name: SelfAdversarial(1.3, form, 2.0) for form in AdversarialForm},
    **{
        f"entropy, {kind.name}": EntropyWeighted((0.2, 0.8), (0.5, 1.5, 1.2), kind, 0.7)
        for kind in NegativeReduction
    },
    "entropy, one-sided": EntropyWeighted((0.2, 0.8), (0.5, 1.5, 1.2), one_sided=True),
}
every_loss = pytest.mark.parametrize("loss", ROW_LOSSES.values(), ids=ROW_LOSSES)
fused = pytest.mark.skipif(not has_kernel("sampled_loss", "cpu"), reason="no kernel in this build")
# Repeated blocks as in IKRL, and a weight.
CROSSED = [Pair(0, 0, 4, 1.0), Pair(0, 4, 4, 0.5), Pair(4, 4, 4, 2.0)]


def problem(
    entities: int = 17,
    batch: int = 6,
    n: int = 8,
    width: int = 8,
    sides: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Any]:
    """Arguments up to `mask`; with an offset of 4, scores have both signs."""
    rng = torch.Generator().manual_seed(seed)
    scale = 1.5 / max(1, width) ** 0.5
    queries = scale * torch.randn(sides, batch, width, generator=rng, dtype=dtype)
    table = scale * torch.randn(entities, width, generator=rng, dtype=dtype)
    return {
        "queries": queries.requires_grad_(),
        "table": table.requires_grad_(),
        "ids": torch.randint(entities, (batch, n), generator=rng),
        "corrupted_side": torch.randint(sides, (batch, n), generator=rng).to(torch.int8),
        "mask": torch.rand(batch, n, generator=rng) < 0.8,
    }


def with_gradients(
    p: dict[str, Any], metric: Metric, pairs: list[Pair], loss: RowLoss, scale: float = 1.0
) -> tuple[Tensor, ...]:
    """The loss and its gradients with a deferred gradient of the table."""
    queries, table = (p[name].detach().clone().requires_grad_() for name in ("queries", "table"))
    optimizer = Adam([table])
    with optimizer.deferring():
        value = sampled_loss(
            **{**p, "queries": queries, "table": table}, metric=metric, pairs=pairs, loss=loss,
            offset=1.5,
        )  # fmt: skip
        (scale * value).backward()
    optimizer.materialize()
    return value.detach(), queries.grad, table.grad


def expected(
    p: dict[str, Any], metric: Metric, pairs: list[Pair], loss: RowLoss
) -> tuple[Tensor, ...]:
    assert loss.native is not None
    arguments = [*p.values(), int(metric), *flat_pairs(pairs), 1.5, *loss.native]
    value = reference(*arguments)
    return value.detach(), *torch.autograd.grad(value, [p["queries"], p["table"]])


@every_loss
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("pairs", [whole_row(8), CROSSED], ids=["whole", "crossed"])
def test_it_equals_the_loss_of_the_scores(
    backend: str, metric: Metric, pairs: list[Pair], loss: RowLoss
) -> None:
    for sides in (1, 2):
        p = problem(sides=sides)
        vectors = {name: value for name, value in p.items() if name != "mask"}
        scores = 1.5 + sampled_score(**vectors, metric=metric, pairs=pairs)
        apart = loss(scores[:, 0], scores[:, 1:], p["mask"][:, 1:])
        gradients = torch.autograd.grad(apart, [p["queries"], p["table"]])
        actual = with_gradients(p, metric, list(pairs), loss)
        for a, b in zip(actual, (apart.detach(), *gradients), strict=True):
            assert torch.allclose(a, b, rtol=1e-11, atol=1e-13)


@fused
@settings(max_examples=60)
@given(
    entities=st.integers(1, 40),
    batch=st.integers(0, 9),
    n=st.integers(1, 140),
    width=st.sampled_from([2, 6, 32, 62, 130, 256]),
    sides=st.integers(1, 2),
    metric=st.sampled_from(Metric),
    loss=st.sampled_from(list(ROW_LOSSES.values())),
    seed=st.integers(0, 100),
)
def test_float32_agrees_with_the_reference(
    entities: int, batch: int, n: int, width: int, sides: int, metric: Metric, loss: RowLoss,
    seed: int,
) -> None:  # fmt: skip
    single = problem(entities, batch, n, width, sides, torch.float32, seed)
    double = {k: v.detach().double() if v.is_floating_point() else v for k, v in single.items()}
    for name in ("queries", "table"):
        double[name].requires_grad_()
    if isinstance(loss, EntropyWeighted):  # a score may be on a cut up to rounding
        cuts = loss.native[1][:2]
        vectors = {name: value for name, value in double.items() if name != "mask"}
        score = sampled_score(**vectors, metric=metric, pairs=whole_row(width)).detach() + 1.5
        assume(not any(((score.abs() - cut).abs() < 1e-4).any() for cut in cuts))
    # A score may also be near the corner of a hinge, which the tests in float64 cover.
    assume(not (isinstance(loss, SelfAdversarial) and loss.form))
    actual = with_gradients(single, metric, list(whole_row(width)), loss)
    for a, b in zip(actual, expected(double, metric, list(whole_row(width)), loss), strict=True):
        assert a.dtype == torch.float32
        assert torch.allclose(a.double(), b, rtol=1e-3, atol=2e-5)


@fused
def test_results_are_bitwise_equal_for_any_number_of_threads() -> None:
    p = problem(60, 90, 51, 66, dtype=torch.float32)
    p["ids"][:, ::4] = 3
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        results.append(
            with_gradients(p, Metric.modulus, list(whole_row(66)), ROW_LOSSES["log_sigmoid"])
        )
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradients_scale_with_that_of_the_loss(backend: str) -> None:
    p, loss = problem(), ROW_LOSSES["log_sigmoid"]
    _, *once = with_gradients(p, Metric.l1, list(whole_row(8)), loss)
    _, *thrice = with_gradients(p, Metric.l1, list(whole_row(8)), loss, scale=-3.0)
    for a, b in zip(once, thrice, strict=True):
        assert torch.allclose(-3 * a, b, rtol=1e-13)


def test_without_deferring_the_table_has_its_gradient(backend: str) -> None:
    p, loss = problem(), ROW_LOSSES["log_sigmoid"]
    value = sampled_loss(**p, metric=Metric.l2, pairs=whole_row(8), loss=loss, offset=1.5)
    actual = value.detach(), *torch.autograd.grad(value, [p["queries"], p["table"]])
    for a, b in zip(actual, expected(p, Metric.l2, list(whole_row(8)), loss), strict=True):
        assert torch.allclose(a, b, rtol=1e-11)


def test_a_frozen_table_costs_no_gradient(backend: str) -> None:
    p, loss = problem(), ROW_LOSSES["log_sigmoid"]
    _, d_queries, _ = expected(p, Metric.dot, list(whole_row(8)), loss)
    p["table"] = p["table"].detach()
    value = sampled_loss(**p, metric=Metric.dot, pairs=whole_row(8), loss=loss, offset=1.5)
    assert torch.allclose(torch.autograd.grad(value, p["queries"])[0], d_queries, rtol=1e-11)


@every_loss
def test_scores_of_masked_negatives_do_not_matter(backend: str, loss: RowLoss) -> None:
    p = problem()
    p["table"].detach()[16] = 1e6
    p["ids"][:, 0] = 3
    p["mask"] = p["ids"] != 16
    metric, pairs = Metric.l1, list(whole_row(8))
    actual = with_gradients(p, metric, pairs, loss)
    p["table"].detach()[16] = 1.0
    for a, b in zip(actual, with_gradients(p, metric, pairs, loss), strict=True):
        assert torch.equal(a, b)


@fused
def test_opcheck() -> None:
    p = [x.detach() for x in problem(5, 3, 4).values()]
    op = torch.ops.mmkgc.sampled_loss.default
    for loss in (ROW_LOSSES["log_sigmoid"], ROW_LOSSES["entropy, one-sided"]):
        assert loss.native is not None
        for mask in (p[4], None):
            # Gradients come from an autograd function around the op.
            rest = (int(Metric.l1), *flat_pairs(whole_row(8)), 1.5, *loss.native)
            torch.library.opcheck(op, (*p[:4], mask, *rest))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "queries": ({"queries": torch.zeros(6, 8)}, r"queries must be \[1 or 2, B, Dq\]"),
    "id": ({"ids": torch.full((6, 8), 17)}, r"ids\[0\] is 17, outside 0..16"),
    "corrupted_side": (
        {"corrupted_side": torch.full((6, 8), 2, dtype=torch.int8)},
        r"corrupted_side\[0\] is 2, outside 0..1",
    ),
    "columns": (
        {
            "ids": torch.zeros(6, 0, dtype=torch.int64),
            "corrupted_side": torch.zeros(6, 0, dtype=torch.int8),
            "mask": None,
        },
        "ids has no columns, expected the positives in the first column",
    ),
    "mask shape": (
        {"mask": torch.ones(6, 7, dtype=torch.bool)},
        "mask must have the shape of ids",
    ),
    "mask dtype": ({"mask": torch.ones(6, 8)}, "mask must be bool"),
    "loss": ({"loss": 2}, r"loss is 2, expected 0 \(self_adversarial\) or 1 \(entropy_weighted\)"),
    "settings": ({"settings": [1.0]}, "settings holds 1 numbers, expected 3"),
    "form": ({"settings": [1.0, 0.5, 0.0]}, r"form is 0.5, expected 0 \(log_sigmoid\), 1"),
    "cuts": (
        {"loss": 1, "settings": [1.0, 2.0, *(1.0,) * 3, 0.0, 1.0, 0.0]},
        "easy_above is 1, expected at least hard_upto, which is 2",
    ),
    "reduction": (
        {"loss": 1, "settings": [2.0, 1.0, *(1.0,) * 3, 3.0, 1.0, 0.0]},
        r"reduction is 3, expected 0 \(mean\), 1 \(sum\) or 2",
    ),
}


@fused
@pytest.mark.parametrize("what", WRONG)
def test_errors_of_arguments_are_equal_on_both_backends(what: str) -> None:
    changes, message = WRONG[what]
    numbers, weights = flat_pairs(whole_row(8))
    terms = {"metric": 1, "pairs": numbers, "weights": weights, "offset": 0.0}
    args = {**problem(), **terms, "loss": 0, "settings": [1.0, 0.0, 0.0], **changes}
    for call in (torch.ops.mmkgc.sampled_loss, reference):
        with pytest.raises(RuntimeError, match="sampled_loss: " + message):
            call(*args.values())
