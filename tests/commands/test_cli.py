"""The command line as a user meets it: exit codes, streams, one line for what is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from mmkgc_cli import ops
from mmkgc_cli.app import COMMANDS, app
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph, write_graph
from mmkgc_cli.state.trace import read_trace
from tests.conftest import ROOT, Outcome, command, random_graph
from tests.features.small import write

Run = Callable[..., Outcome]
QUICK = ["--epochs", "2", "--set", "model.dim=4"]


@pytest.fixture
def folder(graph: Graph, tmp_path: Path) -> Path:
    write_graph(graph, tmp_path / "graph")
    return tmp_path / "graph"


def test_prepare_train_eval_from_end_to_end(mmkgc: Run, openke: Path, tmp_path: Path) -> None:
    done = mmkgc("prepare", "small", "--source", openke, "--format", "openke", "--out", "g")
    assert done.code == 0, done.err
    assert "Paris | capital of | France" in done.out
    assert mmkgc("train", "rotate", "--graph", "g", "--run", "r", *QUICK).code == 0
    done = mmkgc("eval", "r", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["test"]["both"]["count"] == 2
    assert (tmp_path / "r" / "results.json").is_file()


def test_json_is_all_there_is_on_stdout(mmkgc: Run, openke: Path) -> None:
    prepared = mmkgc("prepare", "s", "--source", openke, "--format", "openke", "--json")
    assert json.loads(prepared.out)["train"] == 4
    trained = mmkgc("train", "rotate", "--graph", "graphs/s", "--json", *QUICK)
    assert json.loads(trained.out)["run"] == "runs/s-rotate"
    assert "epoch 2/2" in trained.err
    assert json.loads(mmkgc("doctor", "--json").out)["versions"]["mmkgc"]


@pytest.mark.parametrize("built_for", ["", "13.0"])
def test_doctor_says_when_the_kernels_for_gpus_were_left_out(
    mmkgc: Run, monkeypatch: pytest.MonkeyPatch, built_for: str
) -> None:
    library = ops.library()
    build = {**library.build, "cuda": built_for}
    found = dataclasses.replace(library, loaded=True, build=build)
    monkeypatch.setattr(ops, "library", lambda: found)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    missing = json.loads(mmkgc("doctor", "--json").out)["missing"]
    assert any("built without nvcc" in line for line in missing) == (not built_for)


def test_a_split_of_ones_own(mmkgc: Run, tmp_path: Path) -> None:
    rows = [f"e{i % 30}\tr{i // 30}\te{(7 * i + 1) % 30}" for i in range(90)]
    (tmp_path / "t.tsv").write_text("\n".join(rows))
    arguments = ["prepare", "mine", "--source", "t.tsv", "--format", "hrt"]
    assert mmkgc(*arguments).code == 2
    done = mmkgc(*arguments, "--split", "0.6,0.2,0.2", "--seed", "3")
    assert done.code == 0, done.err
    assert [len(r) for r in load_graph(tmp_path / "graphs" / "mine").splits.values()][1:] == [
        18,
        18,
    ]


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


BAD_SOURCES = {
    "a missing file": (lambda d: (d / "test2id.txt").unlink(), "test2id.txt: no such file"),
    "an empty file": (
        lambda d: (d / "test2id.txt").write_text(""),
        "test2id.txt: the file is empty",
    ),
    "a wrong count line": (
        lambda d: spoil(d / "train2id.txt", "4\n", "9\n"),
        "train2id.txt:1: the count line says 9, but 4 triples follow",
    ),
    "an id out of range": (
        lambda d: spoil(d / "train2id.txt", "3 0 1", "3 0 2"),
        "train2id.txt:4: relation id 2 is outside 0..1",
    ),
    "a row with two columns": (
        lambda d: spoil(d / "train2id.txt", "3 0 1", "3 0"),
        "train2id.txt:4: 2 columns, expected 3",
    ),
    "a row with four columns": (
        lambda d: spoil(d / "train2id.txt", "3 0 1", "3 0 1 1"),
        "train2id.txt:4: 4 columns, expected 3",
    ),
    "an unreadable encoding": (
        lambda d: (d / "entity2id.txt").write_bytes("Zürich\t0\n".encode("latin-1")),
        "entity2id.txt:1: byte 0xfc at position 2 is not UTF-8",
    ),
}


@pytest.mark.parametrize("what", BAD_SOURCES)
def test_bad_sources_are_one_line_with_exit_code_3(
    what: str, mmkgc: Run, openke: Path, tmp_path: Path
) -> None:
    spoil_source, message = BAD_SOURCES[what]
    spoil_source(openke)
    done = mmkgc("prepare", "small", "--source", openke, "--format", "openke", "--out", "g")
    assert done.code == 3
    assert len(done.err.splitlines()) == 1
    assert message in done.err
    assert not (tmp_path / "g").exists()


def test_swapped_columns_are_one_line_with_exit_code_3(mmkgc: Run, tmp_path: Path) -> None:
    rows = [f"e{i}\te{(i * 7) % 20}\tr{i % 3}" for i in range(60)]
    (tmp_path / "t.tsv").write_text("\n".join(rows))
    done = mmkgc("prepare", "g", "--source", "t.tsv", "--format", "hrt", "--split", "0.8,0.1,0.1")
    assert done.code == 3
    assert "is this --format htr?" in done.err


def test_a_name_outside_the_vocabulary_is_one_line(mmkgc: Run, tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\tr\tb\na\tr\tc\n")
    (tmp_path / "entity2id.txt").write_text("a\t0\nb\t1\n")
    done = mmkgc("prepare", "g", "--source", ".", "--format", "hrt")
    assert done.code == 3
    assert "train.tsv:2: entity 'c' is not in" in done.err


def test_a_truncated_graph_is_one_line(mmkgc: Run, folder: Path) -> None:
    path = folder / "graph.h5"
    path.write_bytes(path.read_bytes()[:3000])
    done = mmkgc("train", "rotate", "--graph", folder)
    assert done.code == 3
    assert len(done.err.splitlines()) == 1
    assert "graph.h5: damaged or changed since it was prepared" in done.err


def test_a_run_of_another_graph_is_one_line(mmkgc: Run, folder: Path, tmp_path: Path) -> None:
    assert mmkgc("train", "frequency", "--graph", folder, "--run", "r").code == 0
    write_graph(random_graph(40, 5, 300, seed=1), tmp_path / "other")
    done = mmkgc("eval", "r", "--graph", "other")
    assert done.code == 3
    assert "trained on graph 'random'" in done.err


def test_an_unknown_setting_names_the_nearest(mmkgc: Run, folder: Path, tmp_path: Path) -> None:
    done = mmkgc("train", "rotate", "--graph", folder, "--set", "training.epoch=3", "--run", "r")
    assert done.code == 3
    expected = "error: --set training.epoch: no key training.epoch; did you mean 'training.epochs'?"
    assert done.err.strip() == expected
    assert not (tmp_path / "r").exists()


def test_wrong_usage_has_exit_code_2(mmkgc: Run, folder: Path) -> None:
    for arguments in (
        ["nonsense"],
        ["train", "rotate"],
        ["train", "rotat", "--graph", str(folder)],
        ["prepare", "fb15k"],
        ["eval"],
    ):
        assert mmkgc(*arguments).code == 2, arguments


def limited(limit: int, *arguments: str | Path) -> list[str | Path]:
    """A command whose files may not grow beyond `limit` bytes: stands in for a full disk."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        "from mmkgc_cli.app import main; main()"
    )
    return [sys.executable, "-c", code, *arguments]


