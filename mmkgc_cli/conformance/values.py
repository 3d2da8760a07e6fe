"""Properties of score values: finite, repeatable, differentiable, independent of ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkgc_cli.conformance.agreement import same
from mmkgc_cli.conformance.findings import Failed, Skipped
from mmkgc_cli.conformance.subject import ENTITIES, RELATIONS, Subject, scores_of_triples
from mmkgc_cli.evaluation.known import KnownTriples
from mmkgc_cli.evaluation.ranker import NonFiniteScores, rank
from mmkgc_cli.scoring.contract import Candidates, Features, Scorer, Side
from mmkgc_cli.scoring.faults import where
from mmkgc_cli.state.tensors import load_tensors

STEP = 1e-6  # step of finite differences
DIRECTIONS = 3
DIFFERENCE = 1e-4


def _place(scorer: Scorer) -> str:
    return where(scorer, "score" if scorer.scores_triples_only() else "query")


def finite(s: Subject) -> None:
    """Scores and their gradients are finite at the start of training."""
    scorer = s.construct()
    scorer.fit(s.triples)
    scorer.eval()
    scores = scores_of_triples(s, scorer)
    if not scores.isfinite().all():
        index = int((~scores.isfinite()).any(0).nonzero()[0])
        raise Failed(
            f"{_place(scorer)}: expected finite scores, got {scores[:, index].tolist()} "
            f"(tail, head) for triple {tuple(s.triples[index].tolist())}"
        )
    if not scores.requires_grad:
        return
    scores.sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in scorer.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise Failed(
                f"{_place(scorer)}: expected finite gradients, got a non-finite one of {name!r}"
            )


def repeats(s: Subject) -> None:
    """Repeated evaluation gives the same scores, bit for bit."""
    scorer = s.make()
    first, second = scores_of_triples(s, scorer), scores_of_triples(s, scorer)
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        worst = float((first - second).abs().max())
        raise Failed(
            f"{_place(scorer)}: expected the same scores again in eval mode, got a difference "
            f"of {worst:.3g}"
        )


def gradients(s: Subject) -> None:
    """Gradients agree with finite differences, in float64."""
    scorer = s.make()
    named = [(n, p) for n, p in scorer.named_parameters() if p.requires_grad]
    scores = scores_of_triples(s, scorer)
    if not scores.requires_grad:
        raise Skipped("the scores depend on no parameter")
    weights = torch.linspace(-1, 1, scores.numel(), dtype=scores.dtype).view_as(scores)
    inputs = [p for _, p in named]
    grads = torch.autograd.grad(scores, inputs, weights, allow_unused=True)
    rng = torch.Generator().manual_seed(3)
    for (name, p), grad in zip(named, grads, strict=True):
        differences = []
        for _ in range(DIRECTIONS):
            direction = torch.randn(p.shape, generator=rng, dtype=p.dtype)
            slope = 0.0 if grad is None else float((grad * direction).sum())
            with torch.no_grad():
                original = p.clone()
                p.add_(STEP * direction)
                up = scores_of_triples(s, scorer)
                p.copy_(original - STEP * direction)
                down = scores_of_triples(s, scorer)
                p.copy_(original)
            measured = float((weights * (up - down)).sum()) / (2 * STEP)
            if abs(slope - measured) > DIFFERENCE * max(1.0, abs(measured), abs(slope)):
                differences.append((slope, measured))
        # One direction may cross a point without derivative, such as that of an absolute value.
        if len(differences) > 1:
            slope, measured = differences[0]
            raise Failed(
                f"{_place(scorer)}: expected a slope of {measured:.6g} along a change of {name!r}, "
                f"got the gradient {slope:.6g}"
            )


def ties(s: Subject) -> None:
    """If all candidates are equal, the answer gets the middle rank."""
    for dtype in (torch.float32, torch.float64):
        scorer = s.make(dtype)
        _equalize_candidates(scorer)
        graph = s.triples.numpy().astype(np.int32)
        for side, ranks in rank(scorer, graph, _filter(graph)).items():
            middle = (ranks.candidates + 1) / 2
            wrong = np.flatnonzero(ranks.realistic != middle)
            if len(wrong):
                place = where(scorer, "score" if scorer.scores_triples_only() else "combine")
                raise Failed(
                    f"{place}: expected {side.name} rank {middle[wrong[0]]} of "
                    f"{ranks.candidates[wrong[0]]} equal candidates, got "
                    f"{ranks.realistic[wrong[0]]}"
                )


def _equalize_candidates(scorer: Scorer) -> None:
    """Replaces all candidates by the first entity."""
    if scorer.scores_triples_only():
        score = scorer.score

        def constant(triples: Tensor) -> Tensor:
            return score(torch.zeros_like(triples))

        scorer.score = constant  # type: ignore[method-assign]
        return
    candidates = scorer.candidates

    def first(entities: Tensor | None, relation: Any = None, side: Side | None = None) -> Any:
        n = ENTITIES if entities is None else len(entities)
        one = relation[:1] if isinstance(relation, Tensor) else relation
        keywords: dict[str, Any] = {"relation": one, "side": side}
        keywords = {name: value for name, value in keywords.items() if value is not None}
        rows = candidates(torch.zeros(1, dtype=torch.int64), **keywords)
        if isinstance(rows, list):
            return [part.expand(n, -1) for part in rows]
        return rows.expand(n, -1)

    scorer.candidates = first  # type: ignore[method-assign]


def non_finite(s: Subject) -> None:
    """Ranking fails if the weights are NaN."""
    scorer = s.make()
    with torch.no_grad():
        floats = [x for x in (*scorer.parameters(), *scorer.buffers()) if x.is_floating_point()]
        for tensor in floats:
            tensor.fill_(float("nan"))
    if not floats:
        raise Skipped("the scorer has no floating-point tensors")
    graph = s.triples.numpy().astype(np.int32)
    try:
        rank(scorer, graph, _filter(graph))
    except NonFiniteScores:
        return
    raise Failed(f"{_place(scorer)}: expected NaN scores from NaN weights, got finite scores")


def permutation(s: Subject) -> None:
    """Scores do not depend on the numbering of entities."""
    rng = torch.Generator().manual_seed(4)
    new_id = torch.randperm(ENTITIES, generator=rng)
    old_id = new_id.argsort()
    scorer = s.make()
    moved = {
        name: Features(features.vectors[old_id], features.observed[old_id])
        for name, features in s.features().items()
    }
    other = s.construct(0, moved)
    triples = s.triples
    renamed = torch.stack([new_id[triples[:, 0]], triples[:, 1], new_id[triples[:, 2]]], 1)
    other.fit(renamed)
    other.double().eval()
    other.start_epoch(1)
    learnt = {name for name, _ in scorer.named_parameters()}
    state = dict(other.state_dict())
    for name, tensor in scorer.state_dict().items():
        per_entity = tensor.dim() > 0 and len(tensor) == ENTITIES
        # Buffers from `fit` or from features are in the new order already.
        if name in learnt:
            state[name] = tensor[old_id] if per_entity else tensor
    load_tensors(other, state)
    before = scores_of_triples(s, scorer)
    heads, relations, tails = renamed.unbind(1)
    after = torch.stack(
        [
            other.score_answers(heads, relations, tails, Side.tail),
            other.score_answers(tails, relations, heads, Side.head),
        ]
    )
    description = "the same scores with another numbering of entities"
    same(after, before, _place(scorer), description)


def devices(s: Subject) -> None:
    """Scores on the GPU equal those on the CPU."""
    if not torch.cuda.is_available():
        raise Skipped("torch finds no GPU")
    scorer = s.make()
    ids = s.triples[:, [2, 0]].contiguous()
    side = torch.tensor([0, 1], dtype=torch.int8).expand_as(ids).contiguous()
    expected = scorer.score_sampled(s.triples, Candidates(ids, side))
    moved = scorer.to("cuda")
    found = moved.score_sampled(s.triples.to("cuda"), Candidates(ids.to("cuda"), side.to("cuda")))
    same(found.cpu(), expected, where(scorer, "score_sampled"), "on the GPU the scores of the CPU")


def _filter(graph: Any) -> KnownTriples:
    return KnownTriples([graph], ENTITIES, RELATIONS)
