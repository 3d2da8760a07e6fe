from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, Interrupted, MmkgcError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.cleaning import plan, remove
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.directory import OWN_FILES, RunDirectory
from mmkgc_cli.runs.evaluation import run_evaluation
from mmkgc_cli.runs.listing import list_runs
from mmkgc_cli.runs.status import State, inspect, is_run
from mmkgc_cli.runs.training import resume_training, run_training
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.state.atomic import abandoned
from mmkgc_cli.training.loop import Callback
from tests.conftest import random_graph
from tests.runs.test_resume import StopAfter

SETTINGS = ["training.epochs=4", "validation.every=2", "model.dim=4", "training.batch_size=64"]
EVERY_STEP = "checkpoints.seconds=0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that ended in each way; tests that change one copy them."""
    top = tmp_path_factory.mktemp("trained")
    write_graph(random_graph(40, 5, 300, seed=0), top / "graph")

    def train(name: str, *callbacks: Callback) -> None:
        settings = [*SETTINGS, EVERY_STEP]
        config = resolve("rotate", load_scorer("rotate").Config, overrides=settings)
        run_training(config, top / "graph", RunDirectory(top / "runs" / name), callbacks)

    train("finished")
    run_evaluation(RunDirectory(top / "runs" / "finished"), None, "test")
    with pytest.raises(Interrupted):
        train("deep/interrupted", StopAfter(10))
    shutil.copytree(top / "runs" / "finished", top / "runs" / "killed")
    cut_trace(top / "runs" / "killed", 3)
    (top / "runs" / "killed" / "results.json").unlink()
    shutil.copytree(top / "runs" / "killed", top / "runs" / "failed")
    shutil.rmtree(top / "runs" / "failed" / "checkpoints")
    (top / "runs" / "failed" / "model.safetensors").unlink()
    with (top / "runs" / "failed" / "trace.jsonl").open("a") as file:
        file.write('{"event": "error", "seconds": 1.0, "message": "the [bold]loss"}\n')
    return top / "runs"


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def cut_trace(run: Path, lines: int) -> None:
    trace = run / "trace.jsonl"
    trace.write_text("".join(trace.read_text().splitlines(keepends=True)[:lines]))


def states(folder: Path) -> dict[str, str]:
    return {run.name: run.state.value for run in list_runs(folder)}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def leave_temporary(folder: Path, name: str) -> Path:
    """What a process that is dead by now left of writing `name`."""
    code = (
        "import os, pathlib, sys; from mmkgc_cli.state.atomic import _HOST;"
        "p = pathlib.Path(sys.argv[1], f'.{sys.argv[2]}.{_HOST}-{os.getpid()}.tmp');"
        "p.write_bytes(b'12345'); print(p)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder, name], capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


def test_each_run_is_in_the_state_it_ended_in(runs: Path) -> None:
    assert states(runs) == {
        "finished": "finished",
        "deep/interrupted": "interrupted",
        "killed": "interrupted",
        "failed": "failed",
    }
    found = {run.name: run for run in list_runs(runs)}
    done = found["finished"]
    assert (done.scorer, done.graph, done.epochs, done.epochs_asked) == ("rotate", "random", 4, 4)
    assert done.valid_mrr is not None
    assert done.test_mrr is not None
    assert found["deep/interrupted"].why == "after epoch 2 of 4"
    assert found["failed"].why == "the [bold]loss"


def test_the_last_touched_comes_first(runs: Path) -> None:
    os.utime(runs / "killed" / "trace.jsonl", (2e9, 2e9))
    assert list_runs(runs)[0].name == "killed"
    assert list_runs(runs)[0].touched == 2e9


@pytest.mark.parametrize("name", ["config.toml", "trace.jsonl", "environment.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"[1]\n[2]\n", b"x = \n\n", b"null"])
def test_a_damaged_run_hides_no_other(runs: Path, name: str, content: bytes) -> None:
    before = states(runs)
    (runs / "killed" / name).write_bytes(content)
    after = states(runs)
    assert after.pop("killed") in ("damaged", "interrupted")  # an empty trace is one of no events
    assert after.items() <= before.items()
    assert len(after) == len(before) - 1


@pytest.mark.parametrize("name", ["model.safetensors", "results.json"])
def test_a_run_that_lost_half_of_a_file_says_of_which(runs: Path, name: str) -> None:
    path = runs / "finished" / name
    path.write_bytes(path.read_bytes()[:-100])
    run = inspect(runs / "finished")
    assert run.state is State.damaged
    assert run.why.startswith(str(path))
    assert "\n" not in run.why


def test_a_finished_run_without_weights_is_damaged(runs: Path) -> None:
    (runs / "finished" / "model.safetensors").unlink()
    assert "model.safetensors: no such file" in inspect(runs / "finished").why


@given(st.sampled_from([*OWN_FILES[:5], "checkpoint"]), st.binary(max_size=60), st.integers(0, 400))
def test_no_content_of_a_file_is_an_error(
    trained: Path, tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes, at: int
) -> None:
    run = Path(shutil.copytree(trained / "finished", tmp_path_factory.mktemp("any") / "run"))
    path = run / name
    if name == "checkpoint":
        path = sorted((run / "checkpoints").glob("*.safetensors"))[-1]
    old = path.read_bytes()
    path.write_bytes(old[:at] + content + old[at + len(content) :])
    found = inspect(run)
    assert found.state in State
    assert json.dumps([found.valid_mrr, found.test_mrr, found.seconds], allow_nan=False)
    path.write_bytes(content)
    assert inspect(run).state in State


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["event", "epoch", "valid", "mrr", "metrics", "test", "both", "model"]),
        inner, max_size=3,
    ),
)  # fmt: skip


