"""What the step programs that train a scorer share: the order of a pass, the step, its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmkgc_cli.ops import backend_of
from mmkgc_cli.scoring.contract import Batch, ParameterGroup, Scorer
from mmkgc_cli.scoring.scores import extra_losses
from mmkgc_cli.state.rng import generator
from mmkgc_cli.training.auxiliaries import Auxiliaries
from mmkgc_cli.training.optimization import Optimization, OptimizationSettings
from mmkgc_cli.training.precision import Precision, forward, products


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What every step needs to know; see `TrainingConfig` for the meaning of the fields."""

    batch_size: int
    seed: int
    precision: Precision = "float32"


class ScorerProgram:
    """A step program (see `training.loop`) over rows in a fresh permutation each epoch.

    The last, smaller batch is used too. Everything lives on the scorer's device and nothing is read
    back within an epoch. A subclass says in `train_on` what the loss of a batch is.
    """

    # Ops with a reference that waits for the device: a step on it cannot be captured.
    ops: ClassVar[tuple[str, ...]] = ("table_adam",)

    def __init__(
        self,
        scorer: Scorer,
        rows: Tensor,
        settings: StepSettings,
        optimization: OptimizationSettings,
        epochs: int,
        more: Sequence[ParameterGroup] = (),
    ) -> None:
        """Takes `rows` [n, k] on the scorer's device.

        `epochs` is for the schedule; parameters of `more` groups are stepped with the scorer's.
        """
        self.scorer = scorer
        self.rows = rows
        self.batch_size = settings.batch_size
        self.precision = settings.precision
        self._order_rng = generator(settings.seed, "permutation", rows.device)
        self.optimization = Optimization(scorer, optimization, self.steps_per_epoch, epochs, more)
        self._auxiliaries = Auxiliaries(scorer)
        self._order = torch.empty(0, dtype=torch.int64, device=rows.device)
        self._before_order = self._order_rng.get_state()
        # Who wants to know where the time goes puts something else here.
        self.watch: Callable[[str], AbstractContextManager[Any]] = nullcontext

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the rows."""
        return -(-len(self.rows) // self.batch_size)

    @property
    def full_batch(self) -> int:
        """Rows in every batch but a smaller last one."""
        return min(self.batch_size, len(self.rows))

    @property
    def epoch(self) -> int:
        """The pass that the next step is part of, counted from 1."""
        return 1 + self.optimization.steps // self.steps_per_epoch

    def start_epoch(self) -> None:
        """Tells the scorer and draws the order of the next pass."""
        self.scorer.start_epoch(self.epoch)
        self._draw_order()

    def _draw_order(self) -> None:
        self._before_order = self._order_rng.get_state()
        self._order = torch.randperm(
            len(self.rows), generator=self._order_rng, device=self.rows.device
        )

    def step(self, index: int) -> dict[str, Tensor]:
        """Trains on batch `index` of the pass.

        Returns the loss, the scorer's own terms in it, and the norm of the gradient, unread.
        """
        return self.train_on(self.begin_step(index))

    def begin_step(self, index: int) -> Tensor:
        """Counts the step and sets its rate; the rows [B, k] of batch `index`."""
        self.optimization.begin_step()
        size = self.batch_size
        return self.rows[self._order[index * size : (index + 1) * size]]

    def train_on(self, batch: Tensor) -> dict[str, Tensor]:
        """What the device does in a step, see `training.captured`; as `step` returns."""
        raise NotImplementedError(f"{type(self).__name__} defines no train_on")

    def descend(
        self, loss_of: Callable[[], Tensor], batch_of: Callable[[], Batch]
    ) -> dict[str, Tensor]:
        """One step down a loss and the scorer's own terms, which are about the batch of the step.

        That is made for scorers with terms alone.
        """
        device = self.rows.device
        with self.optimization.collecting(), products(self.precision, device):
            with self.watch("loss"), forward(self.precision, device):
                loss = loss_of()
                terms = extra_losses(self.scorer, batch_of)
                loss = sum(terms.values(), loss)
            with self.watch("gradients"):
                loss.backward()  # type: ignore[no-untyped-call]
        with self.watch("update"):
            norm = self.optimization.step()
            with torch.no_grad():
                self.scorer.constrain()
        traced = {name: term.detach() for name, term in terms.items()}
        if due := self._auxiliaries.due(self.optimization.steps):
            with self.watch("auxiliaries"), products(self.precision, device):
                traced |= self._auxiliaries.step(due, batch_of())
        return {"loss": loss.detach(), **traced, "gradient_norm": norm}

    def why_not_captured(self) -> str | None:
        """Why a CUDA graph cannot replay the step; None when it can."""
        if not self.scorer.capturable:
            return f"{type(self.scorer).__name__} does not do the same in every step"
        if not self._auxiliaries.every_step:
            return "an estimator or adversary of the scorer has its turn in some steps only"
        for op in self.ops:
            backend, why = backend_of(op, self.rows.device.type)
            if backend != "native":
                return f"{op} runs in torch: {why}"
        return self.optimization.why_not_captured()

    def weights(self) -> dict[str, Tensor]:
        """All that is learnt or counted, by name: what must stay finite."""
        return dict(self.scorer.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, and where the random stream of the order is."""
        return {
            "scorer": self.scorer.state_dict(),
            "optimization": self.optimization.state_dict(),
            # An order is drawn again, which takes less room than keeping it.
            "permutation": {"order": self._before_order, "next": self._order_rng.get_state()},
            "auxiliaries": self._auxiliaries.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave, and draws the order of the pass again."""
        self.optimization.load_state_dict(state["optimization"])
        # Checkpoints from before there were any have none.
        self._auxiliaries.load_state_dict(state.get("auxiliaries", {}))
        # What comes of the number alone is back then; what is in buffers comes with the weights.
        self.scorer.start_epoch(self.epoch)
        self.scorer.load_state_dict(state["scorer"])
        self._order_rng.set_state(state["permutation"]["order"])
        self._draw_order()
        self._order_rng.set_state(state["permutation"]["next"])
