"""What a training leaves in its run directory while it runs: the best weights and checkpoints."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.scoring import Scorer
from mmkgc_cli.state.checkpoints import Checkpoints
from mmkgc_cli.state.tensors import kept_tensors
from mmkgc_cli.state.trace import Trace
from mmkgc_cli.state.weights import save_weights
from mmkgc_cli.training.loop import NonFiniteLoss, Progress, StepProgram
from mmkgc_cli.training.program import ScorerProgram
from mmkgc_cli.training.settings import CheckpointsSettings


class Trainable(StepProgram, Protocol):
    """A step program whose weights can be looked at."""

    def weights(self) -> dict[str, Tensor]:
        """All that is learnt or counted, by name: what must stay finite."""


_P = TypeVar("_P", bound=Trainable)


class CheckpointKeeper(Generic[_P]):
    """What every training leaves: checkpoints, from which it goes on bit for bit."""

    def __init__(
        self, run: RunDirectory, trace: Trace, device: torch.device, settings: CheckpointsSettings
    ) -> None:
        """Checkpoints are written as often, and kept as long, as `settings` say."""
        self.run = run
        self.trace = trace
        self.device = device
        self.program: _P | None = None
        self.valid: dict[str, float] = {}  # of the best weights
        self._checkpoints = Checkpoints(run.checkpoints, settings.keep)
        self._seconds = settings.seconds
        self._last = time.monotonic()

    def best(self, epoch: int, metrics: dict[str, float]) -> None:
        """Nothing is selected here; see `RunKeeper`."""

    def due(self) -> bool:
        """Whether the last checkpoint is as old as the settings allow."""
        return time.monotonic() - self._last >= self._seconds

    def checkpoint(self, progress: Progress) -> None:
        """Writes everything that the training goes on from.

        Raises:
            NonFiniteLoss: instead of keeping weights that no training can go on from.
        """
        assert self.program is not None
        for name, weights in self.program.weights().items():
            if weights.is_floating_point() and not bool(weights.isfinite().all()):
                raise NonFiniteLoss(
                    f"epoch {progress.epoch}: {name!r} is not finite any more; lower the learning "
                    "rate, or look at the data"
                )
        position, seconds = self.trace.sync()  # a checkpoint must not outlive what it points to
        state = {
            "progress": progress.state_dict(),
            "program": self.program.state_dict(),
            "valid": self.valid,
            "trace": [position, seconds],
            "random": _random_states(self.device),
            "threads": torch.get_num_threads(),
            "device": self.device.type,
        }
        step = (progress.epoch - 1) * self.program.steps_per_epoch + progress.done
        self._checkpoints.save(step, state)
        self._last = time.monotonic()

    def restore(self, state: dict[str, Any]) -> Progress:
        """Puts program and random streams where a checkpoint left them; how far training was."""
        assert self.program is not None
        self.program.load_state_dict(state["program"])
        self.valid = state["valid"]
        progress = Progress(**state["progress"])
        progress.totals = {name: total.to(self.device) for name, total in progress.totals.items()}
        torch.set_rng_state(state["random"]["cpu"])
        if "cuda" in state["random"] and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
        return progress


class RunKeeper(CheckpointKeeper[ScorerProgram]):
    """A `training.loop.Keeper` that writes into the run directory of a scorer."""

    def __init__(
        self, run: RunDirectory, config: RunConfig, graph: Graph, scorer: Scorer, trace: Trace
    ) -> None:
        device = next((p.device for p in scorer.parameters()), torch.device("cpu"))
        super().__init__(run, trace, device, config.checkpoints)
        self.config = config
        self.graph = graph
        self.scorer = scorer

    def best(self, epoch: int, metrics: dict[str, float]) -> None:
        """Keeps the present weights as those of the run."""
        self.valid = dict(metrics)
        self.weights(epoch)

    def weights(self, epoch: int) -> None:
        """Writes the present weights, averaged ones where they are kept, after `epoch` epochs."""
        about = {
            "scorer": self.config.scorer,
            "epoch": str(epoch),
            "fingerprint": self.graph.fingerprint,
            "order_id": self.graph.order_id,
        }
        with self.averaged():
            save_weights(self.run.weights, kept_tensors(self.scorer), about)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """The scorer with the weights that are ranked and kept."""
        return self.program.optimization.averaged() if self.program else contextlib.nullcontext()

    def tell_of_graph(self, reason: str | None) -> None:
        """Notes in the trace that steps come from a CUDA graph, or why they do not."""
        self.trace.write("cuda_graph", captured=reason is None, reason=reason)

    def rate(self) -> float:
        """The learning rate that the last step had."""
        assert self.program is not None
        return self.program.optimization.rate


def _random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Of the generators that layers such as dropout draw from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states
