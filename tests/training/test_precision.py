from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.ops import Metric
from mmkgc_cli.scoring import Scorer, ScorerConfig, Side
from mmkgc_cli.scoring.contract import Candidates
from mmkgc_cli.training.cuda_graph import with_cuda_graph
from mmkgc_cli.training.link_prediction import LinkPrediction
from mmkgc_cli.training.precision import products, require_precision
from mmkgc_cli.training.settings import Precision
from tests.conftest import Outcome
from tests.training.programs import link_prediction
from tests.training.test_cuda_graph import losses

CUDA = torch.device("cuda")
SWITCHES = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn,
)
on_gpu = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


def switches() -> list[str]:
    return [switch.fp32_precision for switch in SWITCHES]


class Projected(Scorer):
    """A scorer with candidates from dense modules."""

    metric = Metric.dot
    citation: ClassVar[str] = "a test"

    def __init__(
        self, config: ScorerConfig, n_entities: int, n_relations: int, generator: torch.Generator
    ) -> None:
        super().__init__(config, n_entities, n_relations, generator)
        self.features = nn.Parameter(torch.randn(n_entities, 32, generator=generator))
        self.relations = nn.Parameter(torch.randn(n_relations, 16, generator=generator))
        self.project = nn.Parameter(torch.randn(16, 32, generator=generator) / 8)
        self.seen: list[tuple[torch.dtype, list[str]]] = []

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        rows = nn.functional.linear(
            self.features if entities is None else self.features[entities], self.project
        )
        self.seen.append((rows.dtype, switches()))
        return rows

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        return self.candidates(entities) * self.relations[relations].to(self.project.dtype)


def scorer_of(graph: Graph) -> Projected:
    rng = torch.Generator().manual_seed(0)
    return Projected(ScorerConfig(), len(graph.entities), len(graph.relations), rng)


def test_tf32_is_switched_off_after_the_step_also_after_errors() -> None:
    before = switches()
    with products("tf32", CUDA):
        assert switches() == ["tf32"] * 3
    assert switches() == before
    with pytest.raises(ZeroDivisionError), products("tf32", CUDA):
        raise ZeroDivisionError
    assert switches() == before


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_tf32_is_used_only_for_tf32(precision: Precision) -> None:
    before = switches()
    with products("tf32", CUDA), products(precision, CUDA):
        assert switches() == ["ieee"] * 3
    assert switches() == before


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_tf32_and_bf16_need_cuda(precision: Precision) -> None:
    require_precision("float32", torch.device("cpu"))
    require_precision(precision, CUDA)
    with pytest.raises(DataError, match=f"training.precision={precision}: needs CUDA"):
        require_precision(precision, torch.device("cpu"))


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_bf16_on_a_cpu_is_an_error_before_anything_is_written(
    mmkgc: Callable[..., Outcome], graph: Graph, tmp_path: Path, more: list[str]
) -> None:
    write_graph(graph, tmp_path / "graph")
    done = mmkgc(
        "train", "rotate", "--graph", "graph", "--device", "cpu", "--run", "run",
        "--set", "training.precision=bf16", *more,
    )  # fmt: skip
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    assert "training.precision=bf16: needs CUDA, and this training runs on the CPU" in done.err
    assert not (tmp_path / "run").exists()


def test_rows_in_bfloat16_are_scored_in_float32(graph: Graph) -> None:
    scorer = scorer_of(graph)
    positives = torch.from_numpy(graph.train[:8]).long()
    ids = torch.arange(24).view(8, 3)
    side = (ids % 2).to(torch.int8)
    expected = scorer.score_sampled(positives, Candidates(ids, side))
    with torch.autocast("cpu", torch.bfloat16):
        scores = scorer.score_sampled(positives, Candidates(ids, side))
    assert scorer.seen[-1][0] == torch.bfloat16
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, expected, atol=0.02 * float(expected.detach().abs().max()))
    assert not torch.equal(scores, expected)
    scores.sum().backward()
    grads = [p.grad for p in scorer.parameters()]
    assert all(g is not None and g.dtype == torch.float32 and g.any() for g in grads)


@pytest.mark.parametrize("precision", [pytest.param(p, marks=on_gpu) for p in ("tf32", "bf16")])
def test_lower_precision_trains_similarly_with_and_without_a_graph(
    graph: Graph, precision: Precision
) -> None:
    def program(precision: Precision) -> LinkPrediction:
        triples = torch.from_numpy(graph.train).long().cuda()
        return link_prediction(
            scorer_of(graph).cuda(), triples, precision=precision, optimization={"lr": 0.01}
        )

    exact, low, captured = program("float32"), program(precision), program(precision)
    expected, actual = losses(exact, 12), losses(low, 12)
    assert actual == losses(with_cuda_graph(captured, "auto", lambda _: None), 12)
    assert actual == pytest.approx(expected, rel=0.05)
    assert all(p.dtype == torch.float32 for p in low.scorer.parameters())
    assert isinstance(low.scorer, Projected)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert low.scorer.seen[0] == (dtype, ["tf32" if precision == "tf32" else "ieee"] * 3)
