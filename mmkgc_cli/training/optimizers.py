"""Optimizers that make the gradient of an embedding table and step it in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import DeferredGradient, table_adam


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, stepping tables straight from the gradients of sampled scores.

    The parameters get an attribute `deferred_gradients`; `sampled_score` and `rotate_score` leave
    there what the gradient of a table is made from (see `ops.table_adam`), and `step` uses it. All
    else, state included, is torch's. Who needs the gradients themselves, to clip them for instance,
    calls `materialize` first.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        """Takes what `torch.optim.Adam` takes; `fused` is on."""
        super().__init__(params, **{"fused": True, **options})
        for parameter in self._parameters():
            parameter.deferred_gradients = []  # type: ignore[attr-defined]

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets deferred gradients too."""
        super().zero_grad(set_to_none)
        for parameter in self._parameters():
            _deferred(parameter).clear()

    @torch.no_grad()
    def materialize(self) -> None:
        """Makes deferred gradients and adds them to `grad`."""
        for parameter in self._parameters():
            for gradient in _deferred(parameter):
                made = gradient.dense(parameter)
                parameter.grad = made if parameter.grad is None else parameter.grad + made
            _deferred(parameter).clear()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step; gradients that were deferred once are made and applied row by row."""
        if closure is not None:
            raise RuntimeError("Adam.step: closures are not supported")
        stepped: list[tuple[Tensor, Tensor | None]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                waiting = _deferred(parameter)
                if not waiting:
                    continue
                if len(waiting) > 1 or group["amsgrad"] or group["maximize"]:
                    self.materialize()
                    continue
                (gradient,) = waiting
                state = self._state_of(parameter)
                state["step"] += 1
                table_adam(
                    parameter, state["exp_avg"], state["exp_avg_sq"], gradient,
                    int(state["step"]), float(group["lr"]), group["betas"], group["eps"],
                    group["weight_decay"], group.get("decoupled_weight_decay", False),
                    parameter.grad,
                )  # fmt: skip
                waiting.clear()
                # Hidden from torch's own step, which takes every parameter that has a gradient.
                stepped.append((parameter, parameter.grad))
                parameter.grad = None
        super().step()
        for parameter, grad in stepped:
            parameter.grad = grad

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


def _deferred(parameter: Tensor) -> list[DeferredGradient]:
    found: list[DeferredGradient] = parameter.deferred_gradients  # type: ignore[attr-defined]
    return found
