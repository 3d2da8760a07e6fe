"""Negatives of a batch: corrupted triples that are not known to be true.

Every draw is a function of the seed, the step, its position and the round, by Philox 4x32-10
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): kernel and reference
draw the same negatives, on any device, with any number of threads, and a step can be drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops._arguments import Checks

NAME = "filtered_negatives"
_CHECKS = Checks(NAME)
_MASK = 0xFFFFFFFF


class SideChoice(IntEnum):
    """How the side that a negative replaces is chosen; values as in the op's schema."""

    per_negative = 0
    per_positive = 1
    alternating = 2


@dataclass(frozen=True)
class KnownAnswers:
    """True answers of one side, as rows of a ragged array.

    Row i belongs to ``keys[i]`` = relation x E + known entity, ascending, and holds
    ``answers[ptr[i]:ptr[i + 1]]``, ascending; all int64.
    """

    keys: Tensor
    ptr: Tensor
    answers: Tensor

    @classmethod
    def of(cls, keys: Tensor, answers: Tensor, entities: int) -> KnownAnswers:
        """Groups pairs of a key and an answer, both ``[n]``; duplicates count once."""
        both = torch.unique(keys * entities + answers)
        keys = both // entities
        unique, counts = torch.unique_consecutive(keys, return_counts=True)
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(unique, ptr, both % entities)


