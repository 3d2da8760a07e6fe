"""The optimizer of a training: rates by group, schedule, clipping and weight averaging."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.scoring.contract import ParameterGroup, Scorer
from mmkgc_cli.training.optimizers import Adam, LazyAdam, let_capture
from mmkgc_cli.training.settings import (
    DenseOptimizer,
    ExponentialSchedule,
    OptimizerSettings,
    ScheduleSettings,
)


def learning_rate_factor(settings: ScheduleSettings, epoch: float, epochs: int) -> float:
    """Returns the factor of the learning rate after `epoch` of `epochs` epochs; fractions count.

    It rises linearly from 0 to 1 in the warm-up. Then it stays 1, falls to 0 at the end along a
    line or half a cosine, or is multiplied by `decay` each epoch.
    """
    if epoch < settings.warmup_epochs:
        return epoch / settings.warmup_epochs
    if settings.name == "constant":
        return 1.0
    elapsed = epoch - settings.warmup_epochs
    if isinstance(settings, ExponentialSchedule):
        return float(settings.decay**elapsed)
    progress = min(1.0, elapsed / max(epochs - settings.warmup_epochs, 1e-9))
    if settings.name == "linear":
        return 1 - progress
    return 0.5 * (1 + math.cos(math.pi * progress))


class Optimization:
    """Updates the parameters of a scorer; its state is part of checkpoints."""

    def __init__(
        self,
        scorer: Scorer,
        settings: OptimizerSettings,
        schedule: ScheduleSettings,
        *,
        steps_per_epoch: int,
        epochs: int,
        extra_groups: Sequence[ParameterGroup] = (),
    ) -> None:
        """Optimizes the scorer's parameters and `extra_groups`, such as those of a sampler.

        Raises:
            MmkgcError: when `extra_groups` contain parameters of the scorer.
        """
        scorer_parameters = {p for group in scorer.parameter_groups() for p in group.parameters}
        if any(p in scorer_parameters for group in extra_groups for p in group.parameters):
            raise MmkgcError(
                "the sampler contains parameters of the scorer, which would be updated twice",
                fix="do not store the scorer in the sampler; `draw` receives it",
            )
        self.settings, self.schedule = settings, schedule
        self.steps = 0
        self._steps_per_epoch = max(1, steps_per_epoch)
        self._epochs = epochs
        groups = [
            {"params": list(group.parameters), "lr": settings.lr * group.rate, "rate": group.rate}
            for group in [*scorer.parameter_groups(), *extra_groups]
        ]
        self._parameters = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
        self.optimizer = _make(settings, groups)
        let_capture(self.optimizer)
        self._averages = [p.detach().clone() for p in self._parameters] if settings.average else []

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Context of forward and backward; gradients of tables may be deferred to `step`."""
        self.optimizer.zero_grad(set_to_none=True)
        # Clipping needs the gradients before the step.
        if isinstance(self.optimizer, Adam) and not self.settings.clip_norm:
            with self.optimizer.deferring():
                yield
        else:
            yield

    @property
    def rate(self) -> float:
        """The learning rate of the last step, of a group with rate 1."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group["rate"])

    def begin_step(self) -> None:
        """Counts the next step and sets its learning rate."""
        self.steps += 1
        if self._changes_rate():
            # The rate of the first step of a warm-up is above 0.
            epoch = self.steps / self._steps_per_epoch
            factor = learning_rate_factor(self.schedule, epoch, self._epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.lr * group["rate"] * factor

    def step(self) -> Tensor:
        """Updates the parameters; returns the L2 norm of the gradients before clipping."""
        settings = self.settings
        if settings.clip_norm:
            norm = torch.nn.utils.clip_grad_norm_(self._parameters, settings.clip_norm)
            self.optimizer.step()
        else:
            norm = self._step_and_measure()
        if self._averages:
            with torch.no_grad():
                torch._foreach_lerp_(self._averages, self._parameters, 1 - settings.average)
        return norm

    def _step_and_measure(self) -> Tensor:
        if isinstance(self.optimizer, Adam):
            self.optimizer.settle()
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        # Empty when all gradients are deferred, or no parameter was used.
        norms = torch._foreach_norm(gradients) if gradients else []
        squares = [norm.double().square() for norm in norms]
        self.optimizer.step()
        if isinstance(self.optimizer, Adam):  # tables with deferred gradients
            squares += self.optimizer.squares
        if not squares:
            return torch.zeros(())
        return torch.stack(squares).sum().sqrt()

    def why_not_captured(self) -> str | None:
        """Why a CUDA graph cannot replay `step`; None when it can."""
        name = self.settings.name
        if name == "adagrad":
            return "adagrad counts its steps on the host"
        if name == "lazy-adam":
            return "lazy-adam updates as many rows as the batch contains"
        if self._changes_rate():
            return "the learning rate changes, and a CUDA graph cannot change it"
        return None

    def _changes_rate(self) -> bool:
        return self.schedule.name != "constant" or self.schedule.warmup_epochs > 0

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the scorer has its averaged weights, if there are any."""
        if not self._averages:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._parameters, self._averages, strict=True):
            current = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "averages": self._averages,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        let_capture(self.optimizer)  # the state may come from another device
        self.steps = state["steps"]
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.copy_(saved)


def _make(settings: OptimizerSettings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if not isinstance(settings, DenseOptimizer):
        return LazyAdam(groups, lr=settings.lr)
    decay = settings.weight_decay
    if settings.name == "adagrad":
        return torch.optim.Adagrad(groups, lr=settings.lr, weight_decay=decay)
    decoupled = settings.name == "adamw"
    return Adam(groups, lr=settings.lr, weight_decay=decay, decoupled_weight_decay=decoupled)
