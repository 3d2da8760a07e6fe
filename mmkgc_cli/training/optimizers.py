"""Optimizers that compute the gradient of an embedding table and step it in one pass."""

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
    """`torch.optim.Adam` that can step tables from the gradients of scores.

    Within ``with optimizer.deferring():`` around forward and backward, ops of scores and `lookup`
    record deferred gradients of a table (see `ops.deferred`) instead of setting its `grad`; `step`
    computes and applies them. Results and state are those of torch. Call `materialize` before
    `step` if the gradients are needed, for instance to clip them. Without the context the class
    behaves like torch's.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        """Takes the arguments of `torch.optim.Adam`; `fused` is the default."""
        if not (options.get("foreach") or options.get("differentiable")):
            options.setdefault("fused", True)
        super().__init__(params, **options)

    @property
    def _waiting(self) -> dict[Tensor, list[Deferred]]:
        # Created on access, because copied and unpickled optimizers do not call __init__.
        waiting: dict[Tensor, list[Deferred]] = self.__dict__.setdefault("_waiting_", {})
        return waiting

    @property
    def squares(self) -> list[Tensor]:
        """Squared norms of the gradients that the last step computed, float64 scalars."""
        squares: list[Tensor] = self.__dict__.setdefault("_squares_", [])
        return squares

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Defers the gradients of the parameters within the context.

        Parameters with hooks on their gradients are excluded, because hooks need the gradient.
        """
        deferred = [
            p for p in self._parameters()
            if not p._backward_hooks and not getattr(p, "_post_accumulate_grad_hooks", None)
        ]  # fmt: skip
        for parameter in deferred:
            waiting = self._waiting.setdefault(parameter, [])
            parameter.deferred_gradients = waiting  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for parameter in deferred:
                del parameter.deferred_gradients  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Also clears deferred gradients."""
        super().zero_grad(set_to_none)
        for waiting in self._waiting.values():
            waiting.clear()

    @torch.no_grad()
    def materialize(self) -> None:
        """Computes deferred gradients and adds them to `grad`."""
        for parameter, waiting in self._waiting.items():
            for gradient in waiting:
                self._add_gradient(parameter, gradient)
            waiting.clear()

    def _add_gradient(self, parameter: Tensor, gradient: Deferred) -> None:
        self._check_unchanged(parameter, gradient)
        if parameter.grad is None:
            # In the memory layout of the parameter, which fused steps require.
            parameter.grad = torch.zeros_like(parameter)
        if isinstance(gradient, DeferredRows):
            parameter.grad.index_add_(0, gradient.ids, gradient.grad)
        else:
            parameter.grad += dense_gradient(gradient, parameter)

    @torch.no_grad()
    def settle(self) -> None:
        """Computes the deferred gradients that `step` cannot apply row by row."""
        for parameter, waiting in self._waiting.items():
            rows = [g for g in waiting if isinstance(g, DeferredRows)]
            scored = [g for g in waiting if isinstance(g, DeferredGradient)]
            if rows and len(scored) == 1:
                for gradient in rows:
                    self._check_unchanged(parameter, gradient)
                waiting[:] = [_joined(scored[0], rows)]
            elif rows:  # usually a table of relations
                for gradient in rows:
                    self._add_gradient(parameter, gradient)
                waiting[:] = scored
        if not self._steppable():
            self.materialize()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step; deferred gradients are computed and applied row by row.

        Raises:
            RuntimeError: for a closure, or when a parameter changed after its gradient was
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
                        # Hidden from torch's step, which steps all parameters with a gradient.
                        stepped.append((parameter, parameter.grad))
                        parameter.grad = None
            # Without the hooks that torch wraps around `step`: they are called around this method.
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
            device = parameter.device if on_device else "cpu"
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        # On a GPU the step counter is on the device: reading it would synchronize, and a captured
        # CUDA graph would repeat the number of its first run.
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
        """Whether each deferred gradient can be computed while tables are stepped."""
        for group in self.param_groups:
            # Reading a learning rate that is a tensor would synchronize.
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
                "would be computed from the new values"
            )


def _joined(scored: DeferredGradient, rows: list[DeferredRows]) -> DeferredGradient:
    """The gradient through scores together with looked-up rows, in their order."""
    extra = [g.grad for g in rows]
    ids = [g.ids for g in rows]
    if scored.extra is not None and scored.extra_ids is not None:
        extra, ids = [scored.extra, *extra], [scored.extra_ids, *ids]
    return dataclasses.replace(scored, extra=torch.cat(extra), extra_ids=torch.cat(ids))


class LazyAdam(Adam):
    """Adam that steps only the rows of a batch, for very large tables.

    Results differ from Adam: as in the lazy Adam of other frameworks, the moments of the other rows
    do not decay and do not move their rows. Bias corrections count all steps. Parameters without
    deferred gradients are stepped as by `Adam`.
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
        ids = flat if gradient.extra_ids is None else torch.cat([flat, gradient.extra_ids])
        if parameter.grad is not None:  # from rows that were read without one of our ops
            ids = torch.cat([ids, parameter.grad.any(1).nonzero().flatten()])
        rows, positions = torch.unique(ids, return_inverse=True)
        # The same step on a table of these rows; ascending rows keep the order of summation.
        compact = dataclasses.replace(
            gradient,
            ids=positions[: flat.numel()].view_as(gradient.ids),
            extra_ids=None
            if gradient.extra_ids is None
            else positions[flat.numel() :][: len(gradient.extra_ids)],
        )
        tables = (parameter.detach(), state["exp_avg"], state["exp_avg_sq"])
        weights, average, average_square = (table[rows] for table in tables)
        dense = None if parameter.grad is None else parameter.grad[rows]
        squares = table_adam(
            weights, average, average_square, compact, int(state["step"]) + 1, float(group["lr"]),
            betas=tuple(float(b) for b in group["betas"]), eps=group["eps"],  # type: ignore[arg-type]
            dense=dense,
        )  # fmt: skip
        self.squares.append(squares)
        for table, stepped in zip(tables, (weights, average, average_square), strict=True):
            table.index_copy_(0, rows, stepped)
        state["step"] += 1


def let_capture(optimizer: torch.optim.Optimizer) -> None:
    """Sets `capturable`, which CUDA graphs require on a GPU and torch may reject on a CPU."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = all(p.is_cuda for p in group["params"])
