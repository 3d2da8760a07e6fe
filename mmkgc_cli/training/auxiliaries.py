"""Auxiliaries of a scorer: estimators and adversaries, each with its own loss and Adam."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.scoring.contract import Auxiliary, Batch, Scorer
from mmkgc_cli.scoring.faults import fault, shape
from mmkgc_cli.scoring.scores import RESERVED
from mmkgc_cli.training.optimizers import Adam, let_capture


class Auxiliaries:
    """Steps the auxiliaries of a scorer after each step of the scorer."""

    def __init__(self, scorer: Scorer) -> None:
        """Creates an optimizer for each auxiliary.

        Raises:
            ScorerFault: when two auxiliaries share a name or a parameter, or when a parameter is
                also in the scorer's parameter groups.
        """
        self._scorer = scorer
        self._auxiliaries = scorer.auxiliaries()
        names = [auxiliary.name for auxiliary in self._auxiliaries]
        if len(set(names)) < len(names) or set(names) & set(RESERVED):
            raise fault(
                scorer,
                "auxiliaries",
                "unique names",
                ", ".join(names),
                fix="rename them; loss and gradient_norm are reserved",
            )
        taken = {id(p) for group in scorer.parameter_groups() for p in group.parameters}
        for auxiliary in self._auxiliaries:
            if any(id(p) in taken for p in auxiliary.parameters):
                raise fault(
                    scorer,
                    "auxiliaries",
                    f"parameters of {auxiliary.name!r} that nothing else steps",
                    "some that parameter_groups or another auxiliary contains",
                    fix="put each parameter in one group or one auxiliary",
                )
            taken |= {id(p) for p in auxiliary.parameters}
        self._optimizers = {
            auxiliary.name: Adam(list(auxiliary.parameters), lr=auxiliary.lr)
            for auxiliary in self._auxiliaries
        }
        for optimizer in self._optimizers.values():
            let_capture(optimizer)

    @property
    def every_step(self) -> bool:
        """Whether all auxiliaries are stepped in each step."""
        return all(auxiliary.every == 1 for auxiliary in self._auxiliaries)

    def due(self, step: int) -> list[Auxiliary]:
        """The auxiliaries to step after step `step`, counted from 1."""
        return [a for a in self._auxiliaries if (step - 1) % a.every == 0]

    def step(self, due: list[Auxiliary], batch: Batch) -> dict[str, Tensor]:
        """One step of each auxiliary that is `due`; returns the losses by name, on the device."""
        return {auxiliary.name: self._step(auxiliary, batch) for auxiliary in due}

    def _step(self, auxiliary: Auxiliary, batch: Batch) -> Tensor:
        loss = auxiliary.loss(batch)
        if not isinstance(loss, Tensor) or loss.dim():
            raise fault(
                self._scorer,
                "auxiliaries",
                f"a scalar for {auxiliary.name!r}",
                shape(loss),
                fix="reduce it, for example with .mean()",
            )
        # Other parameters that the loss depends on get no gradient.
        parameters = list(auxiliary.parameters)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            parameter.grad = gradient
        optimizer = self._optimizers[auxiliary.name]
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """States of the optimizers; the parameters are part of the scorer."""
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])
            let_capture(optimizer)
