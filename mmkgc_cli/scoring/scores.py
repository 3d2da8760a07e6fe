"""Computes scores from the rows of a scorer: triples, candidates, all entities, ranking.

Every function takes rows through `query_rows`, `candidate_rows` and `scale_rows`, which check them
against the contract, so that an error of a plugin is one line that names its file and method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

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
from mmkgc_cli.scoring.types import Batch, Candidates, Rows, RowScorer
from mmkgc_cli.sides import Side

# Names in the trace of a training step that no loss term of a scorer may have.
RESERVED = ("loss", "gradient_norm")


def metrics(scorer: RowScorer) -> tuple[Metric, ...]:
    """The metric of each branch; a scorer without branches has one."""
    declared = getattr(scorer, "metric", None)
    if isinstance(declared, Metric):
        return (declared,)
    if isinstance(declared, tuple) and declared and all(isinstance(m, Metric) for m in declared):
        return declared
    raise fault(
        scorer,
        "metric",
        "a Metric, or a tuple of them",
        repr(declared),
        fix="set metric, for example metric = Metric.dot",
    )


def has_branches(scorer: RowScorer) -> bool:
    """Whether the scorer has several metrics, with scores that `combine` joins."""
    return not isinstance(scorer.metric, Metric)


def device_of(scorer: RowScorer) -> torch.device:
    """The device of the parameters and buffers; the CPU where there are none."""
    for tensor in (*scorer.parameters(), *scorer.buffers()):
        return tensor.device
    return torch.device("cpu")


def branches(rows: Rows) -> list[Tensor]:
    """A list with the rows of each branch."""
    return rows if isinstance(rows, list) else [rows]


def _as_rows(scorer: RowScorer, rows: Sequence[Tensor]) -> Rows:
    """The inverse of `branches`: rows in the form that the scorer takes."""
    return list(rows) if has_branches(scorer) else rows[0]


def _check_rows(scorer: RowScorer, method: str, rows: object, n: int) -> list[Tensor]:
    """Rows as a list: a matrix of `n` rows per branch."""
    count = len(metrics(scorer))
    if has_branches(scorer) != isinstance(rows, list):
        one = not has_branches(scorer)
        raise fault(
            scorer,
            method,
            "one tensor" if one else f"a list of {count} (a metric each)",
            shape(rows),
            fix="return one tensor" if one else f"return a list of {count} tensors",
        )
    parts: list[Tensor] = rows if isinstance(rows, list) else [rows]  # type: ignore[list-item]
    if len(parts) != count:
        raise fault(
            scorer,
            method,
            f"rows of {count} branches (a metric each)",
            str(len(parts)),
            fix=f"return a list of {count} tensors",
        )
    for part in parts:
        if not isinstance(part, Tensor) or part.dim() != 2 or part.shape[0] != n:
            raise fault(
                scorer,
                method,
                f"[{n}, D], a row for each of {n}",
                shape(part),
                fix="return one row per id",
            )
    return parts


# Rows


def query_rows(scorer: RowScorer, entities: Tensor, relations: Tensor, side: Side) -> list[Tensor]:
    """The query rows ``[B, Dq]`` of each branch."""
    return _check_rows(scorer, "query", scorer.query(entities, relations, side), len(entities))


def candidate_rows(
    scorer: RowScorer, entities: Tensor | None, relation: int | Tensor | None, side: Side
) -> list[Tensor]:
    """The candidate rows ``[n, Dc]`` of each branch, of all entities when `entities` is None.

    `relation` and `side` are passed to the scorer only where it declares that it needs them.
    """
    arguments: dict[str, object] = {}
    if scorer.per_relation:
        arguments["relation"] = relation
    if scorer.roles:
        arguments["side"] = side
    rows = scorer.candidates(entities, **arguments)  # type: ignore[arg-type]
    n = scorer.n_entities if entities is None else len(entities)
    return _check_rows(scorer, "candidates", rows, n)


def scale_rows(
    scorer: RowScorer, entities: Tensor, relations: Tensor, side: Side
) -> list[Tensor | None]:
    """The scale ``[B, Dc]`` of each branch, or None for each."""
    rows = scorer.scale(entities, relations, side)
    if rows is None:
        return [None] * len(metrics(scorer))
    return [*_check_rows(scorer, "scale", rows, len(entities))]


@dataclasses.dataclass(frozen=True)
class BranchRows:
    """Queries and a candidate table of one branch, with the metric and pairs between them.

    `queries` [B, Dq], `table` [E, Dc], `scale` [B, Dc] or None.
    """

    queries: Tensor
    table: Tensor
    metric: Metric
    pairs: Sequence[Pair]
    scale: Tensor | None

    def part(self, start: int, stop: int) -> BranchRows:
        """The queries from `start` to `stop`."""
        scale = None if self.scale is None else self.scale[start:stop]
        return dataclasses.replace(self, queries=self.queries[start:stop], scale=scale)


def candidate_width(scorer: RowScorer) -> int:
    """Columns of the candidate rows, summed over branches; 0 for scorers of whole triples."""
    if scorer.scores_triples_only():
        return 0
    first = torch.zeros(1, dtype=torch.int64, device=device_of(scorer))
    return sum(rows.shape[1] for rows in candidate_rows(scorer, first, 0, Side.tail))


def terms(scorer: RowScorer, branch: int, query_width: int, candidate_width: int) -> Sequence[Pair]:
    """The pairs of a branch, checked to lie within its rows."""
    # A scorer without branches need not take the argument.
    pairs = scorer.pairs(query_width, branch) if branch else scorer.pairs(query_width)
    if query_width != candidate_width and tuple(pairs) == whole_row(query_width):
        raise fault(
            scorer,
            "candidates",
            f"rows as wide as those of query, {query_width} (or pairs that say which blocks meet)",
            str(candidate_width),
            fix="return rows of equal width, or define pairs",
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
                fix="correct the offsets or the width of the pair",
            )
        if modulus and pair.width % 2:
            raise fault(
                scorer,
                "pairs",
                "an even width, complex blocks are [re | im]",
                str(pair.width),
                fix="use blocks of an even width",
            )
    return pairs


def join(scorer: RowScorer, scores: list[Tensor]) -> Tensor:
    """Joins the scores of the branches with `combine`."""
    if not has_branches(scorer):
        return scores[0]
    joined = scorer.combine(scores)
    if not isinstance(joined, Tensor) or joined.shape != scores[0].shape:
        raise fault(
            scorer,
            "combine",
            str(list(scores[0].shape)),
            shape(joined),
            fix="return one score per element",
        )
    return joined


def extra_losses(scorer: RowScorer, make_batch: Callable[[], Batch]) -> dict[str, Tensor]:
    """The scorer's own loss terms by name; the batch is made only where there are any.

    Raises:
        ScorerFault: when a term is no scalar, or has a reserved name.
    """
    if not scorer.adds_losses():
        return {}
    losses = scorer.extra_losses(make_batch())
    if not isinstance(losses, dict):
        raise fault(
            scorer,
            "extra_losses",
            "scalars by name",
            shape(losses),
            fix='return a dict such as {"penalty": value}',
        )
    for name, term in losses.items():
        if name in RESERVED:
            expected = "names other than " + " and ".join(RESERVED)
            raise fault(scorer, "extra_losses", expected, repr(name), fix="rename the term")
        if not isinstance(term, Tensor) or term.dim():
            raise fault(
                scorer,
                "extra_losses",
                f"a scalar for {name!r}",
                shape(term),
                fix="reduce it, for example with .mean()",
            )
    return losses


# Single answers


def triple_scores(scorer: RowScorer, triples: Tensor) -> Tensor:
    """Scores of triples ``[..., 3]`` by the scorer's `score`, in the leading shape."""
    scores = scorer.score(triples.reshape(-1, 3))
    n = triples[..., 0].numel()
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (n,):
        raise fault(
            scorer,
            "score",
            f"[{n}], a score a triple",
            shape(scores),
            fix="return one number per triple",
        )
    return scores.view(triples.shape[:-1])


