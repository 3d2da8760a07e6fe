"""Masks: observed vectors that are removed for an experiment.

The observed entities are ordered, and a mask removes the first `rate` of them, so a higher rate
removes the same entities and more. A mask depends on its arguments only, not on the order of rows
or on a random generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.features.format import Mask
from mmkgc_cli.features.seeded_random import digests
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.readers.lines import read_lines

PATTERNS = ("random", "degree", "relation")


@dataclass(frozen=True)
class MaskRequest:
    """The arguments that determine a mask.

    `rate` is the fraction of observed entities that are masked. `pattern` is the order of masking:
    "random"; "degree", sampling with weight 1 / (1 + degree), where degree counts train triples;
    "relation", one group after another, where a group is the entities with the same most frequent
    relation and side in train.
    """

    modality: str
    rate: float
    seed: int = 0
    pattern: str = "random"

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise UsageError(
                f"rate {self.rate}: expected the fraction of masked entities, 0 to 1",
                fix="choose a rate such as 0.4",
            )
        if self.pattern not in PATTERNS:
            raise UsageError(
                f"pattern {self.pattern!r} is unknown", fix=nearest(self.pattern, PATTERNS)
            )

    @property
    def needs_graph(self) -> bool:
        """Whether the pattern counts train triples."""
        return self.pattern != "random"


def missing_mask(
    request: MaskRequest, ids: Sequence[str], observed: Mask, graph: Graph | None = None
) -> Mask:
    """Whether each entity of `ids` is masked, bool ``[n]``; only observed entities are masked.

    Args:
        request: the arguments of the mask.
        ids: distinct entity ids.
        observed: bool ``[n]``, whether each entity is observed.
        graph: the train triples for the patterns "degree" and "relation".

    Raises:
        UsageError: the pattern needs a graph, and `graph` is None.
    """
    if request.needs_graph and graph is None:
        raise UsageError(
            f"pattern {request.pattern!r} counts train triples and needs a graph",
            fix="add --graph DIR",
        )
    rows = np.flatnonzero(observed)
    names = [ids[row] for row in rows.tolist()]
    parts = [request.modality]
    if request.needs_graph and graph is not None:
        parts += [request.pattern, graph.train_id]
    entity_digests = digests("mask", request.seed, parts, names)
    groups: Sequence[bytes] | Sequence[float]
    if request.pattern == "degree" and graph is not None:
        groups = _by_degree(entity_digests, names, graph)
    elif request.pattern == "relation" and graph is not None:
        groups = _by_relation(names, graph, request.seed, parts)
    else:
        groups = [b""] * len(names)
    order = sorted(range(len(names)), key=lambda i: (groups[i], entity_digests[i]))
    result = np.zeros(len(ids), dtype=bool)
    result[rows[order[: round(request.rate * len(rows))]]] = True
    return result


def read_mask_file(path: Path, ids: Sequence[str]) -> Mask:
    """Reads a file with one id per line: a mask of `ids`, bool ``[n]``.

    Raises:
        DataError: a line is not among `ids` or is repeated.
    """
    row_of = {name: row for row, name in enumerate(ids)}
    result = np.zeros(len(ids), dtype=bool)
    for number, text in read_lines(path):
        row = row_of.get(text.strip(" "))
        if row is None:
            raise DataError(
                f"{path}:{number}: {text[:80]!r} is not among the {len(ids):,} ids of the store",
                fix="correct or remove the line, or give the store that the list was made for",
            )
        if result[row]:
            raise DataError(
                f"{path}:{number}: {text[:80]!r} is listed twice", fix="remove the line"
            )
        result[row] = True
    return result


def _by_degree(entity_digests: Sequence[bytes], names: Sequence[str], graph: Graph) -> list[float]:
    """Sort keys of sampling without replacement with weight 1 / (1 + degree).

    The keys are exponential variables with these rates (Efraimidis and Spirakis 2006).
    """
    degree = np.bincount(graph.train[:, [0, 2]].reshape(-1), minlength=len(graph.entities))
    degree_of = dict(zip(graph.entities, degree.tolist(), strict=True))
    keys = []
    for digest, name in zip(entity_digests, names, strict=True):
        uniform = ((int.from_bytes(digest[:8], "little") >> 11) + 0.5) / (1 << 53)
        keys.append(-math.log(uniform) * (1 + degree_of.get(name, 0)))
    return keys


def _by_relation(
    names: Sequence[str], graph: Graph, seed: int, parts: Sequence[str]
) -> list[bytes]:
    """For each entity, a digest of the relation and side with most of its train triples.

    Entities without train triples are last.
    """
    sides = [f"{side} of {name}" for name in graph.relations for side in ("head", "tail")]
    group_digests = digests("mask group", seed, parts, sides)
    entity = graph.train[:, [0, 2]].reshape(-1).astype(np.int64)
    side = (2 * graph.train[:, 1, None] + np.array([0, 1])).reshape(-1)
    pairs, count = np.unique(entity * len(sides) + side, return_counts=True)
    rank: NDArray[np.int64] = np.empty(len(sides), dtype=np.int64)
    by_digest = sorted(range(len(sides)), key=group_digests.__getitem__)
    rank[np.array(by_digest, dtype=np.int64)] = np.arange(len(sides))
    entity, side = np.divmod(pairs, len(sides))
    # By entity, then by frequency; ties go to the side with the lower rank.
    order = np.lexsort((rank[side], -count, entity))
    entity, first_index = np.unique(entity[order], return_index=True)
    side = side[order][first_index]
    group_of = {
        graph.entities[e]: group_digests[s]
        for e, s in zip(entity.tolist(), side.tolist(), strict=True)
    }
    return [group_of.get(name, b"\xff" * 33) for name in names]
