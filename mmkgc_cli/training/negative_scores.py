"""Scores and losses of negatives, for every type that a sampler may return."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.ops import Metric, RowLoss
from mmkgc_cli.sampling.contract import (
    BlockwiseNegatives,
    Candidates,
    EmbeddedNegatives,
    NegativeBatch,
    SharedNegatives,
    SoftNegatives,
    candidate_blocks,
    select_queries,
)
from mmkgc_cli.scoring.contract import Batch, Scorer
from mmkgc_cli.scoring.scores import candidate_rows, queries_of_both_sides
from mmkgc_cli.sides import Side

OTHER_SAMPLER = "choose another sampler, for example negatives.sampler=filtered"


def negative_loss(
    scorer: Scorer,
    positives: Tensor,
    negatives: NegativeBatch,
    loss: RowLoss,
    *,
    dense_grad: bool = True,
) -> Tensor:
    """Computes the loss of positives and their negatives.

    A scorer that is not two-way has two scores per positive: as the answer of its tail query and
    of its head query. Each positive then contributes two rows to the loss: each score with the
    negatives of the same side.
    """
    by_products = _uses_products(scorer, negatives, dense_grad=dense_grad) and scorer.is_two_way
    if isinstance(negatives, SharedNegatives) and not by_products:
        negatives = negatives.expand(positives)
    if isinstance(negatives, Candidates):
        if scorer.is_two_way:
            return scorer.loss_sampled(positives, negatives, loss)
        return _loss_by_side(scorer, positives, negatives, loss)
    return loss(*negative_scores(scorer, positives, negatives, dense_grad=dense_grad))


def _loss_by_side(
    scorer: Scorer, positives: Tensor, candidates: Candidates, loss: RowLoss
) -> Tensor:
    """Computes the mean loss of two rows per positive, one per side (see `negative_loss`)."""
    # Column 0 scores the positive as a tail; another column scores it as a head.
    ids = torch.cat([positives[:, :1], candidates.ids], 1)
    head = torch.full_like(candidates.corrupted_side[:, :1], Side.head)
    both_positives = Candidates(ids, torch.cat([head, candidates.corrupted_side], 1))
    scores = scorer.score_sampled(positives, both_positives)
    mask, sides = candidates.full_mask[:, 1:], candidates.corrupted_side[:, 1:]
    return loss(
        torch.cat([scores[:, 1], scores[:, 0]]),
        scores[:, 2:].repeat(2, 1),
        torch.cat([mask & (sides == side) for side in (Side.tail, Side.head)]),
    )


def make_batch(positives: Tensor, negatives: NegativeBatch) -> Batch:
    """Builds the batch for hooks of a scorer; it has candidates if the negatives are entity ids."""
    if isinstance(negatives, SharedNegatives):
        negatives = negatives.expand(positives)
    return Batch(positives, negatives if isinstance(negatives, Candidates) else None)


def _uses_products(scorer: Scorer, negatives: NegativeBatch, *, dense_grad: bool) -> bool:
    """Whether shared negatives are scored by matrix products."""
    by_dot = scorer.is_plain() and scorer.metric is Metric.dot
    return isinstance(negatives, SharedNegatives) and by_dot and dense_grad


def negative_scores(
    scorer: Scorer, positives: Tensor, negatives: NegativeBatch, *, dense_grad: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores `positives` [B, 3] and their negatives, with gradients.

    With `dense_grad` False, negatives by id never cause a dense gradient of a table, even where it
    is faster: a lazy optimizer updates only the rows of a batch.

    Returns:
        Scores [B] of the positives, scores [B, N] of the negatives, and the mask [B, N] of the
        negatives.

    Raises:
        MmkgcError: when the negatives have another type or wrong shapes, or when the scorer does
            not support their type.
    """
    if isinstance(negatives, SharedNegatives):
        if _uses_products(scorer, negatives, dense_grad=dense_grad):
            return *_products(scorer, positives, negatives), negatives.mask
        negatives = negatives.expand(positives)
    if isinstance(negatives, Candidates):
        scores = scorer.score_sampled(positives, negatives)
        return scores[:, 0], scores[:, 1:], negatives.full_mask[:, 1:]
    if not isinstance(negatives, SoftNegatives | BlockwiseNegatives | EmbeddedNegatives):
        raise MmkgcError(
            f"the sampler returned a {type(negatives).__name__}, expected Candidates, "
            "SharedNegatives, SoftNegatives, BlockwiseNegatives or EmbeddedNegatives",
            fix="return one of these types from the sampler's `draw`",
        )
    if not scorer.is_plain():
        raise MmkgcError(
            f"{type(scorer).__name__}: the sampler returns candidate rows, and this scorer needs "
            "several rows per candidate",
            fix=OTHER_SAMPLER,
        )
    (queries,) = queries_of_both_sides(scorer, positives)
    vectors = _candidate_vectors(scorer, queries.shape[-1], negatives)
    _check_shapes(positives, vectors, negatives)
    scores = scorer.score_vectors(select_queries(queries, negatives.corrupted_side), vectors)
    mask = negatives.mask
    if mask is None:
        mask = torch.ones_like(negatives.corrupted_side, dtype=torch.bool)
    return scorer.score(positives), scores, mask


