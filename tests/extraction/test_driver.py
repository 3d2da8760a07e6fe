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
from mmkgc_cli.extraction.contract import Encoder, EncoderMetadata, Input, InputSet, Skip, Skipped
from mmkgc_cli.extraction.driver import ExtractionResult, ExtractRequest, extract
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from tests.features.small import graph_of

NAMES = [f"e{i}" for i in range(23)]


class RecordedProgress:
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
    """Every vector depends on its batch, like rounding in a real encoder."""

    metadata = EncoderMetadata("batchy", "1", "nothing", "none")
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


def input_set_of(values: Mapping[str, Sequence[float | None]], **others: Any) -> InputSet[float]:
    inputs = {
        name: [
            Input(name, f"{name}:{i}", _unreadable if v is None else functools.partial(float, v))
            for i, v in enumerate(entity_values)
        ]
        for name, entity_values in values.items()
    }
    return InputSet(inputs, "values sha256 0", **others)


def numbered(names: Sequence[str] = NAMES) -> dict[str, list[float | None]]:
    return {name: [float(name[1:])] for name in names}


def extract_to(
    path: Path, graph: Graph | None = None, input_set: InputSet[float] | None = None,
    encoder: Encoder[float] | None = None, **options: Any,
) -> ExtractionResult:  # fmt: skip
    request = ExtractRequest("text", path, **{"batch_size": 4, **options})
    inputs = input_set or input_set_of(numbered())
    return extract(
        request, graph or graph_of(NAMES), inputs, lambda: encoder or Batchy(), RecordedProgress()
    )


def vectors(path: Path) -> dict[str, tuple[float, ...] | None]:
    with FeatureStore(path) as store:
        store.verify()
        return {
            name: tuple(row) if is_observed else None
            for name, row, is_observed in zip(
                store.ids, store.read().tolist(), store.observed, strict=True
            )
        }


def test_rows_stand_in_the_order_of_the_graph_and_absent_inputs_are_unobserved(
    tmp_path: Path,
) -> None:
    input_set = input_set_of(
        numbered(NAMES[3:]), outside=2, outside_example="other", preprocess="a"
    )
    done = extract_to(tmp_path / "s.h5", input_set=input_set, dtype="float16", compression="gzip")
    with FeatureStore(tmp_path / "s.h5") as store:
        assert store.ids == NAMES
        assert store.observed.tolist() == [False] * 3 + [True] * 20
        assert store.read()[:, 0].tolist() == [0.0] * 3 + list(range(3, 23))
        assert (store.dtype.name, store.compression) == ("float16", "gzip")
        metadata = store.metadata
    assert (metadata.encoder, metadata.revision, metadata.preprocess) == (
        "batchy",
        "1",
        "a; nothing",
    )
    assert (metadata.graph, metadata.source, metadata.modality) == (
        "ring",
        "values sha256 0",
        "text",
    )
    assert (done.observed, done.without_input, done.failed, done.outside) == (20, 3, 0, 2)
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob("*.tsv"))


@given(st.permutations(NAMES), st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_the_order_of_a_graph_changes_no_vector(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], batch_size: int
) -> None:
    folder = tmp_path_factory.mktemp("order")
    extract_to(folder / "a.h5", batch_size=batch_size)
    given_order = {name: numbered()[name] for name in names}
    extract_to(folder / "b.h5", graph_of(names), input_set_of(given_order), batch_size=batch_size)
    assert vectors(folder / "a.h5") == vectors(folder / "b.h5")


def test_large_inputs_come_first_and_share_batches(tmp_path: Path) -> None:
    encoder = Batchy()
    input_set = input_set_of(numbered())
    sized = {
        name: [dataclasses.replace(entry, size=int(name[1:])) for entry in inputs]
        for name, inputs in input_set.inputs.items()
    }
    extract_to(
        tmp_path / "s.h5", input_set=dataclasses.replace(input_set, inputs=sized), encoder=encoder
    )
    assert encoder.batches == [[float(i) for i in range(high, max(high - 4, -1), -1)]
                               for high in range(22, -1, -4)]  # fmt: skip


