"""`rgcn_propagate` on float16 and bfloat16, which only CUDA kernels accept."""

from __future__ import annotations

import pytest
import torch

from mmkgc_cli.ops import MessageGraph, rgcn_propagate
from mmkgc_cli.ops.rgcn_propagate import reference
from tests.ops.conftest import DEVICE, EMULATED, on_gpu, to_device
from tests.ops.test_rgcn_propagate import arguments, gradients, problem


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 8, 100, 256, 264])
@pytest.mark.parametrize("bases", [1, 2, 3, 9])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype, width: int, bases: int) -> None:
    x, a, graph = to_device(problem(8, 2, 40, width, bases, torch.float32))
    half = x.detach().to(dtype).requires_grad_()
    x = half.detach().float().requires_grad_()
    actual, expected = rgcn_propagate(half, a, graph), reference(x, a, *arguments(graph))
    assert actual.dtype == torch.float32
    assert torch.allclose(actual, expected, atol=1e-5)
    d_half, d_a = gradients(actual, half, a)
    d_x, expected_d_a = gradients(expected, x, a)
    assert (d_half.dtype, d_a.dtype) == (dtype, torch.float32)
    # Only the result is rounded.
    assert torch.allclose(d_half.float(), d_x, rtol=torch.finfo(dtype).eps, atol=1e-5)
    assert torch.allclose(d_a, expected_d_a, rtol=1e-4, atol=1e-4)


@on_gpu
def test_half_precision_keeps_the_gradient_of_a_hub() -> None:
    """A sum of 1,500 ones in several parts; a bfloat16 sum would stop at 256."""
    spokes = torch.arange(1, 1501)
    rows = torch.stack([torch.zeros_like(spokes), spokes * 0, spokes], 1)
    graph = to_device(MessageGraph.from_triples(rows, 1501, 1, inverse=False))
    x = torch.ones(1501, 8, dtype=torch.bfloat16, device=DEVICE).requires_grad_()
    a = torch.ones(1, 1, device=DEVICE).requires_grad_()
    out = rgcn_propagate(x, a, graph)
    d_x, d_a = torch.autograd.grad(out, (x, a), torch.ones_like(out))
    assert d_x[0].tolist() == [torch.tensor(1500.0).bfloat16().item()] * 8
    assert d_a.item() == 1500 * 8
    torch.library.opcheck(
        torch.ops.mmkgc.rgcn_propagate.default, (x, a, *arguments(graph), None, None)
    )


@on_gpu
def test_half_precision_needs_float32_coefficients() -> None:
    x, a, graph = to_device(problem(dtype=torch.float16))
    message = "coefficients must be float32 with float16 or bfloat16 x"
    with pytest.raises(RuntimeError, match="rgcn_propagate: " + message):
        rgcn_propagate(x, a, graph)


def test_half_precision_raises_on_the_cpu(backend: str) -> None:
    if backend == "native" and EMULATED:
        pytest.skip("the kernels are those of a GPU")
    x, a, graph = problem(dtype=torch.float16)
    with pytest.raises(RuntimeError, match="x must be float32 or float64"):
        rgcn_propagate(x, a, graph)