@given(json_values, st.sampled_from(["start", "epoch", "end", "error"]))
def test_no_value_in_a_file_is_an_error(
    trained: Path, tmp_path_factory: pytest.TempPathFactory, value: object, event: str
) -> None:
    run = tmp_path_factory.mktemp("any")
    shutil.copy(trained / "finished" / "config.toml", run)
    fields = dict.fromkeys(("epoch", "epochs", "valid", "seconds", "stopped", "message"), value)
    (run / "trace.jsonl").write_text(json.dumps({**fields, "event": event}) + "\n")
    (run / "results.json").write_text(json.dumps({"metrics": value, "model": value}))
    assert inspect(run).why is not None


def test_a_pipe_in_place_of_a_file_makes_nobody_wait(runs: Path) -> None:
    for name in ("config.toml", "trace.jsonl", "model.safetensors", "results.json"):
        (runs / "killed" / name).unlink(missing_ok=True)
        os.mkfifo(runs / "killed" / name)
    assert states(runs)["killed"] == "damaged"


def test_sizes_add_up_and_links_count_for_nothing(runs: Path, tmp_path: Path) -> None:
    run = runs / "finished"
    expected = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    (run / "notes.txt").write_text("mine")
    (run / "ranks-valid.tsv").symlink_to(run / "trace.jsonl")
    assert inspect(run).bytes == expected


def test_folders_of_others_and_links_are_no_runs(runs: Path, tmp_path: Path) -> None:
    before = states(runs)
    (runs / "site").mkdir()
    (runs / "site" / "config.toml").write_text('title = "a web site"\n')
    (runs / "link").symlink_to(runs / "finished")
    (runs / "around").symlink_to(runs)
    assert states(runs) == before
    assert not is_run(runs)


def test_a_folder_that_is_a_run_is_listed_itself(runs: Path) -> None:
    assert states(runs / "finished") == {"finished": "finished"}
    with pytest.raises(DataError, match="nowhere: no such folder"):
        list_runs(runs / "nowhere")


def test_results_of_earlier_weights_are_not_those_of_the_run(runs: Path) -> None:
    resume_training(RunDirectory(runs / "finished"), None, epochs=40)
    run = inspect(runs / "finished")
    assert run.outdated_results
    assert run.test_mrr is None


def test_a_running_run_is_shown_as_such_and_never_cleaned(runs: Path) -> None:
    leave_temporary(runs / "finished", "results.json")
    before = snapshot(runs)
    with RunDirectory(runs / "finished").locked():
        assert states(runs)["finished"] == "running"
        assert "finished" not in [removal.run.name for removal in plan(runs, failed=True)]
    planned = next(r for r in plan(runs, failed=False) if r.run.name == "finished")
    with RunDirectory(runs / "finished").locked():  # it was resumed in between
        done = remove(planned, failed=False)
        assert not done.files
        assert "another process trains this run" in done.problems[0]
    assert snapshot(runs) == before


def test_who_only_looks_keeps_no_training_from_starting(runs: Path) -> None:
    run = RunDirectory(runs / "killed")
    code = (
        "import sys, pathlib; from mmkgc_cli.runs.directory import RunDirectory;"
        "run = RunDirectory(pathlib.Path(sys.argv[1])); print(flush=True)\n"
        "while True: run.is_locked()"
    )
    with subprocess.Popen([sys.executable, "-c", code, run.path], stdout=subprocess.PIPE) as looker:
        try:
            assert looker.stdout is not None
            looker.stdout.readline()
            for _ in range(20):
                with run.locked():
                    pass
        finally:
            looker.kill()


def test_looking_and_planning_change_nothing(runs: Path) -> None:
    leave_temporary(runs / "killed", "trace.jsonl")
    before = snapshot(runs)
    assert plan(runs, failed=True)
    assert snapshot(runs) == before