@given(st.integers(0, 1 << 16), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path_factory: pytest.TempPathFactory, seed: int, batch_size: int
) -> None:
    folder = tmp_path_factory.mktemp("stop")
    rng = random.Random(seed)
    values: dict[str, list[float | None]] = {
        name: [rng.choice([None, -1.0, 1.0, 2.0, 3.0]) for _ in range(rng.randint(1, 6))]
        for name in NAMES[:-1]
    }
    values[NAMES[-1]] = [1.0]
    uninterrupted = extract_to(
        folder / "a.h5", input_set=input_set_of(values), batch_size=batch_size
    )

    class Stopped(Exception):
        pass

    def stopping(calls: int) -> None:
        if calls == stop_after:
            raise Stopped

    while True:
        stop_after = rng.randint(1, 8)
        try:
            done = extract_to(
                folder / "b.h5",
                input_set=input_set_of(values),
                encoder=Batchy(stopping),
                batch_size=batch_size,
            )
        except Stopped:
            continue
        break
    assert vectors(folder / "a.h5") == vectors(folder / "b.h5")
    assert done.skipped == uninterrupted.skipped
    assert done.observed == uninterrupted.observed
    if uninterrupted.skipped:
        tables = [(folder / f"{name}.skipped.tsv").read_bytes() for name in "ab"]
        assert tables[0] == tables[1]


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_batch_and_the_same_request_resumes(
    tmp_path: Path, number: int
) -> None:
    def interrupt(calls: int) -> None:
        if calls == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="stopped after 12 of 23 entities") as stopped:
        extract_to(tmp_path / "s.h5", encoder=Batchy(interrupt))
    assert stopped.value.exit_code == 128 + number
    assert not (tmp_path / "s.h5").exists()
    encoder = Batchy()
    done = extract_to(tmp_path / "s.h5", encoder=encoder)
    assert (done.resumed, done.observed, done.inputs) == (12, 23, 11)
    assert len(encoder.batches) == 3
    extract_to(tmp_path / "whole.h5")
    assert vectors(tmp_path / "s.h5") == vectors(tmp_path / "whole.h5")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_several_inputs_become_the_mean_of_those_that_can_be_used(
    tmp_path: Path, batch_size: int
) -> None:
    values: dict[str, list[float | None]] = {
        "e1": [2.0, None, 4.0, -1.0, 9.0], "e2": [None, -3.0], "e3": [7.0],
    }  # fmt: skip
    done = extract_to(tmp_path / "s.h5", input_set=input_set_of(values), batch_size=batch_size)
    result = vectors(tmp_path / "s.h5")
    assert result["e1"] is not None
    assert result["e3"] is not None
    assert (result["e1"][0], result["e2"], result["e3"][0]) == (5.0, None, 7.0)
    assert (done.observed, done.failed, done.without_input) == (2, 1, 20)
    assert done.metadata.pooling == "none; mean over inputs"
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
            result = super().encode(items)
            result[np.array(items) == 5, 1] = np.inf
            return result

    done = extract_to(tmp_path / "s.h5", encoder=Broken())
    assert [entry.entity for entry in done.skipped] == ["e5"]
    assert "not finite" in done.skipped[0].reason
    assert vectors(tmp_path / "s.h5")["e5"] is None


def test_strict_stops_at_the_first_input_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"e1:0: cannot be read \(entity 'e1'\) \(--strict\)"):
        extract_to(tmp_path / "s.h5", input_set=input_set_of({"e1": [None]}), strict=True)
    expected = input_set_of(numbered(), skipped=[Skipped("e0", "f:3", "the text is empty")])
    with pytest.raises(DataError, match="f:3: the text is empty"):
        extract_to(tmp_path / "s.h5", input_set=expected, strict=True)
    assert not (tmp_path / "s.h5").exists()
    done = extract_to(tmp_path / "s.h5", input_set=expected)
    assert (done.observed, done.failed, len(done.skipped)) == (23, 0, 1)


def test_strict_fails_on_inputs_skipped_before(tmp_path: Path) -> None:
    def stop(calls: int) -> None:
        if calls == 2:
            raise KeyboardInterrupt

    values: dict[str, list[float | None]] = {**numbered(), "e0": [None]}
    with pytest.raises(KeyboardInterrupt):
        extract_to(tmp_path / "s.h5", input_set=input_set_of(values), encoder=Batchy(stop))
    for _ in range(2):
        with pytest.raises(DataError, match=r"e0:0: cannot be read .* \(--strict\)"):
            extract_to(tmp_path / "s.h5", input_set=input_set_of(values), strict=True)
        extract_to(tmp_path / "s.h5", input_set=input_set_of(values))


