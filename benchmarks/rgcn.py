"""Two R-GCN layers, forward and backward: `rgcn_propagate`, its reference, and `RGCNConv` of PyG.

    python -m benchmarks.rgcn --graph graphs/fb15k-237

128 -> 256 -> 768 with two bases and inverse relations over the train triples, float32, two threads;
for all entities, and for 128 random ones. `RGCNConv` (torch-geometric, from the extra [bench])
has the same edges, bases, widths and weights, and a self-connection. Both sum over neighbours,
because means would take PyG more than 24 GB. A pass of PyG takes about a minute and runs once; the
others run several times. Peak memory is measured in separate processes.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.scoring import compete, copy_bandwidth
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.nn.rgcn import RelationalEncoder
from mmkgc_cli.ops import MessageGraph, _native, backend_of, rgcn_propagate

WIDTHS, BASES, ROWS = (128, 256, 768), 2, 128


def message_graph(folder: Path) -> MessageGraph:
    graph = load_graph(folder)
    return MessageGraph.from_triples(
        torch.from_numpy(graph.train).long(),
        len(graph.entities),
        len(graph.relations),
        normalize=False,
    )


def passes(forward: Callable[[], Tensor]) -> None:
    out = forward()
    out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]


def on_reference(run: Callable[[], None]) -> Callable[[], None]:
    """Runs a pass with the reference implementation instead of the kernel."""

    def switched() -> None:
        native = _native.has_kernel
        try:
            _native.has_kernel = lambda op, device_type: False
            run()
        finally:
            _native.has_kernel = native

    return switched


def peak_mib() -> float:
    """Peak memory of this process; `getrusage` would include that of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def ours_alone(folder: Path, threads: int, _: Path, answers: Any) -> None:
    torch.set_num_threads(threads)
    graph = message_graph(folder)
    before = peak_mib()
    encoder = RelationalEncoder(graph, WIDTHS, BASES)
    passes(encoder)
    passes(encoder)
    answers.put({"before": before, "peak": peak_mib()})


def peer_alone(folder: Path, threads: int, weights: Path, answers: Any) -> None:
    """Runs one pass of PyG with our weights; measures the difference of the outputs."""
    from torch_geometric.nn import RGCNConv

    torch.set_num_threads(threads)
    graph = message_graph(folder)
    saved: dict[str, Tensor] = torch.load(weights, weights_only=True)
    x = torch.nn.Parameter(saved["input"])
    layers: list[Any] = []
    for i, (a, b) in enumerate(itertools.pairwise(WIDTHS)):
        layer: Any = RGCNConv(a, b, graph.relations, num_bases=BASES, aggr="sum", bias=False)
        with torch.no_grad():
            layer.weight.copy_(saved[f"layers.{i}.weight"])
            layer.comp.copy_(saved[f"layers.{i}.coefficients"])
            layer.root.copy_(saved[f"layers.{i}.own"])
        layers.append(layer)
    edges = torch.stack([graph.source, graph.edges_into(None)[1]])
    start = time.perf_counter()
    out: Tensor = x
    for layer in layers:
        out = torch.relu(layer(out, edges, graph.relation))
    middle = time.perf_counter()
    answers.put({"forward": middle - start, "peak": peak_mib()})
    out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]
    both = time.perf_counter() - start
    out = out.detach()
    difference = float((out - saved["output"]).abs().max() / out.abs().max())
    answers.put({"both": both, "peak": peak_mib(), "difference": difference})


def in_own_process(
    work: Callable[[Path, int, Path, Any], None], folder: Path, threads: int, weights: Path
) -> dict[str, float]:
    """Returns the results that `work` sent before it ended or was killed for its memory."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        answers = manager.Queue()
        process = context.Process(target=work, args=(folder, threads, weights, answers))
        process.start()
        process.join()
        results: dict[str, float] = {}
        while not answers.empty():
            results.update(answers.get())
    return results


def propagation(graph: MessageGraph, rounds: int) -> dict[str, float]:
    """Seconds of the neighbour sums only, 256 columns, forward and backward."""
    x = torch.randn(graph.entities, WIDTHS[1], requires_grad=True)
    coefficients = torch.randn(graph.relations, BASES, requires_grad=True)
    row = graph.edges_into(None)[1]

    def by_hand(x: Tensor, coefficients: Tensor) -> Tensor:
        """The reference without argument checks, so that it compiles."""
        gathered = x[graph.source]
        weights = graph.norm[:, None] * coefficients[graph.relation]
        return torch.cat(
            [
                x.new_zeros(x.shape).index_add(0, row, gathered * weights[:, b : b + 1])
                for b in range(BASES)
            ],
            1,
        )

    compiled = torch.compile(by_hand)
    ours = lambda: passes(lambda: rgcn_propagate(x, coefficients, graph))  # noqa: E731
    how = "torch-scatter" if importlib.util.find_spec("torch_scatter") else "index_add"
    contestants = {
        "ours": ours,
        f"reference, eager ({how})": on_reference(ours),
        "reference, compiled": lambda: passes(lambda: compiled(x, coefficients)),
    }
    times = compete(contestants, rounds)
    return {name: statistics.median(values) / 1000 for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    graph = message_graph(options.graph)
    torch.manual_seed(0)
    encoder = RelationalEncoder(graph, WIDTHS, BASES)
    rows = torch.randperm(graph.entities)[:ROWS]
    whole = lambda: passes(encoder)  # noqa: E731
    batch = lambda: passes(lambda: encoder(rows))  # noqa: E731
    times = compete(
        {"ours": whole, "ours, 128 rows": batch, "reference, eager": on_reference(whole),
         "reference, eager, 128 rows": on_reference(batch)},
        options.rounds,
    )  # fmt: skip
    seconds = {name: statistics.median(values) / 1000 for name, values in times.items()}
    peer: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        with torch.no_grad():
            torch.save({**encoder.state_dict(), "output": encoder()}, weights)
        alone = in_own_process(ours_alone, options.graph, options.threads, weights)
        if not options.no_peer:
            peer = in_own_process(peer_alone, options.graph, options.threads, weights)
            if peer:
                seconds["RGCNConv, forward"] = peer["forward"]
            if "both" in peer:
                seconds["RGCNConv"] = peer["both"]
    sums = propagation(graph, options.rounds)
    # Each layer gathers one row per edge forward, and one per edge and basis backward.
    gathered = 4 * graph.edges * (1 + BASES) * sum(WIDTHS[:-1])
    print(
        json.dumps(
            {
                "backend": backend_of("rgcn_propagate", "cpu")[0],
                "edges": graph.edges,
                "seconds": {name: round(value, 4) for name, value in seconds.items()},
                "ratio": {name: round(s / seconds["ours"], 2) for name, s in seconds.items()},
                "neighbour_sums_alone_seconds": {k: round(v, 4) for k, v in sums.items()},
                "whole_over_rows": round(seconds["ours"] / seconds["ours, 128 rows"], 1),
                "peer": {k: round(v, 7) for k, v in peer.items()} or "not installed, or killed",
                "ours_alone_mib": {k: round(v) for k, v in alone.items()},
                "gathered_mb": round(gathered / 1e6),
                "copy_gb_per_s": round(copy_bandwidth(), 1),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
