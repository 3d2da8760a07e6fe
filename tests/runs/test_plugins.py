"""Runs of scorers and samplers that lie in a folder: found again, gone, changed, or raising."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.config import read_config_file
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.evaluation import run_evaluation
from mmkgc_cli.runs.training import resume_training
from mmkgc_cli.scoring.scaffold import write_scorer
from mmkgc_cli.state.atomic import read_json
from mmkgc_cli.state.trace import read_trace
from tests.conftest import Outcome

Run = Callable[..., Outcome]
QUICK = ["--set", "model.dim=4", "--set", "validation.every=1"]


SAMPLER = """
from mmkgc_cli.sampling.samplers.filtered import FilteredSampler

class Own(FilteredSampler):
    pass

SAMPLER = Own
"""


@pytest.fixture
def trained(mmkgc: Run, graph: Graph, tmp_path: Path) -> RunDirectory:
    """A run of ``./scorers/mine.py``, of two epochs."""
    write_graph(graph, tmp_path / "graph")
    write_scorer("mine", "query", tmp_path / "scorers")
    done = mmkgc("train", "mine", "--graph", "graph", "--run", "run", "--epochs", "2", *QUICK)
    assert done.code == 0, done.err
    return RunDirectory(tmp_path / "run")


def edit(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "scorers" / "mine.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_a_scorer_of_a_folder_trains_resumes_and_is_evaluated(
    mmkgc: Run, trained: RunDirectory, tmp_path: Path
) -> None:
    record = read_config_file(trained.config)["plugin"]
    assert record["origin"] == "./scorers"
    assert record["file"] == str(tmp_path / "scorers" / "mine.py")
    assert len(record["sha256"]) == 64
    done = mmkgc("train", "--resume", "run", "--epochs", "3")
    assert done.code == 0, done.err
    done = mmkgc("eval", "run")
    assert done.code == 0, done.err
    assert "warning" not in done.err
    assert read_json(trained.results)["model"]["plugin"] == {**record, "change": None}


def test_the_same_file_elsewhere_is_the_same_scorer(
    trained: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scorers").rename(tmp_path / "moved")
    monkeypatch.setenv("MMKGC_SCORERS", str(tmp_path / "moved"))
    assert resume_training(trained, None, epochs=3).outcome.epochs == 3
    model = run_evaluation(trained, None, "test")["model"]
    assert (model["plugin"]["origin"], model["plugin"]["change"]) == ("MMKGC_SCORERS", None)


def test_a_changed_file_is_not_resumed_and_results_say_so(
    mmkgc: Run, trained: RunDirectory, tmp_path: Path
) -> None:
    weights, config = trained.weights.read_bytes(), trained.config.read_bytes()
    edit(tmp_path, "|_1: replace", "|_1 : replace")
    done = mmkgc("train", "--resume", "run", "--epochs", "3")
    assert done.code == 3
    assert "its scorer 'mine' is scorers/mine.py now (./scorers, SHA-256 " in done.err
    assert "not the file it was trained with" in done.err
    assert "put the old file back to go on, or train into another --run" in done.err
    assert len(done.err.splitlines()) == 1
    assert (trained.weights.read_bytes(), trained.config.read_bytes()) == (weights, config)
    done = mmkgc("eval", "run")
    assert done.code == 0
    assert done.err.splitlines()[0].startswith("uses the scorer 'mine' of scorers/mine.py")
    assert done.err.splitlines()[1].startswith("warning: its scorer 'mine' is scorers/mine.py now")
    assert "is not the file" in read_json(trained.results)["model"]["plugin"]["change"]


def test_results_of_another_file_do_not_stand_beside_those_of_this_one(
    trained: RunDirectory, tmp_path: Path
) -> None:
    run_evaluation(trained, None, "valid")
    edit(tmp_path, "entity - relation", "entity + relation")
    assert set(run_evaluation(trained, None, "test")["metrics"]) == {"test"}


@pytest.mark.parametrize(
    ("old", "new"), [("dim: int = Field(", "width: int = Field("), ("self.relations", "self.r")]
)
def test_a_file_that_no_longer_fits_the_run_says_that_it_was_changed(
    mmkgc: Run, trained: RunDirectory, tmp_path: Path, old: str, new: str
) -> None:
    edit(tmp_path, old, new)
    edit(tmp_path, "config.dim", "128") if "width" in new else None
    done = mmkgc("eval", "run")
    assert done.code == 3
    assert "not the file it was trained with" in done.err


def test_a_file_that_is_gone_is_one_line_that_says_where_it_was(
    mmkgc: Run, trained: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = tmp_path / "scorers"
    for arguments in (["eval", "../run"], ["train", "--resume", "../run", "--epochs", "3"]):
        done = mmkgc(*arguments)
        assert done.code == 3
        expected = (
            "error: ../run: its scorer 'mine' is not found from here, it was "
            f"{folder}/mine.py; set MMKGC_SCORERS={folder}"
        )
        assert done.err.strip() == expected
    (folder / "mine.py").unlink()
    done = mmkgc("eval", "../run")
    assert (done.code, len(done.err.splitlines())) == (3, 1)
    assert f"its scorer 'mine' is gone: it was {folder}/mine.py; put the file back" in done.err
    assert mmkgc("runs", "show", "../run").code == 0


def test_a_built_in_scorer_may_have_been_upgraded(
    mmkgc: Run, trained: RunDirectory, tmp_path: Path
) -> None:
    mmkgc("train", "rotate", "--graph", "graph", "--run", "r", "--epochs", "1", *QUICK)
    run = RunDirectory(tmp_path / "r")
    record = read_config_file(run.config)["plugin"]
    run.config.write_text(run.config.read_text().replace(record["sha256"], "0" * 64))
    assert resume_training(run, None, epochs=2).outcome.epochs == 2
    # A run from before files were recorded, and one of a scorer that is built in no longer.
    text = run.config.read_text()
    start = text.index("[plugin]")
    run.config.write_text(text[:start] + text[text.index("[model]") :])
    assert run_evaluation(run, None, "test")["model"]["plugin"]["change"] is None
    run.config.write_text(run.config.read_text().replace('"rotate"', '"rotated"'))
    with pytest.raises(DataError, match="scorer 'rotated' is not in this version of mmkgc"):
        run_evaluation(run, None, "test")


def test_a_scorer_whose_name_is_taken_is_warned_of(
    mmkgc: Run, trained: RunDirectory, tmp_path: Path
) -> None:
    (tmp_path / "scorers" / "frequency.py").write_text("SCORER = None")
    done = mmkgc("train", "frequency", "--graph", "graph", "--run", "f")
    assert done.code == 0
    assert done.err.startswith("warning: scorers/frequency.py: not used, as the name 'frequency'")


def test_a_scorer_of_triples_trains_and_is_evaluated(
    mmkgc: Run, graph: Graph, tmp_path: Path
) -> None:
    write_graph(graph, tmp_path / "graph")
    write_scorer("mine", "triple", tmp_path / "scorers")
    done = mmkgc("train", "mine", "--graph", "graph", "--run", "run", "--epochs", "2", *QUICK)
    assert done.code == 0, done.err
    assert mmkgc("eval", "run").code == 0


def test_a_sampler_of_a_folder_is_recorded_and_another_file_is_not_resumed_with(
    mmkgc: Run, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_graph(graph, tmp_path / "graph")
    file = tmp_path / "samplers" / "own.py"
    file.parent.mkdir()
    file.write_text(SAMPLER)
    options = ["--graph", "graph", "--run", "run", "--epochs", "1", *QUICK]
    done = mmkgc("train", "rotate", *options, "--set", "negatives.sampler=own")
    assert done.code == 0, done.err
    run = RunDirectory(tmp_path / "run")
    record = read_config_file(run.config)["sampler_plugin"]
    assert (record["origin"], record["file"]) == ("./samplers", str(file))
    assert len(record["sha256"]) == 64
    assert mmkgc("train", "--resume", "run", "--epochs", "2").code == 0
    file.write_text(SAMPLER + "# edited")
    done = mmkgc("train", "--resume", "run", "--epochs", "3")
    assert done.code == 3
    assert "its sampler 'own' is samplers/own.py now (./samplers, SHA-256 " in done.err
    file.write_text(SAMPLER)
    file.parent.rename(tmp_path / "moved")
    done = mmkgc("train", "--resume", "run", "--epochs", "3")
    assert (done.code, len(done.err.splitlines())) == (3, 1)
    assert f"its sampler 'own' is gone: it was {file}; put the file back" in done.err
    assert "MMKGC_SAMPLERS" in done.err
    # Ranking needs no sampler.
    assert mmkgc("eval", "run").code == 0
    assert read_json(run.results)["model"]["sampler"]["plugin"] == record
    monkeypatch.setenv("MMKGC_SAMPLERS", "moved")
    assert mmkgc("train", "--resume", "run", "--epochs", "3").code == 0


def test_a_sampler_whose_name_is_taken_is_warned_of(
    mmkgc: Run, graph: Graph, tmp_path: Path
) -> None:
    write_graph(graph, tmp_path / "graph")
    (tmp_path / "samplers").mkdir()
    (tmp_path / "samplers" / "filtered.py").write_text(SAMPLER)
    done = mmkgc("train", "rotate", "--graph", "graph", "--run", "r", "--epochs", "1", *QUICK)
    assert done.code == 0
    assert done.err.startswith("warning: samplers/filtered.py: not used, as the name 'filtered'")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "entity = lookup(",
            "entity = int('one\\ntwo'), (",
            "Mine.query: ValueError: invalid",
        ),
        ("return entity + ", "return entity @ ", "Mine.query: RuntimeError: mat1 and mat2 shapes"),
        ("bound = config", "bound = 1 / 0 * config", "Mine.__init__: ZeroDivisionError: division"),
    ],
)
def test_what_a_plugin_raises_is_one_line_with_its_file(
    mmkgc: Run, trained: RunDirectory, tmp_path: Path, old: str, new: str, said: str
) -> None:
    edit(tmp_path, old, new)
    lines = (tmp_path / "scorers" / "mine.py").read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(lines) if new in text)
    weights = trained.weights.read_bytes()
    new_run = ["train", "mine", "--graph", "graph", "--run", "run"]
    for command in ([*new_run, "--overwrite"], [*new_run, "--dry-run"], ["eval", "run"]):
        done = mmkgc(*command)
        assert done.code == 3
        assert f"error: scorers/mine.py:{line}: {said}" in done.err.splitlines()[-1]
    # What failed before its first step has replaced nothing.
    assert trained.weights.read_bytes() == weights


def test_what_a_plugin_raises_in_a_step_is_in_the_trace(
    mmkgc: Run, trained: RunDirectory, tmp_path: Path
) -> None:
    edit(
        tmp_path,
        "        entity = look",
        "        assert not self.training, 'x'; entity = look",
    )
    done = mmkgc("train", "mine", "--graph", "graph", "--run", "run", "--overwrite", *QUICK)
    assert done.code == 3
    event = read_trace(trained.trace)[-1]
    assert event["event"] == "error"
    assert "Mine.query: AssertionError: x; " in event["message"]
    assert done.err.splitlines()[-1] == f"error: {event['message']}"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["loss.name=entropy-weighted", "loss.thresholds=[0.8, 0.2]"],
         "loss.thresholds must ascend, got 0.8 before 0.2"),
        (["negatives.sampler=shared", "negatives.corrupted_side=per-positive"], "'shared' chooses"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_leave_the_run_that_is_there(
    mmkgc: Run, trained: RunDirectory, settings: list[str], said: str
) -> None:
    weights = trained.weights.read_bytes()
    sets = [part for setting in settings for part in ("--set", setting)]
    done = mmkgc("train", "mine", "--graph", "graph", "--run", "run", "--overwrite", *sets)
    assert (done.code, len(done.err.splitlines())) == (3, 1)
    assert said in done.err
    assert trained.weights.read_bytes() == weights


def test_what_mmkgc_itself_raises_is_no_fault_of_a_plugin(
    mmkgc: Run, trained: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("of ours")

    monkeypatch.setattr("mmkgc_cli.runs.evaluation.rank", broken)
    done = mmkgc("eval", "run")
    assert done.code == 1
    assert "internal error: ValueError: of ours; report it" in done.err