def test_a_job_without_a_usable_input_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"values: no text for any entity of 'ring'; check --input"):
        extract_to(tmp_path / "s.h5", input_set=input_set_of({}))
    with pytest.raises(DataError, match="its 3 ids are not in the graph .the first is 'x', .*'e0'"):
        extract_to(tmp_path / "s.h5", input_set=input_set_of({}, outside=3, outside_example="x"))
    with pytest.raises(DataError, match="no text input could be used; the first: e1:0: cannot"):
        extract_to(tmp_path / "s.h5", input_set=input_set_of({"e1": [None], "e2": [-1]}))
    assert not list(tmp_path.iterdir())


def test_a_limit_takes_the_first_by_id_and_is_recorded(tmp_path: Path) -> None:
    done = extract_to(tmp_path / "s.h5", limit=3)
    result = vectors(tmp_path / "s.h5")
    assert {name for name, vector in result.items() if vector} == {"e0", "e1", "e10"}
    assert (done.observed, done.not_tried, done.without_input) == (3, 20, 0)
    assert done.metadata.notes == ("a try-out: 3 of 23 entities with an input",)
    assert extract_to(tmp_path / "t.h5", limit=23).metadata.notes == ()


def test_an_equal_store_is_kept_and_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    values: dict[str, list[float | None]] = {**numbered(), "e3": [None]}
    reference = extract_to(path, input_set=input_set_of(values))
    before = path.read_bytes()
    encoder = Batchy()
    again = extract_to(path, input_set=input_set_of(values), encoder=encoder)
    assert (again.already, encoder.batches, path.read_bytes()) == (True, [], before)
    assert (again.observed, again.failed, again.skipped) == (22, 1, reference.skipped)
    with pytest.raises(DataError, match=r"exists with other settings \(preprocess\); add"):
        extract_to(path, input_set=input_set_of(values, preprocess="columns b"))
    with pytest.raises(DataError, match="dtype or width"):
        extract_to(path, input_set=input_set_of(values), dtype="float16")
    extract_to(path, input_set=input_set_of(numbered(), preprocess="columns b"), overwrite=True)
    assert vectors(path)["e3"] is not None
    assert not list(tmp_path.glob("*.tsv"))


def test_a_part_of_another_job_is_refused_without_overwrite(tmp_path: Path) -> None:
    def stop(calls: int) -> None:
        if calls == 2:
            raise KeyboardInterrupt

    path = tmp_path / "s.h5"
    with pytest.raises(KeyboardInterrupt):
        extract_to(path, encoder=Batchy(stop))
    for options in ({"batch_size": 5}, {"limit": 9}, {"dtype": "float16"}):
        with pytest.raises(DataError, match=r"s.h5.part: left by another job"):
            extract_to(path, **options)
    changed = input_set_of(numbered(), preprocess="other inputs")
    with pytest.raises(DataError, match="left by another job"):
        extract_to(path, input_set=changed)
    done = extract_to(path, input_set=changed, overwrite=True)
    assert (done.resumed, done.observed) == (0, 23)


def test_a_part_left_beside_a_finished_store_is_removed(tmp_path: Path) -> None:
    def stop(calls: int) -> None:
        if calls == 2:
            raise KeyboardInterrupt

    path = tmp_path / "s.h5"
    extract_to(path)
    with pytest.raises(KeyboardInterrupt):
        extract_to(path, encoder=Batchy(stop), overwrite=True)
    assert (tmp_path / "s.h5.part").exists()
    assert extract_to(path).already
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5"]


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_two_processes_cannot_make_one_store(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    fitted_items: list[str] = []

    def another(calls: int) -> None:
        with pytest.raises(MmkgcError, match="another process is making this store") as refused:
            extract_to(path)
        fitted_items.append(str(refused.value))

    extract_to(path, encoder=Batchy(another))
    assert len(fitted_items) == 6


def test_an_encoder_is_fitted_to_the_readable_inputs(tmp_path: Path) -> None:
    class Fitted(Batchy):
        def fit(self, items: Any) -> None:
            self.fitted_items = sorted(items)

    encoder = Fitted()
    extract_to(
        tmp_path / "s.h5",
        input_set=input_set_of({"e1": [None, 1.0], "e2": [-2.0]}),
        encoder=encoder,
    )
    assert encoder.fitted_items == [-2.0, 1.0]


def test_the_progress_counts_the_remaining_inputs(tmp_path: Path) -> None:
    display = RecordedProgress()
    values: dict[str, list[float | None]] = {**numbered(), "e3": [None, 3.0]}
    request = ExtractRequest("text", tmp_path / "s.h5", batch_size=4)
    extract(request, graph_of(NAMES), input_set_of(values), Batchy, display)
    assert display.begun == (24, 24)
    assert (display.inputs, display.work, display.skipped) == (24, 24, 1)
