from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError
from tests.fuzz import targets
from tests.fuzz.targets import Target
from tests.fuzz.watch import Guard, Watch


def test_the_watch_sees_what_any_process_opens_creates_or_removes(tmp_path: Path) -> None:
    for name in ("secret", "old"):
        (tmp_path / name).write_bytes(b"x")
    watch = Watch(tmp_path)
    assert watch.names() == []
    subprocess.run(["cat", str(tmp_path / "secret")], check=True, stdout=subprocess.DEVNULL)
    assert watch.names() == ["secret"]
    (tmp_path / "new").touch()
    (tmp_path / "old").unlink()
    assert watch.names() == ["new", "old"]
    assert watch.names() == []


def test_the_guard_reports_files_code_and_programs_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, outside = tmp_path / "input", tmp_path / "outside"
    folder.mkdir()
    outside.touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    guard = Guard()
    guard.folder = str(folder)
    (folder / "inside").write_text("1")
    subprocess.run([sys.executable, "-V"], check=True, stdout=subprocess.DEVNULL)
    assert guard.found == []
    (folder / ".." / "outside").read_bytes()
    os.listdir(tmp_path)  # noqa: PTH208
    exec(compile("1", str(folder / "plugin.py"), "exec"))
    subprocess.run(["true"], check=True)
    guard.folder = None
    outside.read_bytes()
    assert guard.found == [
        f"open '{folder}/../outside'",
        f"os.listdir '{tmp_path}'",
        f"ran code of '{folder}/plugin.py'",
        "started 'true'",
    ]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("PATH: is wrong", "no problem or no fix"),
        ("PATH: is wrong; the file is bad", "not a fix"),
        ("is wrong; correct that line", "is wrong"),
    ],
)
def test_a_refusal_without_a_fix_or_a_path_is_a_failure(
    message: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(data: bytes, folder: Path) -> None:
        problem, _, fix = message.replace("PATH", str(folder)).partition("; ")
        raise DataError(problem, fix=fix)

    monkeypatch.setitem(targets.TARGETS, "run", Target(run, 1))
    with pytest.raises(AssertionError, match=reason):
        targets.check("run", b"", tmp_path)
