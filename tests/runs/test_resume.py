from __future__ import annotations

import os
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
from mmkgc_cli.training.link_prediction import LinkPrediction
from mmkgc_cli.training.loop import EpochReport, NonFiniteLoss
from tests.conftest import random_graph
from tests.kill.contents import epochs, last_state

SETTINGS = ["training.epochs=6", "training.eval_every=2", "model.dim=8", "training.batch_size=64"]


class Watcher:
    """Sends a signal to this process after so many steps."""

    def __init__(self, after: int = -1, number: int = signal.SIGTERM) -> None:
        self.left = after
        self.number = number

    def begin(self, *args: object) -> None: ...

    def step(self, *args: object) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)

    def epoch(self, report: EpochReport) -> None: ...


@pytest.fixture
def folder(graph: Graph, tmp_path: Path) -> Path:
    write_graph(graph, tmp_path / "graph")
    return tmp_path / "graph"


def train(folder: Path, run: RunDirectory, watcher: Watcher, *more: str) -> Trained:
    config = resolve("rotate", load_scorer("rotate").Config, {}, "", {}, [*SETTINGS, *more])
    return run_training(config, folder, run, False, watcher)


def remains(run: RunDirectory) -> tuple[bytes, object, object]:
    """What a training leaves: weights, all state, and its trace without times."""
    return run.weights.read_bytes(), last_state(run.path), epochs(run.trace)


def differences(a: tuple[bytes, object, object], b: tuple[bytes, object, object]) -> list[str]:
    """What two trainings left that is not the same."""
    left, right = a[1], b[1]
    assert isinstance(left, dict)
    assert isinstance(right, dict)
    found = [] if a[0] == b[0] else ["weights"]
    found += [f"{key} is in one alone" for key in left.keys() ^ right.keys()]
    found += [key for key in left.keys() & right.keys() if not torch.equal(left[key], right[key])]
    return found if a[2] == b[2] else [*found, f"trace: {a[2]} and {b[2]}"]


@pytest.mark.parametrize("after", [1, 4, 5, 7, 12, 18])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    folder: Path, tmp_path: Path, after: int
) -> None:
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    undisturbed = train(folder, whole, Watcher())
    with pytest.raises(Interrupted, match=r"go on with: mmkgc train --resume .*broken") as caught:
        train(folder, broken, Watcher(after))
    assert caught.value.exit_code == 143
    assert run_evaluation(broken, None, "test")["metrics"]  # whatever was there
    with pytest.raises(Interrupted):
        resume_training(broken, None, Watcher(1, signal.SIGINT))
    resumed = resume_training(broken, None, Watcher())
    assert not differences(remains(whole), remains(broken))
    assert resumed.valid == undisturbed.valid
    assert (resumed.outcome.epochs, resumed.outcome.stopped) == (6, "all epochs done")


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer=adamw", "weight_decay=0.1", "schedule=cosine", "warmup_epochs=1.5"],
        ["optimizer=adagrad", "schedule=exponential", "negative_side=per-positive"],
        ["optimizer=lazy-adam", "schedule=linear", "negative_side=alternating"],
        ["clip_norm=0.1", "average=0.9"],
    ],
)
def test_optimizers_schedules_and_averages_go_on_too(
    folder: Path, tmp_path: Path, settings: list[str]
) -> None:
    more = [f"training.{setting}" for setting in settings]
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    train(folder, whole, Watcher(), *more)
    with pytest.raises(Interrupted):
        train(folder, broken, Watcher(11), *more)
    resume_training(broken, None, Watcher())
    assert not differences(remains(whole), remains(broken))


@pytest.mark.parametrize(
    ("scorer", "settings", "terms"),
    [
        ("tucker", ["model.relation_dim=4", "training.loss=bce"], set()),
        (
            "complex",
            ["training.loss=softmax", "model.regularization=n3", "model.regularization_weight=0.1"],
            {"n3"},
        ),
    ],
)
def test_trainings_against_all_candidates_go_on_too(
    folder: Path, tmp_path: Path, scorer: str, settings: list[str], terms: set[str]
) -> None:
    """With dropout and batch norms (tucker), and a term of the scorer (complex)."""
    more = [*SETTINGS, "training.candidates=all", *settings]
    config = resolve(scorer, load_scorer(scorer).Config, {}, "", {}, more)
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    run_training(config, folder, whole, False, Watcher())
    with pytest.raises(Interrupted):
        run_training(config, folder, broken, False, Watcher(17))
    resume_training(broken, None, Watcher())
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
def test_samplers_go_on_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("samplers").mkdir()
    Path("samplers/learnt.py").write_text(LEARNT)
    more = [f"training.sampler={name}", f"sampler.{'chunk' if name == 'shared' else 'pool'}=6"]
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    train(folder, whole, Watcher(), *more)
    with pytest.raises(Interrupted):
        train(folder, broken, Watcher(11), *more)
    resume_training(broken, None, Watcher())
    assert not differences(remains(whole), remains(broken))
    Path("samplers/learnt.py").unlink()
    model = run_evaluation(broken, None, "test")["model"]  # ranking needs no sampler
    assert model["sampler"]["name"] == name
    assert model["sampler"]["config"] == {more[1][8:-2]: 6}


