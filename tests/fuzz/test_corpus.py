from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmkgc_cli.state import sandbox
from tests.fuzz.faulty_targets import LINE_OF_ERROR
from tests.fuzz.run import Runner, plan
from tests.fuzz.targets import CORPUS, TARGETS, check, examples, generate

FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())
# Inputs per target: HDF5 is read in a process per file, and recipes and runs are slow to plan.
COUNTS = {"recipe": 12, "run_files": 20, "store_use": 10, "hdf5_import": 50, "graph_h5": 30}
COUNTS |= {"store": 50, "completion": 40, "npy": 60, "vectors_tsv": 60}

pytest.importorskip("pyoxigraph")


@pytest.fixture(scope="module", autouse=True)
def _one_server_and_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMKGC_HOME", str(tmp_path_factory.mktemp("home")))
        yield
    sandbox.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_inputs_of_the_corpus_are_read_or_refused_in_one_line(path: Path, tmp_path: Path) -> None:
    check(path.parent.name, path.read_bytes(), tmp_path)


def test_every_target_has_valid_or_kept_inputs_and_the_corpus_is_small() -> None:
    assert {path.parent.name for path in FILES} <= set(TARGETS)
    assert all(examples(name) for name in TARGETS)
    assert sum(path.stat().st_size for path in FILES) < 100_000


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_from_a_seed_are_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    for number in range(COUNTS.get(name, 100)):
        data = generate(name, 0, number)
        try:
            check(name, data, tmp_path)
        except Exception as error:
            command = f"python -m tests.fuzz.run --target {name} --seed 0 --input {number}"
            raise AssertionError(f"reproduce with: {command}") from error


@pytest.mark.parametrize("name", TARGETS)
def test_some_valid_inputs_of_every_target_are_accepted(name: str, tmp_path: Path) -> None:
    assert any(check(name, data, tmp_path) for data in examples(name))


def test_every_chunk_of_a_plan_counts_once_and_hdf5_has_a_tenth() -> None:
    chunks = plan(list(TARGETS), 2_000_000)
    counts = dict.fromkeys(TARGETS, 0)
    for name, start, stop in chunks:
        assert 0 < stop - start <= 500
        counts[name] += stop - start
    assert sum(counts.values()) == 2_000_000
    assert sum(counts[name] for name in TARGETS if TARGETS[name].decisions) == 200_000


def test_readers_that_crash_hang_or_raise_are_failures_of_their_inputs() -> None:
    runner = Runner(["hrt"], 12, 0, seconds=0.5, module="tests.fuzz.faulty_targets")
    runner.run(1)
    tally = runner.tallies["hrt"]
    assert dict(tally.failures) == {
        "the process died (SIGSEGV)": [2],
        "hung for 0.5 s": [5],
        f"KeyError at faulty_targets.py:{LINE_OF_ERROR}": [8],
    }
    assert tally.inputs == 12
