from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs import benchmarking
from tests.conftest import ROOT, Outcome, random_graph

Run = Callable[..., Outcome]


def test_list_shows_usable_scorers_and_warns_of_broken_ones(mmkgc: Run, tmp_path: Path) -> None:
    assert mmkgc("scorers", "new", "mine").code == 0
    (tmp_path / "scorers" / "broken.py").write_text("def f(:")
    (tmp_path / "scorers" / "rotate.py").write_text("SCORER = None")
    done = mmkgc("scorers", "list")
    assert done.code == 0
    listed = {line.split()[0]: line for line in done.out.splitlines()}
    built_in = sorted(p.stem for p in (ROOT / "scorers").glob("[a-z]*.py"))
    assert list(listed) == ["scorer", *built_in, "mine"]
    assert listed["mine"].split()[1:5] == ["./scorers", "One", "line", "about"]
    broken, warning = done.err.splitlines()
    assert broken == "broken: scorers/broken.py:1: not valid Python: invalid syntax"
    assert warning.startswith("warning: scorers/rotate.py: not used, as the name 'rotate'")
    output = json.loads(mmkgc("scorers", "list", "--json").out)
    assert {entry["name"]: bool(entry["problem"]) for entry in output["scorers"]} == {
        **dict.fromkeys(built_in, False),
        "broken": True,
        "mine": False,
    }
    assert output["problems"] == [warning.removeprefix("warning: ")]


def test_show_prints_the_citation_and_every_setting(mmkgc: Run) -> None:
    output = json.loads(mmkgc("scorers", "show", "rotate", "--json").out)
    assert output["citation"].startswith("Zhiqing Sun")
    assert (output["metric"], output["two_way"]) == ("modulus", True)
    assert output["settings"]["model.dim"] == {
        "type": "int",
        "default": 128,
        "required": False,
        "range": ">= 1, <= 65,536",
        "help": "Complex width: 2 x dim real numbers.",
    }
    shown = mmkgc("scorers", "show", "rotate").out
    assert "model.margin  float  9.0      > 0, <= 1e+06" in shown
    assert "Zhiqing Sun" in shown
    done = mmkgc("scorers", "show", "rotat")
    assert (done.code, done.err) == (
        2, "error: no scorer is called 'rotat'; did you mean 'rotate'?\n"
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["query", "triple"])
def test_new_writes_a_scorer_that_can_be_shown(mmkgc: Run, tmp_path: Path, kind: str) -> None:
    done = mmkgc("scorers", "new", "mine", "--kind", kind, "--json")
    output = json.loads(done.out)
    assert output == {"scorer": "scorers/mine.py", "test": "scorers/test_mine.py", "kind": kind}
    shown = json.loads(mmkgc("scorers", "show", "mine", "--json").out)
    assert shown["metric"] == ("l1" if kind == "query" else None)
    assert mmkgc("scorers", "new", "mine").code == 2


def test_new_in_another_directory_prints_how_to_register_it(
    mmkgc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = mmkgc("scorers", "new", "mine", "--folder", "else where")
    assert f"export MMKGC_SCORERS='{tmp_path}/else where'" in done.err
    assert "next: mmkgc train mine --graph GRAPH" in done.err
    assert mmkgc("scorers", "show", "mine").code == 2
    monkeypatch.setenv("MMKGC_SCORERS", f"{tmp_path}/else where")
    assert mmkgc("scorers", "show", "mine").code == 0


def test_bench_alternates_with_rotate_at_the_same_dimension(
    mmkgc: Run, graph: Graph, tmp_path: Path
) -> None:
    write_graph(graph, tmp_path / "graph")
    mmkgc("scorers", "new", "mine")
    small = ["--graph", "graph", "--turns", "2", "--steps", "3", "--ranked", "5"]
    output = json.loads(mmkgc("scorers", "bench", "mine", "--dim", "6", *small, "--json").out)
    assert [output[side]["dim"] for side in ("scorer", "against")] == [6, 6]
    for quantity in ("training", "ranking"):
        rates = output["scorer"][quantity], output["against"][quantity]
        assert min(rates) > 0
        assert output["ratio"][quantity] == pytest.approx(rates[0] / rates[1])
    done = mmkgc("scorers", "bench", "frequency", *small)
    assert done.code == 0, done.err
    assert "no parameters" in done.out
    assert "frequency / rotate" in done.out


def test_bench_applies_settings_to_a_plugin(mmkgc: Run, graph: Graph, tmp_path: Path) -> None:
    write_graph(graph, tmp_path / "graph")
    mmkgc("scorers", "new", "mine")
    small = ["--graph", "graph", "--turns", "1", "--steps", "1", "--ranked", "5", "--json"]
    settings = [
        "--set",
        "model.dim=7",
        "--set",
        "model.margin=3.0",
        "--set",
        "negatives.count=2",
    ]
    output = json.loads(mmkgc("scorers", "bench", "mine", *small, *settings).out)
    assert [output[side]["dim"] for side in ("scorer", "against")] == [7, 7]
    done = mmkgc("scorers", "bench", "mine", *small, "--set", "model.width=7")
    assert (done.code, len(done.err.splitlines())) == (3, 1)


def test_bench_of_a_graph_without_valid_triples_fails_with_one_line(
    mmkgc: Run, tmp_path: Path
) -> None:
    write_graph(random_graph(9, 2, 9, seed=0), tmp_path / "graph")
    done = mmkgc("scorers", "bench", "rotate", "--graph", "graph")
    assert done.code == 3
    assert done.err.startswith("error: graph: the graph has no train or no valid triples; pass")
    assert done.err.count("\n") == 1


def test_the_synthetic_graph_is_reproducible_and_clean() -> None:
    graph = benchmarking.synthetic_graph()
    assert graph.fingerprint == benchmarking.synthetic_graph().fingerprint
    assert set(graph.leaks().values()) | set(graph.duplicates().values()) == {0}
    assert len(graph.entities) == 14_541
