"""Steps of a program replayed from a CUDA graph: launched as a whole, not kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from mmkgc_cli.training.loop import StepProgram

# Steps before the capture: they are part of the training, and make what is made only once
# (moments, workspaces of libraries) where torch asks for it, on another stream.
WARM_UP = 3

Watched = dict[str, Tensor]
GraphSetting = Literal["auto", "off"]


class Capturable(StepProgram, Protocol):
    """A step program whose step is `train_on(begin_step(index))`."""

    @property
    def full_batch(self) -> int:
        """Rows of a batch that is not the smaller last one of an epoch."""

    def begin_step(self, index: int) -> Tensor:
        """What the host does about step `index`: it counts, and gives the batch."""

    def train_on(self, batch: Tensor) -> Watched:
        """The step on the device: for full batches the same work each time, whatever their values.

        What moves on from step to step does so in tensors that stay where they are.
        """

    def why_not_captured(self) -> str | None:
        """Why `train_on` cannot be replayed; None when it can."""


class StepGraph(Protocol):
    """What captures; a test puts something else in the place of `CudaGraph`."""

    def aside(self, work: Callable[[], Watched]) -> Watched:
        """Does `work`, on the stream that is captured later."""

    def capture(self, work: Callable[[], Watched]) -> Watched:
        """Records `work` without doing it; returns the tensors that replays write to."""

    def replay(self) -> None:
        """Does what was recorded."""


class CudaGraph:
    """A `torch.cuda.CUDAGraph` and a stream of its own, on the current device."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def aside(self, work: Callable[[], Watched]) -> Watched:
        """Does `work` on the other stream, in order with what this one does."""
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            watched = work()
        here.wait_stream(self._stream)
        return watched

    def capture(self, work: Callable[[], Watched]) -> Watched:
        """Records `work`.

        Raises:
            RuntimeError: when it does what cannot be recorded, such as to wait for the device.
        """
        here = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self._graph, stream=self._stream):
                return work()
        finally:
            torch.cuda.set_stream(here)  # a capture that failed leaves its own

    def replay(self) -> None:
        """Launches what was recorded, on the current stream."""
        self._graph.replay()


class CapturedProgram:
    """A step program that does the same as `program`, full batches from a graph.

    The first `WARM_UP` full batches and every smaller one are trained on as usual. A step that
    cannot be captured after all is done as usual too, and so are those after it.
    """

    def __init__(
        self,
        program: Capturable,
        new_graph: Callable[[], StepGraph],
        tell: Callable[[str | None], None],
    ) -> None:
        """Tells once, when it is known, that steps are captured (None) or why they are not."""
        self.program = program
        self._new_graph = new_graph
        self._tell = tell
        self._refused = False
        self._forget()

    def _forget(self) -> None:
        """Drops the graph, which works on tensors that may be others from here on."""
        self._graph: StepGraph | None = None
        self._warm = 0
        self._batch: Tensor | None = None
        self._watched: Watched = {}

    @property
    def steps_per_epoch(self) -> int:
        """As the program's."""
        return self.program.steps_per_epoch

    def start_epoch(self) -> None:
        """As the program's."""
        self.program.start_epoch()

    def step(self, index: int) -> Watched:
        """Does step `index`; what it returns is not written to by later steps."""
        batch = self.program.begin_step(index)
        if self._refused or len(batch) != self.program.full_batch:
            return self.program.train_on(batch)
        graph = self._graph = self._graph or self._new_graph()
        if self._warm < WARM_UP:
            self._warm += 1
            return graph.aside(lambda: self.program.train_on(batch))
        if self._batch is None and not self._capture(graph, batch):
            return self.program.train_on(batch)
        assert self._batch is not None
        self._batch.copy_(batch)
        graph.replay()
        return {name: value.clone() for name, value in self._watched.items()}

    def _capture(self, graph: StepGraph, batch: Tensor) -> bool:
        static = batch.clone()
        try:
            self._watched = graph.capture(lambda: self.program.train_on(static))
        except RuntimeError as error:
            self._refused = True
            first = (str(error).splitlines() or [""])[0]
            self._tell(f"torch could not capture the step: {first}")
            self._forget()
            return False
        self._batch = static
        self._tell(None)
        return True

    def state_dict(self) -> dict[str, Any]:
        """As the program's: a graph is no state."""
        return self.program.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As the program's; steps are captured anew."""
        self._forget()
        self.program.load_state_dict(state)


def replayed(
    program: Capturable,
    setting: GraphSetting,
    tell: Callable[[str | None], None],
    new_graph: Callable[[], StepGraph] = CudaGraph,
) -> StepProgram:
    """The program with its steps from a graph where `setting` and the program allow it.

    Args:
        program: on a GPU.
        setting: that of `TrainingConfig.cuda_graph`.
        tell: is told that steps are captured (None), or why they are not.
        new_graph: what captures.
    """
    reason = "training.cuda_graph is off" if setting == "off" else program.why_not_captured()
    if reason is None:
        return CapturedProgram(program, new_graph, tell)
    tell(reason)
    return program
