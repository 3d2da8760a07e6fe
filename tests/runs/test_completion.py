"""Completions that are trained: their run directories."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmkgc_cli.completion.maco.generation import generate_vectors
from mmkgc_cli.completion.maco.settings import PAPER, RELEASED, MacoSettings
from mmkgc_cli.completion.pipeline import CompletionRequest
from mmkgc_cli.errors import DataError, Interrupted, UsageError
from mmkgc_cli.features.masks import MaskRequest, missing_mask
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs import completion
from mmkgc_cli.runs.completion import resume_completion, run_completion
from mmkgc_cli.runs.completion_config import (
    SECTIONS,
    CompletionConfig,
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
from mmkgc_cli.training.loop import Callback, EpochReport, NonFiniteLoss
from tests.completion.small import communities, graph_with
from tests.conftest import ROOT
from tests.features.small import edit, write
from tests.kill.contents import epochs, last_state
from tests.runs.test_resume import StopAfter

GRAPH, VALUES = communities(60, 6)
SEEN = np.arange(60) % 6 > 0
SMALL = [
    "maco.input_width=4", "maco.encoder_hidden=6", "maco.noise=3", "maco.hidden=7",
    "maco.batch_size=16", "maco.candidates=8", "maco.lr=0.01", "maco.epochs=6",
    "validation.every=2",
]  # fmt: skip


class Recorder(Callback):
    """Records the reports of epochs."""

    def __init__(self) -> None:
        self.reports: list[EpochReport] = []

    def epoch(self, report: EpochReport) -> None:
        self.reports.append(report)


def prepare(folder: Path, graph: Graph = GRAPH, values: np.ndarray = VALUES,
            seen: np.ndarray = SEEN) -> None:  # fmt: skip
    write_graph(graph, folder / "g")
    write(folder / "image.h5", graph.entities, values, seen)


def config(folder: Path, *more: str, preset: str = "paper", **request: Any) -> CompletionConfig:
    asked = CompletionRequest("image", "maco", **{"missing_rate": 0.4, **request})
    section = section_of(asked, folder / "image.h5", folder / "out.h5")
    return resolve_completion(section, preset, {}, [*SMALL, *more])


def run(folder: Path, name: str, *more: str, callbacks: Sequence[Callback] = (),
        preset: str = "paper", **request: Any) -> dict[str, Any]:  # fmt: skip
    settings = config(folder, *more, preset=preset, **request)
    return run_completion(settings, folder / "g", RunDirectory(folder / name), callbacks)


def remains(folder: Path, name: str) -> tuple[Any, ...]:
    """Vectors, weights and trace without times."""
    directory = RunDirectory(folder / name)
    with FeatureStore(folder / "out.h5") as store:
        vectors = store.read().tobytes()
    return (vectors, directory.weights.read_bytes(), epochs(directory.trace))


@pytest.mark.parametrize("preset", ["paper", "released"])
@pytest.mark.parametrize("after", [1, 4, 9, 24])
def test_a_resumed_completion_is_identical_to_an_uninterrupted_one(
    tmp_path: Path, after: int, preset: str
) -> None:
    prepare(tmp_path)
    report = run(tmp_path, "whole", preset=preset)
    whole, state = remains(tmp_path, "whole"), last_state(tmp_path / "whole")
    (tmp_path / "out.h5").unlink()
    message = r"checkpoint saved. Resume with: mmkgc complete --resume .*broken"
    with pytest.raises(Interrupted, match=message) as caught:
        run(tmp_path, "broken", callbacks=[StopAfter(after)], preset=preset)
    assert caught.value.exit_code == 143
    assert not (tmp_path / "out.h5").exists()
    resumed = resume_completion(RunDirectory(tmp_path / "broken"), None)
    assert remains(tmp_path, "broken") == whole
    other = last_state(tmp_path / "broken")
    assert state is not None
    assert other is not None
    assert all(torch.equal(state[key], other[key]) for key in state.keys() | other.keys())
    assert {**resumed, "run": ""} == {**report, "run": ""}


def test_a_finished_completion_makes_its_vectors_again(tmp_path: Path) -> None:
    prepare(tmp_path)
    run(tmp_path, "run")
    before = remains(tmp_path, "run")
    (tmp_path / "out.h5").unlink()
    resume_completion(RunDirectory(tmp_path / "run"), None, [StopAfter(1)])
    assert remains(tmp_path, "run") == before
    Checkpoints(tmp_path / "run" / "checkpoints", 1).clear()
    with pytest.raises(DataError, match=r"the run is finished and its checkpoints were removed"):
        resume_completion(RunDirectory(tmp_path / "run"), None)


def test_hidden_vectors_are_measured_during_training_and_do_not_affect_it(tmp_path: Path) -> None:
    prepare(tmp_path)
    recorder = Recorder()
    run(tmp_path, "a", callbacks=[recorder])
    measured = [report.epoch for report in recorder.reports if report.valid]
    assert measured == [2, 4, 6]
    assert all(not report.improved for report in recorder.reports)
    events = [e for e in read_trace(tmp_path / "a" / "trace.jsonl") if e["event"] == "epoch"]
    assert [bool(event["hidden"]) for event in events] == [False, True] * 3
    assert {"centred_cosine", "hits10", "count"} <= events[1]["hidden"].keys()
    first = remains(tmp_path, "a")
    # Other hidden vectors: the same result.
    hidden = missing_mask(MaskRequest("image", 0.4, 0), GRAPH.entities, SEEN)
    other = tmp_path / "other"
    prepare(other, values=np.where(hidden[:, None], 100.0, VALUES).astype(np.float32))
    run(other, "a")
    assert remains(other, "a")[:2] == first[:2]


@pytest.mark.parametrize("variant", ["gen", "all-gen"])
def test_the_store_holds_what_the_generator_makes(
    tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    generated = []

    def recording(*args: Any) -> Any:
        generated.append(generate_vectors(*args))
        return generated[-1]

    monkeypatch.setattr(completion, "generate_vectors", recording)
    report = run(tmp_path, "run", variant=variant, missing_rate=None)
    wanted = ~SEEN if variant == "gen" else np.ones(60, dtype=bool)
    assert len(generated) == 1
    assert (report["generated"], report["fallback"]) == (
        wanted.sum(), int(generated[0].rejected.sum())
    )  # fmt: skip
    with FeatureStore(tmp_path / "out.h5") as store:
        values = store.read()
        assert store.generated is not None
        assert np.array_equal(store.generated, wanted)
        record = store.metadata.completion
    # Names of entities ascend, so their order in the graph is that of the problem.
    assert np.array_equal(values[wanted], generated[0].vectors.numpy())
    assert np.array_equal(values[~wanted], VALUES[~wanted])
    assert record["settings"]["candidates"] == 8
    assert (record["strategy"], record["train_id"]) == ("maco", GRAPH.train_id)


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
    report = run(tmp_path, "run", missing_rate=None, variant=variant)
    assert report["generated"] == (60 if variant == "all-gen" else 60 - len(seen))
    with FeatureStore(tmp_path / "out.h5") as store:
        assert np.isfinite(store.read()).all()


def test_the_mean_of_all_candidates_replaces_rejected_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)

    def rejecting(model: Any, *rest: Any) -> Any:
        with torch.no_grad():
            model.discriminator.last.bias.fill_(-1e6)
        return generate_vectors(model, *rest)

    monkeypatch.setattr(completion, "generate_vectors", rejecting)
    report = run(tmp_path, "run", missing_rate=None)
    assert report["fallback"] == report["generated"] == 10
    assert report["fallback_is"] == "the mean of all candidates, because none was accepted"


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


def test_a_completion_resumes_only_with_its_own_store_and_graph(tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(Interrupted):
        run(tmp_path, "run", callbacks=[StopAfter(3)])
    directory = RunDirectory(tmp_path / "run")
    write_graph(communities(60, 6, seed=1)[0], tmp_path / "other")
    with pytest.raises(
        DataError,
        match=r"run: trained on graph 'small' .*; pass the folder of its graph with --graph",
    ):
        resume_completion(directory, tmp_path / "other")
    write(tmp_path / "image.h5", GRAPH.entities, 2 * VALUES, SEEN)
    with pytest.raises(
        DataError, match=r"image.h5: not the feature store of this run: expected SHA-256"
    ):
        resume_completion(directory, None)


def test_a_store_of_another_run_is_not_replaced(tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(Interrupted):
        run(tmp_path, "run", callbacks=[StopAfter(3)])
    write(tmp_path / "out.h5", GRAPH.entities, VALUES, SEEN)
    before = (tmp_path / "out.h5").read_bytes()
    with pytest.raises(
        UsageError, match=r"out.h5: exists and was not written by this run; move or remove"
    ):
        resume_completion(RunDirectory(tmp_path / "run"), None)
    assert (tmp_path / "out.h5").read_bytes() == before


def test_a_loss_that_is_not_finite_ends_it_and_is_traced(tmp_path: Path) -> None:
    prepare(tmp_path, values=1e20 * VALUES)
    with pytest.raises(NonFiniteLoss, match="lower the learning rate"):
        run(tmp_path, "run", "maco.regression=1")
    status = inspect(tmp_path / "run")
    assert (status.state, status.completes, status.strategy) == (State.failed, "image", "maco")
    assert not (tmp_path / "out.h5").exists()


def test_a_configuration_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    settings = config(tmp_path, "maco.discriminator=joint", preset="released", seed=3)
    assert settings.maco == dataclasses.replace(
        RELEASED, input_width=4, encoder_hidden=6, noise=3, hidden=7, batch_size=16, candidates=8,
        lr=0.01, epochs=6, discriminator="joint", seed=3,
    )  # fmt: skip
    path = tmp_path / "config.toml"
    path.write_text(to_toml(settings))
    assert read_completion(path) == settings
    values = read_toml(path).values
    assert unlike_defaults(values)["maco.tau" if settings.maco.tau != PAPER.tau else "maco.lr"] == (
        0.01, 1e-4,
    )  # fmt: skip
    assert unlike_defaults(values)["validation.every"] == (2, 25)
    path.write_text('strategy = "ridge"\n' + to_toml(settings).partition("\n")[2])
    with pytest.raises(DataError, match=r"config.toml: expected strategy 'maco', got 'ridge'"):
        read_completion(path)
    path.write_text('scorer = "rotate"\n')
    with pytest.raises(DataError, match=r"got no strategy; resume a training with mmkgc train"):
        read_completion(path)
    path.write_text(to_toml(settings).replace("tau = 2.0", 'tau = "warm"'))
    with pytest.raises(DataError, match=r"config.toml: the section 'maco' is damaged"):
        read_completion(path)


def test_every_wrong_setting_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        config(tmp_path, "maco.alpa=1", "maco.seed=2", "maco.tau=-1", "trainin.threads=2",
               "training.threads=many")  # fmt: skip
    assert str(caught.value).splitlines() == [
        "--set maco.alpa: unknown setting maco.alpa; did you mean 'maco.alpha'?",
        "--set maco.seed: the seed is not a setting; pass --seed",
        "--set trainin.threads: unknown setting trainin.threads; did you mean 'training.threads'?",
        "--set maco.tau: input should be greater than 0, got -1; change the value of maco.tau",
        "--set training.threads: input should be a valid integer, got 'many'; "
        "change the value of training.threads",
    ]
    with pytest.raises(UsageError, match="unknown preset 'papr'; did you mean 'paper'"):
        config(tmp_path, preset="papr")


def test_runs_of_completions_are_listed_and_shown(
    tmp_path: Path, mmkgc: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    with pytest.raises(Interrupted):
        run(tmp_path, "runs/a", callbacks=[StopAfter(7)])
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
        assert "this run is a completion and has no scorer; pass a run of `mmkgc train`" in done.err


def test_every_setting_is_documented_with_both_presets() -> None:
    rows = {}
    for line in (ROOT / "docs" / "maco.md").read_text().splitlines():
        if line.startswith(("| `maco.", *(f"| `{section}." for section in SECTIONS))):
            name, paper, released, about = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name.strip("`")] = (paper, released, about)
    fields: dict[str, Any] = {
        f"maco.{name}": field for name, field in vars(MacoSettings)["__pydantic_fields__"].items()
    }
    del fields["maco.seed"]
    for section, section_class in SECTIONS.items():
        fields |= {f"{section}.{key}": field for key, field in section_class.model_fields.items()}
    assert list(rows) == list(fields)

    def shown(value: object) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    for name, (paper, released, description) in rows.items():
        section, _, key = name.partition(".")
        assert description == fields[name].description
        assert paper == shown(fields[name].default)
        other = getattr(RELEASED, key) if section == "maco" else fields[name].default
        assert released == ("" if other == fields[name].default else shown(other))
