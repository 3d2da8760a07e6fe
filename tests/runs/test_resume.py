from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmkgc_cli.errors import DataError, Interrupted, MmkgcError, UsageError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.config import from_toml, resolve
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.evaluation import run_evaluation
from mmkgc_cli.runs.training import Trained, resume_training, run_training
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.state.atomic import read_json
from mmkgc_cli.state.checkpoints import Checkpoints
from mmkgc_cli.state.trace import read_trace
from mmkgc_cli.state.weights import load_weights
from mmkgc_cli.training.link_prediction import LinkPrediction
from mmkgc_cli.training.loop import Callback, NonFiniteLoss
from tests.conftest import random_graph
from tests.kill.contents import epochs, last_state

SETTINGS = ["training.epochs=6", "validation.every=2", "model.dim=8", "training.batch_size=64"]


class StopAfter(Callback):
    """Sends a signal to this process after a number of steps."""

    def __init__(self, steps: int, signal_number: int = signal.SIGTERM) -> None:
        self.left = steps
        self.signal_number = signal_number

    def step(self, epoch: int, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.signal_number)


@pytest.fixture
def folder(graph: Graph, tmp_path: Path) -> Path:
    write_graph(graph, tmp_path / "graph")
    return tmp_path / "graph"


def train(folder: Path, run: RunDirectory, *more: str, stop_after: int = 0) -> Trained:
    config = resolve("rotate", load_scorer("rotate").Config, overrides=[*SETTINGS, *more])
    return run_training(config, folder, run, [StopAfter(stop_after)])


def remains(run: RunDirectory) -> tuple[bytes, object, object]:
    """Weights, last checkpoint, and trace without times."""
    return run.weights.read_bytes(), last_state(run.path), epochs(run.trace)


def differences(a: tuple[bytes, object, object], b: tuple[bytes, object, object]) -> list[str]:
    """The names of everything that differs between two runs."""
    left, right = a[1], b[1]
    assert isinstance(left, dict)
    assert isinstance(right, dict)
    names = [] if a[0] == b[0] else ["weights"]
    names += [f"{key} is in one run only" for key in left.keys() ^ right.keys()]
    names += [key for key in left.keys() & right.keys() if not torch.equal(left[key], right[key])]
    return names if a[2] == b[2] else [*names, f"trace: {a[2]} and {b[2]}"]


