"""Negatives of a batch: corrupted triples that are not known to be true.

Every random number is a function of the seed, the step, its position and the round, by Philox
4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): kernel and reference
draw the same negatives on every device and with any number of threads, and any step can be
repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops._autograd import register

NAME = "filtered_negatives"
_CHECKS = Checks(NAME)
_MASK = 0xFFFFFFFF


class SideChoice(IntEnum):
    """How the corrupted side is chosen; the values are part of the schema."""

    per_negative = 0
    per_positive = 1
    alternating = 2


@dataclass(frozen=True)
class KnownAnswers:
    """True answers of one side as rows of a ragged array.

    Row i belongs to ``keys[i]`` = relation x E + known entity, ascending, and holds
    ``answers[ptr[i]:ptr[i + 1]]``, ascending; all int64.
    """

    keys: Tensor
    ptr: Tensor
    answers: Tensor

    @classmethod
    def from_pairs(cls, keys: Tensor, answers: Tensor, entities: int) -> KnownAnswers:
        """Groups pairs of a key and an answer, both ``[n]``; duplicates count once."""
        pairs = torch.unique(keys * entities + answers)
        keys = pairs // entities
        unique, counts = torch.unique_consecutive(keys, return_counts=True)
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(unique, ptr, pairs % entities)


def filtered_negatives(
    positives: Tensor,
    head_share: Tensor,
    tails: KnownAnswers,
    heads: KnownAnswers,
    *,
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
        entities: number of entities.
        n: negatives per positive.
        choice: how the corrupted side is chosen.
        rounds: 1 to 255, the number of attempts to draw a triple that is not true.
        with_positive: insert the positive's own tail as the first column.
        seed: of the random stream, 64 bits.
        step: of the random stream.
        counter: one int64 on the device of `positives`, added to `step`. A CUDA kernel reads it
            when it runs, so that each replay of a captured CUDA graph draws new negatives.

    Returns:
        ``ids`` int64, ``corrupted_side`` int8 (`sides.Side`) and ``mask`` bool, all ``[B, n]`` (one
        more column with the positive), and ``order`` int64, the positions of `ids` sorted by id.
        The mask is False where every attempt drew a true triple.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids; the message names the argument.
    """
    args = (
        positives, head_share, tails.keys, tails.ptr, tails.answers, heads.keys, heads.ptr,
        heads.answers, entities, n, int(choice), rounds, with_positive, seed, step, counter,
    )  # fmt: skip
    with torch.no_grad():
        if _native.has_kernel(NAME, positives.device.type):
            ids, corrupted_side, mask, order = torch.ops.mmkgc.filtered_negatives(*args)
        else:
            ids, corrupted_side, mask, order = reference(*args)
    return ids, corrupted_side, mask, order


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
    """High and low 32 bits of products of 32-bit numbers, within 63-bit integers."""
    by_high, by_low = x * (constant >> 16), x * (constant & 0xFFFF)
    low = (by_low + ((by_high & 0xFFFF) << 16)) & _MASK
    return (by_high + (by_low >> 16)) >> 16, low


def _unit_interval(a: Tensor, b: Tensor) -> Tensor:
    return ((a << 21) | (b >> 11)).double() * 2.0**-53


def _check_arguments(
    positives: Tensor,
    head_share: Tensor,
    known: dict[str, KnownAnswers],
    *,
    entities: int,
    n: int,
    choice: int,
    rounds: int,
    counter: Tensor | None,
) -> None:
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
    c.require(entities > 0 or len(positives) == 0, f"entities is {entities}, expected 1 or more")
    bounds = torch.tensor([entities, head_share.shape[0], entities], device=positives.device)
    bad = ((positives < 0) | (positives >= bounds)).flatten().nonzero().flatten()
    if bad.numel():
        i = int(bad[0])
        value, bound = int(positives.flatten()[i]), int(bounds[i % 3])
        c.require(False, f"positives[{i}] is {value}, outside 0..{bound - 1}")
    for name, answers in known.items():
        for index in (answers.keys, answers.ptr, answers.answers):
            c.index(name, index)
        rows = answers.keys.numel()
        c.require(
            answers.ptr.numel() == rows + 1,
            f"{name} has {answers.ptr.numel()} row pointers, expected {rows + 1} (keys + 1)",
        )
        first, last, count = int(answers.ptr[0]), int(answers.ptr[-1]), answers.answers.numel()
        c.require(
            first == 0 and last == count,
            f"{name} rows run from {first} to {last}, expected 0 to {count}",
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
    """`filtered_negatives` in torch, with equal results."""
    known = {
        "tails": KnownAnswers(tail_keys, tail_ptr, tail_answers),
        "heads": KnownAnswers(head_keys, head_ptr, head_answers),
    }
    _check_arguments(
        positives, head_share, known, entities=entities, n=n, choice=choice, rounds=rounds,
        counter=counter,
    )  # fmt: skip
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
    keys = torch.where(
        side == 1, (relation * entities + tail)[row], (relation * entities + head)[row]
    )

    lookups = [_Lookup(answers, keys, entities) for answers in known.values()]

    def is_known(ids: Tensor, positions: Tensor) -> Tensor:
        of_tails, of_heads = (lookup.contains(ids, positions) for lookup in lookups)
        return torch.where(side[positions] == 1, of_heads, of_tails)

    ids = torch.empty_like(position)
    pending = position  # where every attempt so far drew a true triple
    for attempt in range(rounds):
        if attempt:
            bits = philox(seed, pending, (step << 8) | attempt)
        scaled = _unit_interval(bits[0], bits[1]) * entities
        candidates = scaled.long().clamp_max(entities - 1)
        ids[pending] = candidates
        pending = pending[is_known(candidates, pending)]
        if not pending.numel():
            break
    known_true = torch.zeros_like(position, dtype=torch.bool)
    known_true[pending] = True
    shape = (batch, n)
    ids, corrupted_side = ids.view(shape), side.to(torch.int8).view(shape)
    mask = ~known_true.view(shape)
    if with_positive:
        ids = torch.cat([tail[:, None], ids], 1)
        corrupted_side = torch.cat([corrupted_side.new_zeros(batch, 1), corrupted_side], 1)
        mask = torch.cat([mask.new_ones(batch, 1), mask], 1)
    return ids, corrupted_side, mask, ids.flatten().argsort(stable=True)


class _Lookup:
    """Membership of entities in the known answers of fixed keys ``[n]``."""

    def __init__(self, known: KnownAnswers, keys: Tensor, entities: int) -> None:
        self._empty = not known.keys.numel()
        if self._empty:
            return
        self._entities = entities
        rows = torch.arange(known.keys.numel(), device=keys.device)
        row_of_answer = rows.repeat_interleave(known.ptr[1:] - known.ptr[:-1])
        self._pairs = row_of_answer * entities + known.answers
        self._row = torch.searchsorted(known.keys, keys).clamp_max_(known.keys.numel() - 1)
        self._has_row = known.keys[self._row] == keys

    def contains(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Whether ``ids[i]`` is an answer to the key at ``positions[i]``."""
        if self._empty:
            return torch.zeros_like(ids, dtype=torch.bool)
        pairs = self._row[positions] * self._entities + ids
        nearest = torch.searchsorted(self._pairs, pairs).clamp_max_(self._pairs.numel() - 1)
        result: Tensor = self._has_row[positions] & (self._pairs[nearest] == pairs)
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


register(NAME, {"": _fake})
