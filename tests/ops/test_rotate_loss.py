from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli.ops import RowLoss, rotate_loss, rotate_score
from mmkgc_cli.ops.rotate_loss import reference
from mmkgc_cli.training.optimizers import Adam
from tests.ops.test_rotate_score import WRONG, problem
from tests.ops.test_sampled_loss import ROW_LOSSES, every_loss, fused


def with_gradients(p: dict[str, Any], loss: RowLoss, **more: Any) -> tuple[Tensor, ...]:
    """The loss and its gradients with a deferred gradient of the table."""
    table, phases = (p[name].detach().clone().requires_grad_() for name in ("table", "phases"))
    optimizer = Adam([table, phases])
    with optimizer.deferring():
        value = rotate_loss(
            **{**p, "table": table, "phases": phases}, loss=loss, offset=3.0, **more
        )
        value.backward()
    optimizer.materialize()
    return value.detach(), table.grad, phases.grad


def some(dtype: torch.dtype = torch.float64, **sizes: int) -> dict[str, Any]:
    p = problem(dtype=dtype, **sizes)
    p["table"] = (0.4 * p["table"].detach()).requires_grad_()
    rng = torch.Generator().manual_seed(5)
    return {**p, "mask": torch.rand(p["ids"].shape, generator=rng) < 0.8}


@every_loss
def test_it_equals_the_loss_of_the_scores(backend: str, loss: RowLoss) -> None:
    p = some()
    mask = p["mask"]
    scores = 3.0 + rotate_score(**{k: v for k, v in p.items() if k != "mask"})
    apart = loss(scores[:, 0], scores[:, 1:], mask[:, 1:])
    gradients = torch.autograd.grad(apart, [p["table"], p["phases"]])
    order = p["ids"].flatten().argsort(stable=True)
    for more in ({}, {"order": order}):
        actual = with_gradients(p, loss, **more)
        for a, b in zip(actual, (apart.detach(), *gradients), strict=True):
            assert torch.allclose(a, b, rtol=1e-11, atol=1e-13)


@fused
@pytest.mark.parametrize("dim", [1, 15, 16, 31, 128])
def test_float32_agrees_with_the_reference(dim: int) -> None:
    loss = ROW_LOSSES["log_sigmoid"]
    assert loss.native is not None
    single = some(torch.float32, dim=dim, batch=33, n=70, entities=50)
    double = {k: v.detach().double() if v.is_floating_point() else v for k, v in single.items()}
    for name in ("table", "phases"):
        double[name].requires_grad_()
    arguments: list[Any] = [*double.values(), 3.0, *loss.native]
    value = reference(*arguments)
    gradients = torch.autograd.grad(value, [double["table"], double["phases"]])
    for a, b in zip(with_gradients(single, loss), (value, *gradients), strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-3, atol=1e-5)


@fused
def test_results_are_bitwise_equal_for_any_number_of_threads() -> None:
    p = some(torch.float32, entities=60, relations=5, batch=90, n=50, dim=33)
    p["ids"][:, ::4] = 3
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        results.append(with_gradients(p, ROW_LOSSES["log_sigmoid"]))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@fused
def test_opcheck() -> None:
    p = [x.detach() for x in some(entities=5, relations=2, batch=3, n=4, dim=2).values()]
    # Gradients come from an autograd function around the op.
    torch.library.opcheck(torch.ops.mmkgc.rotate_loss.default, (*p, 3.0, 0, [1.0, 0.0, 0.0]))


@fused
@pytest.mark.parametrize("what", WRONG)
def test_errors_of_arguments_are_equal_on_both_backends(what: str) -> None:
    changes, message = WRONG[what]
    args = {**some(), **changes, "offset": 0.0, "loss": 0, "settings": [1.0, 0.0, 0.0]}
    for call in (torch.ops.mmkgc.rotate_loss, reference):
        with pytest.raises(RuntimeError, match="rotate_loss: " + message):
            call(*args.values())
