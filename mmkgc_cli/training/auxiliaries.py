"""Losses of a scorer beside its own: estimators and adversaries, each with an Adam of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.scoring.contract import Auxiliary, Batch, Scorer
from mmkgc_cli.scoring.faults import fault, shape
from mmkgc_cli.scoring.scores import RESERVED
from mmkgc_cli.training.optimizers import Adam, let_capture


class Auxiliaries:
    """Steps what `Scorer.auxiliaries` gives, after each step of the scorer; a part of its state."""

    def __init__(self, scorer: Scorer) -> None:
        """Makes an optimizer for each.

        Raises:
            ScorerFault: when two share a name or a parameter, or one shares a parameter with the
                scorer's own step.
        """
        self._scorer = scorer
        self._each = scorer.auxiliaries()
        names = [of.name for of in self._each]
        if len(set(names)) < len(names) or set(names) & set(RESERVED):
            raise fault(
                scorer,
                "auxiliaries",
                "names of their own",
                ", ".join(names),
                fix="rename them; loss and gradient_norm are reserved",
            )
        taken = {id(p) for group in scorer.parameter_groups() for p in group.parameters}
        for of in self._each:
            if any(id(p) in taken for p in of.parameters):
                raise fault(
                    scorer,
                    "auxiliaries",
                    f"parameters that nothing else steps under {of.name!r}",
                    "some that are in parameter_groups, or in two",
                    fix="put each parameter in one group or one auxiliary",
                )
            taken |= {id(p) for p in of.parameters}
        self._optimizers = {of.name: Adam(list(of.parameters), lr=of.lr) for of in self._each}
        for optimizer in self._optimizers.values():
            let_capture(optimizer)

    @property
    def every_step(self) -> bool:
        """Whether all there are have their turn in each step."""
        return all(of.every == 1 for of in self._each)

    def due(self, step: int) -> list[Auxiliary]:
        """Whose turn it is after step `step`, counted from 1."""
        return [of for of in self._each if (step - 1) % of.every == 0]

    def step(self, due: list[Auxiliary], batch: Batch) -> dict[str, Tensor]:
        """One step down the loss of each that is `due`; the losses by name, unread."""
        return {of.name: self._step(of, batch) for of in due}

    def _step(self, of: Auxiliary, batch: Batch) -> Tensor:
        loss = of.loss(batch)
        if not isinstance(loss, Tensor) or loss.dim():
            raise fault(
                self._scorer,
                "auxiliaries",
                f"a scalar for {of.name!r}",
                shape(loss),
                fix="reduce it, for example with .mean()",
            )
        # Of these parameters alone: whatever else the loss reaches stays as it is.
        parameters = list(of.parameters)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            parameter.grad = gradient
        optimizer = self._optimizers[of.name]
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Of the optimizers; the parameters are the scorer's."""
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])
            let_capture(optimizer)
