from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import settings

# The rest of the package is imported where it is needed: the tests of the ops run where its
# dependencies are not installed.
if TYPE_CHECKING:
    from mmkgc_cli.kg.graph import Graph

# No deadline: a busy machine is no bug. Derandomised: a red test is red for everybody.
settings.register_profile("mmkgc", deadline=None, derandomize=True)
settings.load_profile("mmkgc")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def real_data() -> Path:
    """Real benchmark files: MMKGC_TEST_DATA, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("MMKGC_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real benchmark files in {folder}; set MMKGC_TEST_DATA")
    return folder


@pytest.fixture
def graph() -> Graph:
    return random_graph(40, 5, 300, seed=0)


def random_graph(n_entities: int, n_relations: int, n_triples: int, seed: int) -> Graph:
    """A graph of distinct random triples, a tenth of them valid and a tenth test."""
    from mmkgc_cli.kg.graph import Graph

    rng = np.random.default_rng(seed)
    sample = np.stack(
        [
            rng.integers(n_entities, size=2 * n_triples),
            rng.integers(n_relations, size=2 * n_triples),
            rng.integers(n_entities, size=2 * n_triples),
        ],
        axis=1,
    )
    rows = rng.permutation(np.unique(sample, axis=0))[:n_triples].astype(np.int32)
    tenth = n_triples // 10
    return Graph(
        "random",
        [f"entity {i}" for i in range(n_entities)],
        [f"relation {i}" for i in range(n_relations)],
        rows[2 * tenth :],
        rows[:tenth],
        rows[tenth : 2 * tenth],
    )


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def mmkgc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Runs the command line in `tmp_path`, in this process: importing torch anew takes longest.

    Tests that need a process of their own (signals, limits, environments) use `command`.
    """
    from mmkgc_cli.app import main
    from mmkgc_cli.state import interrupts, notices

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["mmkgc", *map(str, arguments)])
        before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
        trust = os.environ.get("MMKGC_TRUST_PLUGINS", "")
        try:
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            notices.receiver = None
            os.environ["MMKGC_TRUST_PLUGINS"] = trust  # commands extend it for their children
        out, err = capfd.readouterr()
        assert "Traceback" not in err, err
        return Outcome(code, out, err)

    return run


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "mmkgc_cli", *map(str, arguments)]


def write_openke(
    folder: Path,
    entities: Sequence[str],
    relations: Sequence[str],
    splits: Mapping[str, Sequence[tuple[int, int, int]]],
) -> Path:
    """Writes an OpenKE folder from (head, relation, tail) ids."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, names in (("entity", entities), ("relation", relations)):
        lines = [str(len(names)), *(f"{name}\t{i}" for i, name in enumerate(names))]
        (folder / f"{kind}2id.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for split in ("train", "valid", "test"):
        rows = splits.get(split, [])
        lines = [str(len(rows)), *(f"{h} {t} {r}" for h, r, t in rows)]
        (folder / f"{split}2id.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def openke(tmp_path: Path) -> Path:
    """A small OpenKE folder that is right; tests break one thing in it."""
    return write_openke(
        tmp_path / "openke",
        ["Paris", "France", "São Paulo, Brazil", "東京"],
        ["capital of", "near"],
        {
            "train": [(0, 0, 1), (2, 1, 3), (3, 1, 0), (1, 1, 2)],
            "valid": [(0, 1, 2)],
            "test": [(2, 1, 0)],
        },
    )


@pytest.fixture(autouse=True)
def _own_cache(
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No test reads or fills the user's cache, or another test's; nor does it see their plugins.

    Plugins of tests are trusted; tests of trust (tests/test_trust.py) take that back.
    """
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    monkeypatch.setenv("MMKGC_HOME", str(tmp_path_factory.getbasetemp() / f"home-{name}"))
    monkeypatch.delenv("MMKGC_OFFLINE", raising=False)
    monkeypatch.delenv("MMKGC_SCORERS", raising=False)
    monkeypatch.delenv("MMKGC_SAMPLERS", raising=False)
    monkeypatch.setenv("MMKGC_TRUST_PLUGINS", "1")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Commands that run in this process change the handlers, which processes of tests inherit."""
    numbers = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)
