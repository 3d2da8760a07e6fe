"""Tables in float16 and bfloat16, which only CUDA kernels accept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli.ops import Metric, Pair, rotate_score, sampled_score
from tests.ops import test_rotate_score, test_sampled_score
from tests.ops.conftest import on_gpu, to_device

LOW = [torch.float16, torch.bfloat16]


def float32(p: dict[str, Any]) -> dict[str, Any]:
    def changed(x: Any) -> Any:
        real = isinstance(x, Tensor) and x.is_floating_point()
        return x.detach().float().requires_grad_(x.requires_grad) if real else x

    return to_device({name: changed(x) for name, x in p.items()})  # type: ignore[no-any-return]


def agree(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """A gradient is rounded once, to its dtype."""
    assert actual.dtype == dtype
    bound = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    return torch.allclose(actual.float(), expected, rtol=bound, atol=1e-4)


@on_gpu
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("width", [2, 8, 14, 16, 264, 272, 528])
@pytest.mark.parametrize("scaled", [False, True])
def test_scores_and_gradients_equal_those_of_a_float32_table(
    dtype: torch.dtype, metric: Metric, width: int, scaled: bool
) -> None:
    p = float32(test_sampled_score.problem(metric, n=200, width=width, scaled=scaled))
    if width == 14:
        p["pairs"] = [Pair(0, 4, 4, 0.5), Pair(2, 2, 12, -1.0)]
    low = p["table"].detach().to(dtype).requires_grad_()
    exact = {**p, "table": low.detach().float().requires_grad_()}
    actual, expected = sampled_score(**{**p, "table": low}), sampled_score(**exact)
    assert agree(actual, expected, torch.float32)
    for a, b in zip(
        test_sampled_score.gradients({**p, "table": low}, actual),
        test_sampled_score.gradients(exact, expected),
        strict=True,
    ):
        assert agree(a, b, dtype if a.shape == low.shape and a.dtype == dtype else torch.float32)


@on_gpu
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("dim", [1, 8, 20, 130, 264])
def test_rotate_score_equals_that_of_a_float32_table(dtype: torch.dtype, dim: int) -> None:
    p = float32(test_rotate_score.problem(dim=dim))
    low = p["table"].detach().to(dtype).requires_grad_()
    exact = {**p, "table": low.detach().float().requires_grad_()}
    actual, expected = rotate_score(**{**p, "table": low}), rotate_score(**exact)
    assert agree(actual, expected, torch.float32)
    weights = torch.linspace(-1, 2, actual.numel(), device=actual.device).view(actual.shape)
    d_low, d_phases = torch.autograd.grad(actual, [low, p["phases"]], weights)
    d_table, expected_phases = torch.autograd.grad(
        expected, [exact["table"], exact["phases"]], weights
    )
    assert agree(d_low, d_table, dtype)
    assert agree(d_phases, expected_phases, torch.float32)


@on_gpu
def test_other_tensors_must_be_float32() -> None:
    p = float32(test_sampled_score.problem(Metric.dot))
    p["table"] = p["table"].detach().half()
    with pytest.raises(RuntimeError, match="queries must be float32 or float64"):
        sampled_score(**{**p, "queries": p["queries"].half()})
    r = float32(test_rotate_score.problem())
    r["table"], r["phases"] = r["table"].detach().half(), r["phases"].detach().half()
    with pytest.raises(RuntimeError, match="phases must be float32 with a float16"):
        rotate_score(**r)
