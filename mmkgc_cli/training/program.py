"""Base of the step programs that train a scorer: batches, the step and its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmkgc_cli.ops import backend_of
from mmkgc_cli.scoring.contract import Batch, ParameterGroup, Scorer
from mmkgc_cli.scoring.scores import extra_losses
from mmkgc_cli.state.rng import generator
from mmkgc_cli.training.auxiliaries import Auxiliaries
from mmkgc_cli.training.optimization import Optimization
from mmkgc_cli.training.precision import forward, products
from mmkgc_cli.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings


class ScorerProgram:
    """A step program (see `training.loop`) that permutes its rows each epoch.

    The last batch may be smaller. All tensors are on the scorer's device, and no step waits for the
    device. Subclasses define `train_on`.
    """

    # Ops that must be native in a CUDA graph: their reference implementations synchronize.
    ops: ClassVar[tuple[str, ...]] = ("table_adam",)

    def __init__(
        self,
        scorer: Scorer,
        rows: Tensor,
        *,
        training: TrainingSettings,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
        extra_groups: Sequence[ParameterGroup] = (),
    ) -> None:
        """Takes `rows` [n, k] on the scorer's device.

        Parameters of `extra_groups` are optimized together with the scorer's.
        """
        self.scorer = scorer
        self.rows = rows
        self.batch_size = training.batch_size
        self.precision = training.precision
        self._order_rng = generator(training.seed, "permutation", rows.device)
        self.optimization = Optimization(
            scorer,
            optimizer,
            schedule,
            steps_per_epoch=self.steps_per_epoch,
            epochs=training.epochs,
            extra_groups=extra_groups,
        )
        self._auxiliaries = Auxiliaries(scorer)
        self._order = torch.empty(0, dtype=torch.int64, device=rows.device)
        self._before_order = self._order_rng.get_state()
        # `runs.profiling` replaces this to time parts of a step.
        self.watch: Callable[[str], AbstractContextManager[Any]] = nullcontext

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch."""
        return -(-len(self.rows) // self.batch_size)

    @property
    def full_batch(self) -> int:
        """Rows of a batch, except a smaller last one."""
        return min(self.batch_size, len(self.rows))

    @property
    def epoch(self) -> int:
        """The epoch of the next step, counted from 1."""
        return 1 + self.optimization.steps // self.steps_per_epoch

    def start_epoch(self) -> None:
        """Notifies the scorer and permutes the rows."""
        self.scorer.start_epoch(self.epoch)
        self._permute()

    def _permute(self) -> None:
        self._before_order = self._order_rng.get_state()
        self._order = torch.randperm(
            len(self.rows), generator=self._order_rng, device=self.rows.device
        )

    def step(self, index: int) -> dict[str, Tensor]:
        """Trains on batch `index` of the epoch.

        Returns the loss, its terms from the scorer, and the norm of the gradient, on the device.
        """
        return self.train_on(self.begin_step(index))

    def begin_step(self, index: int) -> Tensor:
        """Counts the step and sets its learning rate; returns the rows [B, k] of batch `index`."""
        self.optimization.begin_step()
        size = self.batch_size
        return self.rows[self._order[index * size : (index + 1) * size]]

    def train_on(self, batch: Tensor) -> dict[str, Tensor]:
        """Runs the device part of `step`, see `training.cuda_graph`; returns the same."""
        raise NotImplementedError(f"{type(self).__name__} defines no train_on")

    def descend(
        self, loss_of: Callable[[], Tensor], batch_of: Callable[[], Batch]
    ) -> dict[str, Tensor]:
        """Updates the parameters once on a loss plus the loss terms of the scorer.

        `batch_of` returns the batch for loss terms and auxiliaries; it is called only for these.
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
        """Why a CUDA graph cannot capture the step; None when it can."""
        if not self.scorer.capturable:
            return f"{type(self.scorer).__name__} does not run the same kernels in every step"
        if not self._auxiliaries.every_step:
            return "an auxiliary of the scorer is not updated in every step"
        for op in self.ops:
            backend, reason = backend_of(op, self.rows.device.type)
            if backend != "native":
                return f"{op} runs its reference implementation: {reason}"
        return self.optimization.why_not_captured()

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of the scorer by name; all must stay finite."""
        return dict(self.scorer.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Returns weights, optimizers and the random stream of the permutation."""
        return {
            "scorer": self.scorer.state_dict(),
            "optimization": self.optimization.state_dict(),
            # The generator state before the permutation is smaller than the permutation.
            "permutation": {"order": self._before_order, "next": self._order_rng.get_state()},
            "auxiliaries": self._auxiliaries.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict` and the permutation of its epoch."""
        self.optimization.load_state_dict(state["optimization"])
        # Checkpoints of early versions have no auxiliaries.
        self._auxiliaries.load_state_dict(state.get("auxiliaries", {}))
        # Restores state that depends on the epoch only; buffers are restored with the weights.
        self.scorer.start_epoch(self.epoch)
        self.scorer.load_state_dict(state["scorer"])
        self._order_rng.set_state(state["permutation"]["order"])
        self._permute()
        self._order_rng.set_state(state["permutation"]["next"])
