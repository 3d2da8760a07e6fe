"""Timing on a GPU for `benchmarks.gpu`, and lower bounds of the time of its ops."""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import csrc.build_cuda as build

CALLS = 10  # calls per CUDA graph


@dataclass(frozen=True)
class Sizes:
    """Sizes of FB15K-237 and of the batches that are measured."""

    entities: int = 14_541
    relations: int = 237
    triples: int = 272_115
    batch: int = 1024
    queries: int = 22_850
    repeats: int = 30


TINY = Sizes(200, 5, 900, 16, 70, 2)


class Device:
    """A device, and how to time calls on it."""

    def __init__(self, name: str, sizes: Sizes) -> None:
        self.name = torch.device(name)
        self.sizes = sizes
        self.graphs = self.name.type == "cuda"

    def seconds(self, call: Callable[[], Any], captured: bool = True) -> float:
        """Median seconds of a call, measured on the device."""
        if not self.graphs:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        run, calls = (self.capture(call), CALLS) if captured else (call, 1)
        # An idle GPU lowers its clock rate; this warms it up.
        until = time.perf_counter() + 0.3
        while time.perf_counter() < until:
            run()
            self.wait()
        times = []
        for _ in range(self.sizes.repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3 / calls)
        return float(statistics.median(times))

    def wall(self, call: Callable[[], Any], steps: int = 50) -> float:
        """Median seconds of a call including the host: `steps` calls, then one synchronization."""
        for _ in range(5):
            call()
        times = []
        for _ in range(max(3, self.sizes.repeats // 4)):
            self.wait()
            start = time.perf_counter()
            for _ in range(steps):
                call()
            self.wait()
            times.append((time.perf_counter() - start) / steps)
        return statistics.median(times)

    def wait(self) -> None:
        if self.graphs:
            torch.cuda.synchronize()

    def capture(self, call: Callable[[], Any], calls: int = CALLS) -> Callable[[], None]:
        """Captures a CUDA graph of `calls` calls; returns its replay."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                call()
        replay: Callable[[], None] = graph.replay
        return replay


class Floors:
    """Lower bounds of the time on this GPU; 0 without a GPU."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.library: ctypes.CDLL | None = None
        if not device.graphs:
            return
        here = Path(__file__).resolve().parent
        nvcc = build.find_nvcc()
        if nvcc is None:
            raise SystemExit("the floors need nvcc; set CUDA_HOME or add nvcc to the PATH")
        major, minor = torch.cuda.get_device_capability()
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "floors.so"
            subprocess.run(
                [nvcc, "-O3", f"-arch=sm_{major}{minor}", "-shared", "-Xcompiler",
                 "-fPIC", str(here / "floors.cu"), "-o", str(target)], check=True,
            )  # fmt: skip
            self.library = ctypes.CDLL(str(target))

    def _call(self, name: str, *arguments: Any) -> None:
        assert self.library is not None
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        code = getattr(self.library, name)(*arguments, stream)
        if code:
            raise RuntimeError(f"{name}: CUDA error {code}")

    def gather(self, table: Tensor, ids: Tensor) -> float:
        """Seconds to read rows of a table."""
        if self.library is None:
            return 0.0
        words = table.element_size() * table.shape[1] // 4
        width = words - words % 4
        flat, out = ids.flatten(), torch.zeros(1, device=ids.device)
        return self.device.seconds(
            lambda: self._call(
                "gather_rows", ctypes.c_void_p(table.data_ptr()), ctypes.c_void_p(flat.data_ptr()),
                ctypes.c_int64(flat.numel()), ctypes.c_int64(width),
                ctypes.c_void_p(out.data_ptr()),
            )
        )  # fmt: skip

    def roots(self, count: float) -> float:
        """Seconds to compute `count` square roots in float32."""
        if self.library is None:
            return 0.0
        blocks, rounds = 132 * 64, 512
        out = torch.zeros(1, device=self.device.name)
        seconds = self.device.seconds(
            lambda: self._call(
                "take_roots", ctypes.c_int(blocks), ctypes.c_int(rounds),
                ctypes.c_void_p(out.data_ptr()),
            )
        )  # fmt: skip
        return seconds * count / (blocks * 256 * 8 * rounds)