def test_a_run_without_a_checkpoint_starts_over(folder: Path, tmp_path: Path) -> None:
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    train(folder, whole, Watcher())
    with pytest.raises(Interrupted):
        train(folder, broken, Watcher(7))
    Checkpoints(broken.checkpoints, 1).clear()
    broken.environment.unlink()  # the run was killed between its first two files
    resume_training(broken, None, Watcher())
    assert not differences(remains(whole), remains(broken))
    assert read_json(broken.environment).keys() == read_json(whole.environment).keys()


def test_a_finished_run_has_nothing_left_to_do_unless_asked_for_more(
    folder: Path, tmp_path: Path
) -> None:
    run, longer = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "longer")
    train(folder, run, Watcher())
    before = run.weights.read_bytes()
    assert resume_training(run, None, Watcher()).outcome.epochs == 6
    assert run.weights.read_bytes() == before
    assert resume_training(run, None, Watcher(), epochs=10).outcome.epochs == 10
    train(folder, longer, Watcher(), "training.epochs=10")
    assert not differences(remains(run), remains(longer))


def test_fewer_epochs_than_there_are_is_no_wish_that_can_be_met(
    folder: Path, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run, Watcher())
    before = run.config.read_bytes()
    for fewer in (3, 6):
        with pytest.raises(UsageError, match="has 6 epochs already; ask for more --epochs"):
            resume_training(run, None, Watcher(), epochs=fewer)
    assert run.config.read_bytes() == before


@pytest.mark.parametrize("epochs", [None, 10])
def test_a_finished_run_without_checkpoints_is_not_trained_over(
    folder: Path, tmp_path: Path, epochs: int | None
) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run, Watcher())
    Checkpoints(run.checkpoints, 1).clear()
    before = run.weights.read_bytes()
    with pytest.raises(DataError, match="is finished and has no checkpoints any more"):
        resume_training(run, None, Watcher(), epochs=epochs)
    assert run.weights.read_bytes() == before


def test_weights_that_are_not_finite_never_get_into_a_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step can leave such weights behind a loss that was finite."""
    plain = LinkPrediction.step

    def poisoned(self: LinkPrediction, index: int) -> dict[str, Tensor]:
        terms = plain(self, index)
        if self.optimization.steps == 7:
            with torch.no_grad():
                next(self.scorer.parameters())[0, 0] = torch.nan
        return terms

    monkeypatch.setattr(LinkPrediction, "step", poisoned)
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(NonFiniteLoss, match="epoch 2: 'entities' is not finite any more"):
        train(folder, run, Watcher(), "training.checkpoint_seconds=0")
    assert read_trace(run.trace)[-1]["event"] == "error"
    found = Checkpoints(run.checkpoints, 1).latest()
    assert found is not None
    assert found[0].stem.endswith("6")
    monkeypatch.undo()
    resume_training(run, None, Watcher())


def test_checkpoints_come_as_often_as_asked(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run, Watcher(), "training.checkpoint_seconds=0", "training.keep_checkpoints=3")
    steps = sorted(int(p.stem) for p in run.checkpoints.glob("*.safetensors"))
    assert len(steps) == 3
    assert steps[-1] - steps[0] == 2


def test_another_graph_is_refused(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run, Watcher())
    write_graph(random_graph(40, 5, 300, seed=1), tmp_path / "other")
    with pytest.raises(DataError, match="trained on graph"):
        resume_training(run, tmp_path / "other", Watcher())


def test_two_processes_do_not_train_one_run(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run, Watcher())
    with run.locked(), pytest.raises(MmkgcError, match="another process trains this run"):
        resume_training(run, None, Watcher())
    before = remains(run)
    config = from_toml(run.config, lambda name: load_scorer(name).Config)
    with run.locked(), pytest.raises(MmkgcError, match="another process trains this run"):
        run_training(config, folder, run, True, Watcher())
    assert not differences(remains(run), before)


def test_a_checkpoint_comes_after_the_trace_that_it_points_to_is_on_the_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, synced, plain = RunDirectory(tmp_path / "run"), [0], os.fsync

    def fsync(descriptor: int) -> None:
        plain(descriptor)
        if run.trace.exists() and os.path.samestat(os.fstat(descriptor), run.trace.stat()):
            synced.append(run.trace.stat().st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    train(folder, run, Watcher())
    found = Checkpoints(run.checkpoints, 1).latest()
    assert found is not None
    assert synced[-1] == found[1]["trace"][0] > 0
