from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.ops import Metric, Pair, SelfAdversarial
from mmkgc_cli.sampling.contract import (
    BlockwiseNegatives,
    Candidates,
    EmbeddedNegatives,
    NegativeBatch,
    Sampler,
    SamplerConfig,
    SharedNegatives,
    SoftNegatives,
)
from mmkgc_cli.sampling.samplers.shared import SharedConfig, SharedSampler
from mmkgc_cli.scoring import Scorer, ScorerConfig, Side, load_scorer
from mmkgc_cli.training.link_prediction import LinkPrediction
from mmkgc_cli.training.negative_scores import negative_loss, negative_scores
from tests.conftest import random_graph
from tests.sampling.small_samplers import FORMS, Blockwise, Drawing, Embedded, Plain, Soft, task_of
from tests.scoring.small import DistMult, TransE
from tests.training.programs import link_prediction

N, R, NEGATIVES = 11, 3, 5


# A scorer without branches need not take `branch` in `pairs`; these do not.
class TwoBlocks(DistMult):
    """Two blocks per row; every pair of blocks has a weight of its own."""

    def pairs(self, query_width: int) -> Sequence[Pair]:  # type: ignore[override]
        return (Pair(0, 0, 2), Pair(2, 2, 4, 0.5), Pair(0, 2, 2, -2.0), Pair(4, 0, 2, 3.0))


class TwoDistances(TransE):
    def pairs(self, query_width: int) -> Sequence[Pair]:  # type: ignore[override]
        return (Pair(0, 0, 3), Pair(3, 3, 3, 0.5), Pair(3, 0, 3, 2.0), Pair(0, 3, 3))

    @property
    def margin(self) -> float:
        return 4.0


class Overlapping(DistMult):
    def pairs(self, query_width: int) -> Sequence[Pair]:  # type: ignore[override]
        return (Pair(0, 0, 4), Pair(2, 2, 4))


OWN = {cls.__name__: cls for cls in (DistMult, TransE, TwoDistances)}


def scorer_of(name: str) -> Scorer:
    scorer_class = OWN.get(name) or load_scorer(name)
    config = {"dim": 4} if "dim" in scorer_class.Config.model_fields else {}
    rng = torch.Generator().manual_seed(0)
    return scorer_class(scorer_class.Config(**config), N, R, rng).double()


def triples() -> Tensor:
    return torch.from_numpy(random_graph(N, R, 60, 0).train).long()


def row_score(scorer: Scorer, query: Tensor, row: Tensor) -> Tensor:
    """The score by its definition, a coordinate at a time."""
    total = torch.tensor(scorer.margin, dtype=torch.float64)
    for pair in scorer.pairs(len(query)):
        q = query[pair.query : pair.query + pair.width]
        c = row[pair.candidate : pair.candidate + pair.width]
        if scorer.metric is Metric.dot:
            total = total + pair.weight * sum(a * b for a, b in zip(q, c, strict=True))
        elif scorer.metric is Metric.l1:
            total = total - pair.weight * sum((q - c).abs())
        else:
            re, im = (q - c).chunk(2)
            total = total - pair.weight * sum((re * re + im * im).sqrt())
    return total