def _triples_of(known: Tensor, relations: Tensor, answers: Tensor, side: Side) -> Tensor:
    """Triples ``[..., 3]`` from queries and answers of one shape."""
    head, tail = (known, answers) if side is Side.tail else (answers, known)
    return torch.stack([head, relations, tail], -1)


def answer_scores(
    scorer: RowScorer, entities: Tensor, relations: Tensor, answers: Tensor, side: Side
) -> Tensor:
    """Scores ``[B]`` of one answer to each query."""
    if scorer.scores_triples_only():
        return triple_scores(scorer, _triples_of(entities, relations, answers, side))
    queries = query_rows(scorer, entities, relations, side)
    rows = candidate_rows(scorer, answers, relations, side)
    scale = [
        None if s is None else s[:, None] for s in scale_rows(scorer, entities, relations, side)
    ]
    return scorer.score_vectors(
        _as_rows(scorer, [q[:, None] for q in queries]),
        _as_rows(scorer, [c[:, None] for c in rows]),
        None if scale[0] is None else _as_rows(scorer, scale),  # type: ignore[arg-type]
    )[:, 0]


# Candidates of a training step


def _known_entities(positives: Tensor) -> tuple[tuple[Tensor, Side], tuple[Tensor, Side]]:
    """The known entities [B] of both queries of each positive, in the order of `Side`."""
    heads, _, tails = positives.unbind(1)
    return (heads, Side.tail), (tails, Side.head)