@pytest.mark.parametrize("after", [1, 4, 5, 7, 12, 18])
def test_a_resumed_run_is_identical_to_an_uninterrupted_one(
    folder: Path, tmp_path: Path, after: int
) -> None:
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    undisturbed = train(folder, whole)
    with pytest.raises(Interrupted) as caught:
        train(folder, broken, stop_after=after)
    epoch = min(1 + after // 4, 6)
    assert re.fullmatch(
        rf"Interrupted in epoch {epoch}; checkpoint saved. model.safetensors holds "
        r"(weights that were not validated|the best weights so far \(epoch \d, valid MRR .* %\))"
        rf". Resume with: mmkgc train --resume {re.escape(str(broken.path))}",
        str(caught.value),
    )
    assert caught.value.exit_code == 143
    assert run_evaluation(broken, None, "test")["metrics"]
    with pytest.raises(Interrupted):
        resume_training(broken, None, [StopAfter(1, signal.SIGINT)])
    resumed = resume_training(broken, None)
    assert not differences(remains(whole), remains(broken))
    assert resumed.valid == undisturbed.valid
    assert (resumed.outcome.epochs, resumed.outcome.stopped) == (6, "all epochs done")


def test_an_interrupt_keeps_later_weights_of_a_killed_run(folder: Path, tmp_path: Path) -> None:
    """A killed run may have weights of a later epoch than its checkpoint, from which it resumes."""
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    train(folder, whole)
    with pytest.raises(Interrupted):
        train(folder, broken, stop_after=1)
    early = Path(shutil.copytree(broken.checkpoints, tmp_path / "early"))
    with pytest.raises(Interrupted, match="the best weights so far"):
        resume_training(broken, None, [StopAfter(18)])
    later = broken.weights.read_bytes()
    shutil.rmtree(broken.checkpoints)
    shutil.copytree(early, broken.checkpoints)
    epoch = load_weights(broken.weights)[1]["epoch"]
    with pytest.raises(Interrupted, match=f"keeps the weights of epoch {epoch}. Resume with"):
        resume_training(broken, None, [StopAfter(1)])
    assert broken.weights.read_bytes() == later
    resume_training(broken, None)
    assert not differences(remains(whole), remains(broken))


@pytest.mark.parametrize(
    "settings",
    [
        [
            "optimizer.name=adamw",
            "optimizer.weight_decay=0.1",
            "schedule.name=cosine",
            "schedule.warmup_epochs=1.5",
        ],
        [
            "optimizer.name=adagrad",
            "schedule.name=exponential",
            "negatives.corrupted_side=per-positive",
        ],
        [
            "optimizer.name=lazy-adam",
            "schedule.name=linear",
            "negatives.corrupted_side=alternating",
        ],
        ["optimizer.clip_norm=0.1", "optimizer.average=0.9"],
    ],
)
def test_optimizers_schedules_and_averages_resume_identically(
    folder: Path, tmp_path: Path, settings: list[str]
) -> None:
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    train(folder, whole, *settings)
    with pytest.raises(Interrupted):
        train(folder, broken, *settings, stop_after=11)
    resume_training(broken, None)
    assert not differences(remains(whole), remains(broken))


@pytest.mark.parametrize(
    ("scorer", "settings", "terms"),
    [
        ("tucker", ["model.relation_dim=4", "loss.name=bce"], set()),
        (
            "complex",
            ["loss.name=softmax", "model.regularization=n3", "model.regularization_weight=0.1"],
            {"n3"},
        ),
    ],
)
def test_one_vs_all_trainings_resume_identically(
    folder: Path, tmp_path: Path, scorer: str, settings: list[str], terms: set[str]
) -> None:
    """With dropout and batch normalization (tucker), and a loss term of the scorer (complex)."""
    more = [*SETTINGS, "training.candidates=all", *settings]
    config = resolve(scorer, load_scorer(scorer).Config, overrides=more)
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    run_training(config, folder, whole)
    with pytest.raises(Interrupted):
        run_training(config, folder, broken, [StopAfter(17)])
    resume_training(broken, None)
    assert not differences(remains(whole), remains(broken))
    assert set(epochs(whole.trace)[0]["losses"]) == {"loss", "gradient_norm", *terms}
    model = run_evaluation(broken, None, "test")["model"]
    assert (model["candidates"], model["sampler"]) == ("all", None)


LEARNT = """
from pydantic import Field
import torch
from torch import nn
from mmkgc_cli.sampling.contract import Sampler, SamplerConfig, SoftNegatives

class Config(SamplerConfig):
    pool: int = Field(5, ge=1)

class Learnt(Sampler):
    \"\"\"Learns how much of each entity goes into its negatives, and remembers its draws.\"\"\"

    Config = Config
    citation = "a test"

    def __init__(self, config, task, scorer):
        super().__init__(config, task, scorer)
        self.taste = nn.Parameter(torch.zeros(task.n_entities))
        self.register_buffer("often", torch.zeros(task.n_entities))

    def draw(self, positives, scorer):
        n, size = self.task.negatives, self.config.pool
        pool = torch.randint(self.task.n_entities, (size,), generator=self.generator())
        self.often[pool] += 1
        noise = torch.rand(len(positives), n, size, generator=self.generator("noise"))
        weights = (self.taste[pool] + noise - 0.1 * self.often[pool]).softmax(-1)
        return SoftNegatives(weights, pool, torch.full((len(positives), n), self.step % 2).char())

SAMPLER = Learnt
"""


@pytest.mark.parametrize("name", ["shared", "learnt"])
def test_samplers_resume_identically(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("samplers").mkdir()
    Path("samplers/learnt.py").write_text(LEARNT)
    more = [f"negatives.sampler={name}", f"sampler.{'chunk' if name == 'shared' else 'pool'}=6"]
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    train(folder, whole, *more)
    with pytest.raises(Interrupted):
        train(folder, broken, *more, stop_after=11)
    resume_training(broken, None)
    assert not differences(remains(whole), remains(broken))
    Path("samplers/learnt.py").unlink()
    model = run_evaluation(broken, None, "test")["model"]  # ranking needs no sampler
    assert model["sampler"]["name"] == name
    assert model["sampler"]["config"] == {more[1][8:-2]: 6}


def test_a_run_without_a_checkpoint_starts_over(folder: Path, tmp_path: Path) -> None:
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    train(folder, whole)
    with pytest.raises(Interrupted):
        train(folder, broken, stop_after=7)
    Checkpoints(broken.checkpoints, 1).clear()
    broken.environment.unlink()  # the run was killed between its first two files
    resume_training(broken, None)
    assert not differences(remains(whole), remains(broken))
    assert read_json(broken.environment).keys() == read_json(whole.environment).keys()


def test_a_finished_run_trains_only_if_more_epochs_are_requested(
    folder: Path, tmp_path: Path
) -> None:
    run, longer = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "longer")
    train(folder, run)
    before = run.weights.read_bytes()
    assert resume_training(run, None).outcome.epochs == 6
    assert run.weights.read_bytes() == before
    assert resume_training(run, None, epochs=10).outcome.epochs == 10
    train(folder, longer, "training.epochs=10")
    assert not differences(remains(run), remains(longer))


def test_resuming_with_too_few_epochs_is_an_error(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run)
    before = run.config.read_bytes()
    for fewer in (3, 6):
        with pytest.raises(UsageError, match="has 6 epochs already; pass --epochs with at least 7"):
            resume_training(run, None, epochs=fewer)
    assert run.config.read_bytes() == before


@pytest.mark.parametrize("epochs", [None, 10])
def test_a_finished_run_without_checkpoints_is_not_trained_again(
    folder: Path, tmp_path: Path, epochs: int | None
) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run)
    Checkpoints(run.checkpoints, 1).clear()
    before = run.weights.read_bytes()
    with pytest.raises(DataError, match="the run is finished and its checkpoints were removed"):
        resume_training(run, None, epochs=epochs)
    assert run.weights.read_bytes() == before


