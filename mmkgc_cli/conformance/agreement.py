"""Properties that hold between the ways in which the core comes to a score."""

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

TOLERANCE = 1e-9  # in float64, of the largest score
SINGLE = 2e-4  # in float32
CANDIDATES = 5


def same(found: Tensor, expected: Tensor, place: str, what: str, by: float = TOLERANCE) -> None:
    """Holds two tensors against each other; NaN equals NaN, whose turn comes elsewhere."""
    if found.shape != expected.shape:
        raise Failed(
            f"{place}: expected {what} of shape {list(expected.shape)}, got {list(found.shape)}"
        )
    if not found.numel():
        return
    largest = float(expected.detach().nan_to_num().abs().max())
    floor = 1.0 if by == TOLERANCE else 0.0
    far = ~torch.isclose(found, expected, rtol=0, atol=by * max(floor, largest), equal_nan=True)
    if far.any():
        at = [int(i) for i in far.nonzero()[0]]
        raise Failed(
            f"{place}: expected {what}, got {float(found[tuple(at)]):.6g} instead of "
            f"{float(expected[tuple(at)]):.6g} at {at}"
        )


def rows(s: Subject) -> None:
    """A row depends on what it is the row of, and on nothing else that is asked for beside it."""
    scorer = _with_rows(s)
    some = torch.tensor([4, 0, 16, 4])
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
                for i, part in enumerate(candidate_rows(scorer, some, r, side)):
                    what = "of some entities the rows that they have among all"
                    same(part, tables[i][some], where(scorer, "candidates"), what)


def relation_tables(s: Subject) -> None:
    """Candidates under one relation are those under a relation for each row."""
    scorer = _with_rows(s)
    if not scorer.per_relation:
        raise Skipped("candidates do not depend on the relation")
    entities = torch.arange(ENTITIES)
    with torch.no_grad():
        for side in Side:
            each = candidate_rows(scorer, entities, entities % RELATIONS, side)
            for r in range(RELATIONS):
                under = entities % RELATIONS == r
                for part, one in zip(each, candidate_rows(scorer, entities, r, side), strict=True):
                    what = f"with a relation for each row what relation {r} gives for all"
                    same(part[under], one[under], where(scorer, "candidates"), what)


def sides(s: Subject) -> None:
    """Head and tail queries score a triple alike, or by the inverse relation, as declared."""
    scorer = s.make()
    if scorer.scores_triples_only():
        raise Skipped("whole triples are scored, so there are no sides")
    heads, relations, tails = s.triples.unbind(1)
    by_head = scorer.score_answers(tails, relations, heads, Side.head)
    if isinstance(scorer, Reciprocal):
        inverse = scorer.score_answers(tails, relations + RELATIONS, heads, Side.tail)
        same(by_head, inverse, where(scorer, "query"), "as head query the tail query of r + R")
    elif scorer.is_two_way:
        by_tail = scorer.score_answers(heads, relations, tails, Side.tail)
        same(by_head, by_tail, where(scorer, "query"), "from the head query the tail query's score")
    else:
        raise Skipped("it declares two_way = False")


def triples(s: Subject) -> None:
    """`score` gives a triple what its tail query gives."""
    scorer = s.make()
    if scorer.scores_triples_only():
        raise Skipped("there is no other path to hold it against")
    found = scorer.score(s.triples)
    same(found, scores_of_triples(s, scorer)[0], where(scorer, "score"), "the tail query's score")


def one_against_all(s: Subject) -> None:
    """`score_all` is a loop over the entities."""
    scorer = s.make()
    for side in Side:
        same(
            scorer.score_all(*s.queries(side)[:2], side),
            _matrix(s, scorer, side),
            where(scorer, "score_all"),
            "the scores of a loop over all entities",
        )


def sampled(s: Subject) -> None:
    """`score_sampled` scores each candidate as the answer that it stands for."""
    scorer = s.make()
    found, expected = _sampled(s, scorer)
    same(found, expected, where(scorer, "score_sampled"), "the score of each candidate by itself")


def sampled_gradients(s: Subject) -> None:
    """And has the gradients of those scores."""
    scorer = s.make()
    named = [(name, p) for name, p in scorer.named_parameters() if p.requires_grad]
    found, expected = _sampled(s, scorer)
    if not expected.requires_grad:
        raise Skipped("scores depend on no parameter")
    weights = torch.linspace(-1, 1, expected.numel(), dtype=expected.dtype).view_as(expected)
    inputs = [p for _, p in named]
    grads = [
        torch.autograd.grad(scores, inputs, weights, allow_unused=True)
        if scores.requires_grad
        else [None] * len(inputs)
        for scores in (found, expected)
    ]
    for (name, p), a, b in zip(named, *grads, strict=True):
        a, b = (torch.zeros_like(p) if g is None else g for g in (a, b))
        what = f"the gradient of {name!r} through the score of each candidate by itself"
        same(a, b, where(scorer, "score_sampled"), what)


