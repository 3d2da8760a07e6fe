"""Native ops on a GPU against torch and against lower bounds measured on the same GPU.

    python -m benchmarks.gpu [--graph graphs/fb15k-237] [--out results.json]

Times are medians of CUDA events around replays of CUDA graphs, so they exclude launches and Python,
except where whole steps are compared. Ops: `rotate_score`, `sampled_score`, `table_adam`,
`self_adversarial_loss`, `entropy_weighted_loss`, `filtered_negatives`, `rank_candidates`,
`rgcn_propagate`. Lower bounds (floors) come from `floors.cu`, which nvcc compiles for this GPU.
`--tiny` runs the program with tiny sizes, to test it; this works without a GPU.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_timing import TINY, Device, Floors, Sizes
from benchmarks.scoring import explicit
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.ops import (
    MessageGraph,
    Metric,
    SideChoice,
    backend_of,
    entropy_weighted_loss,
    filtered_negatives,
    rank_candidates,
    rgcn_propagate,
    rotate_score,
    self_adversarial_loss,
    whole_row,
)
from mmkgc_cli.ops.entropy_weighted_loss import entropy_cut
from mmkgc_cli.ops.entropy_weighted_loss import reference as entropy_reference
from mmkgc_cli.ops.filtered_negatives import KnownAnswers
from mmkgc_cli.ops.self_adversarial_loss import reference as adversarial_reference
from mmkgc_cli.training.optimizers import Adam

MARGIN, TEMPERATURE = 9.0, 1.0


def problem(device: Device, n: int, dim: int, dtype: torch.dtype) -> dict[str, Any]:
    """A RotatE batch; the candidates include the positive."""
    s = device.sizes
    rng = torch.Generator().manual_seed(0)

    def some(bound: int, *shape: int) -> Tensor:
        return torch.randint(bound, shape, generator=rng).to(device.name)

    ids = some(s.entities, s.batch, n)
    return {
        "table": torch.randn(s.entities, 2 * dim, generator=rng).to(device.name, dtype)
        .requires_grad_(),
        "phases": torch.randn(s.relations, dim, generator=rng).to(device.name).requires_grad_(),
        "heads": some(s.entities, s.batch),
        "relations": some(s.relations, s.batch),
        "tails": some(s.entities, s.batch),
        "ids": ids,
        "corrupted_side": some(2, s.batch, n).to(torch.int8),
        "order": ids.flatten().argsort(stable=True),
    }  # fmt: skip


def time_rotate(device: Device, floors: Floors, n: int, dim: int, dtype: torch.dtype) -> Any:
    """Times `rotate_score`, forward and backward, against reading the same rows."""
    p = problem(device, n, dim, dtype)
    given = [x.detach() for x in p.values()]
    grad = torch.randn(p["ids"].shape, device=device.name)
    queries = torch.randn(2 * device.sizes.batch, 2 * dim, device=device.name)
    rows = torch.randint(len(queries), p["ids"].shape, device=device.name)
    d_table = torch.empty_like(given[0])
    with torch.no_grad():
        forward = device.seconds(lambda: torch.ops.mmkgc.rotate_score(*given))
        backward = device.seconds(lambda: torch.ops.mmkgc.rotate_score_backward(grad, *given))
        read = floors.gather(given[0], p["ids"])
        met = floors.gather(queries, rows)
        written = device.seconds(d_table.zero_)
    floor = read + met + written
    return {
        "shape": f"B={device.sizes.batch}, N={n}, {dim} complex, {str(dtype)[6:]}",
        "forward_us": forward * 1e6,
        "gather_us": read * 1e6,
        "forward_over_floor": forward / read if read else None,
        "backward_us": backward * 1e6,
        "backward_floor_us": floor * 1e6,
        "backward_over_floor": backward / floor if floors.library else None,
    }


class Step:
    """A RotatE step: forward, loss, backward and Adam on one batch."""

    def __init__(self, device: Device, p: dict[str, Any], kind: str) -> None:
        self.p = {name: x.detach() for name, x in p.items()}
        self.table = nn.Parameter(self.p.pop("table").clone())
        self.phases = nn.Parameter(self.p.pop("phases").clone())
        self.kind = kind
        optimizer = Adam if kind == "ours" else torch.optim.Adam
        self.optimizer = optimizer(
            [self.table, self.phases], lr=1e-3, fused=True, capturable=device.graphs
        )
        self.loss = self._torch
        if kind == "compiled":
            self.loss = torch.compile(self._torch)
        if kind == "compiled, reduce-overhead":
            self.loss = torch.compile(self._torch, mode="reduce-overhead")

    def _torch(self) -> Tensor:
        p = self.p
        scores = MARGIN + explicit(
            self.table,
            self.phases,
            p["heads"],
            p["relations"],
            p["tails"],
            p["ids"],
            p["corrupted_side"],
        )
        negative = scores[:, 1:]
        weights = (TEMPERATURE * negative).detach().softmax(1)
        log = nn.functional.logsigmoid
        return -0.5 * (log(scores[:, 0]) + (weights * log(-negative)).sum(1)).mean()

    def __call__(self) -> None:
        if self.kind != "ours":
            self.loss().backward()  # type: ignore[no-untyped-call]
        else:
            assert isinstance(self.optimizer, Adam)
            with self.optimizer.deferring():
                scores = MARGIN + rotate_score(self.table, self.phases, **self.p)
                self_adversarial_loss(scores[:, 0], scores[:, 1:], None, TEMPERATURE).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()


def time_steps(device: Device, n: int, dim: int) -> Any:
    """Times whole steps including the host; those of mmkgc also as a CUDA graph."""
    p = problem(device, n, dim, torch.float32)
    kinds = ["ours", "eager"]
    if device.graphs:
        kinds += ["compiled", "compiled, reduce-overhead"]
    found: dict[str, Any] = {"shape": f"B={device.sizes.batch}, N={n}, {dim} complex"}
    for kind in kinds:
        found[f"{kind}_us"] = device.wall(Step(device, p, kind)) * 1e6
    if device.graphs:
        captured = Step(device, p, "ours")  # must outlive its graph
        found["ours, captured_us"] = device.wall(device.capture(captured, 1)) * 1e6
        best = min(found["compiled_us"], found["compiled, reduce-overhead_us"])
        found["compiled_over_ours"] = found["compiled_us"] / found["ours_us"]
        found["compiled_over_captured"] = found["compiled_us"] / found["ours, captured_us"]
        found["best_compiled_over_captured"] = best / found["ours, captured_us"]
    return found


def time_ranking(device: Device, floors: Floors, dim: int) -> Any:
    """Times ranking with the modulus metric, against computing its square roots."""
    s = device.sizes
    rng = torch.Generator().manual_seed(0)
    ptr = torch.arange(s.queries + 1)
    filters = torch.randint(s.entities, (s.queries, 8), generator=rng).sort(1).values
    distinct = (filters.diff(dim=1) > 0).all(1)
    filters[~distinct] = torch.arange(8)
    queries, table = (torch.randn(n, 2 * dim, generator=rng) for n in (s.queries, s.entities))
    targets = torch.randint(s.entities, (s.queries,), generator=rng)
    given = (queries, table, ptr, targets, ptr * 8, filters.flatten())
    there = [x.to(device.name) for x in given]
    rank: Any = rank_candidates
    out: dict[str, Any] = {"shape": f"{s.queries} queries, {s.entities} candidates, {dim} complex"}
    for metric in (Metric.modulus, Metric.l1, Metric.dot):
        call: Any = partial(rank, *there, metric=metric, pairs=whole_row(2 * dim))
        seconds = device.seconds(call, captured=False)
        out[f"{metric.name}_ms"] = seconds * 1e3
    bound = floors.roots(s.queries * s.entities * dim)
    out["roots_ms"] = bound * 1e3
    out["share_of_root_bound"] = bound / (out["modulus_ms"] / 1e3) if bound else None
    return out


class Layer:
    """An R-GCN layer with two bases: neighbour sums, then a matrix product."""

    def __init__(self, device: Device, graph: MessageGraph, width: int, out: int) -> None:
        bases, entities = 2, graph.entities
        self.graph = graph
        self.x = torch.randn(entities, width, device=device.name)
        self.a = torch.randn(graph.relations, bases, device=device.name)
        self.w = torch.randn(bases * width, out, device=device.name)
        self.grad = torch.randn(entities, out, device=device.name)
        self.sums = rgcn_propagate(self.x, self.a, graph)

    def forward(self) -> Any:
        return rgcn_propagate(self.x, self.a, self.graph) @ self.w

    def product(self) -> Any:
        return self.sums @ self.w

    def backward(self) -> Any:
        g = self.graph
        back = (g.back_ptr, g.back_target, g.back_relation, g.back_norm)
        d_sums = self.grad @ self.w.T
        made = torch.ops.mmkgc.rgcn_propagate_backward(
            d_sums, self.x, self.a, *back, None, None, True, True
        )
        return self.sums.T @ self.grad, made

    def products_back(self) -> Any:
        return self.sums.T @ self.grad, self.grad @ self.w.T


@torch.no_grad()
def time_rgcn(device: Device, floors: Floors, triples: Tensor) -> Any:
    """Times two layers, 128 -> 256 -> 768, against reading their rows and the matrix products."""
    s = device.sizes
    graph = MessageGraph.from_triples(triples, s.entities, s.relations).map(
        lambda x: x.to(device.name)
    )
    rows: list[dict[str, Any]] = []
    for width, out in ((128, 256), (256, 768)):
        layer = Layer(device, graph, width, out)
        passes = {
            "forward": (layer.forward, layer.product, layer.x, graph.source),
            "backward": (layer.backward, layer.products_back, layer.sums, graph.back_target),
        }
        for way, (ours, products, table, ids) in passes.items():
            seconds = device.seconds(ours)
            floor = floors.gather(table, ids) + device.seconds(products)
            rows.append(
                {
                    "layer": f"{width} -> {out}, {way}",
                    "us": seconds * 1e6,
                    "floor_us": floor * 1e6,
                    "over_floor": seconds / floor if floors.library else None,
                }
            )
    return rows


def time_losses(device: Device) -> Any:
    """Times losses with gradients against their references."""
    rows = []
    thresholds, weights = (0.2, 0.8), (0.5, 1.5, 1.2)
    cuts = [entropy_cut(bits) for bits in thresholds]
    losses: dict[str, tuple[Any, Any]] = {
        "self-adversarial": (
            partial(self_adversarial_loss, temperature=TEMPERATURE),
            partial(adversarial_reference, temperature=TEMPERATURE),
        ),
        "entropy-weighted": (
            partial(entropy_weighted_loss, thresholds=thresholds, weights=weights),
            partial(entropy_reference, easy_above=cuts[0], hard_upto=cuts[1], weights=weights),
        ),
    }

    def with_gradients(loss: Any, positive: Tensor, negative: Tensor) -> Any:
        return torch.autograd.grad(loss(positive, negative, None), (positive, negative))

    for n in (32, 128):
        positive = torch.randn(device.sizes.batch, device=device.name).requires_grad_()
        negative = torch.randn(device.sizes.batch, n, device=device.name).requires_grad_()
        for name, (ours, reference) in losses.items():
            ours_s, reference_s = (
                device.seconds(partial(with_gradients, loss, positive, negative))
                for loss in (ours, reference)
            )
            rows.append(
                {
                    "loss": name,
                    "N": n,
                    "ours_us": ours_s * 1e6,
                    "reference_us": reference_s * 1e6,
                    "reference_over_ours": reference_s / ours_s,
                }
            )
    return rows


def time_negatives(device: Device, triples: Tensor) -> Any:
    """Times filtered Bernoulli negatives, sorted by entity."""
    s = device.sizes
    head, relation, tail = triples.unbind(1)
    known = [
        KnownAnswers.from_pairs(relation * s.entities + head, tail, s.entities),
        KnownAnswers.from_pairs(relation * s.entities + tail, head, s.entities),
    ]
    draw: Any = filtered_negatives
    there = [
        KnownAnswers(*(x.to(device.name) for x in (of.keys, of.ptr, of.answers))) for of in known
    ]
    batch = triples[: s.batch].to(device.name)
    share = torch.full((s.relations,), 0.5, device=device.name)
    rows = []
    for n in (32, 128):
        call: Any = partial(
            draw, batch, share, *there, entities=s.entities, n=n, choice=SideChoice.per_negative,
            rounds=8, with_positive=True, seed=1, step=2,
        )  # fmt: skip
        rows.append({"N": n, "us": device.seconds(call) * 1e6})
    return rows


def random_triples(sizes: Sizes) -> Tensor:
    """Random triples with skewed degrees, so that some entities are hubs."""
    rng = torch.Generator().manual_seed(0)
    draw = torch.rand(sizes.triples, 3, generator=rng, dtype=torch.float64)
    draw[:, 1] = draw[:, 1].square()
    draw[:, ::2] = draw[:, ::2].pow(2.5)
    bounds = torch.tensor([sizes.entities, sizes.relations, sizes.entities])
    return (draw * bounds).long()


def targets(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the performance targets with their measured values."""
    rotate = results["rotate"][-1]
    return {
        "rotate forward within 2 times the gather": rotate["forward_over_floor"],
        "rotate backward within 2 times its floor": rotate["backward_over_floor"],
        "ranking at 0.6 of the bound by roots": results["ranking"]["share_of_root_bound"],
        "R-GCN within 2 times gather and products": max(r["over_floor"] for r in results["rgcn"]),
        "a step, as a CUDA graph, at least 3 times as fast as torch.compile": min(
            step["compiled_over_captured"] for step in results["steps"]
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, help="a prepared FB15K-237; default: random triples")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to test the program")
    arguments = parser.parse_args()
    there = torch.cuda.is_available()
    if not there and not arguments.tiny:
        raise SystemExit("torch finds no GPU; pass --tiny to test the program without one")
    sizes = TINY if arguments.tiny else Sizes()
    device = Device("cuda" if there else "cpu", sizes)
    backend, why = backend_of("rotate_score", device.name.type)
    if backend != "native":
        raise SystemExit(f"the kernels are not there: {why}")
    triples = random_triples(sizes)
    if arguments.graph and not arguments.tiny:
        triples = torch.from_numpy(load_graph(arguments.graph).train).long()
    floors = Floors(device)
    f32 = torch.float32
    shapes: list[tuple[int, int, torch.dtype]] = [(32, 128, f32), (128, 250, f32)]
    low = [(128, 256, torch.bfloat16)] if there else []
    results: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name() if there else None,
        "torch": torch.__version__,
        "rotate": [time_rotate(device, floors, *shape) for shape in [*low, *shapes]],
        "steps": [time_steps(device, n, dim) for n, dim in ((32, 128), (128, 250))],
        "ranking": time_ranking(device, floors, 128),
        "rgcn": time_rgcn(device, floors, triples),
        "losses": time_losses(device),
        "negatives": time_negatives(device, triples),
    }
    if there and not arguments.tiny:
        results["targets"] = targets(results)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
