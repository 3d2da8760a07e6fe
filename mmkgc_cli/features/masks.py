"""Missing masks: which observed vectors an experiment pretends not to have.

An entity is missing when it comes early enough in an order of the observed entities, and a higher
rate only goes further in the same order. So masks are nested in the rate, and follow from their
arguments: neither splits, nor the order of rows, nor a random generator take part.
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
    """The arguments that a mask follows from.

    `rate` is the share of observed entities that goes. `pattern` decides who goes first: "random",
    anybody; "degree", rather those with few train triples, with a weight of 1 / (1 + degree);
    "relation", whole groups: entities that occur in train mostly in the same relation, on the same
    side, go together.
    """

    modality: str
    rate: float
    seed: int = 0
    pattern: str = "random"

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise UsageError(f"rate {self.rate}: expected the share that goes missing, 0 to 1")
        if self.pattern not in PATTERNS:
            raise UsageError(f"pattern {self.pattern!r}: {nearest(self.pattern, PATTERNS)}")

    @property
    def needs_graph(self) -> bool:
        """Whether train triples take part."""
        return self.pattern != "random"


def missing(
    request: MaskRequest, ids: Sequence[str], observed: Mask, graph: Graph | None = None
) -> Mask:
    """Which of `ids` go missing, bool ``[n]``; only observed ones do.

    Args:
        request: what mask.
        ids: distinct entity ids.
        observed: bool ``[n]``, which of them have been observed.
        graph: whose train triples the patterns "degree" and "relation" count.

    Raises:
        UsageError: when such a pattern gets no graph.
    """
    if request.needs_graph and graph is None:
        raise UsageError(f"pattern {request.pattern!r} counts train triples: say --graph DIR")
    rows = np.flatnonzero(observed)
    names = [ids[row] for row in rows.tolist()]
    parts = [request.modality]
    if request.needs_graph and graph is not None:
        parts += [request.pattern, graph.train_id]
    found = digests("mask", request.seed, parts, names)
    groups: Sequence[bytes] | Sequence[float]
    if request.pattern == "degree" and graph is not None:
        groups = _by_degree(found, names, graph)
    elif request.pattern == "relation" and graph is not None:
        groups = _by_relation(names, graph, request.seed, parts)
    else:
        groups = [b""] * len(names)
    order = sorted(range(len(names)), key=lambda i: (groups[i], found[i]))
    result = np.zeros(len(ids), dtype=bool)
    result[rows[order[: round(request.rate * len(rows))]]] = True
    return result


def listed(path: Path, ids: Sequence[str]) -> Mask:
    """Which of `ids` a file lists, one a line, bool ``[n]``.

    Raises:
        DataError: with the line, for an id that is not among them or comes twice.
    """
    row_of = {name: row for row, name in enumerate(ids)}
    result = np.zeros(len(ids), dtype=bool)
    for number, text in read_lines(path):
        row = row_of.get(text.strip(" "))
        if row is None:
            raise DataError(
                f"{path}:{number}: {text[:80]!r} is not among the {len(ids):,} ids of the store"
            )
        if result[row]:
            raise DataError(f"{path}:{number}: {text[:80]!r} comes a second time")
        result[row] = True
    return result


def _by_degree(found: Sequence[bytes], names: Sequence[str], graph: Graph) -> list[float]:
    """Keys of a draw without replacement with weight 1 / (1 + degree).

    Exponential variables with those rates, in order (Efraimidis and Spirakis 2006).
    """
    degree = np.bincount(graph.train[:, [0, 2]].reshape(-1), minlength=len(graph.entities))
    degree_of = dict(zip(graph.entities, degree.tolist(), strict=True))
    keys = []
    for digest, name in zip(found, names, strict=True):
        uniform = ((int.from_bytes(digest[:8], "little") >> 11) + 0.5) / (1 << 53)
        keys.append(-math.log(uniform) * (1 + degree_of.get(name, 0)))
    return keys


def _by_relation(
    names: Sequence[str], graph: Graph, seed: int, parts: Sequence[str]
) -> list[bytes]:
    """A digest of the relation and side that each entity has most train triples in.

    Entities that train lacks come last.
    """
    sides = [f"{side} of {name}" for name in graph.relations for side in ("head", "tail")]
    place = digests("mask group", seed, parts, sides)
    entity = graph.train[:, [0, 2]].reshape(-1).astype(np.int64)
    side = (2 * graph.train[:, 1, None] + np.array([0, 1])).reshape(-1)
    pairs, count = np.unique(entity * len(sides) + side, return_counts=True)
    rank: NDArray[np.int64] = np.empty(len(sides), dtype=np.int64)
    rank[np.array(sorted(range(len(sides)), key=place.__getitem__), dtype=np.int64)] = np.arange(
        len(sides)
    )
    owner, side = np.divmod(pairs, len(sides))
    # By entity, then the most frequent; ties go to the side that comes first anyway.
    order = np.lexsort((rank[side], -count, owner))
    owner, first = np.unique(owner[order], return_index=True)
    side = side[order][first]
    of = {graph.entities[e]: place[s] for e, s in zip(owner.tolist(), side.tolist(), strict=True)}
    return [of.get(name, b"\xff" * 33) for name in names]
