"""Scores of what a sampler draws, whichever of the four forms it has, and their loss."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.ops import Metric, RowLoss
from mmkgc_cli.sampling.contract import (
    Drawn,
    Negatives,
    Pools,
    Selections,
    Vectors,
    Views,
    candidate_blocks,
    side_rows,
)
from mmkgc_cli.scoring.contract import Batch, Scorer
from mmkgc_cli.scoring.scores import candidate_rows, query_rows
from mmkgc_cli.sides import Side


def drawn_loss(
    scorer: Scorer, positives: Tensor, drawn: Drawn, loss: RowLoss, whole_tables: bool = True
) -> Tensor:
    """The loss of what `drawn_scores` gives, in the scorer's own way for entities by id.

    A scorer that is not two-way has a score of the positive for each side, and negatives are
    compared with that of theirs: a positive then makes two rows of the loss.
    """
    if isinstance(drawn, Pools) and not (_multiplies(scorer, whole_tables) and scorer.is_two_way):
        drawn = drawn.negatives(positives)
    if isinstance(drawn, Negatives) and not scorer.is_two_way:
        return _loss_by_side(scorer, positives, drawn, loss)
    if isinstance(drawn, Negatives):
        heads, relations, tails = positives.unbind(1)
        return scorer.loss_sampled(
            heads, relations, tails, drawn.entities, drawn.side, drawn.usable, loss, drawn.order
        )
    return loss(*drawn_scores(scorer, positives, drawn, whole_tables))


def _loss_by_side(scorer: Scorer, positives: Tensor, drawn: Negatives, loss: RowLoss) -> Tensor:
    """The mean of the losses of tails and of heads, each with the positive as its own answer."""
    heads, relations, tails = positives.unbind(1)
    # The positive is the first already, as a tail.
    ids = torch.cat([heads[:, None], drawn.entities], 1)
    side = torch.cat([torch.full_like(drawn.side[:, :1], Side.head), drawn.side], 1)
    scores = scorer.score_sampled(heads, relations, tails, ids, side)
    usable, sides = drawn.usable[:, 1:], drawn.side[:, 1:]
    return loss(
        torch.cat([scores[:, 1], scores[:, 0]]),
        scores[:, 2:].repeat(2, 1),
        torch.cat([usable & (sides == of) for of in (Side.tail, Side.head)]),
    )


def batch_of(positives: Tensor, drawn: Drawn) -> Batch:
    """What a scorer is told of the step; candidates only where entities stand for themselves."""
    if isinstance(drawn, Pools):
        drawn = drawn.negatives(positives)
    if isinstance(drawn, Negatives):
        return Batch(positives, drawn.entities, drawn.side, drawn.usable)
    return Batch(positives)


def _multiplies(scorer: Scorer, whole_tables: bool) -> bool:
    """Whether pools are scored by matrix products."""
    return scorer.is_plain() and scorer.metric is Metric.dot and whole_tables


def drawn_scores(
    scorer: Scorer, positives: Tensor, drawn: Drawn, whole_tables: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of `positives` [B, 3] and of their negatives, with gradients.

    Where `whole_tables` is False, ids get no gradients of whole tables, even where those are
    faster: a lazy optimizer wants to know which rows a batch met.

    Returns:
        Scores [B] of the positives, scores [B, N] of the negatives, and which of these are usable.

    Raises:
        MmkgcError: when the sampler has drawn something else, or not for these positives.
    """
    if isinstance(drawn, Pools):
        if _multiplies(scorer, whole_tables):
            return *_products(scorer, positives, drawn), drawn.usable
        drawn = drawn.negatives(positives)
    if isinstance(drawn, Negatives):
        heads, relations, tails = positives.unbind(1)
        scores = scorer.score_sampled(
            heads, relations, tails, drawn.entities, drawn.side, drawn.order
        )
        return scores[:, 0], scores[:, 1:], drawn.usable[:, 1:]
    if not isinstance(drawn, Selections | Views | Vectors):
        raise MmkgcError(
            f"the sampler drew a {type(drawn).__name__}, expected Negatives, Pools, Selections, "
            "Views or Vectors"
        )
    _plain(scorer)
    queries = _queries(scorer, positives)
    vectors = _rows(scorer, queries.shape[-1], drawn)
    _check(positives, vectors, drawn)
    negative = scorer.score_vectors(side_rows(queries, drawn.side), vectors)
    usable = drawn.usable
    if usable is None:
        usable = torch.ones_like(drawn.side, dtype=torch.bool)
    return scorer.score(positives), negative, usable


