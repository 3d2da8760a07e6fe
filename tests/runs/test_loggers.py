from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mmkgc_cli.errors import Interrupted, UsageError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.loggers import Loggers
from mmkgc_cli.runs.training import resume_training, run_training
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.state.trace import read_trace
from tests.conftest import Outcome
from tests.runs.test_resume import StopAfter, remains

SETTINGS = [
    "training.epochs=6", "validation.every=2", "model.dim=8", "training.batch_size=64",
    "validation.patience=0",
]  # fmt: skip


@pytest.fixture
def folder(graph: Graph, tmp_path: Path) -> Path:
    write_graph(graph, tmp_path / "graph")
    return tmp_path / "graph"


def train(
    folder: Path, run: RunDirectory, loggers: Loggers, after: int = 0, *, overwrite: bool = False
) -> None:
    """Four steps per epoch; sends a signal after `after` steps."""
    config = resolve("rotate", load_scorer("rotate").Config, overrides=SETTINGS)
    run_training(config, folder, run, [StopAfter(after), loggers], overwrite=overwrite)


def broken_and_resumed(folder: Path, run: RunDirectory, name: str) -> None:
    with pytest.raises(Interrupted):
        train(folder, run, Loggers([name]), after=14)
    # As if the process was killed after the fourth epoch, with an older last checkpoint.
    last = sorted(run.checkpoints.glob("*.safetensors"))[-1]
    copy = run.path / "copy"
    shutil.copy(last, copy)
    with pytest.raises(Interrupted):
        resume_training(run, None, [StopAfter(4), Loggers([name])])
    for path in run.checkpoints.glob("*.safetensors"):
        path.unlink()
    copy.rename(run.checkpoints / last.name)
    resume_training(run, None, [Loggers([name])])


def traced(run: RunDirectory, *keys: str) -> list[tuple[int, float]]:
    values = []
    for event in read_trace(run.trace):
        value: Any = event
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if event["event"] == "epoch" and value is not None:
            values.append((event["epoch"], value))
    return values


def scalars(run: RunDirectory, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    return [(e.step, e.value) for e in events.Scalars(name)]


def test_tensorboard_shows_repeated_epochs_once(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = RunDirectory(tmp_path / "run")
    broken_and_resumed(folder, run, "tensorboard")
    for keys in (("losses", "loss"), ("valid", "mrr"), ("rate",), ("triples_per_second",)):
        logged = scalars(run, "/".join(keys))
        expected = traced(run, *keys)
        assert [step for step, _ in logged] == [epoch for epoch, _ in expected]
        assert [v for _, v in logged] == pytest.approx([v for _, v in expected], rel=1e-6)
    assert [epoch for epoch, _ in traced(run, "rate")] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(Interrupted):  # a new run in the same folder starts a new log
        train(folder, run, Loggers(["tensorboard"]), after=9, overwrite=True)
    assert [step for step, _ in scalars(run, "rate")] == [1, 2]


class FakeWandB(ModuleType):
    """Records the calls."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, Any]] = []
        self.fail_at = -1

    def Settings(self, **options: Any) -> dict[str, Any]:
        return options

    def init(self, **options: Any) -> FakeWandB:
        self.calls.append(("init", options))
        return self

    def define_metric(self, *names: str, **options: str) -> None:
        self.calls.append(("metric", (names, options)))

    def log(self, values: dict[str, float]) -> None:
        if values["epoch"] == self.fail_at:
            raise ConnectionError("no route to W&B\nand more")
        self.calls.append(("log", values))

    def finish(self, exit_code: int) -> None:
        self.calls.append(("finish", exit_code))

    def arguments(self, function: str) -> list[Any]:
        return [value for name, value in self.calls if name == function]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandB]:
    module = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delitem(sys.modules, "mmkgc_cli.runs.log_wandb", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    yield module
    sys.modules.pop("mmkgc_cli.runs.log_wandb", None)


def test_a_resumed_training_logs_to_the_same_wandb_run(
    folder: Path, tmp_path: Path, fake: FakeWandB
) -> None:
    run = RunDirectory(tmp_path / "run")
    broken_and_resumed(folder, run, "wandb")
    options = fake.arguments("init")[0]
    assert {again["id"] for again in fake.arguments("init")} == {options["id"]}
    assert (options["project"], options["name"]) == ("mmkgc", "run")
    assert options["config"]["training"]["epochs"] == 6
    assert str(tmp_path) not in repr(options["config"])
    assert fake.arguments("finish") == [143, 143, 0]
    assert fake.arguments("metric")[0] == (("*",), {"step_metric": "epoch"})
    shown = {values["epoch"]: values for values in fake.arguments("log")}
    assert sorted(shown) == [1, 2, 3, 4, 5, 6]
    losses = [(epoch, values["losses/loss"]) for epoch, values in shown.items()]
    assert losses == traced(run, "losses", "loss")
    with pytest.raises(Interrupted):
        train(folder, run, Loggers(["wandb"]), after=9, overwrite=True)
    assert fake.arguments("init")[-1]["id"] != options["id"]


@pytest.mark.parametrize("function", ["init", "log", "finish"])
def test_a_logger_that_fails_warns_once_and_training_continues(
    folder: Path,
    tmp_path: Path,
    fake: FakeWandB,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to W&B\nand more")

    warnings: list[str] = []
    plain, logged = RunDirectory(tmp_path / "plain"), RunDirectory(tmp_path / "logged")
    train(folder, plain, Loggers())
    if function == "log":
        fake.fail_at = 2
    else:
        monkeypatch.setattr(fake, function, failing)
    train(folder, logged, Loggers(["wandb"], warnings.append))
    warning = "warning: --log wandb stopped: no route to W&B; training continues"
    assert warnings == [warning]
    assert remains(plain)[0] == remains(logged)[0]
    logs = {"init": 0, "log": 1, "finish": 6}
    assert len(fake.arguments("log")) == logs[function]


def test_wandb_logs_offline(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    import subprocess

    run = tmp_path / "run"
    script = (
        "from mmkgc_cli.app import main; import sys; "
        f"sys.argv = ['mmkgc', 'train', 'rotate', '--graph', {str(folder)!r}, '--run', "
        f"{str(run)!r}, '--epochs', '2', '--dim', '4', '--log', 'wandb']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "WANDB_MODE": "offline"}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: --log" not in done.stderr
    assert list(run.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_an_error_with_the_command_that_installs_it(
    mmkgc: Callable[..., Outcome], folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for loaded in [m for m in sys.modules if m.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    for loaded in (f"mmkgc_cli.runs.log_{name}", "torch.utils.tensorboard"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    done = mmkgc("train", "rotate", "--graph", "graph", "--run", "run", "--log", name)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.endswith(f"{name} is not installed; pip install 'mmkgc[{name}]'\n")
    assert not (folder.parent / "run").exists()


def test_a_package_that_cannot_be_imported_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mmkgc_cli.runs.log_wandb", raising=False)

    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "wandb":
                raise TypeError("Descriptors cannot be created directly.\nAnd so on.")

    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(UsageError, match=r"cannot be imported: Descriptors .* directly\.; try pip"):
        Loggers(["wandb"])


def test_only_selected_loggers_are_imported(
    mmkgc: Callable[..., Outcome], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    done = mmkgc(
        "train", "rotate", "--graph", "graph", "--run", "run", "--epochs", "1", "--dim", "4"
    )
    assert done.code == 0, done.err
