from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.state import children, sandbox
from mmkgc_cli.state.sandbox import client
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs limits on processes")

TASKS = "tests.state.misbehaving"
Open = Callable[..., sandbox.Session]


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    """A server that finds the tasks of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "_LIBRARIES", ("numpy", "h5py", "tests"))
        sandbox.close()
        yield
        sandbox.close()


@pytest.fixture
def session(tmp_path: Path) -> Open:
    path = tmp_path / "v.h5"
    path.write_bytes(b"contents")

    def start(task: str, **limits: Any) -> sandbox.Session:
        arguments = {"path": str(path)}
        with path.open("rb") as file:
            return sandbox.Session(
                f"{TASKS}:{task}", path, file, arguments, sandbox.Limits(**limits)
            )

    return start


@pytest.mark.parametrize("is_forked", [True, False], ids=["forked", "started"])
@pytest.mark.parametrize(
    ("task", "words", "limits"),
    [
        ("crash", r"crashed the HDF5 library \(SIGSEGV\)", {}),
        ("hang", "took longer than 0.5 seconds", {"answer_seconds": 0.5}),
        ("spin", "took too much processor time", {"cpu_seconds": 1}),
        ("allocate", "needs more than 256 MiB of memory", {"memory": 1 << 28}),
        ("talk", "returned more than 1,000 bytes", {"answer_bytes": 1000}),
        ("leave", "ended with exit code 7", {}),
        ("write", r"failed: \[Errno 2[47]\]", {}),
    ],
)
def test_a_child_that_misbehaves_is_one_line(
    session: Open, monkeypatch: pytest.MonkeyPatch, is_forked: bool, task: str, words: str,
    limits: dict[str, Any],
) -> None:  # fmt: skip
    if not is_forked:
        monkeypatch.setenv("MMKGC_READ_SERVER", "0")
        limits = {"answer_seconds": 3} | limits if task == "hang" else limits
        words = words.replace("0.5", str(limits.get("answer_seconds")))
    with pytest.raises(DataError, match=f"v.h5: reading it {words}.*; check where the file comes"):
        session(task, **limits).answer()


def test_a_child_can_open_no_file(session: Open) -> None:
    with pytest.raises(DataError, match="Too many open files"):
        session("look").answer()


def test_errors_of_a_child_keep_their_kind_and_text(session: Open) -> None:
    with pytest.raises(UsageError, match="^v: has no array; give another$"):
        session("refuse").answer()


def test_questions_are_answered_until_the_session_ends(session: Open) -> None:
    with session("echo") as first, session("echo") as second:
        for child in (first, second, first):
            header, payload = child.ask({"x": 1}, b"\0\xff" * 99)
            assert (header["x"], bytes(payload)) == (1, b"\0\xff" * 99)
        pids = [child.ask({}).header["pid"] for child in (first, second)]
    assert len(set(pids)) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_killed_server_is_replaced(session: Open) -> None:
    server = client.start_server()
    assert server is not None
    with session("echo") as child:
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        with pytest.raises(DataError, match="was stopped from outside"):
            child.ask({})
    for _ in range(2):
        with session("echo") as child:
            assert child.ask({}).header["pid"]
        server = client.start_server()
        assert server is not None
        os.kill(server._process.pid, signal.SIGKILL)  # while no session is open
        server._process.wait()


PARENT = """
import signal, sys
from pathlib import Path
from mmkgc_cli.state import children, sandbox
from mmkgc_cli.state.sandbox import client
client._LIBRARIES = ("numpy", "h5py", "tests")
path = Path(sys.argv[1])
try:
    session = sandbox.Session("tests.state.misbehaving:hang", path, path.open("rb"), {},
                              sandbox.Limits())
    print(client.start_server()._process.pid, flush=True)
    with session:
        session.answer()
except KeyboardInterrupt:
    sys.exit(130)
"""


def descendants(server: int) -> list[int]:
    text = Path(f"/proc/{server}/task/{server}/children").read_text()
    return [server, *map(int, text.split())]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("number", "code"), [("SIGKILL", -9), ("SIGINT", 130)])
def test_no_process_outlives_its_parent(tmp_path: Path, number: str, code: int) -> None:
    (tmp_path / "v.h5").write_bytes(b"x")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path / "v.h5"], stdout=subprocess.PIPE, cwd=ROOT,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    pids = descendants(int(parent.stdout.readline()))
    assert len(pids) == 2
    parent.send_signal(getattr(signal, number))
    _, errors = parent.communicate(timeout=10)
    assert (parent.returncode, errors) == (code, "")
    deadline = time.monotonic() + 5
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_alive, pids))


def test_a_signal_ends_a_server_that_still_starts() -> None:
    """The server is stopped before it imports anything, so it cannot end by itself."""
    text = (
        "import os, signal, time\n"
        "from mmkgc_cli.state import interrupts\n"
        "from mmkgc_cli.state.sandbox import client\n"
        "interrupts.install()\n"
        "pid = client.start_server()._process.pid\n"
        "os.kill(pid, signal.SIGSTOP)\n"
        "print(pid, flush=True)\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run(children.python("-c", text), capture_output=True, text=True)
    assert done.returncode == 143, done.stderr
    deadline = time.monotonic() + 10
    while is_alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.01)
    alive = is_alive(int(done.stdout))
    if alive:
        os.kill(int(done.stdout), signal.SIGKILL)
    assert not alive