def queries_of_both_sides(scorer: RowScorer, positives: Tensor) -> list[Tensor]:
    """Query rows ``[2, B, Dq]`` of `positives` [B, 3], in the order of `Side`, for each branch."""
    relations = positives[:, 1]
    sides = [query_rows(scorer, e, relations, side) for e, side in _known_entities(positives)]
    return [torch.stack(rows) for rows in zip(*sides, strict=True)]


def sampled_scores(scorer: RowScorer, positives: Tensor, candidates: Candidates) -> Tensor:
    """Scores ``[B, N]`` of candidates; see `Scorer.score_sampled`."""
    heads, relations, tails = positives.unbind(1)
    if scorer.scores_triples_only():
        ids, is_head = candidates.ids, candidates.corrupted_side == Side.head
        ends = torch.where(is_head, ids, heads[:, None]), torch.where(is_head, tails[:, None], ids)
        middle = relations[:, None].expand_as(ids)
        return triple_scores(scorer, torch.stack([ends[0], middle, ends[1]], -1))
    queries = queries_of_both_sides(scorer, positives)
    scales = zip(
        *(scale_rows(scorer, e, relations, side) for e, side in _known_entities(positives)),
        strict=True,
    )
    tables, rows = _sampled_tables(scorer, relations, candidates)
    scores = []
    for i, (query, table, scale) in enumerate(zip(queries, tables, scales, strict=True)):
        query, table = _cast_for_op(query, table)
        scores.append(
            sampled_score(
                query,
                table,
                rows.ids,
                rows.corrupted_side,
                metrics(scorer)[i],
                terms(scorer, i, query.shape[-1], table.shape[-1]),
                scale=None if scale[0] is None else torch.stack(scale),
                order=rows.order,
            )
        )
    return scorer.margin + join(scorer, scores)


def sampled_loss_of(
    scorer: RowScorer, positives: Tensor, candidates: Candidates, loss: RowLoss
) -> Tensor:
    """The loss of `sampled_scores` of a plain scorer, in one op; see `Scorer.loss_sampled`."""
    (queries,) = queries_of_both_sides(scorer, positives)
    unique_ids, rows = _unique_candidates(scorer, candidates)
    (table,) = candidate_rows(scorer, unique_ids, None, Side.tail)
    queries, table = _cast_for_op(queries, table)
    return sampled_loss(
        queries,
        table,
        rows.ids,
        rows.corrupted_side,
        metrics(scorer)[0],
        terms(scorer, 0, queries.shape[-1], table.shape[-1]),
        mask=rows.mask,
        loss=loss,
        offset=scorer.margin,
        order=rows.order,
    )