def _table(scorer: Scorer) -> Tensor:
    """Returns all candidate rows."""
    (table,) = candidate_rows(scorer, None, None, Side.tail)
    return table


def _candidate_vectors(
    scorer: Scorer,
    query_width: int,
    negatives: SoftNegatives | BlockwiseNegatives | EmbeddedNegatives,
) -> Tensor:
    """Returns the candidate rows [B, N, Dc] of the negatives."""
    if isinstance(negatives, EmbeddedNegatives):
        return negatives.vectors
    # All candidate rows: to select unique ids, the host would have to wait for their number.
    table = _table(scorer)
    if isinstance(negatives, SoftNegatives):
        return negatives.weights @ torch.nn.functional.embedding(negatives.pool, table)
    blocks = candidate_blocks(scorer, query_width)
    bounds = [0, *(block.stop for block in blocks)]
    if [block.start for block in blocks] != bounds[:-1] or bounds[-1] != table.shape[1]:
        raise MmkgcError(
            f"{type(scorer).__name__}: the blocks overlap or do not cover the candidate rows, so "
            "samplers cannot choose an entity per block",
            fix=OTHER_SAMPLER,
        )
    if negatives.ids.shape[-1] != len(blocks):
        raise MmkgcError(
            f"the sampler returned entities for {negatives.ids.shape[-1]} blocks, but candidate "
            f"rows of {type(scorer).__name__} have {len(blocks)}",
            fix=OTHER_SAMPLER,
        )
    rows = [
        torch.nn.functional.embedding(ids, table[:, block])
        for ids, block in zip(negatives.ids.unbind(-1), blocks, strict=True)
    ]
    return torch.cat(rows, -1)


def _check_shapes(
    positives: Tensor,
    vectors: Tensor,
    negatives: SoftNegatives | BlockwiseNegatives | EmbeddedNegatives,
) -> None:
    shape = tuple(vectors.shape[:2])
    sides = tuple(negatives.corrupted_side.shape)
    mask = sides if negatives.mask is None else tuple(negatives.mask.shape)
    if len(positives) != len(vectors) or not sides == mask == shape:
        raise MmkgcError(
            f"the sampler returned negatives of shape {shape}, corrupted sides of shape {sides} "
            f"and a mask of shape {mask} for {len(positives)} positives, expected [B, N] for all",
            fix="return one side and one mask value per negative from the sampler's `draw`",
        )


def _products(
    scorer: Scorer, positives: Tensor, negatives: SharedNegatives
) -> tuple[Tensor, Tensor]:
    """Scores positives [B] and shared negatives [B, N] under `dot`: a matrix product per chunk."""
    (both_sides,) = queries_of_both_sides(scorer, positives)
    # A single look-up, because the gradient of every look-up is as large as the table.
    ids = torch.cat([positives[:, 2], negatives.ids.flatten()])
    rows = torch.nn.functional.embedding(ids, _table(scorer))
    answers, candidates = rows[: len(positives)], rows[len(positives) :]
    positive = scorer.score_vectors(both_sides[Side.tail][:, None], answers[:, None])[:, 0]
    candidates = candidates.view(*negatives.ids.shape, -1)
    chunk_index = torch.arange(len(positives), device=positives.device) // negatives.chunk
    queries = select_queries(both_sides, negatives.corrupted_side[chunk_index])
    n_full = len(positives) // negatives.chunk  # chunks of full size
    end = n_full * negatives.chunk
    scores: Tensor | None = None
    for pair in scorer.pairs(queries.shape[-1]):
        q = queries[:, pair.query : pair.query + pair.width]
        c = candidates[..., pair.candidate : pair.candidate + pair.width].mT
        parts = [(q[:end].view(n_full, negatives.chunk, -1) @ c[:n_full]).flatten(0, 1)]
        if end < len(positives):
            parts.append(q[end:] @ c[-1])
        term = pair.weight * torch.cat(parts)
        scores = term if scores is None else scores + term
    assert scores is not None  # a scorer has at least one pair
    return positive, scorer.margin + scores
