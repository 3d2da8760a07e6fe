from __future__ import annotations

import dataclasses
import functools
import os
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, Interrupted, MmkgcError
from mmkgc_cli.extraction.contract import Encoder, EncoderAbout, Found, Input, Skip, Skipped
from mmkgc_cli.extraction.driver import Extracted, ExtractRequest, extract
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from tests.features.small import graph_of

NAMES = [f"e{i}" for i in range(23)]


class Silent:
    def __init__(self) -> None:
        self.inputs = self.work = self.skipped = 0
        self.begun: tuple[int, int] | None = None

    def begin(self, inputs: int, work: int, encoder: str) -> None:
        self.begun = (inputs, work)

    def advance(self, inputs: int, work: int, skipped: int) -> None:
        self.inputs += inputs
        self.work += work
        self.skipped += skipped


class Batchy(Encoder[float]):
    """Every vector tells who else was in the batch, as rounding does in a real encoder."""

    about = EncoderAbout("batchy", "1", "nothing", "none")
    width = 2

    def __init__(self, before: Callable[[int], None] = lambda calls: None) -> None:
        self.batches: list[list[float]] = []
        self._before = before

    def admit(self, item: float) -> None:
        if item < 0:
            raise Skip("is negative")

    def encode(self, items: Sequence[float]) -> np.ndarray:
        self._before(len(self.batches))
        self.batches.append(list(items))
        total = sum(sorted(items))
        return np.array([[item, total] for item in items], dtype=np.float32)


def _unreadable() -> float:
    raise Skip("cannot be read")


def found_of(values: Mapping[str, Sequence[float | None]], **others: Any) -> Found[float]:
    inputs = {
        name: [
            Input(name, f"{name}:{i}", _unreadable if v is None else functools.partial(float, v))
            for i, v in enumerate(of)
        ]
        for name, of in values.items()
    }
    return Found(inputs, "values sha256 0", **others)


def numbered(names: Sequence[str] = NAMES) -> dict[str, list[float]]:
    return {name: [float(name[1:])] for name in names}


def run(
    path: Path, graph: Graph | None = None, found: Found[float] | None = None,
    encoder: Encoder[float] | None = None, **options: Any,
) -> Extracted:  # fmt: skip
    request = ExtractRequest("text", path, **{"batch_size": 4, **options})
    inputs = found or found_of(numbered())
    return extract(request, graph or graph_of(NAMES), inputs, lambda: encoder or Batchy(), Silent())


def vectors(path: Path) -> dict[str, tuple[float, ...] | None]:
    with FeatureStore(path) as store:
        store.verify()
        return {
            name: tuple(row) if seen else None
            for name, row, seen in zip(
                store.ids, store.read().tolist(), store.observed, strict=True
            )
        }


def test_rows_stand_in_the_order_of_the_graph_and_absent_inputs_are_unobserved(
    tmp_path: Path,
) -> None:
    found = found_of(numbered(NAMES[3:]), outside=2, outside_example="other", preprocess="a")
    done = run(tmp_path / "s.h5", found=found, dtype="float16", compression="gzip")
    with FeatureStore(tmp_path / "s.h5") as store:
        assert store.ids == NAMES
        assert store.observed.tolist() == [False] * 3 + [True] * 20
        assert store.read()[:, 0].tolist() == [0.0] * 3 + list(range(3, 23))
        assert (store.dtype, store.compression) == ("float16", "gzip")
        about = store.about
    assert (about.encoder, about.revision, about.preprocess) == ("batchy", "1", "a; nothing")
    assert (about.graph, about.source, about.modality) == ("ring", "values sha256 0", "text")
    assert (done.observed, done.without_input, done.failed, done.outside) == (20, 3, 0, 2)
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob("*.tsv"))


@given(st.permutations(NAMES), st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_the_order_of_a_graph_changes_no_vector(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], batch_size: int
) -> None:
    folder = tmp_path_factory.mktemp("order")
    run(folder / "a.h5", batch_size=batch_size)
    given_order = {name: numbered()[name] for name in names}
    run(folder / "b.h5", graph_of(names), found_of(given_order), batch_size=batch_size)
    assert vectors(folder / "a.h5") == vectors(folder / "b.h5")


def test_large_inputs_come_first_and_share_batches(tmp_path: Path) -> None:
    encoder = Batchy()
    found = found_of(numbered())
    sized = {
        name: [dataclasses.replace(one, size=int(name[1:])) for one in inputs]
        for name, inputs in found.inputs.items()
    }
    run(tmp_path / "s.h5", found=dataclasses.replace(found, inputs=sized), encoder=encoder)
    assert encoder.batches == [[float(i) for i in range(high, max(high - 4, -1), -1)]
                               for high in range(22, -1, -4)]  # fmt: skip


