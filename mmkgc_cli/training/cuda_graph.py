"""CUDA graphs: training steps that are captured once and replayed with a single launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from mmkgc_cli.training.loop import StepProgram

# Ordinary training steps before the capture. They allocate what is allocated only once (moments,
# workspaces of libraries), on a side stream as torch requires.
WARM_UP = 3

StepTerms = dict[str, Tensor]  # what a step returns, see `StepProgram.step`
GraphSetting = Literal["auto", "off"]


class Capturable(StepProgram, Protocol):
    """A step program with two parts: its step is `train_on(begin_step(index))`."""

    @property
    def full_batch(self) -> int:
        """Rows of all batches but a smaller last one of an epoch."""

    def begin_step(self, index: int) -> Tensor:
        """The host's part of step `index`: counts it and returns the batch."""

    def train_on(self, batch: Tensor) -> StepTerms:
        """The device's part of a step: the same kernels for all full batches.

        State that changes between steps must be updated in place.
        """

    def why_not_captured(self) -> str | None:
        """Why `train_on` cannot be captured; None when it can."""


class StepGraph(Protocol):
    """A graph of a step; tests replace `CudaGraph` by an emulation."""

    def warm_up(self, work: Callable[[], StepTerms]) -> StepTerms:
        """Runs `work` on the stream of the capture."""

    def capture(self, work: Callable[[], StepTerms]) -> StepTerms:
        """Records `work` without running it; returns the tensors that replays write to."""

    def replay(self) -> None:
        """Runs the recorded work."""


class CudaGraph:
    """A `torch.cuda.CUDAGraph` and its stream on the current device."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def warm_up(self, work: Callable[[], StepTerms]) -> StepTerms:
        """Runs `work` on the side stream, ordered with the current stream."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            terms = work()
        current.wait_stream(self._stream)
        return terms

    def capture(self, work: Callable[[], StepTerms]) -> StepTerms:
        """Records `work`.

        Raises:
            RuntimeError: when `work` cannot be recorded, for instance because it synchronizes.
        """
        current = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self._graph, stream=self._stream):
                return work()
        finally:
            torch.cuda.set_stream(current)  # a failed capture does not restore it

    def replay(self) -> None:
        """Launches the recorded work on the current stream."""
        self._graph.replay()


class CapturedProgram:
    """A step program that replays the steps of another one from a CUDA graph.

    Results are identical to those of the program. The first `WARM_UP` full batches and all smaller
    batches run without the graph, and so do all steps if the capture fails.
    """

    def __init__(
        self,
        program: Capturable,
        new_graph: Callable[[], StepGraph],
        record: Callable[[str | None], None],
    ) -> None:
        """`record` is called once: with None after the capture, or with the reason it failed."""
        self.program = program
        self._new_graph = new_graph
        self._record = record
        self._failed = False
        self._reset()

    def _reset(self) -> None:
        """Drops the graph, because the tensors it works on may be replaced."""
        self._graph: StepGraph | None = None
        self._warm_ups = 0
        self._batch: Tensor | None = None
        self._terms: StepTerms = {}

    @property
    def steps_per_epoch(self) -> int:
        """See `StepProgram`."""
        return self.program.steps_per_epoch

    def start_epoch(self) -> None:
        """See `StepProgram`."""
        self.program.start_epoch()

    def step(self, index: int) -> StepTerms:
        """Runs step `index`; later steps do not overwrite the returned tensors."""
        batch = self.program.begin_step(index)
        if self._failed or len(batch) != self.program.full_batch:
            return self.program.train_on(batch)
        graph = self._graph = self._graph or self._new_graph()
        if self._warm_ups < WARM_UP:
            self._warm_ups += 1
            return graph.warm_up(lambda: self.program.train_on(batch))
        if self._batch is None and not self._capture(graph, batch):
            return self.program.train_on(batch)
        assert self._batch is not None
        self._batch.copy_(batch)
        graph.replay()
        return {name: value.clone() for name, value in self._terms.items()}

    def _capture(self, graph: StepGraph, batch: Tensor) -> bool:
        static = batch.clone()
        try:
            self._terms = graph.capture(lambda: self.program.train_on(static))
        except RuntimeError as error:
            self._failed = True
            first_line = (str(error).splitlines() or [""])[0]
            self._record(f"torch could not capture the step: {first_line}")
            self._reset()
            return False
        self._batch = static
        self._record(None)
        return True

    def state_dict(self) -> dict[str, Any]:
        """The state of the program; the graph is not part of it."""
        return self.program.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads the state of the program; the next steps capture a new graph."""
        self._reset()
        self.program.load_state_dict(state)


def with_cuda_graph(
    program: Capturable,
    setting: GraphSetting,
    record: Callable[[str | None], None],
    new_graph: Callable[[], StepGraph] = CudaGraph,
) -> StepProgram:
    """The program with its steps in a CUDA graph, if `setting` and the program allow it.

    Args:
        program: a program on a GPU.
        setting: the setting `cuda_graph`.
        record: called once: with None after the capture, or with the reason against it.
        new_graph: creates the graph.
    """
    reason = "training.cuda_graph is off" if setting == "off" else program.why_not_captured()
    if reason is None:
        return CapturedProgram(program, new_graph, record)
    record(reason)
    return program