def _cast_for_op(queries: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Casts rows for `sampled_score`, which computes in float32, where autocast made bfloat16.

    The table stays in bfloat16 where a kernel can read it, which halves the memory traffic.
    """
    if torch.bfloat16 not in (queries.dtype, table.dtype):
        return queries, table
    device = table.device.type
    reads_bfloat16 = device == "cuda" and backend_of("sampled_score", device)[0] == "native"
    return queries.float(), table if reads_bfloat16 else table.float()


def _unique_candidates(
    scorer: RowScorer, candidates: Candidates
) -> tuple[Tensor | None, Candidates]:
    """The entities that need rows in a step (None: all), and candidates as positions in them.

    Rows made from features cost a projection each, so a small batch computes only its own. `order`
    is still valid for the positions. On a GPU, all rows are computed: the number of unique ids
    would have to reach the host.
    """
    ids = candidates.ids
    costly = bool(scorer.modalities_of(scorer.config))
    if not costly or ids.numel() >= scorer.n_entities or ids.device.type != "cpu":
        return None, candidates
    unique_ids, positions = torch.unique(ids, return_inverse=True)
    return unique_ids, dataclasses.replace(candidates, ids=positions)


def _sampled_tables(
    scorer: RowScorer, relations: Tensor, candidates: Candidates
) -> tuple[list[Tensor], Candidates]:
    """Candidate rows of a step, and candidates as positions in them."""
    n, ids, corrupted_side = scorer.n_entities, candidates.ids, candidates.corrupted_side
    if not (scorer.per_relation or scorer.roles):
        unique_ids, rows = _unique_candidates(scorer, candidates)
        return candidate_rows(scorer, unique_ids, None, Side.tail), rows
    if not scorer.per_relation:
        # One table per side, concatenated.
        sides = [candidate_rows(scorer, None, None, side) for side in Side]
        tables = [torch.cat(parts) for parts in zip(*sides, strict=True)]
        return tables, dataclasses.replace(
            candidates, ids=ids + n * corrupted_side.long(), order=None
        )
    # One row per pair of relation and entity in the batch, grouped by side.
    keys = relations[:, None] * n + ids
    head_offset = n * scorer.n_relations
    if scorer.roles:
        keys = keys + head_offset * corrupted_side.long()
    unique_keys, positions = torch.unique(keys, return_inverse=True)
    n_heads = int((unique_keys >= head_offset).sum())
    n_tails = len(unique_keys) - n_heads
    parts = []
    for part, side in ((unique_keys[:n_tails], Side.tail), (unique_keys[n_tails:], Side.head)):
        if len(part) or not len(unique_keys):
            relation = (part % head_offset).div(n, rounding_mode="floor")
            parts.append(candidate_rows(scorer, part % n, relation, side))
    tables = [torch.cat(rows) for rows in zip(*parts, strict=True)]
    return tables, dataclasses.replace(candidates, ids=positions, order=None)


# All entities


def all_scores(scorer: RowScorer, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
    """Scores ``[B, E]`` of all entities; see `Scorer.score_all`."""
    if scorer.scores_triples_only():
        everyone = torch.arange(scorer.n_entities, device=entities.device)
        answers = everyone.expand(len(entities), -1)
        known, middle = (x[:, None].expand_as(answers) for x in (entities, relations))
        return triple_scores(scorer, _triples_of(known, middle, answers, side))
    if not scorer.per_relation:
        return _scores_of_all(scorer, entities, relations, side, None)
    # One candidate table per relation: queries are grouped by relation, then put back in order.
    groups = [(relations == r).nonzero().flatten() for r in torch.unique(relations)]
    parts = [
        _scores_of_all(scorer, entities[rows], relations[rows], side, int(relations[rows[0]]))
        for rows in groups
    ]
    if not parts:
        tensor = next(iter([*scorer.parameters(), *scorer.buffers()]))
        return tensor.new_empty(0, scorer.n_entities)
    return torch.cat(parts)[torch.cat(groups).argsort()]


def _scores_of_all(
    scorer: RowScorer, entities: Tensor, relations: Tensor, side: Side, relation: int | None
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
            scores.append(_scores_by_id(BranchRows(q, table, metric, pairs, scale), ids))
    return scorer.margin + join(scorer, scores)


def _products(q: Tensor, table: Tensor, pairs: Sequence[Pair], scale: Tensor | None) -> Tensor:
    """Dot products of queries with all candidates: a matrix product per pair."""
    total: Tensor | None = None
    for pair in pairs:
        left = q[:, pair.query : pair.query + pair.width]
        columns = slice(pair.candidate, pair.candidate + pair.width)
        if scale is not None:
            left = left * scale[:, columns]
        term = pair.weight * (left @ table[:, columns].T)
        total = term if total is None else total + term
    assert total is not None  # a scorer has at least one pair
    return total


# Ranking

# Scores per tile where branches are joined, and the number that divides the width of a tile.
TILE = 1 << 14
LANES = 64

# Scores ``[b - a, E]`` of the queries from a to b.
ScoreFunction = Callable[[int, int], Tensor]


def ranking_tables(scorer: RowScorer, relation: int | None, side: Side) -> list[Tensor]:
    """Contiguous candidate rows of all entities, a matrix per branch.

    `relation` is needed for scorers that are `per_relation`. Empty for scorers of whole triples.
    """
    if scorer.scores_triples_only():
        return []
    return [rows.contiguous() for rows in candidate_rows(scorer, None, relation, side)]


def ranking_rows(
    scorer: RowScorer, entities: Tensor, relations: Tensor, side: Side, tables: list[Tensor]
) -> BranchRows | ScoreFunction:
    """Prepares queries [B] for ranking against the `tables` of `ranking_tables`.

    Returns:
        Rows for `ops.rank_candidates`, or, for branches and whole triples, a function that scores
        a few of the queries, without margin, for `ops.rank_scores`.
    """
    if scorer.scores_triples_only():
        return lambda a, b: _triple_block(scorer, entities[a:b], relations[a:b], side)
    queries = [q.contiguous() for q in query_rows(scorer, entities, relations, side)]
    scales = [
        None if s is None else s.contiguous() for s in scale_rows(scorer, entities, relations, side)
    ]
    rows = [
        BranchRows(q, table, metric, terms(scorer, i, q.shape[1], table.shape[1]), scale)
        for i, (q, table, metric, scale) in enumerate(
            zip(queries, tables, metrics(scorer), scales, strict=True)
        )
    ]
    if not has_branches(scorer):
        return rows[0]
    return lambda a, b: _joined_block(scorer, [branch.part(a, b) for branch in rows])


def _scores_by_id(rows: BranchRows, ids: Tensor) -> Tensor:
    """Scores ``[B, N]`` of queries against the candidate rows `ids` [B, N]."""
    q, table = _cast_for_op(rows.queries, rows.table)
    side = torch.zeros(ids.shape, dtype=torch.int8, device=ids.device)
    scale = None if rows.scale is None else rows.scale[None]
    return sampled_score(
        q[None], table, ids.contiguous(), side, rows.metric, rows.pairs, scale=scale
    )


def _joined_block(scorer: RowScorer, rows: list[BranchRows]) -> Tensor:
    """Scores ``[b, E]`` of a few queries, with branches joined tile by tile.

    Equal rows must tie at any position. The metrics guarantee that; functions of torch such as
    `sigmoid` do not: they compute the last few elements of a tensor in another way than the rest,
    and split large tensors. So tiles are small, and their width is a multiple of a vector register.
    """
    n_queries, n_candidates = len(rows[0].queries), len(rows[0].table)
    tiles = list(_tiles(n_queries, n_candidates, rows[0].queries.device))
    everyone = torch.cat(tiles, 1)
    parts = []
    for branch in rows:
        scores = _scores_by_id(branch, everyone)
        parts.append([tile.contiguous() for tile in torch.split(scores, tiles[0].shape[1], 1)])
    joined = [join(scorer, list(tile)) for tile in zip(*parts, strict=True)]
    return torch.cat(joined, 1)[:, :n_candidates]


def _triple_block(scorer: RowScorer, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
    """Scores ``[b, E]`` of a few queries by `score`, in the same tiles."""
    tiles = []
    for ids in _tiles(len(entities), scorer.n_entities, entities.device):
        known, middle = (x[:, None].expand_as(ids) for x in (entities, relations))
        tiles.append(triple_scores(scorer, _triples_of(known, middle, ids, side)))
    return torch.cat(tiles, 1)[:, : scorer.n_entities]


def _tiles(b: int, n: int, device: torch.device) -> Iterator[Tensor]:
    """Ids ``[b, w]`` of all `n` candidates, tile by tile; the last id fills up the last tile."""
    width = min(max(TILE // b // LANES, 1) * LANES, -(-n // LANES) * LANES)
    for start in range(0, n, width):
        yield torch.arange(start, start + width, device=device).clamp(max=n - 1).expand(b, -1)
