from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkgc_cli.ops import SideChoice, filtered_negatives
from mmkgc_cli.ops.filtered_negatives import KnownAnswers, philox, reference
from mmkgc_cli.sides import Side
from tests.ops.conftest import native, skip_unread


def problem(
    entities: int = 9, relations: int = 3, triples: int = 60, batch: int = 7, seed: int = 0
) -> tuple[dict[str, Any], set[tuple[int, ...]]]:
    """A dense graph, in which draws are often true triples."""
    rng = torch.Generator().manual_seed(seed)
    bounds = torch.tensor([entities, relations, entities])
    rows = (torch.rand(triples, 3, generator=rng) * bounds).long()
    head, relation, tail = rows.unbind(1)
    return {
        "positives": rows[:batch],
        "head_share": torch.rand(relations, generator=rng),
        "tails": KnownAnswers.from_pairs(relation * entities + head, tail, entities),
        "heads": KnownAnswers.from_pairs(relation * entities + tail, head, entities),
        "entities": entities,
        "n": 5,
        "choice": SideChoice.per_negative,
        "rounds": 4,
        "with_positive": False,
        "seed": 12345678901234567,
        "step": 3,
    }, {tuple(row) for row in rows.tolist()}


def flat(p: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of the schema."""
    known = [x for of in (p["tails"], p["heads"]) for x in (of.keys, of.ptr, of.answers)]
    rest = [p[k] for k in ("entities", "n", "choice", "rounds", "with_positive", "seed", "step")]
    rest[2] = int(rest[2])
    return (p["positives"], p["head_share"], *known, *rest)


def test_philox_returns_the_published_values() -> None:
    # The test vectors of Random123.
    zeros = philox(0, torch.zeros(1, dtype=torch.int64), 0)
    assert [int(x) for x in zeros] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = philox(2**64 - 1, torch.full((1,), -1, dtype=torch.int64), 2**64 - 1)
    assert [int(x) for x in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@settings(max_examples=60)
@given(
    entities=st.integers(1, 30),
    triples=st.integers(1, 80),
    batch=st.integers(0, 8),
    n=st.integers(0, 9),
    choice=st.sampled_from(list(SideChoice)),
    rounds=st.integers(1, 6),
    with_positive=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 2**40),
)
@native
def test_kernel_and_reference_draw_equal_negatives(
    entities: int, triples: int, batch: int, n: int, choice: SideChoice, rounds: int,
    with_positive: bool, seed: int, step: int,
) -> None:  # fmt: skip
    p, _ = problem(entities, 3, triples, batch, seed % 1000)
    p |= {"n": n, "choice": choice, "rounds": rounds, "with_positive": with_positive,
          "seed": seed, "step": step}  # fmt: skip
    actual, expected = filtered_negatives(**p), reference(*flat(p))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("choice", SideChoice)
@pytest.mark.parametrize("with_positive", [False, True])
def test_the_mask_is_false_exactly_for_known_triples(
    backend: str, choice: SideChoice, with_positive: bool
) -> None:
    p, known = problem(batch=40)
    p |= {"choice": choice, "with_positive": with_positive, "n": 12, "rounds": 2}
    ids, side, mask, order = filtered_negatives(**p)
    first = int(with_positive)
    for b, (h, r, t) in enumerate(p["positives"].tolist()):
        if with_positive:
            assert (int(ids[b, 0]), int(side[b, 0]), bool(mask[b, 0])) == (t, Side.tail, True)
        for i in range(first, ids.shape[1]):
            entity = int(ids[b, i])
            triple = (h, r, entity) if side[b, i] == Side.tail else (entity, r, t)
            assert bool(mask[b, i]) == (triple not in known)
    drawn = side[:, first:]
    if choice is SideChoice.per_positive:
        assert (drawn == drawn[:, :1]).all()
    if choice is SideChoice.alternating:
        assert (drawn == torch.arange(12) % 2).all()
    assert torch.equal(order, ids.flatten().argsort(stable=True))


def test_sides_and_entities_have_the_requested_frequencies(backend: str) -> None:
    p, _ = problem(entities=5, relations=2, triples=1)
    p["positives"] = torch.tensor([[0, 0, 1], [0, 1, 1]]).repeat(200, 1)
    p["head_share"] = torch.tensor([0.2, 0.75])
    p |= {"n": 200, "rounds": 1}
    ids, side, _, _ = filtered_negatives(**p)
    assert side[::2].double().mean().item() == pytest.approx(0.2, abs=0.01)
    assert side[1::2].double().mean().item() == pytest.approx(0.75, abs=0.01)
    share = torch.bincount(ids.flatten(), minlength=5) / ids.numel()
    assert (share - 0.2).abs().max() < 0.006


def test_more_rounds_leave_fewer_masked(backend: str) -> None:
    p, _ = problem(entities=10, relations=1, triples=60, batch=50)
    shares = []
    for rounds in (1, 2, 8):
        mask = filtered_negatives(**{**p, "rounds": rounds, "n": 50})[2]
        shares.append(mask.double().mean().item())
    assert shares[0] < shares[1] < shares[2]


def test_draws_depend_on_seed_and_step_only(backend: str) -> None:
    p, _ = problem(entities=1000)
    first = filtered_negatives(**p)[0]
    torch.set_num_threads(1)
    assert torch.equal(filtered_negatives(**p)[0], first)
    assert not torch.equal(filtered_negatives(**{**p, "step": 4})[0], first)
    assert not torch.equal(filtered_negatives(**{**p, "seed": 1})[0], first)


@native
def test_opcheck() -> None:
    for with_positive in (False, True):
        p, _ = problem()
        p["with_positive"] = with_positive
        torch.library.opcheck(torch.ops.mmkgc.filtered_negatives.default, flat(p))


def test_an_empty_graph_filters_nothing(backend: str) -> None:
    p, _ = problem(batch=3)
    none = torch.empty(0, dtype=torch.int64)
    p["tails"] = p["heads"] = KnownAnswers(none, torch.zeros(1, dtype=torch.int64), none)
    assert filtered_negatives(**p)[2].all()


def long(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def test_a_counter_is_added_to_the_step(backend: str) -> None:
    p, _ = problem()
    later = filtered_negatives(**{**p, "step": p["step"] + 3})
    actual = filtered_negatives(**p, counter=torch.tensor([3]))
    assert all(torch.equal(a, b) for a, b in zip(actual, later, strict=True))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "positives shape": ({"positives": torch.zeros(3, 2).long()}, r"positives must be \[B, 3\]"),
    "positives dtype": ({"positives": torch.zeros(3, 3)}, "positives must be int64"),
    "a head": ({"positives": long(9, 0, 0)[None]}, r"positives\[0\] is 9, outside 0..8"),
    "a relation": ({"positives": long(0, 3, 0)[None]}, r"positives\[1\] is 3, outside 0..2"),
    "head_share": ({"head_share": torch.zeros(3).double()}, r"head_share must be \[R\] float32"),
    "n": ({"n": -1}, "n is -1, expected 0 or more"),
    "choice": ({"choice": 3}, "choice is 3, expected 0"),
    "rounds": ({"rounds": 0}, r"rounds is 0, expected 1..255"),
    "entities": ({"entities": 0}, "entities is 0, expected 1 or more"),
    "tails dims": (
        {"tails": KnownAnswers(long(1)[None], long(0, 1), long(1))},
        "tails has 2 dimensions, expected 1",
    ),
    "heads rows": (
        {"heads": KnownAnswers(long(1), long(0), long(1))},
        "heads has 1 row pointers, expected 2",
    ),
    "heads end": (
        {"heads": KnownAnswers(long(1), long(0, 5), long(1))},
        "heads rows run from 0 to 5, expected 0 to 1",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_errors_of_arguments_are_equal_on_both_backends(backend: str, what: str) -> None:
    changes, message = WRONG[what]
    skip_unread(backend, message)
    p, _ = problem()
    with pytest.raises(RuntimeError, match="filtered_negatives: " + message):
        filtered_negatives(**{**p, **changes})


@native
def test_invalid_row_pointers_do_not_read_out_of_bounds() -> None:
    p, _ = problem()
    ptr = p["tails"].ptr.clone()
    ptr[1:-1] = torch.tensor([10**12, -(10**12)]).repeat(len(ptr))[: len(ptr) - 2]
    p["tails"] = KnownAnswers(p["tails"].keys, ptr, p["tails"].answers)
    assert filtered_negatives(**p)[0].shape == (7, 5)