def _plain(scorer: Scorer) -> None:
    if not scorer.is_plain():
        raise MmkgcError(
            f"{type(scorer).__name__}: the sampler draws rows, and this scorer needs more than one "
            "row a candidate; take another negatives.sampler"
        )


def _queries(scorer: Scorer, positives: Tensor) -> Tensor:
    """Query rows [2, B, Dq] in the order of `Side`."""
    heads, relations, tails = positives.unbind(1)
    known = ((heads, Side.tail), (tails, Side.head))
    return torch.stack([query_rows(scorer, e, relations, side)[0] for e, side in known])


def _table(scorer: Scorer) -> Tensor:
    """All candidate rows."""
    (table,) = candidate_rows(scorer, None, None, Side.tail)
    return table


def _rows(scorer: Scorer, query_width: int, drawn: Selections | Views | Vectors) -> Tensor:
    """The candidate rows [B, N, Dc] that were drawn."""
    if isinstance(drawn, Vectors):
        return drawn.vectors
    # All rows at once, as for ids: which ones are needed is nothing a device should be asked.
    table = _table(scorer)
    if isinstance(drawn, Selections):
        return drawn.weights @ torch.nn.functional.embedding(drawn.pool, table)
    blocks = candidate_blocks(scorer, query_width)
    ends = [0, *(block.stop for block in blocks)]
    if [block.start for block in blocks] != ends[:-1] or ends[-1] != table.shape[1]:
        raise MmkgcError(
            f"{type(scorer).__name__}: its candidate rows are no row of blocks, so their views "
            "cannot be drawn one by one; take another negatives.sampler"
        )
    if drawn.entities.shape[-1] != len(blocks):
        raise MmkgcError(
            f"the sampler drew entities for {drawn.entities.shape[-1]} views, but candidate rows "
            f"of {type(scorer).__name__} have {len(blocks)}; take another negatives.sampler"
        )
    of_views = drawn.entities.unbind(-1)
    rows = [
        torch.nn.functional.embedding(entities, table[:, block])
        for entities, block in zip(of_views, blocks, strict=True)
    ]
    return torch.cat(rows, -1)


def _check(positives: Tensor, vectors: Tensor, drawn: Selections | Views | Vectors) -> None:
    wanted = tuple(vectors.shape[:2])
    shapes = [tuple(of.shape) for of in (drawn.side, drawn.usable) if of is not None]
    if len(positives) != len(vectors) or any(shape != wanted for shape in shapes):
        raise MmkgcError(
            f"the sampler drew {wanted} negatives on sides {shapes[0]} for {len(positives)} "
            "positives; expected [B, N] of each"
        )


def _products(scorer: Scorer, positives: Tensor, drawn: Pools) -> tuple[Tensor, Tensor]:
    """Scores [B] and [B, N] under `dot`: of pools, a matrix product for each chunk."""
    both_sides = _queries(scorer, positives)
    # In one go, since each look-up has a gradient as large as the table.
    ids = torch.cat([positives[:, 2], drawn.entities.flatten()])
    found = torch.nn.functional.embedding(ids, _table(scorer))
    own, rows = found[: len(positives)], found[len(positives) :]
    positive = scorer.score_vectors(both_sides[Side.tail][:, None], own[:, None])[:, 0]
    rows = rows.view(*drawn.entities.shape, -1)
    chunk_of = torch.arange(len(positives), device=positives.device) // drawn.chunk
    queries = side_rows(both_sides, drawn.side[chunk_of])
    chunks = len(positives) // drawn.chunk  # whole ones
    whole = chunks * drawn.chunk
    scores: Tensor | None = None
    for pair in scorer.pairs(queries.shape[-1]):
        q = queries[:, pair.query : pair.query + pair.width]
        c = rows[..., pair.candidate : pair.candidate + pair.width].mT
        parts = [(q[:whole].view(chunks, drawn.chunk, -1) @ c[:chunks]).flatten(0, 1)]
        if whole < len(positives):
            parts.append(q[whole:] @ c[-1])
        term = pair.weight * torch.cat(parts)
        scores = term if scores is None else scores + term
    assert scores is not None
    return positive, scorer.margin + scores
