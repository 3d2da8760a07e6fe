"""Properties: all methods that compute a score agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmkgc_cli.conformance.findings import Failed, Skipped
from mmkgc_cli.conformance.subject import (
    ENTITIES,
    RELATIONS,
    Subject,
    scores_of_triples,
)
from mmkgc_cli.evaluation.known import KnownTriples
from mmkgc_cli.evaluation.ranker import rank
from mmkgc_cli.ops import Metric, Pair, library, score_rows, whole_row, without_kernels
from mmkgc_cli.scoring.contract import Candidates, Reciprocal, Scorer, Side
from mmkgc_cli.scoring.faults import where
from mmkgc_cli.scoring.scores import candidate_rows, metrics, query_rows, scale_rows, terms

# Tolerances, relative to the largest score.
TOLERANCE = 1e-9  # float64
SINGLE = 2e-4  # float32
CANDIDATES = 5


def same(
    actual: Tensor, expected: Tensor, place: str, description: str, tolerance: float = TOLERANCE
) -> None:
    """Compares two tensors; NaN equals NaN, because another property checks for NaN."""
    if actual.shape != expected.shape:
        raise Failed(
            f"{place}: expected {description} of shape {list(expected.shape)}, got "
            f"{list(actual.shape)}"
        )
    if not actual.numel():
        return
    largest = float(expected.detach().nan_to_num().abs().max())
    floor = 1.0 if tolerance == TOLERANCE else 0.0
    far = ~torch.isclose(
        actual, expected, rtol=0, atol=tolerance * max(floor, largest), equal_nan=True
    )
    if far.any():
        index = [int(i) for i in far.nonzero()[0]]
        raise Failed(
            f"{place}: expected {description}, got {float(actual[tuple(index)]):.6g} instead of "
            f"{float(expected[tuple(index)]):.6g} at {index}"
        )


def rows(s: Subject) -> None:
    """A row depends on its own entity and relation only, not on the rest of the batch."""
    scorer = _with_rows(s)
    entities = torch.tensor([4, 0, 16, 4])
    with torch.no_grad():
        for side in Side:
            known, relations, _ = s.queries(side)
            whole = query_rows(scorer, known, relations, side)
            for i, part in enumerate(query_rows(scorer, known[3:5], relations[3:5], side)):
                same(
                    part, whole[i][3:5], where(scorer, "query"), "the same rows in a smaller batch"
                )
            for r in range(RELATIONS if scorer.per_relation else 1):
                tables = candidate_rows(scorer, None, r, side)
                for i, part in enumerate(candidate_rows(scorer, entities, r, side)):
                    description = "for some entities the same rows as for all"
                    same(part, tables[i][entities], where(scorer, "candidates"), description)


def relation_tables(s: Subject) -> None:
    """Candidates for one relation equal those for one relation per row."""
    scorer = _with_rows(s)
    if not scorer.per_relation:
        raise Skipped("candidates do not depend on the relation")
    entities = torch.arange(ENTITIES)
    with torch.no_grad():
        for side in Side:
            each = candidate_rows(scorer, entities, entities % RELATIONS, side)
            for r in range(RELATIONS):
                under = entities % RELATIONS == r
                for part, rows in zip(each, candidate_rows(scorer, entities, r, side), strict=True):
                    description = (
                        f"the same rows for one relation per row as for relation {r} alone"
                    )
                    same(part[under], rows[under], where(scorer, "candidates"), description)


def sides(s: Subject) -> None:
    """Head and tail queries agree on the score of a triple, as the scorer declares."""
    scorer = s.make()
    if scorer.scores_triples_only():
        raise Skipped("the scorer scores whole triples, so there are no sides")
    heads, relations, tails = s.triples.unbind(1)
    by_head = scorer.score_answers(tails, relations, heads, Side.head)
    if isinstance(scorer, Reciprocal):
        inverse = scorer.score_answers(tails, relations + RELATIONS, heads, Side.tail)
        same(
            by_head,
            inverse,
            where(scorer, "query"),
            "the head query to equal the tail query of r + R",
        )
    elif scorer.is_two_way:
        by_tail = scorer.score_answers(heads, relations, tails, Side.tail)
        same(
            by_head,
            by_tail,
            where(scorer, "query"),
            "the head query to give the score of the tail query",
        )
    else:
        raise Skipped("the scorer declares two_way = False")


def triples(s: Subject) -> None:
    """`score` equals the score of the tail query."""
    scorer = s.make()
    if scorer.scores_triples_only():
        raise Skipped(
            "the scorer scores whole triples, so there is no other method to compare with"
        )
    actual = scorer.score(s.triples)
    same(
        actual,
        scores_of_triples(s, scorer)[0],
        where(scorer, "score"),
        "the score of the tail query",
    )


def one_against_all(s: Subject) -> None:
    """`score_all` equals a loop over the entities."""
    scorer = s.make()
    for side in Side:
        same(
            scorer.score_all(*s.queries(side)[:2], side),
            _matrix(s, scorer, side),
            where(scorer, "score_all"),
            "the scores of a loop over all entities",
        )


def sampled(s: Subject) -> None:
    """`score_sampled` equals the score of each candidate as an answer."""
    scorer = s.make()
    actual, expected = _sampled(s, scorer)
    same(actual, expected, where(scorer, "score_sampled"), "the score of each single candidate")


def sampled_gradients(s: Subject) -> None:
    """`score_sampled` has the gradients of the score of each candidate as an answer."""
    scorer = s.make()
    named = [(name, p) for name, p in scorer.named_parameters() if p.requires_grad]
    actual, expected = _sampled(s, scorer)
    if not expected.requires_grad:
        raise Skipped("the scores depend on no parameter")
    weights = torch.linspace(-1, 1, expected.numel(), dtype=expected.dtype).view_as(expected)
    inputs = [p for _, p in named]
    grads = [
        torch.autograd.grad(scores, inputs, weights, allow_unused=True)
        if scores.requires_grad
        else [None] * len(inputs)
        for scores in (actual, expected)
    ]
    for (name, p), a, b in zip(named, *grads, strict=True):
        a, b = (torch.zeros_like(p) if g is None else g for g in (a, b))
        description = f"the gradient of {name!r} through the score of each single candidate"
        same(a, b, where(scorer, "score_sampled"), description)


def ranks(s: Subject) -> None:
    """Filtered ranks match the scores."""
    scorer = s.make()
    graph = s.triples.numpy().astype(np.int32)
    known = KnownTriples([graph], ENTITIES, RELATIONS)
    side_ranks = rank(scorer, graph, known)
    true = {tuple(row) for row in graph.tolist()}
    for side in Side:
        matrix = _matrix(s, scorer, side).detach()
        margin = TOLERANCE * max(1.0, float(matrix.abs().max()))
        for i, (h, r, t) in enumerate(graph.tolist()):
            true_score = matrix[i, t if side is Side.tail else h]
            others = [
                float(matrix[i, e] - true_score)
                for e in range(ENTITIES)
                if ((h, r, e) if side is Side.tail else (e, r, t)) not in true
            ]
            # Scores of another method may differ in the last bits.
            low = 1 + sum(d > margin for d in others)
            high = 1 + sum(d >= -margin for d in others)
            got = int(side_ranks[side].optimistic[i]), int(side_ranks[side].pessimistic[i])
            if not low <= got[0] <= got[1] <= high:
                raise Failed(
                    f"{where(scorer, 'score_vectors')}: expected {side.name} rank {low} to {high} "
                    f"of triple ({h}, {r}, {t}) from its scores, got {got[0]} to {got[1]}"
                )


def blocks(s: Subject) -> None:
    """Pairs use every column, and their score equals that of the concatenated blocks."""
    scorer = _with_rows(s)
    plain = True
    for side in Side:
        known, relations, answers = s.queries(side)
        queries = query_rows(scorer, known, relations, side)
        tables = candidate_rows(scorer, answers, relations, side)
        scales = scale_rows(scorer, known, relations, side)
        for i, (q, c, metric) in enumerate(zip(queries, tables, metrics(scorer), strict=True)):
            pairs = terms(scorer, i, q.shape[1], c.shape[1])
            if tuple(pairs) == whole_row(q.shape[1]) and c.shape[1] == q.shape[1]:
                continue
            plain = False
            for width, method, used in (
                (q.shape[1], "query", [(p.query, p.width) for p in pairs]),
                (c.shape[1], "candidate", [(p.candidate, p.width) for p in pairs]),
            ):
                missed = set(range(width)) - {k for a, w in used for k in range(a, a + w)}
                if missed:
                    raise Failed(
                        f"{where(scorer, 'pairs')}: expected every {method} column in a pair, got "
                        f"{len(missed)} of {width} in none (the first is {min(missed)})"
                    )
            if metric is Metric.l2 or (
                metric is not Metric.dot and min(p.weight for p in pairs) < 0
            ):
                continue
            scale = scales[i]
            scaled = c if scale is None else c * scale
            ends = _joined(q, pairs, metric, True), _joined(scaled, pairs, metric, False)
            whole = score_rows(*ends, metric, whole_row(ends[0].shape[1]))
            by_pair = score_rows(q, c, metric, pairs, scale)
            same(by_pair, whole, where(scorer, "pairs"), "the score of the concatenated blocks")
    if plain:
        raise Skipped("there is one block, which covers the rows")


def native(s: Subject) -> None:
    """Native ops agree with the reference implementations, in float32."""
    if not library().loaded:
        raise Skipped(f"the native library is not available: {library().reason}")
    if s.scorer_class.scores_triples_only():
        raise Skipped("the scorer scores whole triples, without ops")
    scorer = s.make(torch.float32)
    actual, grads = _with_gradients(s, scorer)
    with without_kernels():
        expected, expected_grads = _with_gradients(s, scorer)
    place = where(scorer, "score_sampled")
    same(actual, expected, place, "the native scores to equal the reference", SINGLE)
    for name, grad in expected_grads.items():
        description = f"the native gradient of {name!r} to equal the reference"
        same(grads[name], grad, place, description, SINGLE)


def _with_gradients(s: Subject, scorer: Scorer) -> tuple[Tensor, dict[str, Tensor]]:
    scorer.zero_grad()
    scores = scorer.score_sampled(s.triples, sampled_candidates(s))
    if scores.requires_grad:
        scores.square().mean().backward()  # type: ignore[no-untyped-call]
    grads = {n: p.grad.clone() for n, p in scorer.named_parameters() if p.grad is not None}
    return scores.detach(), grads


def _with_rows(s: Subject) -> Scorer:
    if s.scorer_class.scores_triples_only():
        raise Skipped("the scorer scores whole triples, so there are no rows")
    return s.make()


def sampled_candidates(s: Subject) -> Candidates:
    """Random candidates ``[n, N]`` of the triples, on both sides."""
    rng = torch.Generator().manual_seed(2)
    ids = torch.randint(ENTITIES, (len(s.triples), CANDIDATES), generator=rng)
    side = torch.randint(2, ids.shape, generator=rng, dtype=torch.int8)
    return Candidates(ids, side, order=ids.flatten().argsort(stable=True))


def _sampled(s: Subject, scorer: Scorer) -> tuple[Tensor, Tensor]:
    """Scores of sampled candidates, and of each by itself."""
    candidates = sampled_candidates(s)
    ids, side = candidates.ids, candidates.corrupted_side
    found = scorer.score_sampled(s.triples, candidates)
    parts = []
    for answer_side in Side:
        queries = s.queries(answer_side)
        known, relations, _ = (x[:, None].expand_as(ids).flatten() for x in queries)
        scores = scorer.score_answers(known, relations, ids.flatten(), answer_side)
        parts.append(scores.view_as(ids))
    return found, torch.where(side == Side.tail, parts[Side.tail], parts[Side.head])


def _matrix(s: Subject, scorer: Scorer, side: Side) -> Tensor:
    """Scores ``[n, E]`` of all entities as answers to each query, computed one query at a time."""
    known, relations, _ = s.queries(side)
    entities = torch.arange(ENTITIES)
    return torch.stack(
        [
            scorer.score_answers(k.expand(ENTITIES), r.expand(ENTITIES), entities, side)
            for k, r in zip(known, relations, strict=True)
        ]
    )


def _joined(rows: Tensor, pairs: Sequence[Pair], metric: Metric, query: bool) -> Tensor:
    """Concatenates the weighted blocks of all pairs; all real parts precede imaginary ones."""
    blocks = []
    for pair in pairs:
        start = pair.query if query else pair.candidate
        weight = pair.weight if query or metric is not Metric.dot else 1.0
        blocks.append(weight * rows[:, start : start + pair.width])
    if metric is not Metric.modulus:
        return torch.cat(blocks, 1)
    halves = [block.chunk(2, 1) for block in blocks]
    return torch.cat([re for re, _ in halves] + [im for _, im in halves], 1)
