"""Training against all entities, held against loops over triples."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.scoring import Scorer, Side, load_scorer
from mmkgc_cli.scoring.contract import Batch
from mmkgc_cli.training.cuda_graph import WARM_UP, CapturedProgram, with_cuda_graph
from mmkgc_cli.training.one_vs_all import AllCandidates
from tests.scoring.extended import Branches, DistMult, Mirrored, PairRE, PerRelation, TransE
from tests.training.programs import one_vs_all
from tests.training.test_cuda_graph import Recorded, same

Query = tuple[int, int, Side]


def program_of(scorer: Scorer, graph: Graph, **changes: Any) -> AllCandidates:
    return one_vs_all(scorer, torch.from_numpy(graph.train).long(), **changes)


def smoothing(epsilon: float, adds: str) -> dict[str, Any]:
    return {
        "label_smoothing": epsilon, "label_smoothing_adds": adds if epsilon else None,
    }  # fmt: skip


def make(scorer_class: type[Scorer], graph: Graph, seed: int = 0, **config: Any) -> Scorer:
    rng = torch.Generator().manual_seed(seed)
    sizes = len(graph.entities), len(graph.relations)
    return scorer_class(scorer_class.Config(**config), *sizes, rng)


def tucker(graph: Graph, **config: Any) -> Scorer:
    return make(load_scorer("tucker"), graph, dim=6, relation_dim=5, **config)


def answers_of(graph: Graph) -> dict[Query, set[int]]:
    answers: dict[Query, set[int]] = defaultdict(set)
    for h, r, t in graph.train.tolist():
        answers[h, r, Side.tail].add(t)
        answers[t, r, Side.head].add(h)
    return answers


def scores_by_loop(scorer: Scorer, query: Query) -> Tensor:
    known, relation, side = query
    n = scorer.n_entities
    with torch.no_grad():
        return scorer.score_answers(
            torch.full((n,), known), torch.full((n,), relation), torch.arange(n), side
        )


def smoothed(labels: Tensor, eps: float, adds: str) -> Tensor:
    spread = {"one": 1.0 if eps else 0.0, "epsilon": eps}[adds]
    return (1 - eps) * labels + spread / len(labels)


SCORERS = [DistMult, TransE, PairRE, PerRelation, Branches, Mirrored]
SMOOTHING = [(0.0, "one"), (0.1, "one"), (0.1, "epsilon")]


@pytest.mark.parametrize(("eps", "adds"), SMOOTHING)
@pytest.mark.parametrize("scorer_class", SCORERS, ids=lambda c: c.__name__)
def test_bce_is_over_all_entities_as_answers_to_the_distinct_queries(
    graph: Graph, scorer_class: type[Scorer], eps: float, adds: Any
) -> None:
    scorer = make(scorer_class, graph).double()
    losses = []
    for query, answers in answers_of(graph).items():
        labels = torch.zeros(scorer.n_entities, dtype=torch.float64)
        labels[list(answers)] = 1
        y, s = smoothed(labels, eps, adds), scores_by_loop(scorer, query).sigmoid()
        losses.append(-(y * s.log() + (1 - y) * (1 - s).log()).mean())
    program = program_of(
        scorer,
        graph,
        batch_size=10_000,
        label_smoothing=eps,
        label_smoothing_adds=adds if eps else None,
    )
    program.start_epoch()
    assert program.steps_per_epoch == 1
    actual = program.step(0)["loss"].item()
    assert actual == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


@pytest.mark.parametrize(("eps", "adds"), SMOOTHING)
@pytest.mark.parametrize("scorer_class", [DistMult, Mirrored], ids=lambda c: c.__name__)
def test_softmax_is_over_all_entities_with_one_answer_of_each_triple_and_side(
    graph: Graph, scorer_class: type[Scorer], eps: float, adds: Any
) -> None:
    scorer = make(scorer_class, graph).double()
    losses = []
    for h, r, t in graph.train.tolist():
        for query, answer in (((h, r, Side.tail), t), ((t, r, Side.head), h)):
            labels = torch.zeros(scorer.n_entities, dtype=torch.float64)
            labels[answer] = 1
            logs = scores_by_loop(scorer, query).log_softmax(0)
            losses.append(-(smoothed(labels, eps, adds) * logs).sum())
    program = program_of(
        scorer,
        graph,
        batch_size=10_000,
        loss="softmax",
        label_smoothing=eps,
        label_smoothing_adds=adds if eps else None,
    )
    program.start_epoch()
    actual = program.step(0)["loss"].item()
    assert actual == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


@pytest.mark.parametrize("scorer_class", [DistMult, Mirrored], ids=lambda c: c.__name__)
def test_batches_of_a_pass_are_the_pass(graph: Graph, scorer_class: type[Scorer]) -> None:
    """The loss of a pass in small batches, without moving, is the loss of it in one."""
    scorer = make(scorer_class, graph).double()
    whole, parts = (program_of(scorer, graph, batch_size=size) for size in (10_000, 32))
    for program in (whole, parts):
        program.start_epoch()
        program.optimization.optimizer.param_groups[0]["lr"] = 0.0
    expected = whole.step(0)["loss"].item()
    sizes = [len(parts.begin_step(i)) for i in range(parts.steps_per_epoch)]
    assert sum(sizes) == len(answers_of(graph))
    assert sizes[:-1] == [32] * (len(sizes) - 1)
    actual = [parts.step(i)["loss"].item() for i in range(parts.steps_per_epoch)]
    mean = math.fsum(x * n for x, n in zip(actual, sizes, strict=True)) / sum(sizes)
    assert mean == pytest.approx(expected, rel=1e-6)


def test_labels_are_the_answers_in_train(graph: Graph) -> None:
    program = program_of(make(DistMult, graph), graph)
    labels = program.labels(program.rows[:, 0].contiguous())
    n, r = len(graph.entities), len(graph.relations)
    for key, row in zip(program.rows[:, 0].tolist(), labels, strict=True):
        relation, known = divmod(key, n)
        query = known, relation % r, Side.head if relation >= r else Side.tail
        assert set(row.nonzero().flatten().tolist()) == answers_of(graph)[query]
        assert row.max() == 1


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_terms_of_the_scorer_are_about_triples_of_train(graph: Graph, loss: str) -> None:
    batches: list[Tensor] = []

    class Asking(DistMult):
        def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
            batches.append(batch.triples)
            return {"long": self.entities.square().sum()}

    program = program_of(make(Asking, graph), graph, loss=loss)
    passes = []
    for _ in range(6):
        program.start_epoch()
        batches.clear()
        for index in range(program.steps_per_epoch):
            assert program.step(index)["long"] > 0
        passes.append(sorted(map(tuple, torch.cat(batches).tolist())))
    train = sorted(map(tuple, graph.train.tolist()))
    if loss == "softmax":
        assert all(triples == sorted(train * 2) for triples in passes)
        return
    assert all(len(triples) == len(answers_of(graph)) for triples in passes)
    # Answers of one query take turns: what no query has more than 6 of is all met.
    most = max(map(len, answers_of(graph).values()))
    assert most <= 6
    assert set().union(*passes) == set(train)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
@pytest.mark.parametrize("scorer_class", [DistMult, Mirrored], ids=lambda c: c.__name__)
@pytest.mark.parametrize("after", [1, 9, 17])
def test_a_training_goes_on_from_its_state(
    graph: Graph, scorer_class: type[Scorer], loss: str, after: int
) -> None:
    def steps(program: AllCandidates, first: int, last: int) -> list[float]:
        losses = []
        for index in range(first, last):
            if index % program.steps_per_epoch == 0:
                program.start_epoch()
            losses.append(program.step(index % program.steps_per_epoch)["loss"].item())
        return losses

    whole, first, again = (
        program_of(make(scorer_class, graph), graph, loss=loss, batch_size=48) for _ in range(3)
    )
    expected = steps(whole, 0, 25)
    steps(first, 0, after)
    again.load_state_dict(first.state_dict())
    assert steps(again, after, 25) == expected[after:]
    assert same(whole, again)


def test_training_ranks_what_it_was_trained_on_ahead(graph: Graph) -> None:
    scorer = make(DistMult, graph, dim=40)
    program = program_of(scorer, graph)
    losses = []
    for _ in range(40):
        program.start_epoch()
        losses += [program.step(i)["loss"].item() for i in range(program.steps_per_epoch)]
    assert losses[-1] < 0.5 * losses[0]


def test_reciprocal_scorers_can_be_captured_and_others_say_why_not(graph: Graph) -> None:
    reasons: list[str | None] = []
    plain = program_of(make(DistMult, graph), graph)
    assert with_cuda_graph(plain, "auto", reasons.append, Recorded) is plain
    assert reasons == ["the number of head queries varies between batches"]
    programs: list[Any] = [program_of(tucker(graph), graph) for _ in range(2)]
    programs[1] = with_cuda_graph(
        programs[1], "auto", reasons.append, lambda: Recorded(programs[1].program)
    )
    assert isinstance(programs[1], CapturedProgram)
    losses = []
    for program in programs:
        torch.manual_seed(0)  # of dropout
        actual = []
        for _ in range(2):
            program.start_epoch()
            actual += [program.step(i)["loss"] for i in range(program.steps_per_epoch)]
        losses.append([float(x) for x in actual])
    assert losses[0] == losses[1]
    assert same(*programs)
    assert len(losses[0]) > 2 * WARM_UP


def test_a_batch_norm_sees_queries_of_both_sides_together(graph: Graph) -> None:
    scorer: Any = tucker(graph)
    program = program_of(scorer, graph)
    program.start_epoch()
    program.step(0)
    assert scorer.input_norm.num_batches_tracked == 1
