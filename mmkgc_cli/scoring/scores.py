"""How scores are made from the rows of a scorer, whatever extensions it uses.

Every path takes rows from here, checked against the contract, so that a plugin's mistake is one
line which names its file and method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmkgc_cli.ops import (
    Metric,
    Pair,
    RowLoss,
    backend_of,
    sampled_loss,
    sampled_score,
    whole_row,
)
from mmkgc_cli.scoring.faults import fault, shape
from mmkgc_cli.scoring.types import Batch, Rows
from mmkgc_cli.sides import Side

if TYPE_CHECKING:
    from mmkgc_cli.scoring.contract import Scorer

# What a training step reports beside the terms that a scorer adds.
RESERVED = ("loss", "gradient_norm")


def metrics(scorer: Scorer) -> tuple[Metric, ...]:
    """One a branch; a scorer without branches has one."""
    found = getattr(scorer, "metric", None)
    if isinstance(found, Metric):
        return (found,)
    if not (isinstance(found, tuple) and found and all(isinstance(m, Metric) for m in found)):
        raise fault(scorer, "metric", "a Metric, or a tuple of them", repr(found))
    return found


def has_branches(scorer: Scorer) -> bool:
    """Whether scores are joined by `combine`."""
    return not isinstance(scorer.metric, Metric)


def device_of(scorer: Scorer) -> torch.device:
    """Where its parameters or buffers are."""
    for tensor in (*scorer.parameters(), *scorer.buffers()):
        return tensor.device
    return torch.device("cpu")


def branches(rows: Rows) -> list[Tensor]:
    """A list with the rows of each branch."""
    return rows if isinstance(rows, list) else [rows]


def _whole(scorer: Scorer, rows: Sequence[Tensor]) -> Rows:
    """The other way round, as a plugin gives and takes rows."""
    return list(rows) if has_branches(scorer) else rows[0]


def _checked(scorer: Scorer, method: str, rows: object, n: int) -> list[Tensor]:
    """Rows as a list, one matrix of n rows a branch."""
    wanted = len(metrics(scorer))
    if has_branches(scorer) != isinstance(rows, list):
        expected = f"a list of {wanted} (a metric each)" if has_branches(scorer) else "one tensor"
        raise fault(scorer, method, expected, shape(rows))
    found: list[Tensor] = rows if isinstance(rows, list) else [rows]  # type: ignore[list-item]
    if len(found) != wanted:
        raise fault(scorer, method, f"rows of {wanted} branches (a metric each)", str(len(found)))
    for part in found:
        if not isinstance(part, Tensor) or part.dim() != 2 or part.shape[0] != n:
            raise fault(scorer, method, f"[{n}, D], a row for each of {n}", shape(part))
    return found


def query_rows(scorer: Scorer, entities: Tensor, relations: Tensor, side: Side) -> list[Tensor]:
    """The query rows of each branch, ``[B, Dq]``."""
    return _checked(scorer, "query", scorer.query(entities, relations, side), len(entities))


def candidate_rows(
    scorer: Scorer, entities: Tensor | None, relation: int | Tensor | None, side: Side
) -> list[Tensor]:
    """The candidate rows of each branch, ``[n, Dc]``, told only what the scorer asks for."""
    told: dict[str, object] = {}
    if scorer.per_relation:
        told["relation"] = relation
    if scorer.roles:
        told["side"] = side
    rows = scorer.candidates(entities, **told)  # type: ignore[arg-type]
    n = scorer.n_entities if entities is None else len(entities)
    return _checked(scorer, "candidates", rows, n)


def extra_losses(scorer: Scorer, batch_of: Callable[[], Batch]) -> dict[str, Tensor]:
    """The terms that a scorer adds to the loss; the batch is made where it has any to add.

    Raises:
        ScorerFault: for one that is no scalar, or has the name of another number.
    """
    if not scorer.adds_losses():
        return {}
    found = scorer.extra_losses(batch_of())
    if not isinstance(found, dict):
        raise fault(scorer, "extra_losses", "scalars by name", shape(found))
    for name, term in found.items():
        if name in RESERVED:
            expected = "names other than " + " and ".join(RESERVED)
            raise fault(scorer, "extra_losses", expected, repr(name))
        if not isinstance(term, Tensor) or term.dim():
            raise fault(scorer, "extra_losses", f"a scalar for {name!r}", shape(term))
    return found


def candidate_width(scorer: Scorer) -> int:
    """Numbers in the candidate rows of an entity, all branches together; 0 where there are none."""
    if scorer.scores_triples_only():
        return 0
    one = torch.zeros(1, dtype=torch.int64, device=device_of(scorer))
    return sum(rows.shape[1] for rows in candidate_rows(scorer, one, 0, Side.tail))


def scale_rows(
    scorer: Scorer, entities: Tensor, relations: Tensor, side: Side
) -> list[Tensor | None]:
    """The scales of each branch, ``[B, Dc]``, or None for each."""
    found = scorer.scale(entities, relations, side)
    if found is None:
        return [None] * len(metrics(scorer))
    return [*_checked(scorer, "scale", found, len(entities))]


def terms(scorer: Scorer, branch: int, query_width: int, candidate_width: int) -> Sequence[Pair]:
    """The pairs of a branch, which must lie within its rows."""
    # Whoever has no branches need not know of them.
    pairs = scorer.pairs(query_width, branch) if branch else scorer.pairs(query_width)
    if query_width != candidate_width and tuple(pairs) == whole_row(query_width):
        raise fault(
            scorer,
            "candidates",
            f"rows as wide as those of query, {query_width} (or pairs that say which blocks meet)",
            str(candidate_width),
        )
    modulus = metrics(scorer)[branch] is Metric.modulus
    for pair in pairs:
        inside = min(pair.query, pair.candidate, pair.width) >= 0
        inside &= pair.query + pair.width <= query_width
        if not (inside and pair.candidate + pair.width <= candidate_width):
            raise fault(
                scorer,
                "pairs",
                f"blocks within query rows of width {query_width} and candidate rows of width "
                f"{candidate_width}",
                f"query {pair.query}, candidate {pair.candidate}, width {pair.width}",
            )
        if modulus and pair.width % 2:
            raise fault(
                scorer, "pairs", "an even width, complex blocks are [re | im]", str(pair.width)
            )
    return pairs


def join(scorer: Scorer, scores: list[Tensor]) -> Tensor:
    """One score from those of the branches."""
    if not has_branches(scorer):
        return scores[0]
    joined = scorer.combine(scores)
    if not isinstance(joined, Tensor) or joined.shape != scores[0].shape:
        raise fault(scorer, "combine", str(list(scores[0].shape)), shape(joined))
    return joined


def triple_scores(scorer: Scorer, triples: Tensor) -> Tensor:
    """What `score` says of triples ``[..., 3]``, in their shape."""
    scores = scorer.score(triples.reshape(-1, 3))
    n = triples[..., 0].numel()
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (n,):
        raise fault(scorer, "score", f"[{n}], a score a triple", shape(scores))
    return scores.view(triples.shape[:-1])


def triples_of(known: Tensor, relations: Tensor, answers: Tensor, side: Side) -> Tensor:
    """Triples ``[..., 3]`` from queries and answers of one shape."""
    ends = (known, answers) if side is Side.tail else (answers, known)
    return torch.stack([ends[0], relations, ends[1]], -1)


def answer_scores(
    scorer: Scorer, entities: Tensor, relations: Tensor, answers: Tensor, side: Side
) -> Tensor:
    """Scores ``[B]`` of one answer to each query."""
    if scorer.scores_triples_only():
        return triple_scores(scorer, triples_of(entities, relations, answers, side))
    queries = query_rows(scorer, entities, relations, side)
    rows = candidate_rows(scorer, answers, relations, side)
    scale = [
        None if s is None else s[:, None] for s in scale_rows(scorer, entities, relations, side)
    ]
    return scorer.score_vectors(
        _whole(scorer, [q[:, None] for q in queries]),
        _whole(scorer, [c[:, None] for c in rows]),
        None if scale[0] is None else _whole(scorer, scale),  # type: ignore[arg-type]
    )[:, 0]


def sampled_scores(
    scorer: Scorer,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    ids: Tensor,
    side: Tensor,
    order: Tensor | None,
) -> Tensor:
    """Scores ``[B, N]`` of sampled candidates; see `Scorer.score_sampled`."""
    if scorer.scores_triples_only():
        is_head = side == Side.head
        ends = torch.where(is_head, ids, heads[:, None]), torch.where(is_head, tails[:, None], ids)
        middle = relations[:, None].expand_as(ids)
        return triple_scores(scorer, torch.stack([ends[0], middle, ends[1]], -1))
    # In the order of `Side`.
    known = ((heads, Side.tail), (tails, Side.head))
    queries = zip(*(query_rows(scorer, e, relations, s) for e, s in known), strict=True)
    scales = zip(*(scale_rows(scorer, e, relations, s) for e, s in known), strict=True)
    tables, ids, order = _sampled_tables(scorer, relations, ids, side, order)
    scores = []
    for i, (metric, both, table, scale) in enumerate(
        zip(metrics(scorer), queries, tables, scales, strict=True)
    ):
        stacked, table = _as_the_op_takes(torch.stack(both), table)
        pairs = terms(scorer, i, stacked.shape[-1], table.shape[-1])
        factor = None if scale[0] is None else torch.stack(scale)
        scores.append(
            sampled_score(stacked, table, ids, side, metric, pairs, scale=factor, order=order)
        )
    return scorer.margin + join(scorer, scores)


def sampled_loss_of(
    scorer: Scorer,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    ids: Tensor,
    side: Tensor,
    usable: Tensor | None,
    loss: RowLoss,
    order: Tensor | None,
) -> Tensor:
    """The loss of `sampled_scores` of a plain scorer, in one op; see `Scorer.loss_sampled`."""
    # In the order of `Side`.
    known = ((heads, Side.tail), (tails, Side.head))
    queries = torch.stack([query_rows(scorer, e, relations, s)[0] for e, s in known])
    met, ids = _entities_met(scorer, ids)
    (table,) = candidate_rows(scorer, met, None, Side.tail)
    queries, table = _as_the_op_takes(queries, table)
    pairs = terms(scorer, 0, queries.shape[-1], table.shape[-1])
    return sampled_loss(
        queries, table, ids, side, metrics(scorer)[0], pairs, mask=usable, loss=loss,
        offset=scorer.margin, order=order,
    )  # fmt: skip


def _as_the_op_takes(queries: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Rows for `sampled_score` where autocast made some in bfloat16: it computes in float32.

    A table stays as it is where a kernel reads it so, which is half as much to read.
    """
    if torch.bfloat16 not in (queries.dtype, table.dtype):
        return queries, table
    device = table.device.type
    reads_low = device == "cuda" and backend_of("sampled_score", device)[0] == "native"
    return queries.float(), table if reads_low else table.float()