def test_storage_that_is_full_is_one_line_and_leaves_nothing(openke: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        limited(1000, "prepare", "s", "--source", openke, "--format", "openke"),
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "graph.h5: cannot be written: the file is larger than" in done.stderr
    assert list((tmp_path / "graphs" / "s").iterdir()) == []


@pytest.mark.parametrize("limit", [2_000, 8_000])
def test_storage_that_fills_up_in_training_is_one_line(
    folder: Path, tmp_path: Path, limit: int
) -> None:
    # 2,000 bytes: the weights do not fit. 8,000: they do, and the trace runs over.
    done = subprocess.run(
        limited(limit, "train", "rotate", "--graph", folder, "--run", "r", "--epochs", "100",
                "--set", "model.dim=2", "--set", "validation.every=10"),
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert "internal" not in done.stderr
    assert not [p.name for p in (tmp_path / "r").iterdir() if p.name.endswith(".tmp")]


def test_what_rich_takes_for_markup_is_printed_as_it_is(mmkgc: Run, tmp_path: Path) -> None:
    rows = [f"[/e{i % 9}]\t[bold]r\t[/e{(i + 1 + i // 9) % 9}]" for i in range(45)]
    (tmp_path / "t.tsv").write_text("\n".join(rows))
    done = mmkgc("prepare", "m", "--source", "t.tsv", "--format", "hrt", "--split", "0.6,0.2,0.2")
    assert done.code == 0, done.err
    assert "| [bold]r |" in done.out
    assert mmkgc("train", "frequency", "--graph", "graphs/m").code == 0
    assert mmkgc("eval", "runs/m-frequency").code == 0


def test_names_a_terminal_cannot_show_are_escaped(openke: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command("prepare", "東京", "--source", openke, "--format", "openke", "--out", "g"),
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\\u6771" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_one_line(openke: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("doctor", "--json"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode != 0
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_an_interrupted_training_saves_and_leaves_a_whole_run(
    folder: Path, tmp_path: Path, number: int, code: int
) -> None:
    process = subprocess.Popen(
        command("train", "rotate", "--graph", folder, "--run", "r", "--epochs", "100000",
                "--set", "validation.every=1000000"),
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    trace = tmp_path / "r" / "trace.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (trace.exists() and len(read_trace(trace)) > 3):
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in err
    assert "checkpoint saved" in err.splitlines()[-1]
    assert read_trace(trace)[-1]["stopped"] == f"signal {number}"
    assert not [p.name for p in trace.parent.iterdir() if p.name.endswith(".tmp")]
    done = subprocess.run(command("eval", "r"), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("moment", ["before", "fsync", "rename", "after"])
def test_a_killed_prepare_leaves_the_old_graph_or_the_new_one(
    openke: Path, tmp_path: Path, moment: str
) -> None:
    arguments: list[str | Path] = [
        "prepare", "s", "--source", openke, "--format", "openke", "--out", "g",
    ]  # fmt: skip
    assert subprocess.run(command(*arguments), cwd=tmp_path, check=False).returncode == 0
    old = load_graph(tmp_path / "g").fingerprint
    code = (
        "import os, pathlib, signal, sys\n"
        "moment = sys.argv.pop(1)\n"
        "die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "replace, fsync = pathlib.Path.replace, os.fsync\n"
        "if moment == 'before': pathlib.Path.open = die\n"
        "if moment == 'fsync': os.fsync = die\n"
        "if moment == 'rename': pathlib.Path.replace = die\n"
        "if moment == 'after': pathlib.Path.replace = lambda a, b: (replace(a, b), die())\n"
        "from mmkgc_cli.app import main; main()\n"
    )
    anew = [*arguments, "--split", "0.7,0.15,0.15", "--overwrite"]
    killed = subprocess.run(
        [sys.executable, "-c", code, moment, *anew], cwd=tmp_path, check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    present = load_graph(tmp_path / "g").fingerprint
    assert (present == old) == (moment != "after")
    assert subprocess.run(command(*anew), cwd=tmp_path, check=False).returncode == 0
    assert {p.name for p in (tmp_path / "g").iterdir()} == {"graph.h5", "audit.json"}


HEAVY = ("torch", "h5py", "numpy", "rich")  # typer imports pydantic itself


def imported(*arguments: str | Path, cwd: Path | None = None) -> tuple[int, set[str]]:
    """The exit code of a command, and which heavy packages it imported."""
    code = (
        f"import atexit, sys; heavy = {set(HEAVY)}; "
        "atexit.register(lambda: print(*heavy.intersection(sys.modules))); "
        "from mmkgc_cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, set(done.stdout.splitlines()[-1].split())


def test_help_of_all_commands_needs_no_heavy_import() -> None:
    assert imported("--help") == (0, set())
    assert imported("nonsense") == (2, set())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_needs_no_heavy_import(name: str) -> None:
    assert imported(name, "--help") == (0, set())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_listed_help_is_the_first_line_of_the_help_of_the_command(name: str) -> None:
    group: Any = typer.main.get_command(app)
    with group.make_context("mmkgc", ["doctor"]) as context:
        command = group.get_command(context, name)
        assert command.name == name
        assert command.help.partition("\n")[0] == COMMANDS[name].help
        assert name in group.list_commands(context)


def test_shell_completion_offers_commands_and_options() -> None:
    def complete(line: str) -> list[str]:
        variables = {
            "_MMKGC_COMPLETE": "complete_bash", "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1), "_TYPER_COMPLETE_ARGS": line,
        }  # fmt: skip
        code = "import sys; sys.argv[0] = 'mmkgc'; from mmkgc_cli.app import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False,
            env=os.environ | variables,
        )  # fmt: skip
        return done.stdout.split()

    assert complete("mmkgc pr") == ["prepare", "profile"]
    assert "--resume" in complete("mmkgc train --res")
    assert complete("mmkgc runs sh") == ["show"]


# Commands that compute nothing, and what ends with a usage error: arguments and exit code.
WITHOUT_TORCH = {
    "runs list": 0,
    "runs show r": 0,
    "runs clean": 0,
    "features show image.h5 --graph graph": 0,
    "features check image.h5 --graph graph": 0,
    "scorers list": 0,
    "scorers show mocme": 0,
    "scorers show typo": 2,
    "datasets": 0,
    "audit graph": 0,
    "batch status batch": 0,
    "batch results batch": 0,
    "eval typo": 3,
    "inspect typo": 3,
    "train typo --graph graph": 2,
    "train rotate": 2,
    "train rotate --graph graph --set model.dmi=1": 3,
    "train rotate --graph graph --set model.dim=0": 3,
    "train rotate --graph graph --set optimizer.lrr=1": 3,
    "profile typo --graph graph": 2,
    "complete image --graph graph --resume r": 2,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph, a store, a run and a batch."""
    folder = tmp_path_factory.mktemp("finished")
    graph = random_graph(40, 5, 300, seed=0)
    write_graph(graph, folder / "graph")
    vectors = np.ones((40, 3), dtype=np.float32)
    write(folder / "image.h5", list(graph.entities), vectors, metadata=Metadata("image"))
    recipe = '[batch]\ngraphs = ["graph"]\nscorers = ["frequency"]\n'
    (folder / "r.toml").write_text(recipe)
    subprocess.run(command("batch", "r.toml", "--out", "batch"), cwd=folder, check=True)
    run = next(folder.glob("batch/jobs/*/run"))
    shutil.copytree(run, folder / "r")
    (folder / "runs").mkdir()
    return folder


@pytest.mark.parametrize("line", WITHOUT_TORCH)
def test_a_command_that_computes_nothing_does_not_import_torch(line: str, finished: Path) -> None:
    code, packages = imported(*line.split(), cwd=finished)
    assert code == WITHOUT_TORCH[line]
    assert "torch" not in packages


def test_listing_fifty_scorers_runs_none_and_needs_no_heavy_import(tmp_path: Path) -> None:
    """What makes them answer in under half a second, also with a broken and a doubled one."""
    (tmp_path / "scorers").mkdir()
    for i in range(48):
        (tmp_path / "scorers" / f"mine{i}.py").write_text(
            f'"""Number {i}."""\nSCORER = print("ran")'
        )
    (tmp_path / "scorers" / "raises.py").write_text('raise RuntimeError("SCORER")\nSCORER = 1')
    (tmp_path / "scorers" / "rotate.py").write_text("SCORER = print('ran')")
    code = (
        "import sys; from mmkgc_cli.app import app; "
        "app(['scorers', 'list'], standalone_mode=False); "
        "print([m for m in ('torch', 'h5py', 'numpy', 'mmkgc_scorers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "ran" not in done.stdout.split()
    assert ["mine47", "./scorers", "Number", "47."] in map(str.split, done.stdout.splitlines())
    assert done.stdout.count("./scorers") == 49
    assert done.stderr.startswith("warning: scorers/rotate.py: not used, as the name 'rotate' is")


def test_the_reference_of_commands_is_up_to_date(tmp_path: Path) -> None:
    fresh = tmp_path / "cli.md"
    subprocess.run(
        [sys.executable, "-m", "typer", "mmkgc_cli.app", "utils", "docs", "--name", "mmkgc",
         "--output", fresh],
        check=True, capture_output=True, cwd=ROOT,
    )  # fmt: skip
    written = (ROOT / "docs" / "cli.md").read_text()
    assert fresh.read_text() == written, "docs/cli.md is out of date: run `make docs`"


def test_every_command_of_the_readme_exists(mmkgc: Run) -> None:
    readme = (ROOT / "README.md").read_text()
    verbs = {line.split()[1] for line in readme.splitlines() if line.startswith("mmkgc ")}
    assert {"prepare", "train", "eval", "doctor"} <= verbs
    for verb in verbs:
        assert mmkgc(verb, "--help").code == 0, verb
