"""Filtered ranking of the FB15K-237 test split: ours against the evaluator of PyKEEN.

    python -m benchmarks.ranking --graph graphs/fb15k-237

Both rank the same random RotatE vectors (128 complex dimensions) on both sides, filtered by all
splits; ours uses `rank_candidates`. PyKEEN is timed on a slice of the test triples, and its time is
extrapolated to all. So is that of `plain_ranking.cpp`, a loop that counts better candidates,
compiled for this machine (g++ -O3 -ffast-math -march=native).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from mmkgc_cli.evaluation.known import KnownTriples
from mmkgc_cli.evaluation.metrics import side_metrics
from mmkgc_cli.evaluation.ranker import rank
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.ops import backend_of, modulus
from mmkgc_cli.scoring import Scorer, Side, load_scorer
from mmkgc_cli.scoring.scores import candidate_rows, query_rows


def build(graph: Graph, dim: int) -> Scorer:
    scorer_class = load_scorer("rotate")
    rng = torch.Generator().manual_seed(0)
    config = scorer_class.Config(dim=dim)  # type: ignore[call-arg]
    return scorer_class(config, len(graph.entities), len(graph.relations), rng).eval()


def time_ours(scorer: Scorer, graph: Graph, runs: int) -> tuple[list[float], float]:
    """Seconds of each run over the test split, including the filter index, and the MRR."""
    seconds, mrr = [], 0.0
    for _ in range(runs):
        start = time.perf_counter()
        known = KnownTriples(list(graph.splits.values()), len(graph.entities), len(graph.relations))
        ranks = rank(scorer, graph.test, known)
        seconds.append(time.perf_counter() - start)
        mrr = side_metrics(ranks)["both"]["realistic"]["mrr"]
    return seconds, mrr


def time_pykeen(scorer: Scorer, graph: Graph, slice_size: int) -> tuple[float, float]:
    """Seconds of the PyKEEN evaluator for the first `slice_size` test triples, and the MRR."""
    from benchmarks import peer

    parameters = dict(scorer.named_parameters())
    re, im = parameters["entities"].detach().chunk(2, -1)
    rotations = torch.polar(torch.ones(()), parameters["phases"].detach())
    model = peer.build_model(graph, peer.SumOfModuli(), torch.complex(re, im), rotations)
    result = peer.evaluate(model, graph, slice_size)
    return result.seconds, result.metrics["both.realistic.inverse_harmonic_mean_rank"]


def time_plain_loop(scorer: Scorer, graph: Graph, triples: int) -> float | None:
    """Seconds of the plain loop for the queries of `triples` test triples; None without g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        return None
    part = torch.from_numpy(graph.test[:triples]).long()
    with torch.no_grad():
        queries = torch.cat(
            [
                *query_rows(scorer, part[:, 0], part[:, 1], Side.tail),
                *query_rows(scorer, part[:, 2], part[:, 1], Side.head),
            ]
        ).contiguous()
        table = candidate_rows(scorer, None, None, Side.tail)[0].detach().contiguous()
        answers = table[torch.cat([part[:, 2], part[:, 0]])]
        limit = modulus(queries - answers).sum(-1)
    closer = torch.empty(len(queries), dtype=torch.int32)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "plain.so"
        source = Path(__file__).with_name("plain_ranking.cpp")
        flags = ["-O3", "-ffast-math", "-march=native", "-fopenmp", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, source, "-o", library], check=True)
        loop = ctypes.CDLL(str(library)).count_closer
        start = time.perf_counter()
        loop(
            *[ctypes.c_void_p(t.data_ptr()) for t in (queries, table, limit)],
            *[ctypes.c_long(n) for n in (len(queries), len(table), table.shape[1] // 2)],
            ctypes.c_void_p(closer.data_ptr()),
        )
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--slice", type=int, default=512, help="number of test triples that PyKEEN ranks"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    graph = load_graph(options.graph)
    scorer = build(graph, options.dim)
    seconds, _ = time_ours(scorer, graph, options.runs)
    ours = statistics.median(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    part, pykeen_mrr = time_pykeen(scorer, graph, options.slice)
    known = KnownTriples(list(graph.splits.values()), len(graph.entities), len(graph.relations))
    sliced = rank(scorer, graph.test[: options.slice], known)
    our_mrr = side_metrics(sliced)["both"]["realistic"]["mrr"]
    plain_slice = 4096
    plain = time_plain_loop(scorer, graph, plain_slice)
    if plain is not None:
        plain *= len(graph.test) / min(plain_slice, len(graph.test))
    theirs = part / min(options.slice, len(graph.test)) * len(graph.test)
    report = {
        "graph": graph.name,
        "test_triples": len(graph.test),
        "dim": options.dim,
        "backend": backend_of("rank_candidates", "cpu")[0],
        "threads": torch.get_num_threads(),
        "ours_seconds": [round(s, 2) for s in seconds],
        "ours_peak_mib": round(peak),
        "pykeen_slice": options.slice,
        "pykeen_slice_seconds": round(part, 2),
        "pykeen_projected_seconds": round(theirs, 1),
        "ratio": round(theirs / ours, 1),
        "plain_loop_projected_seconds": None if plain is None else round(plain, 2),
        "ours_over_plain_loop": None if plain is None else round(ours / plain, 2),
        "slice_mrr_ours": our_mrr,
        "slice_mrr_pykeen": pykeen_mrr,
    }
    if options.json:
        print(json.dumps(report))
        return
    for key, value in report.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
