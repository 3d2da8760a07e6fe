from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmkgc_cli.state import locks
from mmkgc_cli.state.locks import is_locked, try_lock

# With fcntl, and as on a system without it.
BACKENDS = ["fcntl", "filelock"]


@pytest.fixture
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "fcntl":
        pytest.importorskip("fcntl")
    else:
        monkeypatch.setattr(locks, "fcntl", None)
    return str(request.param)


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_one_holder_at_a_time(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists()
    lock = try_lock(path)
    assert lock is not None
    with lock:
        assert is_locked(path)
        assert is_locked(path)
        assert try_lock(path) is None
    assert not is_locked(path)
    again = try_lock(path)
    assert again
    again.close()


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_a_lock_ends_with_its_process(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    without = "" if backend == "fcntl" else "locks.fcntl = None; "
    code = (
        f"import os, pathlib; from mmkgc_cli.state import locks; {without}"
        f"assert locks.try_lock(pathlib.Path({str(path)!r})); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert path.exists()
    assert not is_locked(path)


def test_a_child_that_inherited_a_lock_keeps_it(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "lock"
    lock = try_lock(path)
    assert lock
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()]
    )
    lock.close()
    assert is_locked(path)
    child.communicate(b"\n")
    assert not is_locked(path)


def test_importing_needs_no_fcntl() -> None:
    code = "import sys; sys.modules['fcntl'] = None; from mmkgc_cli.state.locks import try_lock"
    subprocess.run([sys.executable, "-c", code], check=True)
