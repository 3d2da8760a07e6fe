"""Completions that are trained: their run directories."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmkgc_cli.completion.maco.generation import complete as generate
from mmkgc_cli.completion.maco.settings import PAPER, RELEASED, MacoSettings
from mmkgc_cli.completion.pipeline import Request
from mmkgc_cli.errors import DataError, Interrupted, UsageError
from mmkgc_cli.features.masks import MaskRequest, missing_mask
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs import completion
from mmkgc_cli.runs.completion import resume_completion, run_completion
from mmkgc_cli.runs.completion_config import (
    CompletionConfig,
    CompletionTraining,
    read_completion,
    resolve_completion,
    section_of,
    to_toml,
    unlike_defaults,
)
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.status import State, inspect
from mmkgc_cli.runs.toml_file import read_toml
from mmkgc_cli.state.checkpoints import Checkpoints
from mmkgc_cli.state.trace import read_trace
from mmkgc_cli.training.loop import EpochReport, NonFiniteLoss
from tests.completion.small import communities, graph_with
from tests.conftest import ROOT
from tests.features.small import edit, write
from tests.kill.contents import epochs, last_state

GRAPH, VALUES = communities(60, 6)
SEEN = np.arange(60) % 6 > 0
SMALL = [
    "maco.input_width=4", "maco.encoder_hidden=6", "maco.noise=3", "maco.hidden=7",
    "maco.batch_size=16", "maco.candidates=8", "maco.lr=0.01", "maco.epochs=6",
    "training.eval_every=2",
]  # fmt: skip


class Watcher:
    """Sends a signal to this process after so many steps, and remembers what it was told."""

    def __init__(self, after: int = -1, number: int = signal.SIGTERM) -> None:
        self.left, self.number = after, number
        self.reports: list[EpochReport] = []

    def begin_completion(self, *args: object) -> None: ...

    def step(self, *args: object) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)

    def epoch(self, report: EpochReport) -> None:
        self.reports.append(report)


def prepare(folder: Path, graph: Graph = GRAPH, values: np.ndarray = VALUES,
            seen: np.ndarray = SEEN) -> None:  # fmt: skip
    write_graph(graph, folder / "g")
    write(folder / "image.h5", graph.entities, values, seen)


def config(folder: Path, *more: str, preset: str = "paper", **request: Any) -> CompletionConfig:
    asked = Request("image", "maco", **{"missing_rate": 0.4, **request})
    section = section_of(asked, folder / "image.h5", folder / "out.h5")
    return resolve_completion(section, preset, {}, [*SMALL, *more])


def run(folder: Path, name: str, watcher: Watcher | None = None, *more: str, preset: str = "paper",
        **request: Any) -> dict[str, Any]:  # fmt: skip
    about = config(folder, *more, preset=preset, **request)
    where = RunDirectory(folder / name)
    return run_completion(about, folder / "g", where, False, watcher or Watcher())


def left(folder: Path, name: str) -> tuple[Any, ...]:
    """What a completion leaves: vectors, weights, state, and its trace without times."""
    directory = RunDirectory(folder / name)
    with FeatureStore(folder / "out.h5") as store:
        vectors = store.read().tobytes()
    return (vectors, directory.weights.read_bytes(), epochs(directory.trace))


@pytest.mark.parametrize("preset", ["paper", "released"])
@pytest.mark.parametrize("after", [1, 4, 9, 24])
def test_an_interrupted_completion_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, after: int, preset: str
) -> None:
    prepare(tmp_path)
    report = run(tmp_path, "whole", preset=preset)
    whole, state = left(tmp_path, "whole"), last_state(tmp_path / "whole")
    (tmp_path / "out.h5").unlink()
    with pytest.raises(
        Interrupted, match=r"go on with: mmkgc complete --resume .*broken"
    ) as caught:
        run(tmp_path, "broken", Watcher(after), preset=preset)
    assert caught.value.exit_code == 143
    assert not (tmp_path / "out.h5").exists()
    found = resume_completion(RunDirectory(tmp_path / "broken"), None, Watcher())
    assert left(tmp_path, "broken") == whole
    other = last_state(tmp_path / "broken")
    assert state is not None
    assert other is not None
    assert all(torch.equal(state[key], other[key]) for key in state.keys() | other.keys())
    assert {**found, "run": ""} == {**report, "run": ""}


def test_a_finished_completion_makes_its_vectors_again(tmp_path: Path) -> None:
    prepare(tmp_path)
    run(tmp_path, "run")
    before = left(tmp_path, "run")
    (tmp_path / "out.h5").unlink()
    resume_completion(RunDirectory(tmp_path / "run"), None, Watcher(after=1))
    assert left(tmp_path, "run") == before
    Checkpoints(tmp_path / "run" / "checkpoints", 1).clear()
    with pytest.raises(DataError, match=r"run: is finished and has no checkpoints any more"):
        resume_completion(RunDirectory(tmp_path / "run"), None, Watcher())


def test_what_was_hidden_is_measured_on_the_way_and_never_seen(tmp_path: Path) -> None:
    prepare(tmp_path)
    watcher = Watcher()
    run(tmp_path, "a", watcher)
    measured = [report.epoch for report in watcher.reports if report.valid]
    assert measured == [2, 4, 6]
    assert all(not report.improved for report in watcher.reports)
    events = [e for e in read_trace(tmp_path / "a" / "trace.jsonl") if e["event"] == "epoch"]
    assert [bool(event["hidden"]) for event in events] == [False, True] * 3
    assert {"centred_cosine", "hits10", "count"} <= events[1]["hidden"].keys()
    first = left(tmp_path, "a")
    # Other vectors where something is hidden: the same comes out.
    hidden = missing_mask(MaskRequest("image", 0.4, 0), GRAPH.entities, SEEN)
    other = tmp_path / "other"
    prepare(other, values=np.where(hidden[:, None], 100.0, VALUES).astype(np.float32))
    run(other, "a", Watcher())
    assert left(other, "a")[:2] == first[:2]


@pytest.mark.parametrize("variant", ["gen", "all-gen"])
def test_the_store_holds_what_the_generator_makes(
    tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    made = []
    monkeypatch.setattr(
        completion, "generate", lambda *args: made.append(generate(*args)) or made[-1]
    )
    report = run(tmp_path, "run", None, variant=variant, missing_rate=None)
    wanted = ~SEEN if variant == "gen" else np.ones(60, dtype=bool)
    assert len(made) == 1
    assert (report["generated"], report["fallback"]) == (
        wanted.sum(), int(made[0].rejected.sum())
    )  # fmt: skip
    with FeatureStore(tmp_path / "out.h5") as store:
        values = store.read()
        assert store.generated is not None
        assert np.array_equal(store.generated, wanted)
        about = store.metadata.completion
    # Names of entities ascend, so their order in the graph is that of the problem.
    assert np.array_equal(values[wanted], made[0].vectors.numpy())
    assert np.array_equal(values[~wanted], VALUES[~wanted])
    assert about["settings"]["candidates"] == 8
    assert (about["strategy"], about["train_id"]) == ("maco", GRAPH.train_id)


@pytest.mark.parametrize(
    ("seen", "width"), [([3], 6), (range(60), 6), (range(0, 60, 2), 1)], ids=["one", "all", "width"]
)
def test_odd_data_is_completed(tmp_path: Path, seen: Any, width: int) -> None:
    """One vector, isolated entities, a constant column, width 1."""
    graph = graph_with(60, [(i, i % 2, i + 1) for i in range(20)])
    values = VALUES[:, :width].copy()
    values[:, 0] = 2.0
    prepare(tmp_path, graph, values, np.isin(np.arange(60), seen))
    variant = "all-gen" if len(seen) == 60 else "gen"
    report = run(tmp_path, "run", None, missing_rate=None, variant=variant)
    assert report["generated"] == (60 if variant == "all-gen" else 60 - len(seen))
    with FeatureStore(tmp_path / "out.h5") as store:
        assert np.isfinite(store.read()).all()


def test_where_every_candidate_is_rejected_all_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)

    def rejecting(model: Any, *rest: Any) -> Any:
        with torch.no_grad():
            model.discriminator.last.bias.fill_(-1e6)
        return generate(model, *rest)

    monkeypatch.setattr(completion, "generate", rejecting)
    report = run(tmp_path, "run", None, missing_rate=None)
    assert report["fallback"] == report["generated"] == 10
    assert report["fallback_is"] == "the mean of all candidates, as none was taken for real"


def test_bad_data_leaves_no_run(tmp_path: Path) -> None:
    prepare(tmp_path, seen=np.zeros(60, dtype=bool))
    with pytest.raises(DataError, match="no image vector is observed among the 60 entities"):
        run(tmp_path, "run")
    prepare(tmp_path)
    edit(tmp_path / "image.h5", "vectors", 7, np.nan)
    with pytest.raises(DataError, match="the vector of 'e007' is not finite"):
        run(tmp_path, "run")
    prepare(tmp_path, seen=np.ones(60, dtype=bool))
    with pytest.raises(DataError, match="every entity of 'small' has a image vector"):
        run(tmp_path, "run", missing_rate=None)
    assert not (tmp_path / "run").exists()


def test_a_completion_goes_on_with_its_own_store_and_graph_alone(tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(Interrupted):
        run(tmp_path, "run", Watcher(3))
    directory = RunDirectory(tmp_path / "run")
    write_graph(communities(60, 6, seed=1)[0], tmp_path / "other")
    with pytest.raises(DataError, match=r"run: trained on graph 'small' .*; give its --graph"):
        resume_completion(directory, tmp_path / "other", Watcher())
    write(tmp_path / "image.h5", GRAPH.entities, 2 * VALUES, SEEN)
    with pytest.raises(DataError, match=r"image.h5: not the store that the run began with: expe"):
        resume_completion(directory, None, Watcher())


def test_a_store_that_is_not_of_the_run_is_not_replaced(tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(Interrupted):
        run(tmp_path, "run", Watcher(3))
    write(tmp_path / "out.h5", GRAPH.entities, VALUES, SEEN)
    before = (tmp_path / "out.h5").read_bytes()
    with pytest.raises(UsageError, match=r"out.h5: is there already and not of this run"):
        resume_completion(RunDirectory(tmp_path / "run"), None, Watcher())
    assert (tmp_path / "out.h5").read_bytes() == before


def test_a_loss_that_is_not_finite_ends_it_and_is_traced(tmp_path: Path) -> None:
    prepare(tmp_path, values=1e20 * VALUES)
    with pytest.raises(NonFiniteLoss, match="lower the learning rate, or look at the data"):
        run(tmp_path, "run", None, "maco.regression=1")
    found = inspect(tmp_path / "run")
    assert (found.state, found.completes, found.strategy) == (State.failed, "image", "maco")
    assert not (tmp_path / "out.h5").exists()


def test_a_configuration_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    about = config(tmp_path, "maco.discriminator=joint", preset="released", seed=3)
    assert about.maco == dataclasses.replace(
        RELEASED, input_width=4, encoder_hidden=6, noise=3, hidden=7, batch_size=16, candidates=8,
        lr=0.01, epochs=6, discriminator="joint", seed=3,
    )  # fmt: skip
    path = tmp_path / "config.toml"
    path.write_text(to_toml(about))
    assert read_completion(path) == about
    values = read_toml(path).values
    assert unlike_defaults(values)["maco.tau" if about.maco.tau != PAPER.tau else "maco.lr"] == (
        0.01, 1e-4,
    )  # fmt: skip
    assert unlike_defaults(values)["training.eval_every"] == (2, 25)
    path.write_text('strategy = "ridge"\n' + to_toml(about).partition("\n")[2])
    with pytest.raises(DataError, match=r"config.toml: strategy 'ridge'; known: maco"):
        read_completion(path)
    path.write_text('scorer = "rotate"\n')
    with pytest.raises(DataError, match=r"not the run of a completion; go on with: mmkgc train"):
        read_completion(path)
    path.write_text(to_toml(about).replace("tau = 2.0", 'tau = "warm"'))
    with pytest.raises(DataError, match=r"config.toml: the section 'maco' is damaged"):
        read_completion(path)


def test_every_wrong_setting_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        config(tmp_path, "maco.alpa=1", "maco.seed=2", "maco.tau=-1", "trainin.threads=2",
               "training.threads=many")  # fmt: skip
    assert str(caught.value).splitlines() == [
        "--set maco.alpa: no key maco.alpa; did you mean 'maco.alpha'?",
        "--set maco.seed: the seed is given by --seed",
        "--set trainin.threads: no key trainin.threads; did you mean 'training.threads'?",
        "--set maco.tau: input should be greater than 0, got -1",
        "--set training.threads: input should be a valid integer, got 'many'",
    ]
    with pytest.raises(UsageError, match="preset 'papr': did you mean 'paper'"):
        config(tmp_path, preset="papr")


def test_runs_of_completions_are_listed_and_shown(
    tmp_path: Path, mmkgc: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    with pytest.raises(Interrupted):
        run(tmp_path, "runs/a", Watcher(7))
    run(tmp_path, "runs/b")
    listed = mmkgc("runs", "list", "--json")
    rows = {row["name"]: row for row in json.loads(listed.out)["runs"]}
    assert (rows["a"]["state"], rows["b"]["state"]) == ("interrupted", "finished")
    assert (rows["a"]["epochs"], rows["a"]["epochs_asked"], rows["a"]["scorer"]) == (1, 6, None)
    assert "maco (image)" in mmkgc("runs", "list").out
    shown = mmkgc("runs", "show", "runs/a")
    assert "completes    image by maco" in shown.out
    assert "mmkgc complete --resume runs/a" in shown.out
    assert "maco.noise = 3  (default 128)" in shown.out
    assert "--features image=" in mmkgc("runs", "show", "runs/b").out
    for command in (["eval", "runs/b"], ["train", "--resume", "runs/b"]):
        done = mmkgc(*command)
        assert done.code == 3
        assert "the run of a completion, which has no scorer; expected one of" in done.err


def test_every_setting_is_documented_with_both_presets() -> None:
    rows = {}
    for line in (ROOT / "docs" / "maco.md").read_text().splitlines():
        if line.startswith(("| `maco.", "| `training.")):
            name, paper, released, about = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name.strip("`")] = (paper, released, about)
    fields: dict[str, Any] = {
        f"maco.{name}": field for name, field in vars(MacoSettings)["__pydantic_fields__"].items()
    }
    del fields["maco.seed"]
    fields |= {f"training.{name}": of for name, of in CompletionTraining.model_fields.items()}
    assert list(rows) == list(fields)

    def shown(value: object) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    for name, (paper, released, about) in rows.items():
        section, _, key = name.partition(".")
        assert about == fields[name].description
        assert paper == shown(fields[name].default)
        other = getattr(RELEASED, key) if section == "maco" else fields[name].default
        assert released == ("" if other == fields[name].default else shown(other))
