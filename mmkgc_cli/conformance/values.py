"""Properties of the scores themselves: finite, differentiable, repeatable, without favourites."""

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

STEP = 1e-6  # of finite differences
DIRECTIONS = 3
DIFFERENCE = 1e-4


def _place(scorer: Scorer) -> str:
    return where(scorer, "score" if scorer.scores_triples_only() else "query")


def finite(s: Subject) -> None:
    """Scores and their gradients are finite at the start of a training."""
    scorer = s.construct()
    scorer.fit(s.triples)
    scorer.eval()
    scores = scores_of_triples(s, scorer)
    if not scores.isfinite().all():
        at = int((~scores.isfinite()).any(0).nonzero()[0])
        raise Failed(
            f"{_place(scorer)}: expected finite scores, got {scores[:, at].tolist()} (tail, head) "
            f"for triple {tuple(s.triples[at].tolist())}"
        )
    if not scores.requires_grad:
        return
    scores.sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in scorer.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise Failed(f"{_place(scorer)}: expected finite gradients, that of {name!r} is not")


def repeats(s: Subject) -> None:
    """The same question twice gives the same bits."""
    scorer = s.make()
    first, second = scores_of_triples(s, scorer), scores_of_triples(s, scorer)
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        worst = float((first - second).abs().max())
        raise Failed(
            f"{_place(scorer)}: expected the same scores again in eval mode, got others (by "
            f"{worst:.3g})"
        )


def gradients(s: Subject) -> None:
    """Gradients are those of finite differences, in float64."""
    scorer = s.make()
    named = [(n, p) for n, p in scorer.named_parameters() if p.requires_grad]
    scores = scores_of_triples(s, scorer)
    if not scores.requires_grad:
        raise Skipped("scores depend on no parameter")
    weights = torch.linspace(-1, 1, scores.numel(), dtype=scores.dtype).view_as(scores)
    inputs = [p for _, p in named]
    grads = torch.autograd.grad(scores, inputs, weights, allow_unused=True)
    rng = torch.Generator().manual_seed(3)
    for (name, p), grad in zip(named, grads, strict=True):
        off = []
        for _ in range(DIRECTIONS):
            direction = torch.randn(p.shape, generator=rng, dtype=p.dtype)
            made = 0.0 if grad is None else float((grad * direction).sum())
            with torch.no_grad():
                kept = p.clone()
                p.add_(STEP * direction)
                up = scores_of_triples(s, scorer)
                p.copy_(kept - STEP * direction)
                down = scores_of_triples(s, scorer)
                p.copy_(kept)
            measured = float((weights * (up - down)).sum()) / (2 * STEP)
            if abs(made - measured) > DIFFERENCE * max(1.0, abs(measured), abs(made)):
                off.append((made, measured))
        # One direction may step across a kink, as that of an absolute value.
        if len(off) > 1:
            made, measured = off[0]
            raise Failed(
                f"{_place(scorer)}: expected a slope of {measured:.6g} along a change of {name!r}, "
                f"got the gradient {made:.6g}"
            )


def ties(s: Subject) -> None:
    """Where all candidates are alike, the target ranks in the middle."""
    for dtype in (torch.float32, torch.float64):
        scorer = s.make(dtype)
        _make_alike(scorer)
        graph = s.triples.numpy().astype(np.int32)
        for side, found in rank(scorer, graph, _filter(graph)).items():
            middle = (found.candidates + 1) / 2
            off = np.flatnonzero(found.realistic != middle)
            if len(off):
                place = where(scorer, "score" if scorer.scores_triples_only() else "combine")
                raise Failed(
                    f"{place}: expected {side.name} rank {middle[off[0]]} of "
                    f"{found.candidates[off[0]]} equal candidates, got {found.realistic[off[0]]}"
                )


def _make_alike(scorer: Scorer) -> None:
    """Puts the first entity in the place of all candidates."""
    if scorer.scores_triples_only():
        score = scorer.score

        def alike(triples: Tensor) -> Tensor:
            return score(torch.zeros_like(triples))

        scorer.score = alike  # type: ignore[method-assign]
        return
    candidates = scorer.candidates

    def first(entities: Tensor | None, relation: Any = None, side: Side | None = None) -> Any:
        n = ENTITIES if entities is None else len(entities)
        one = relation[:1] if isinstance(relation, Tensor) else relation
        told: dict[str, Any] = {"relation": one, "side": side}
        told = {name: value for name, value in told.items() if value is not None}
        rows = candidates(torch.zeros(1, dtype=torch.int64), **told)
        if isinstance(rows, list):
            return [part.expand(n, -1) for part in rows]
        return rows.expand(n, -1)

    scorer.candidates = first  # type: ignore[method-assign]


def non_finite(s: Subject) -> None:
    """A model whose weights are NaN cannot be ranked."""
    scorer = s.make()
    with torch.no_grad():
        floats = [x for x in (*scorer.parameters(), *scorer.buffers()) if x.is_floating_point()]
        for tensor in floats:
            tensor.fill_(float("nan"))
    if not floats:
        raise Skipped("it keeps no numbers")
    graph = s.triples.numpy().astype(np.int32)
    try:
        rank(scorer, graph, _filter(graph))
    except NonFiniteScores:
        return
    raise Failed(f"{_place(scorer)}: expected NaN from weights that are NaN, got finite scores")


def permutation(s: Subject) -> None:
    """Entities in another order have the same scores: an id means nothing."""
    rng = torch.Generator().manual_seed(4)
    place = torch.randperm(ENTITIES, generator=rng)  # the new id of each entity
    back = place.argsort()
    scorer = s.make()
    moved = {
        name: Features(of.vectors[back], of.observed[back]) for name, of in s.features().items()
    }
    other = s.construct(0, moved)
    triples = s.triples
    renamed = torch.stack([place[triples[:, 0]], triples[:, 1], place[triples[:, 2]]], 1)
    other.fit(renamed)
    other.double().eval()
    other.start_epoch(1)
    learnt = {name for name, _ in scorer.named_parameters()}
    state = dict(other.state_dict())
    for name, tensor in scorer.state_dict().items():
        of_entities = tensor.dim() > 0 and len(tensor) == ENTITIES
        # What `fit` or features made is there already, in the other order.
        if name in learnt:
            state[name] = tensor[back] if of_entities else tensor
    load_tensors(other, state)
    before = scores_of_triples(s, scorer)
    heads, relations, tails = renamed.unbind(1)
    after = torch.stack(
        [
            other.score_answers(heads, relations, tails, Side.tail),
            other.score_answers(tails, relations, heads, Side.head),
        ]
    )
    what = "the same scores when entities are numbered in another order"
    same(after, before, _place(scorer), what)


def devices(s: Subject) -> None:
    """A GPU gives what the CPU gives."""
    if not torch.cuda.is_available():
        raise Skipped("torch sees no GPU")
    scorer = s.make()
    ids = s.triples[:, [2, 0]].contiguous()
    side = torch.tensor([0, 1], dtype=torch.int8).expand_as(ids).contiguous()
    expected = scorer.score_sampled(s.triples, Candidates(ids, side))
    moved = scorer.to("cuda")
    found = moved.score_sampled(s.triples.to("cuda"), Candidates(ids.to("cuda"), side.to("cuda")))
    same(found.cpu(), expected, where(scorer, "score_sampled"), "on the GPU the scores of the CPU")


def _filter(graph: Any) -> KnownTriples:
    return KnownTriples([graph], ENTITIES, RELATIONS)
