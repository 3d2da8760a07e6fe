"""Optimizers that make the gradient of an embedding table and step it in one pass."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import (
    Deferred,
    DeferredGradient,
    DeferredRows,
    dense_gradient,
    table_adam,
)


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, able to step tables straight from the gradients of sampled scores.

    Between them, ``with optimizer.deferring():`` around forward and backward, and `step` do what
    torch's does, and in the same state: within the context, ops of scores and `lookup`
    leave what the gradient of a table is made from (see `ops.deferred`) in place of its `grad`,
    and `step` makes it and uses it up. Without the context nothing differs from torch. Who needs
    the gradients themselves, to clip them for instance, calls `materialize` before `step`.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        """Takes what `torch.optim.Adam` takes; `fused` unless another way is asked for."""
        if not (options.get("foreach") or options.get("differentiable")):
            options.setdefault("fused", True)
        super().__init__(params, **options)

    @property
    def _waiting(self) -> dict[Tensor, list[Deferred]]:
        # Made here: a copied or loaded optimizer has not gone through __init__.
        found: dict[Tensor, list[Deferred]] = self.__dict__.setdefault("_waiting_", {})
        return found

    @property
    def squares(self) -> list[Tensor]:
        """Squared norms of the gradients that the last step made itself, float64 scalars."""
        found: list[Tensor] = self.__dict__.setdefault("_squares_", [])
        return found

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Defers the gradients of this optimizer's parameters while it lasts.

        Parameters with hooks on their gradients are left out: a hook wants to see one.
        """
        armed = [
            p for p in self._parameters()
            if not p._backward_hooks and not getattr(p, "_post_accumulate_grad_hooks", None)
        ]  # fmt: skip
        for parameter in armed:
            waiting = self._waiting.setdefault(parameter, [])
            parameter.deferred_gradients = waiting  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for parameter in armed:
                del parameter.deferred_gradients  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets deferred gradients too."""
        super().zero_grad(set_to_none)
        for waiting in self._waiting.values():
            waiting.clear()

    @torch.no_grad()
    def materialize(self) -> None:
        """Makes deferred gradients and adds them to `grad`."""
        for parameter, waiting in self._waiting.items():
            for gradient in waiting:
                self._make(parameter, gradient)
            waiting.clear()

    def _make(self, parameter: Tensor, gradient: Deferred) -> None:
        self._check_unchanged(parameter, gradient)
        if parameter.grad is None:
            # In the layout of the parameter, as autograd would: fused steps rely on it.
            parameter.grad = torch.zeros_like(parameter)
        if isinstance(gradient, DeferredRows):
            parameter.grad.index_add_(0, gradient.ids, gradient.grad)
        else:
            parameter.grad += dense_gradient(gradient, parameter)

    @torch.no_grad()
    def settle(self) -> None:
        """Makes now what `step` cannot make row by row."""
        for parameter, waiting in self._waiting.items():
            rows = [g for g in waiting if isinstance(g, DeferredRows)]
            scored = [g for g in waiting if isinstance(g, DeferredGradient)]
            if rows and len(scored) == 1:
                for gradient in rows:
                    self._check_unchanged(parameter, gradient)
                waiting[:] = [_joined(scored[0], rows)]
            elif rows:  # of a table of relations, as a rule
                for gradient in rows:
                    self._make(parameter, gradient)
                waiting[:] = scored
        if not self._steppable():
            self.materialize()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step; gradients that were deferred once are made and applied row by row.

        Raises:
            RuntimeError: for a closure, or when a parameter was changed after its gradient was
                deferred.
        """
        if closure is not None:
            raise RuntimeError("Adam.step: closures are not supported")
        self.squares.clear()
        self.settle()
        stepped: list[tuple[Tensor, Tensor | None]] = []
        try:
            for group in self.param_groups:
                for parameter in group["params"]:
                    if waiting := self._waiting.get(parameter):
                        (gradient,) = waiting
                        assert isinstance(gradient, DeferredGradient)  # settled
                        self._step_table(parameter, gradient, group)
                        waiting.clear()
                        # Hidden from torch's own step, which takes whatever has a gradient.
                        stepped.append((parameter, parameter.grad))
                        parameter.grad = None
            # Without the hooks that torch wraps around the steps of its classes: ours has them.
            plain = getattr(torch.optim.Adam.step, "__wrapped__", torch.optim.Adam.step)
            plain(self)
        finally:
            for parameter, grad in stepped:
                parameter.grad = grad

    def _step_table(
        self, parameter: Tensor, gradient: DeferredGradient, group: dict[str, Any]
    ) -> None:
        self._check_unchanged(parameter, gradient)
        state: dict[str, Tensor] = self.state[parameter]
        on_device = parameter.is_cuda or group["capturable"]
        if not state:
            where = parameter.device if on_device else "cpu"
            state["step"] = torch.zeros((), dtype=torch.float32, device=where)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        # Steps are counted on a GPU where the table is: the host would have to wait for the number,
        # and a captured CUDA graph would go on with the one of its first run.
        step, counter = (1, state["step"].long()) if on_device else (int(state["step"]) + 1, None)
        squares = table_adam(
            parameter, state["exp_avg"], state["exp_avg_sq"], gradient, step,
            float(group["lr"]), betas=tuple(float(b) for b in group["betas"]),  # type: ignore[arg-type]
            eps=group["eps"], weight_decay=group["weight_decay"],
            decoupled=group.get("decoupled_weight_decay", False), dense=parameter.grad,
            counter=counter,
        )  # fmt: skip
        self.squares.append(squares)
        state["step"] += 1

    def _steppable(self) -> bool:
        """Whether each deferred gradient can be made while its table, or another, is stepped."""
        for group in self.param_groups:
            # A rate that is a tensor would have to be waited for.
            if group["amsgrad"] or group["maximize"] or isinstance(group["lr"], Tensor):
                return False
        ours = {p.untyped_storage().data_ptr() for p in self._parameters()}
        for parameter, waiting in self._waiting.items():
            if len(waiting) > 1 or not parameter.is_contiguous():
                return False
            for g in waiting:
                assert isinstance(g, DeferredGradient)  # settled
                read = [t for t in (g.queries, g.scale, g.extra) if t is not None]
                if any(t.untyped_storage().data_ptr() in ours for t in read):
                    return False
        return True

    @staticmethod
    def _check_unchanged(parameter: Tensor, gradient: Deferred) -> None:
        if gradient.version not in (None, parameter._version):
            raise RuntimeError(
                "Adam: a parameter was changed between backward and step; its deferred gradient "
                "would be that of the new values"
            )