def test_cleaning_takes_the_checkpoints_of_finished_runs_alone(runs: Path) -> None:
    before, sizes = snapshot(runs), {run.name: run.bytes for run in list_runs(runs)}
    done = [remove(removal, failed=False) for removal in plan(runs, failed=False)]
    assert [removal.run.name for removal in done] == ["finished"]
    gone = before.keys() - snapshot(runs).keys()
    assert gone
    assert all(name.startswith("finished/checkpoints/0") for name in gone)
    left = {run.name: run.bytes for run in list_runs(runs)}
    assert sizes["finished"] - left["finished"] == done[0].bytes
    assert not plan(runs, failed=False)
    run_evaluation(RunDirectory(runs / "finished"), None, "valid")
    resume_training(RunDirectory(runs / "deep" / "interrupted"), None)


def test_failed_runs_go_whole_but_not_what_others_put_there(runs: Path) -> None:
    shutil.copytree(runs / "failed", runs / "mixed")
    (runs / "mixed" / "notes.txt").write_text("mine")
    for removal in plan(runs, failed=True):
        assert not remove(removal, failed=True).problems
    assert not (runs / "failed").exists()
    assert [path.name for path in (runs / "mixed").iterdir()] == ["notes.txt"]
    assert states(runs).keys() == {"finished", "deep/interrupted", "killed"}


def test_a_run_that_can_go_on_is_kept_though_it_has_no_weights(runs: Path) -> None:
    (runs / "killed" / "model.safetensors").unlink()
    assert "killed" not in [r.run.name for r in plan(runs, failed=True)]
    shutil.rmtree(runs / "killed" / "checkpoints")
    assert "killed" in [r.run.name for r in plan(runs, failed=True)]


def test_leftovers_of_dead_processes_go_and_nothing_that_looks_alike(runs: Path) -> None:
    run = runs / "deep" / "interrupted"
    gone = [
        leave_temporary(run, "model.safetensors"),
        leave_temporary(run / "checkpoints", "000000000009.safetensors"),
    ]
    kept = [leave_temporary(run, "notes.txt"), gone[0].with_name(".config.toml.else-1.tmp")]
    kept.append(run / gone[0].name.replace(gone[0].name.rpartition("-")[2], f"{os.getpid()}.tmp"))
    for path in kept:
        path.write_bytes(b"x")
    (removal,) = (r for r in plan(runs, failed=False) if r.run.name == "deep/interrupted")
    assert {file.path for file in removal.files} == set(gone)
    assert removal.bytes == 10
    remove(removal, failed=False)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)


def test_what_lies_behind_a_link_stays(runs: Path, tmp_path: Path) -> None:
    shutil.move(runs / "finished" / "checkpoints", tmp_path / "elsewhere")
    (runs / "finished" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    shutil.move(runs / "killed", tmp_path / "killed")
    (runs / "killed").symlink_to(tmp_path / "killed")
    before = snapshot(tmp_path / "elsewhere") | snapshot(tmp_path / "killed")
    assert all(r.run.name == "failed" for r in plan(runs, failed=True))
    assert snapshot(tmp_path / "elsewhere") | snapshot(tmp_path / "killed") == before


def test_checkpoints_stay_where_the_weights_turn_out_damaged(runs: Path) -> None:
    weights = runs / "finished" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (removal,) = plan(runs, failed=False)
    done = remove(removal, failed=False)
    assert "keeps its checkpoints" in done.problems[0]
    assert not done.files
    assert inspect(runs / "finished").checkpoints


def test_a_run_without_a_lock_gets_none_by_cleaning(runs: Path) -> None:
    shutil.rmtree(runs / "finished" / "checkpoints")
    leave_temporary(runs / "finished", "results.json")
    (removal,) = plan(runs, failed=False)
    remove(removal, failed=False)
    assert not (runs / "finished" / "checkpoints").exists()
    assert not list(abandoned(runs / "finished"))


def test_a_lock_that_was_cleaned_away_is_no_lock(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with run.locked():
        run.lock.unlink()
        with run.locked(), pytest.raises(MmkgcError, match="another process"), run.locked():
            pass


def test_listing_needs_no_torch(runs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mmkgc_cli.runs.cleaning import plan;"
        "assert plan(Path(sys.argv[1]), True); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, runs], check=True)


def test_a_frequency_run_has_its_valid_mrr(graph: Graph, tmp_path: Path) -> None:
    write_graph(graph, tmp_path / "graph")
    config = resolve("frequency", load_scorer("frequency").Config, overrides=[])
    run = RunDirectory(tmp_path / "run")
    trained = run_training(config, tmp_path / "graph", run)
    assert inspect(run.path).valid_mrr == trained.valid["mrr"]


def test_the_signal_that_stopped_a_run_is_known(runs: Path) -> None:
    assert inspect(runs / "deep" / "interrupted").stopped == f"signal {int(signal.SIGTERM)}"