def ranks(s: Subject) -> None:
    """The ranker counts what the scores say, filtered."""
    scorer = s.make()
    graph = s.triples.numpy().astype(np.int32)
    known = KnownTriples([graph], ENTITIES, RELATIONS)
    found = rank(scorer, graph, known)
    true = {tuple(row) for row in graph.tolist()}
    for side in Side:
        matrix = _matrix(s, scorer, side).detach()
        margin = TOLERANCE * max(1.0, float(matrix.abs().max()))
        for i, (h, r, t) in enumerate(graph.tolist()):
            own = matrix[i, t if side is Side.tail else h]
            others = [
                float(matrix[i, e] - own)
                for e in range(ENTITIES)
                if ((h, r, e) if side is Side.tail else (e, r, t)) not in true
            ]
            # Scores that were made another way may differ in the last bits.
            low = 1 + sum(d > margin for d in others)
            high = 1 + sum(d >= -margin for d in others)
            got = int(found[side].optimistic[i]), int(found[side].pessimistic[i])
            if not low <= got[0] <= got[1] <= high:
                raise Failed(
                    f"{where(scorer, 'score_vectors')}: expected {side.name} rank {low} to {high} "
                    f"of triple ({h}, {r}, {t}) from its scores, got {got[0]} to {got[1]}"
                )


def blocks(s: Subject) -> None:
    """Pairs use every column, and score as their blocks do end to end."""
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
            for width, kind, used in (
                (q.shape[1], "query", [(p.query, p.width) for p in pairs]),
                (c.shape[1], "candidate", [(p.candidate, p.width) for p in pairs]),
            ):
                missed = set(range(width)) - {k for a, w in used for k in range(a, a + w)}
                if missed:
                    raise Failed(
                        f"{where(scorer, 'pairs')}: expected every {kind} column in a pair, got "
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
            same(by_pair, whole, where(scorer, "pairs"), "the score of the blocks end to end")
    if plain:
        raise Skipped("there is one block, which spans the rows")


def native(s: Subject) -> None:
    """The kernels give what plain torch gives, in float32."""
    if not library().loaded:
        raise Skipped(f"there are no kernels here: {library().reason}")
    if s.scorer_class.scores_triples_only():
        raise Skipped("whole triples are scored, without the ops")
    scorer = s.make(torch.float32)
    found, grads = _with_gradients(s, scorer)
    with without_kernels():
        expected, wanted = _with_gradients(s, scorer)
    place = where(scorer, "score_sampled")
    same(found, expected, place, "from the kernels the scores of plain torch", SINGLE)
    for name, grad in wanted.items():
        what = f"from the kernels plain torch's gradient of {name!r}"
        same(grads[name], grad, place, what, SINGLE)


def _with_gradients(s: Subject, scorer: Scorer) -> tuple[Tensor, dict[str, Tensor]]:
    scorer.zero_grad()
    scores = scorer.score_sampled(s.triples, sampled_candidates(s))
    if scores.requires_grad:
        scores.square().mean().backward()  # type: ignore[no-untyped-call]
    grads = {n: p.grad.clone() for n, p in scorer.named_parameters() if p.grad is not None}
    return scores.detach(), grads


def _with_rows(s: Subject) -> Scorer:
    if s.scorer_class.scores_triples_only():
        raise Skipped("whole triples are scored, so there are no rows")
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
    for of in Side:
        known, relations, _ = (x[:, None].expand_as(ids).flatten() for x in s.queries(of))
        parts.append(scorer.score_answers(known, relations, ids.flatten(), of).view_as(ids))
    return found, torch.where(side == Side.tail, parts[Side.tail], parts[Side.head])


def _matrix(s: Subject, scorer: Scorer, side: Side) -> Tensor:
    """Scores ``[n, E]`` of all entities as answers to each query, one by one."""
    known, relations, _ = s.queries(side)
    everyone = torch.arange(ENTITIES)
    return torch.stack(
        [
            scorer.score_answers(k.expand(ENTITIES), r.expand(ENTITIES), everyone, side)
            for k, r in zip(known, relations, strict=True)
        ]
    )


def _joined(rows: Tensor, pairs: Sequence[Pair], metric: Metric, query: bool) -> Tensor:
    """The blocks of all pairs end to end, weights folded in; all real parts before all others."""
    found = []
    for pair in pairs:
        start = pair.query if query else pair.candidate
        weight = pair.weight if query or metric is not Metric.dot else 1.0
        found.append(weight * rows[:, start : start + pair.width])
    if metric is not Metric.modulus:
        return torch.cat(found, 1)
    halves = [block.chunk(2, 1) for block in found]
    return torch.cat([re for re, _ in halves] + [im for _, im in halves], 1)
