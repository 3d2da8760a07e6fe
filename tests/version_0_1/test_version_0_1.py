"""Runs, a batch and stores of mmkgc 0.1: upgraded, evaluated, resumed, as 0.1 would have done."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.runs.version_0_1 import MOVED, is_of_0_1, upgrade_text
from mmkgc_cli.state.weights import load_weights
from tests.conftest import ROOT, Outcome

ARCHIVE = Path(__file__).parent / "fixtures.tar.xz"
# The machine that made the fixtures; other vector units sum in another order.
CAPABILITY = "AVX512"
PLACE = "/data/small"  # where 0.1 made them

Command = Callable[..., Outcome]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The files of 0.1, moved here."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    for config in tmp_path.rglob("*.toml"):
        config.write_text(config.read_text().replace(PLACE, str(tmp_path)))
    return tmp_path


def assert_same_weights(ours: Path, expected: Path) -> None:
    tensors, _ = load_weights(ours)
    wanted, _ = load_weights(expected)
    assert tensors.keys() == wanted.keys()
    exact = torch.backends.cpu.get_cpu_capability() == CAPABILITY
    for name, tensor in tensors.items():
        if exact:
            assert torch.equal(tensor, wanted[name]), name
        else:
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-4)


def test_a_finished_run_is_evaluated_to_the_same_ranks(old: Path, mmkgc: Command) -> None:
    refused = mmkgc("eval", "finished")
    assert (refused.code, len(refused.err.splitlines())) == (3, 1)
    assert refused.err.rstrip().endswith("mmkgc config upgrade finished")
    upgraded = mmkgc("config", "upgrade", "finished")
    assert upgraded.code == 0, upgraded.err
    assert "had no effect" in upgraded.out
    assert mmkgc("eval", "finished").code == 0
    ranks = (old / "finished" / "ranks-test.tsv").read_bytes()
    assert ranks == (old / "expected" / "finished-ranks.tsv").read_bytes()


def test_an_upgraded_file_is_left_alone(old: Path, mmkgc: Command) -> None:
    mmkgc("config", "upgrade", "finished")
    text = (old / "finished" / "config.toml").read_text()
    assert mmkgc("config", "upgrade", "finished").out.strip() == "nothing to rewrite"
    assert (old / "finished" / "config.toml").read_text() == text


def test_an_interrupted_training_resumes_to_the_same_weights_and_ranks(
    old: Path, mmkgc: Command
) -> None:
    assert mmkgc("train", "--resume", "interrupted").code == 3
    assert mmkgc("config", "upgrade", "interrupted").code == 0
    resumed = mmkgc("train", "--resume", "interrupted")
    assert resumed.code == 0, resumed.err
    assert_same_weights(
        old / "interrupted" / "model.safetensors", old / "expected" / "interrupted.safetensors"
    )
    assert mmkgc("eval", "interrupted").code == 0
    if torch.backends.cpu.get_cpu_capability() == CAPABILITY:
        ranks = (old / "interrupted" / "ranks-test.tsv").read_bytes()
        assert ranks == (old / "expected" / "interrupted-ranks.tsv").read_bytes()


def test_an_interrupted_completion_resumes_to_the_same_vectors(old: Path, mmkgc: Command) -> None:
    assert mmkgc("complete", "--resume", "completing").code == 3
    assert mmkgc("config", "upgrade", "completing").code == 0
    resumed = mmkgc("complete", "--resume", "completing")
    assert resumed.code == 0, resumed.err
    assert_same_weights(
        old / "completing" / "model.safetensors", old / "expected" / "completing.safetensors"
    )
    with (
        h5py.File(old / "completed.h5") as ours,
        h5py.File(old / "expected" / "completed.h5") as theirs,
    ):
        assert np.allclose(ours["vectors"][:], theirs["vectors"][:], rtol=1e-3, atol=1e-4)
        if torch.backends.cpu.get_cpu_capability() == CAPABILITY:
            assert np.array_equal(ours["vectors"][:], theirs["vectors"][:])


def test_a_batch_keeps_its_finished_jobs(old: Path, mmkgc: Command) -> None:
    jobs = sorted(path.name for path in (old / "batch" / "jobs").iterdir())
    finished = {name: digest(old / "batch" / "jobs" / name / "ending.json") for name in jobs}
    assert mmkgc("batch", "run", "recipe.toml", "--out", "batch").code == 3
    assert mmkgc("config", "upgrade", "recipe.toml").code == 0
    refused = mmkgc("batch", "run", "recipe.toml", "--out", "batch")
    assert refused.code == 3
    assert refused.err.rstrip().endswith("mmkgc config upgrade batch")
    assert mmkgc("config", "upgrade", "batch").code == 0
    ended = mmkgc("batch", "run", "recipe.toml", "--out", "batch", "--jobs", "2")
    assert ended.code == 0, ended.err
    assert {name: digest(old / "batch" / "jobs" / name / "ending.json") for name in jobs} == (
        finished
    )
    assert len(list((old / "batch" / "jobs").iterdir())) == 8
    table = mmkgc("batch", "results", "batch").out
    # Old and new jobs are means over the same seeds.
    assert [line.split()[5] for line in table.splitlines()[1:]] == ["2"] * 4, table


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_runs_of_0_1_are_listed_before_they_are_upgraded(old: Path, mmkgc: Command) -> None:
    listed = mmkgc("runs", "list", str(old))
    assert listed.code == 0
    assert "finished" in listed.out
    assert mmkgc("runs", "show", "interrupted").code == 0


@pytest.mark.parametrize("name", ["graph/features/image.h5", "image-40.h5"])
def test_stores_open_and_hold_what_they_held(old: Path, name: str) -> None:
    with FeatureStore(old / name) as store:
        store.verify()
        assert store.read().shape == (40, 6)
        assert store.observed.sum() == (18 if name.startswith("image-40") else 30)


def test_every_recipe_has_the_present_form() -> None:
    import tomllib

    for path in (ROOT / "recipes").glob("*.toml"):
        assert not is_of_0_1(tomllib.loads(path.read_text())), path


@pytest.mark.parametrize("header", ["[training]", "[settings.training]", "[grid.training]"])
def test_comments_and_the_order_of_settings_survive(header: str) -> None:
    text = f"# top\n{header}\n# rate\nlr = 0.1  # fast\nepochs = 3\n\n[model]\ndim = 4\n"
    new, dropped = upgrade_text(text)
    outer = header.strip("[]").removesuffix("training")
    assert new == (
        f"# top\n{header}\nepochs = 3\n\n[{outer}optimizer]\n# rate\nlr = 0.1  # fast\n"
        "[model]\ndim = 4\n"
    ).replace("fast\n[model]", "fast\n\n[model]")
    assert dropped == []


def test_no_setting_of_0_1_has_two_present_names() -> None:
    assert len(set(MOVED.values())) == len(MOVED)