@given(st.integers(0, 1 << 16), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_a_run_that_was_stopped_anywhere_ends_as_if_it_had_not_been(
    tmp_path_factory: pytest.TempPathFactory, seed: int, batch_size: int
) -> None:
    folder = tmp_path_factory.mktemp("stop")
    rng = random.Random(seed)
    values: dict[str, list[float | None]] = {
        name: [rng.choice([None, -1.0, 1.0, 2.0, 3.0]) for _ in range(rng.randint(1, 6))]
        for name in NAMES[:-1]
    }
    values[NAMES[-1]] = [1.0]
    whole = run(folder / "a.h5", found=found_of(values), batch_size=batch_size)

    class Stopped(Exception):
        pass

    def stopping(calls: int) -> None:
        if calls == stop_after:
            raise Stopped

    while True:
        stop_after = rng.randint(1, 8)
        try:
            done = run(folder / "b.h5", found=found_of(values), encoder=Batchy(stopping),
                       batch_size=batch_size)  # fmt: skip
        except Stopped:
            continue
        break
    assert vectors(folder / "a.h5") == vectors(folder / "b.h5")
    assert done.skipped == whole.skipped
    assert done.observed == whole.observed
    if whole.skipped:
        tables = [(folder / f"{name}.skipped.tsv").read_bytes() for name in "ab"]
        assert tables[0] == tables[1]


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_batch_and_the_same_request_goes_on(
    tmp_path: Path, number: int
) -> None:
    def interrupt(calls: int) -> None:
        if calls == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="stopped after 12 of 23 entities") as stopped:
        run(tmp_path / "s.h5", encoder=Batchy(interrupt))
    assert stopped.value.exit_code == 128 + number
    assert not (tmp_path / "s.h5").exists()
    encoder = Batchy()
    done = run(tmp_path / "s.h5", encoder=encoder)
    assert (done.resumed, done.observed, done.inputs) == (12, 23, 11)
    assert len(encoder.batches) == 3
    run(tmp_path / "whole.h5")
    assert vectors(tmp_path / "s.h5") == vectors(tmp_path / "whole.h5")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_several_inputs_become_the_mean_of_those_that_can_be_used(
    tmp_path: Path, batch_size: int
) -> None:
    values = {"e1": [2.0, None, 4.0, -1.0, 9.0], "e2": [None, -3.0], "e3": [7.0]}
    done = run(tmp_path / "s.h5", found=found_of(values), batch_size=batch_size)
    made = vectors(tmp_path / "s.h5")
    assert made["e1"] is not None
    assert made["e3"] is not None
    assert (made["e1"][0], made["e2"], made["e3"][0]) == (5.0, None, 7.0)
    assert (done.observed, done.failed, done.without_input) == (2, 1, 20)
    assert done.about.pooling == "none; mean over inputs"
    assert set(done.skipped) == {
        Skipped("e1", "e1:1", "cannot be read"), Skipped("e1", "e1:3", "is negative"),
        Skipped("e2", "e2:0", "cannot be read"), Skipped("e2", "e2:1", "is negative"),
    }  # fmt: skip
    assert done.table is not None
    assert done.table.read_text().splitlines()[:2] == [
        "entity\torigin\treason", "e1\te1:1\tcannot be read"
    ]  # fmt: skip


def test_a_vector_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    class Broken(Batchy):
        def encode(self, items: Sequence[float]) -> np.ndarray:
            made = super().encode(items)
            made[np.array(items) == 5, 1] = np.inf
            return made

    done = run(tmp_path / "s.h5", encoder=Broken())
    assert [one.entity for one in done.skipped] == ["e5"]
    assert "not finite" in done.skipped[0].reason
    assert vectors(tmp_path / "s.h5")["e5"] is None


def test_strict_stops_at_the_first_input_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"e1:0: cannot be read \(entity 'e1'\) \(--strict\)"):
        run(tmp_path / "s.h5", found=found_of({"e1": [None]}), strict=True)
    known = found_of(numbered(), skipped=[Skipped("e0", "f:3", "the text is empty")])
    with pytest.raises(DataError, match="f:3: the text is empty"):
        run(tmp_path / "s.h5", found=known, strict=True)
    assert not (tmp_path / "s.h5").exists()
    done = run(tmp_path / "s.h5", found=known)
    assert (done.observed, done.failed, len(done.skipped)) == (23, 0, 1)


def test_strict_looks_at_what_was_done_without_it(tmp_path: Path) -> None:
    def stop(calls: int) -> None:
        if calls == 2:
            raise KeyboardInterrupt

    values: dict[str, list[float | None]] = {**numbered(), "e0": [None]}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s.h5", found=found_of(values), encoder=Batchy(stop))
    for _ in range(2):
        with pytest.raises(DataError, match=r"e0:0: cannot be read .* \(--strict\)"):
            run(tmp_path / "s.h5", found=found_of(values), strict=True)
        run(tmp_path / "s.h5", found=found_of(values))


