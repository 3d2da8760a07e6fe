"""Writing a file follows no planted link, keeps permissions, and replaces regular files only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.state import atomic, files, interrupts
from mmkgc_cli.state.atomic import atomic_file, sweep, write_text

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and links")


@pytest.fixture
def umask() -> int:
    """The umask of this process."""
    value = os.umask(0o022)
    os.umask(value)
    return value


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def temporary_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.tmp"))


@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o644, 0o664, 0o400, 0o755])
def test_permissions_of_a_file_are_kept(tmp_path: Path, permissions: int) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(permissions)
    write_text(path, "new")
    assert (path.read_text(), mode(path)) == ("new", permissions)


def test_a_secret_file_is_secret_before_its_contents_are_written(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch(mode=0o600)
    with atomic_file(path) as file:
        (temporary,) = temporary_files(tmp_path)
        assert mode(temporary) == 0o600
        file.write(b"secret")


def test_new_files_have_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    write_text(tmp_path / "x", "new")
    assert mode(tmp_path / "x") == 0o666 & ~umask


def test_names_of_temporary_files_are_unpredictable(tmp_path: Path) -> None:
    names: set[str] = set()
    for _ in range(20):
        with atomic_file(tmp_path / "x"):
            names.update(path.name for path in temporary_files(tmp_path))
    assert len(names) == 20


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the name were guessed."""
    monkeypatch.setattr(atomic, "_token", lambda: "00000000")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    planted = tmp_path / f".x.{atomic._HOST}-{os.getpid()}-00000000.tmp"
    planted.symlink_to(victim)
    with pytest.raises(DataError, match="x: cannot be written: File exists"):
        write_text(tmp_path / "x", "new")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("dangling", [False, True])
def test_an_output_that_is_a_link_stays_one(tmp_path: Path, dangling: bool) -> None:
    target = tmp_path / "elsewhere" / "target"
    target.parent.mkdir()
    if not dangling:
        target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(Path("elsewhere") / "target")
    with atomic_file(link) as file:
        assert temporary_files(target.parent)
        assert not temporary_files(tmp_path)
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(DataError, match="a: cannot be written: Too many levels"):
        write_text(tmp_path / "a", "new")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "a device, a pipe or a socket"),
        (lambda path: path.symlink_to("/dev/null"), "a device, a pipe or a socket"),
    ],
    ids=["folder", "pipe", "link to a device"],
)
def test_only_regular_files_are_replaced(tmp_path: Path, make: object, kind: str) -> None:
    path = tmp_path / "x"
    make(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=f"x: is {kind}, expected a file; give the path"):
        write_text(path, "new")
    assert path.exists()


def test_the_last_of_several_hard_links_is_not_written_through(tmp_path: Path) -> None:
    """A rename replaces one name; another name keeps the old contents."""
    path, other = tmp_path / "x", tmp_path / "other"
    path.write_text("old")
    other.hardlink_to(path)
    write_text(path, "new")
    assert (path.read_text(), other.read_text()) == ("new", "old")


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_temporary_files_of_ended_processes_are_removed(tmp_path: Path) -> None:
    pid = dead_process()
    old = [
        tmp_path / f".x.{atomic._HOST}-{pid}.tmp",
        tmp_path / f".x.{atomic._HOST}-{pid}-0123abcd.tmp",
    ]
    kept = [
        tmp_path / f".x.{atomic._HOST}-{os.getpid()}-0123abcd.tmp",
        tmp_path / f".x.otherhost-{pid}-0123abcd.tmp",
        tmp_path / f".y.{atomic._HOST}-{pid}-0123abcd.tmp",
    ]
    for path in (*old, *kept):
        path.touch()
    sweep(tmp_path, "x")
    assert temporary_files(tmp_path) == sorted(kept)


def test_a_temporary_file_that_is_locked_is_in_use(tmp_path: Path) -> None:
    """A process of another container is not visible by its number."""
    path = tmp_path / f".x.{atomic._HOST}-{dead_process()}-0123abcd.tmp"
    with path.open("wb") as file:
        assert files.lock(file)
        sweep(tmp_path, "x")
        assert path.exists()
    sweep(tmp_path, "x")
    assert not path.exists()


def test_a_signal_removes_the_temporary_files_of_the_process(tmp_path: Path) -> None:
    with pytest.raises(DataError), atomic_file(tmp_path / "x"):
        assert temporary_files(tmp_path)
        for cleanup in interrupts.cleanups:
            cleanup()
        assert not temporary_files(tmp_path)
    assert not (tmp_path / "x").exists()