def test_weights_that_are_not_finite_are_not_saved_in_a_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step with a finite loss can produce such weights."""
    plain = LinkPrediction.step

    def poisoned(self: LinkPrediction, index: int) -> dict[str, Tensor]:
        terms = plain(self, index)
        if self.optimization.steps == 7:
            with torch.no_grad():
                next(self.scorer.parameters())[0, 0] = torch.nan
        return terms

    monkeypatch.setattr(LinkPrediction, "step", poisoned)
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(NonFiniteLoss, match="epoch 2: the weights 'entities' are not finite"):
        train(folder, run, "checkpoints.seconds=0")
    assert read_trace(run.trace)[-1]["event"] == "error"
    latest = Checkpoints(run.checkpoints, 1).latest()
    assert latest is not None
    assert latest[0].stem.endswith("6")
    monkeypatch.undo()
    resume_training(run, None)


def test_the_interval_and_the_number_of_checkpoints_are_settings(
    folder: Path, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run, "checkpoints.seconds=0", "checkpoints.keep=3")
    steps = sorted(int(p.stem) for p in run.checkpoints.glob("*.safetensors"))
    assert len(steps) == 3
    assert steps[-1] - steps[0] == 2


def test_another_graph_is_refused(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run)
    write_graph(random_graph(40, 5, 300, seed=1), tmp_path / "other")
    with pytest.raises(DataError, match="trained on graph"):
        resume_training(run, tmp_path / "other")


def test_two_processes_cannot_train_one_run(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run)
    with run.locked(), pytest.raises(MmkgcError, match="another process trains this run"):
        resume_training(run, None)
    before = remains(run)
    config = from_toml(run.config, lambda name: load_scorer(name).Config)
    with run.locked(), pytest.raises(MmkgcError, match="another process trains this run"):
        run_training(config, folder, run, overwrite=True)
    assert not differences(remains(run), before)


def test_the_trace_is_flushed_before_the_checkpoint_that_refers_to_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, synced, plain = RunDirectory(tmp_path / "run"), [0], os.fsync

    def fsync(descriptor: int) -> None:
        plain(descriptor)
        if run.trace.exists() and os.path.samestat(os.fstat(descriptor), run.trace.stat()):
            synced.append(run.trace.stat().st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    train(folder, run)
    latest = Checkpoints(run.checkpoints, 1).latest()
    assert latest is not None
    assert 0 < latest[1]["trace"][0] in synced