def _entities_met(scorer: Scorer, ids: Tensor) -> tuple[Tensor | None, Tensor]:
    """Whose candidate rows a step needs, and where among them `ids` are; None for all in order.

    Rows that are made of features cost a projection each, so those of a small batch are made alone.
    `order` still sorts the new ids. Not on a GPU, which would have to be waited for.
    """
    costly = bool(scorer.modalities_of(scorer.config))
    if not costly or ids.numel() >= scorer.n_entities or ids.device.type != "cpu":
        return None, ids
    met, at = torch.unique(ids, return_inverse=True)
    return met, at


def _sampled_tables(
    scorer: Scorer, relations: Tensor, ids: Tensor, side: Tensor, order: Tensor | None
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """Candidate rows of a step, and where in them each candidate is."""
    n = scorer.n_entities
    if not (scorer.per_relation or scorer.roles):
        met, ids = _entities_met(scorer, ids)
        return candidate_rows(scorer, met, None, Side.tail), ids, order
    if not scorer.per_relation:
        # A table a side, one above the other.
        both = [candidate_rows(scorer, None, None, s) for s in Side]
        tables = [torch.cat(parts) for parts in zip(*both, strict=True)]
        return tables, ids + n * side.long(), None
    # A row for each pair of relation and entity that the step met, grouped by side.
    keys = relations[:, None] * n + ids
    sides = n * scorer.n_relations
    if scorer.roles:
        keys = keys + sides * side.long()
    met, at = torch.unique(keys, return_inverse=True)
    heads = int((met >= sides).sum())
    parts = []
    for chosen, of in ((met[: len(met) - heads], Side.tail), (met[len(met) - heads :], Side.head)):
        if len(chosen) or not len(met):
            which = (chosen % sides).div(n, rounding_mode="floor")
            parts.append(candidate_rows(scorer, chosen % n, which, of))
    return [torch.cat(rows) for rows in zip(*parts, strict=True)], at, None


def all_scores(scorer: Scorer, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
    """Scores ``[B, E]`` of all entities; see `Scorer.score_all`."""
    if scorer.scores_triples_only():
        everyone = torch.arange(scorer.n_entities, device=entities.device)
        answers = everyone.expand(len(entities), -1)
        known, middle = (x[:, None].expand_as(answers) for x in (entities, relations))
        return triple_scores(scorer, triples_of(known, middle, answers, side))
    if not scorer.per_relation:
        return _scores_of_all(scorer, entities, relations, side, None)
    # A table a relation: queries are grouped by theirs, and put back in their places.
    groups = [(relations == r).nonzero().flatten() for r in torch.unique(relations)]
    parts = [
        _scores_of_all(scorer, entities[at], relations[at], side, int(relations[at[0]]))
        for at in groups
    ]
    if not parts:
        parameters = next(iter([*scorer.parameters(), *scorer.buffers()]))
        return parameters.new_empty(0, scorer.n_entities)
    return torch.cat(parts)[torch.cat(groups).argsort()]


def _scores_of_all(
    scorer: Scorer, entities: Tensor, relations: Tensor, side: Side, relation: int | None
) -> Tensor:
    queries = query_rows(scorer, entities, relations, side)
    tables = candidate_rows(scorer, None, relation, side)
    scales = scale_rows(scorer, entities, relations, side)
    scores = []
    for i, (q, table, scale) in enumerate(zip(queries, tables, scales, strict=True)):
        metric, pairs = metrics(scorer)[i], terms(scorer, i, q.shape[1], table.shape[1])
        if metric is Metric.dot:
            scores.append(_products(q, table, pairs, scale))
        else:
            ids = torch.arange(len(table), device=q.device).expand(len(q), -1)
            scores.append(against(q, table, ids, metric, pairs, scale))
    return scorer.margin + join(scorer, scores)


def _products(q: Tensor, table: Tensor, pairs: Sequence[Pair], scale: Tensor | None) -> Tensor:
    """Dot products of queries with all candidates, a matrix product a pair."""
    total: Tensor | None = None
    for pair in pairs:
        left = q[:, pair.query : pair.query + pair.width]
        columns = slice(pair.candidate, pair.candidate + pair.width)
        if scale is not None:
            left = left * scale[:, columns]
        term = pair.weight * (left @ table[:, columns].T)
        total = term if total is None else total + term
    assert total is not None  # scorers have a pair at least
    return total


def against(
    q: Tensor,
    table: Tensor,
    ids: Tensor,
    metric: Metric,
    pairs: Sequence[Pair],
    scale: Tensor | None,
) -> Tensor:
    """Scores of queries ``[B, Dq]`` against rows `ids` [B, N] of a table."""
    q, table = _as_the_op_takes(q, table)
    side = torch.zeros(ids.shape, dtype=torch.int8, device=ids.device)
    factor = None if scale is None else scale[None]
    return sampled_score(q[None], table, ids.contiguous(), side, metric, pairs, scale=factor)


# Scores that are joined at once, and what each tile's size is a multiple of.
TILE = 1 << 14
LANES = 64


def block_scores(
    scorer: Scorer,
    queries: list[Tensor],
    scales: list[Tensor | None],
    tables: list[Tensor],
) -> Tensor:
    """Scores ``[b, E]`` of a few queries, joined tile by tile; without margin, for ranking.

    A score must not depend on where it stands: equal rows tie. The metrics see to it. Functions of
    torch such as `sigmoid` compute the last few elements of a tensor another way than the rest,
    and large tensors in parts, so tiles are whole multiples of what is computed at once, and small.
    """
    tiles = list(_tiles(len(queries[0]), len(tables[0]), queries[0].device))
    everyone = torch.cat(tiles, 1)
    parts = []
    for i, (q, table, metric) in enumerate(zip(queries, tables, metrics(scorer), strict=True)):
        pairs = terms(scorer, i, q.shape[1], table.shape[1])
        scores = against(q, table, everyone, metric, pairs, scales[i])
        parts.append([tile.contiguous() for tile in torch.split(scores, tiles[0].shape[1], 1)])
    joined = [join(scorer, list(of_tile)) for of_tile in zip(*parts, strict=True)]
    return torch.cat(joined, 1)[:, : len(tables[0])]


def triple_block(scorer: Scorer, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
    """Scores ``[b, E]`` of a few queries from `score` alone, in tiles of the same kind."""
    tiles = []
    for ids in _tiles(len(entities), scorer.n_entities, entities.device):
        known, middle = (x[:, None].expand_as(ids) for x in (entities, relations))
        tiles.append(triple_scores(scorer, triples_of(known, middle, ids, side)))
    return torch.cat(tiles, 1)[:, : scorer.n_entities]


def _tiles(b: int, n: int, device: torch.device) -> Iterator[Tensor]:
    """Ids ``[b, w]`` of all n candidates in turn; the last is repeated to fill its tile."""
    width = min(max(TILE // b // LANES, 1) * LANES, -(-n // LANES) * LANES)
    for start in range(0, n, width):
        yield torch.arange(start, start + width, device=device).clamp(max=n - 1).expand(b, -1)