def filtered_negatives(
    positives: Tensor,
    head_share: Tensor,
    tails: KnownAnswers,
    heads: KnownAnswers,
    entities: int,
    n: int,
    choice: SideChoice,
    rounds: int,
    with_positive: bool,
    seed: int,
    step: int,
    counter: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draws n negatives of each positive.

    Args:
        positives: ``[B, 3]`` int64 head, relation, tail.
        head_share: ``[R]`` float32, the probability that the head is replaced.
        tails: true tails of (relation, head).
        heads: true heads of (relation, tail).
        entities: how many there are.
        n: negatives a positive.
        choice: of the side, for each negative, once a positive, or tail and head in turn.
        rounds: 1 to 255; how often a draw that hits a true triple is made before it is given up.
        with_positive: put the positive's own tail before its negatives.
        seed: of the stream, 64 bits.
        step: which step of the stream.
        counter: one int64 beside `positives`, added to `step`: on a GPU it is read when the kernel
            runs, so that a captured CUDA graph draws anew whenever it is replayed.

    Returns:
        ``ids`` int64, ``side`` int8 (`sides.Side`) and ``usable`` bool, all ``[B, n]`` (one column
        more with the positive), and ``order`` int64, the positions of `ids` sorted by id. What is
        not usable is a true triple that could not be avoided.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids, naming the argument.
    """
    args = (
        positives, head_share, tails.keys, tails.ptr, tails.answers, heads.keys, heads.ptr,
        heads.answers, entities, n, int(choice), rounds, with_positive, seed, step,
        counter,
    )  # fmt: skip
    with torch.no_grad():
        if _native.has_kernel(NAME, positives.device.type):
            ids, side, usable, order = torch.ops.mmkgc.filtered_negatives(*args)
        else:
            ids, side, usable, order = reference(*args)
    return ids, side, usable, order


def philox(key: int, low: Tensor, high: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox 4x32-10 of counters ``high * 2**64 + low``: four 32-bit words each, as int64."""
    c0, c1 = low & _MASK, (low >> 32) & _MASK
    c2 = torch.full_like(low, high & _MASK)
    c3 = torch.full_like(low, (high >> 32) & _MASK)
    k0, k1 = key & _MASK, (key >> 32) & _MASK
    for _ in range(10):
        high0, low0 = _product(c0, 0xD2511F53)
        high1, low1 = _product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def _product(x: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of products of 32-bit numbers, without leaving 63 bits."""
    by_high, by_low = x * (constant >> 16), x * (constant & 0xFFFF)
    low = (by_low + ((by_high & 0xFFFF) << 16)) & _MASK
    return (by_high + (by_low >> 16)) >> 16, low


def _unit_interval(a: Tensor, b: Tensor) -> Tensor:
    return ((a << 21) | (b >> 11)).double() * 2.0**-53


def _check_arguments(
    positives: Tensor,
    head_share: Tensor,
    known: dict[str, KnownAnswers],
    entities: int,
    n: int,
    choice: int,
    rounds: int,
    counter: Tensor | None,
) -> None:
    """The checks of ``checks/negatives_arguments.h``, word for word (a test compares them)."""
    c = _CHECKS
    c.counter(counter)
    c.require(positives.dim() == 2 and positives.shape[1] == 3, "positives must be [B, 3]")
    c.require(positives.dtype == torch.int64, "positives must be int64")
    c.require(
        head_share.dim() == 1 and head_share.dtype == torch.float32,
        "head_share must be [R] float32",
    )
    c.require(n >= 0, f"n is {n}, expected 0 or more")
    c.require(
        0 <= choice <= 2,
        f"choice is {choice}, expected 0 (per negative), 1 (per positive) or 2 (alternating)",
    )
    c.require(1 <= rounds <= 255, f"rounds is {rounds}, expected 1..255")
    c.require(entities > 0 or len(positives) == 0, "there are no entities to draw")
    bounds = torch.tensor([entities, head_share.shape[0], entities], device=positives.device)
    bad = ((positives < 0) | (positives >= bounds)).flatten().nonzero().flatten()
    if bad.numel():
        at = int(bad[0])
        value, bound = int(positives.flatten()[at]), int(bounds[at % 3])
        c.require(False, f"positives[{at}] is {value}, outside 0..{bound - 1}")
    for name, of in known.items():
        for index in (of.keys, of.ptr, of.answers):
            c.index(name, index)
        rows = of.keys.numel()
        c.require(
            of.ptr.numel() == rows + 1,
            f"{name} has {of.ptr.numel()} row pointers, expected {rows + 1} (keys + 1)",
        )
        first, last = int(of.ptr[0]), int(of.ptr[-1])
        c.require(
            first == 0 and last == of.answers.numel(),
            f"{name} rows run from {first} to {last}, expected 0 to {of.answers.numel()}",
        )


def reference(
    positives: Tensor,
    head_share: Tensor,
    tail_keys: Tensor,
    tail_ptr: Tensor,
    tail_answers: Tensor,
    head_keys: Tensor,
    head_ptr: Tensor,
    head_answers: Tensor,
    entities: int,
    n: int,
    choice: int,
    rounds: int,
    with_positive: bool,
    seed: int,
    step: int,
    counter: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`filtered_negatives` in torch, draw for draw the same."""
    known = {
        "tails": KnownAnswers(tail_keys, tail_ptr, tail_answers),
        "heads": KnownAnswers(head_keys, head_ptr, head_answers),
    }
    _check_arguments(positives, head_share, known, entities, n, choice, rounds, counter)
    if counter is not None:
        step += int(counter)
    head, relation, tail = positives.unbind(1)
    batch, device = len(positives), positives.device
    position = torch.arange(batch * n, device=device)
    row = position // n if n else position
    bits = philox(seed, position, step << 8)
    chance = _unit_interval(bits[2], bits[3])
    if choice == SideChoice.per_positive:
        chance = chance[row * n]
    side = (chance < head_share[relation][row].double()).long()
    if choice == SideChoice.alternating:
        side = (position % n if n else position) & 1
    wanted = torch.where(
        side == 1, (relation * entities + tail)[row], (relation * entities + head)[row]
    )

    lookups = [_Lookup(of, wanted, entities) for of in known.values()]

    def is_known(ids: Tensor, at: Tensor) -> Tensor:
        hits = [lookup.holds(ids, at) for lookup in lookups]
        return torch.where(side[at] == 1, hits[1], hits[0])

    ids = torch.empty_like(position)
    at = position  # draws that are still open
    for round_ in range(rounds):
        if round_:
            bits = philox(seed, at, (step << 8) | round_)
        drawn = (_unit_interval(bits[0], bits[1]) * entities).long().clamp_max(entities - 1)
        ids[at] = drawn
        at = at[is_known(drawn, at)]
        if not at.numel():
            break
    open_ = torch.zeros_like(position, dtype=torch.bool)
    open_[at] = True
    shape = (batch, n)
    ids, side, usable = ids.view(shape), side.to(torch.int8).view(shape), ~open_.view(shape)
    if with_positive:
        ids = torch.cat([tail[:, None], ids], 1)
        side = (
            torch.cat([torch.zeros_like(side[:, :1]).expand(batch, 1), side], 1)
            if n
            else (torch.zeros(batch, 1, dtype=torch.int8, device=device))
        )
        usable = torch.cat([torch.ones(batch, 1, dtype=torch.bool, device=device), usable], 1)
    return ids, side, usable, ids.flatten().argsort(stable=True)


class _Lookup:
    """Whether entities are known answers to fixed keys ``[n]``."""

    def __init__(self, of: KnownAnswers, keys: Tensor, entities: int) -> None:
        self._empty = not of.keys.numel()
        if self._empty:
            return
        self._entities = entities
        rows = torch.arange(of.keys.numel(), device=keys.device)
        self._pairs = rows.repeat_interleave(of.ptr[1:] - of.ptr[:-1]) * entities + of.answers
        self._row = torch.searchsorted(of.keys, keys).clamp_max_(of.keys.numel() - 1)
        self._has_row = of.keys[self._row] == keys

    def holds(self, ids: Tensor, at: Tensor) -> Tensor:
        """Whether ``ids[i]`` is an answer to the key ``at[i]``."""
        if self._empty:
            return torch.zeros_like(ids, dtype=torch.bool)
        looked_for = self._row[at] * self._entities + ids
        found = torch.searchsorted(self._pairs, looked_for).clamp_max_(self._pairs.numel() - 1)
        result: Tensor = self._has_row[at] & (self._pairs[found] == looked_for)
        return result


def _fake(positives: Tensor, head_share: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    n, with_positive = rest[7], rest[10]
    shape = (positives.shape[0], n + int(with_positive))
    return (
        positives.new_empty(shape),
        positives.new_empty(shape, dtype=torch.int8),
        positives.new_empty(shape, dtype=torch.bool),
        positives.new_empty(shape[0] * shape[1]),
    )


if _native.library().loaded:
    # Draws carry no gradient, so there is no autograd formula to register.
    torch.library.register_fake(f"mmkgc::{NAME}")(_fake)