def _joined(scored: DeferredGradient, rows: list[DeferredRows]) -> DeferredGradient:
    """The gradient through scores with further rows, in the order in which they came."""
    extra = [g.grad for g in rows]
    ids = [g.ids for g in rows]
    if scored.extra is not None and scored.extra_ids is not None:
        extra, ids = [scored.extra, *extra], [scored.extra_ids, *ids]
    return dataclasses.replace(scored, extra=torch.cat(extra), extra_ids=torch.cat(ids))


class LazyAdam(Adam):
    """Adam that steps only the rows that a batch met: another optimizer, not a faster Adam.

    The moments of the other rows neither decay nor move their rows, as in the lazy Adam of other
    frameworks: for tables so large that a step over all of them takes longer than the batch. Bias
    corrections count all steps. Parameters without deferred gradients are stepped as by `Adam`.
    """

    def _step_table(
        self, parameter: Tensor, gradient: DeferredGradient, group: dict[str, Any]
    ) -> None:
        self._check_unchanged(parameter, gradient)
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        flat = gradient.ids.flatten()
        met = flat if gradient.extra_ids is None else torch.cat([flat, gradient.extra_ids])
        if parameter.grad is not None:  # of rows that were read without an op of ours
            met = torch.cat([met, parameter.grad.any(1).nonzero().flatten()])
        rows, place = torch.unique(met, return_inverse=True)
        # The same step on a table of those rows alone: order is kept, since rows ascend.
        compact = dataclasses.replace(
            gradient,
            ids=place[: flat.numel()].view_as(gradient.ids),
            extra_ids=None
            if gradient.extra_ids is None
            else place[flat.numel() :][: len(gradient.extra_ids)],
        )
        parts = [x[rows] for x in (parameter.detach(), state["exp_avg"], state["exp_avg_sq"])]
        dense = None if parameter.grad is None else parameter.grad[rows]
        squares = table_adam(
            parts[0], parts[1], parts[2], compact, int(state["step"]) + 1, float(group["lr"]),
            betas=tuple(float(b) for b in group["betas"]), eps=group["eps"],  # type: ignore[arg-type]
            dense=dense,
        )  # fmt: skip
        self.squares.append(squares)
        wholes = (parameter, state["exp_avg"], state["exp_avg_sq"])
        for whole, part in zip(wholes, parts, strict=True):
            whole.index_copy_(0, rows, part)
        state["step"] += 1


def let_capture(optimizer: torch.optim.Optimizer) -> None:
    """On a GPU torch captures steps of an Adam that says so; on a CPU it may refuse to run it."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = all(p.is_cuda for p in group["params"])