def test_a_job_without_a_usable_input_is_impossible(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"values: no text for any entity of 'ring'$"):
        run(tmp_path / "s.h5", found=found_of({}))
    with pytest.raises(DataError, match="its 3 ids are others .the first is 'x', .*'e0'"):
        run(tmp_path / "s.h5", found=found_of({}, outside=3, outside_example="x"))
    with pytest.raises(DataError, match="no text input could be used; the first: e1:0: cannot"):
        run(tmp_path / "s.h5", found=found_of({"e1": [None], "e2": [-1]}))
    assert not list(tmp_path.iterdir())


def test_a_try_out_takes_the_first_by_id_and_says_so(tmp_path: Path) -> None:
    done = run(tmp_path / "s.h5", limit=3)
    made = vectors(tmp_path / "s.h5")
    assert {name for name, vector in made.items() if vector} == {"e0", "e1", "e10"}
    assert (done.observed, done.not_tried, done.without_input) == (3, 20, 0)
    assert done.about.notes == ("a try-out: 3 of 23 entities with an input",)
    assert run(tmp_path / "t.h5", limit=23).about.notes == ()


def test_a_store_that_is_there_is_kept_and_one_made_otherwise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    values = {**numbered(), "e3": [None]}
    first = run(path, found=found_of(values))
    before = path.read_bytes()
    encoder = Batchy()
    again = run(path, found=found_of(values), encoder=encoder)
    assert (again.already, encoder.batches, path.read_bytes()) == (True, [], before)
    assert (again.observed, again.failed, again.skipped) == (22, 1, first.skipped)
    with pytest.raises(DataError, match=r"made in another way \(preprocess\); --overwrite"):
        run(path, found=found_of(values, preprocess="columns b"))
    with pytest.raises(DataError, match="another type of numbers"):
        run(path, found=found_of(values), dtype="float16")
    run(path, found=found_of(numbered(), preprocess="columns b"), overwrite=True)
    assert vectors(path)["e3"] is not None
    assert not list(tmp_path.glob("*.tsv"))


def test_what_another_job_left_is_refused_until_it_may_be_overwritten(tmp_path: Path) -> None:
    def stop(calls: int) -> None:
        if calls == 2:
            raise KeyboardInterrupt

    path = tmp_path / "s.h5"
    with pytest.raises(KeyboardInterrupt):
        run(path, encoder=Batchy(stop))
    for options in ({"batch_size": 5}, {"limit": 9}, {"dtype": "float16"}):
        with pytest.raises(DataError, match=r"s.h5.part: left by another job"):
            run(path, **options)
    changed = found_of(numbered(), preprocess="other inputs")
    with pytest.raises(DataError, match="left by another job"):
        run(path, found=changed)
    done = run(path, found=changed, overwrite=True)
    assert (done.resumed, done.observed) == (0, 23)


def test_a_kill_between_the_last_two_steps_is_made_up_for(tmp_path: Path) -> None:
    def stop(calls: int) -> None:
        if calls == 2:
            raise KeyboardInterrupt

    path = tmp_path / "s.h5"
    run(path)
    with pytest.raises(KeyboardInterrupt):
        run(path, encoder=Batchy(stop), overwrite=True)
    assert (tmp_path / "s.h5.part").exists()
    assert run(path).already
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5"]


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_two_processes_cannot_make_one_store(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    met: list[str] = []

    def another(calls: int) -> None:
        with pytest.raises(MmkgcError, match="another process is making this store") as refused:
            run(path)
        met.append(str(refused.value))

    run(path, encoder=Batchy(another))
    assert len(met) == 6


def test_an_encoder_that_is_fitted_meets_what_can_be_read(tmp_path: Path) -> None:
    class Fitted(Batchy):
        def fit(self, items: Any) -> None:
            self.met = sorted(items)

    encoder = Fitted()
    run(tmp_path / "s.h5", found=found_of({"e1": [None, 1.0], "e2": [-2.0]}), encoder=encoder)
    assert encoder.met == [-2.0, 1.0]


def test_the_display_hears_of_all_that_is_left_to_do(tmp_path: Path) -> None:
    display = Silent()
    values = {**numbered(), "e3": [None, 3.0]}
    request = ExtractRequest("text", tmp_path / "s.h5", batch_size=4)
    extract(request, graph_of(NAMES), found_of(values), Batchy, display)
    assert display.begun == (24, 24)
    assert (display.inputs, display.work, display.skipped) == (24, 24, 1)
