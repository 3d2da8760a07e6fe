"""Scores for ranking by the block: of branches, and of scorers that score whole triples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmkgc_cli.scoring.paths import against, join, metrics, terms, triple_scores, triples_of
from mmkgc_cli.sides import Side

if TYPE_CHECKING:
    from mmkgc_cli.scoring.contract import Scorer

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