def row_of(scorer: Scorer, negatives: NegativeBatch, b: int, n: int) -> Tensor:
    """The candidate row of negative n of positive b, by the definition of each form."""
    table = scorer.candidates(None)
    assert isinstance(table, Tensor)
    if isinstance(negatives, Candidates):
        return table[negatives.ids[b, 1 + n]]
    if isinstance(negatives, SharedNegatives):
        return table[negatives.ids[b // negatives.chunk, n]]
    if isinstance(negatives, SoftNegatives):
        weights = negatives.weights[b, n]
        rows = [w * table[e] for w, e in zip(weights, negatives.pool, strict=True)]
        return torch.stack(rows).sum(0)
    if isinstance(negatives, BlockwiseNegatives):
        blocks = negatives.ids.shape[-1]
        width = table.shape[1] // blocks  # all blocks have one width in these tests
        ids = negatives.ids[b, n].tolist()
        return torch.cat([table[e, v * width : (v + 1) * width] for v, e in enumerate(ids)])
    return negatives.vectors[b, n]


def side_of(negatives: NegativeBatch, b: int, n: int) -> int:
    if isinstance(negatives, SharedNegatives):
        return int(negatives.corrupted_side[b // negatives.chunk])
    return int(negatives.corrupted_side[b, n + isinstance(negatives, Candidates)])


def by_loop(scorer: Scorer, positives: Tensor, negatives: NegativeBatch) -> tuple[Tensor, Tensor]:
    """Scores [B] and [B, N], one after another."""
    first, rest = [], []
    for b in range(len(positives)):
        h, r, t = positives[b : b + 1].unbind(1)
        tail_query, head_query = scorer.query(h, r, Side.tail)[0], scorer.query(t, r, Side.head)[0]
        first.append(row_score(scorer, tail_query, scorer.candidates(t)[0]))
        for n in range(NEGATIVES):
            query = head_query if side_of(negatives, b, n) == Side.head else tail_query
            rest.append(row_score(scorer, query, row_of(scorer, negatives, b, n)))
    return torch.stack(first), torch.stack(rest).view(len(positives), NEGATIVES)


def shared(scorer: Scorer) -> Sampler:
    return SharedSampler(SharedConfig(chunk=4), task_of(triples(), N, R, NEGATIVES), scorer)


@pytest.mark.parametrize("name", ["DistMult", "TransE", "rotate", "TwoDistances"])
@pytest.mark.parametrize("form", [*FORMS, "shared"])
def test_scores_and_gradients_are_those_of_a_loop(name: str, form: str) -> None:
    scorer, positives = scorer_of(name), triples()[:10]
    task = task_of(triples(), N, R, NEGATIVES)
    sampler = shared(scorer) if form == "shared" else FORMS[form](SamplerConfig(), task, scorer)
    sampler.double()
    negatives = sampler.draw(positives, scorer)
    actual = negative_scores(scorer, positives, negatives)
    expected = by_loop(scorer, positives, negatives)
    for scores, loop in zip(actual, expected, strict=False):
        torch.testing.assert_close(scores, loop, atol=1e-12, rtol=0)
    parameters = [*scorer.parameters(), *sampler.parameters()]
    weights = torch.linspace(-1, 1, 10 * NEGATIVES, dtype=torch.float64).view(10, NEGATIVES)
    grads = [
        torch.autograd.grad(
            first.sum() + (weights * rest).sum(), parameters, retain_graph=True, allow_unused=False
        )
        for first, rest in (actual[:2], expected)
    ]
    for a, b in zip(*grads, strict=True):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


def test_shared_negatives_are_scored_by_all_pairs_and_their_weights() -> None:
    scorer = TwoBlocks(ScorerConfig(), N, R, torch.Generator().manual_seed(0)).double()
    positives = triples()[:10]
    negatives = shared(scorer).draw(positives, scorer)
    assert isinstance(negatives, SharedNegatives)
    actual = negative_scores(scorer, positives, negatives)
    for scores, loop in zip(actual, by_loop(scorer, positives, negatives), strict=False):
        torch.testing.assert_close(scores, loop, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["DistMult", "rotate"])
def test_shared_negatives_score_the_same_without_dense_gradients(name: str) -> None:
    scorer, positives = scorer_of(name), triples()[:10]
    negatives = shared(scorer).draw(positives, scorer)
    calls: list[Candidates] = []
    plain = scorer.score_sampled
    scorer.score_sampled = lambda *args: calls.append(args[1]) or plain(*args)  # type: ignore
    by_ids = negative_scores(scorer, positives, negatives, dense_grad=False)
    assert len(calls) == 1
    for a, b in zip(by_ids, negative_scores(scorer, positives, negatives), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_one_hot_weights_and_uncut_blocks_score_as_ids() -> None:
    scorer, positives = scorer_of("TwoDistances"), triples()[:10]
    ids = Plain(SamplerConfig(), task_of(triples(), N, R, NEGATIVES), scorer).draw(
        positives, scorer
    )
    assert isinstance(ids, Candidates)
    entities, side = ids.ids[:, 1:], ids.corrupted_side[:, 1:]
    one_hot = torch.nn.functional.one_hot(entities, N).double()
    same: list[NegativeBatch] = [
        SoftNegatives(one_hot, torch.arange(N), side),
        BlockwiseNegatives(torch.stack([entities, entities], -1), side),
        EmbeddedNegatives(scorer.candidates(None)[entities], side),
    ]
    expected = negative_scores(scorer, positives, ids)
    assert ids.mask is not None
    assert torch.equal(expected[2], ids.mask[:, 1:])
    for negatives in same:
        actual = negative_scores(scorer, positives, negatives)
        torch.testing.assert_close(actual[0], expected[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(actual[1], expected[1], atol=1e-12, rtol=0)
        assert actual[2].all()


def program_of(sampler: type[Sampler], graph: Graph, **optimization: object) -> LinkPrediction:
    rng = torch.Generator().manual_seed(0)
    scorer = TwoDistances(ScorerConfig(), len(graph.entities), len(graph.relations), rng)
    return link_prediction(
        scorer,
        torch.from_numpy(graph.train).long(),
        sampler=sampler,
        negatives=NEGATIVES,
        epochs=3,
        optimization={"lr": 0.05, **optimization},
    )


@pytest.mark.parametrize("sampler", [Soft, Embedded])
@pytest.mark.parametrize("optimizer", ["adam", "lazy-adam", "adagrad"])
def test_parameters_of_a_sampler_are_trained_with_the_scorer(
    graph: Graph, sampler: type[Sampler], optimizer: str
) -> None:
    program = program_of(sampler, graph, optimizer=optimizer)
    (parameter,) = program.sampler.parameters()
    before, entities = (
        parameter.detach().clone(),
        next(program.scorer.parameters()).detach().clone(),
    )
    program.start_epoch()
    program.step(0)
    assert (parameter.detach() - before).abs().max().item() == pytest.approx(0.05, rel=0.01)
    assert not torch.equal(next(program.scorer.parameters()), entities)


@pytest.mark.parametrize("sampler", FORMS.values())
def test_a_program_resumes_from_its_state_with_any_sampler(
    graph: Graph, sampler: type[Sampler]
) -> None:
    one, other = program_of(sampler, graph), program_of(sampler, graph)
    one.start_epoch()
    for index in range(3):
        one.step(index)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for program in (one, other):
        program.step(3)
    for module in ("scorer", "sampler"):
        states = [getattr(program, module).state_dict() for program in (one, other)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert one.sampler.step == other.sampler.step == 4


def test_a_sampler_that_keeps_the_scorer_is_refused(graph: Graph) -> None:
    class Keeps(Plain):
        def __init__(self, config: SamplerConfig, task: object, scorer: Scorer) -> None:
            super().__init__(config, task, scorer)  # type: ignore[arg-type]
            self.host = scorer

    with pytest.raises(MmkgcError, match="contains parameters of the scorer"):
        program_of(Keeps, graph)


def test_negatives_that_cannot_be_scored_are_an_error() -> None:
    scorer, positives = scorer_of("TwoDistances"), triples()[:4]
    task = task_of(triples(), N, R, NEGATIVES)
    sampler = Drawing(SamplerConfig(), task, scorer)
    side, entities = sampler.sides(positives), sampler.entities(4, NEGATIVES, 3)
    with pytest.raises(MmkgcError, match="returned a tuple, expected Candidates, SharedNegatives"):
        negative_scores(scorer, positives, (entities, side))  # type: ignore[arg-type]
    with pytest.raises(
        MmkgcError, match="for 3 blocks, but candidate rows of TwoDistances have 2; choose"
    ):
        negative_scores(scorer, positives, BlockwiseNegatives(entities, side))
    rows = scorer.candidates(None)[entities[..., 0]]
    with pytest.raises(MmkgcError, match=r"of shape \(4, 5\), corrupted sides of shape \(4, 4\)"):
        negative_scores(scorer, positives, EmbeddedNegatives(rows, side[:, :4]))
    overlapping = Overlapping(ScorerConfig(), N, R, torch.Generator())
    with pytest.raises(MmkgcError, match="the blocks overlap or do not cover"):
        blockwise = Blockwise(SamplerConfig(), task, overlapping).draw(positives, overlapping)
        negative_scores(overlapping, positives, blockwise)


class Mirror(DistMult):
    """Head queries are scaled differently, so the scorer is not two-way."""

    two_way = False

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        rows = super().query(entities, relations, side)
        return rows * 2 if side is Side.head else rows


def test_a_scorer_that_is_not_two_way_compares_each_side_with_its_own_positive() -> None:
    rng = torch.Generator().manual_seed(0)
    scorer = Mirror(Mirror.Config(), N, R, rng).double()
    positives = triples()[:6]
    ids = torch.randint(N, (6, NEGATIVES), generator=rng)
    side = torch.randint(2, (6, NEGATIVES), generator=rng, dtype=torch.int8)
    mask = torch.rand(6, NEGATIVES, generator=rng) > 0.2
    negatives = Candidates.from_negatives(positives, ids, side, mask)
    loss = SelfAdversarial(0.5)
    actual = negative_loss(scorer, positives, negatives, loss)
    h, r, t = positives.unbind(1)
    rows = []
    for side_of_row, known, answer in ((Side.tail, h, t), (Side.head, t, h)):
        positive = scorer.score_answers(known, r, answer, side_of_row)
        against = torch.stack(
            [scorer.score_answers(known, r, ids[:, i], side_of_row) for i in range(NEGATIVES)], 1
        )
        rows.append(loss(positive, against, mask & (side == side_of_row)))
    torch.testing.assert_close(actual, (rows[0] + rows[1]) / 2)
