from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from mmkgc_cli.errors import DataError
from mmkgc_cli.state import files
from mmkgc_cli.state.atomic import atomic_file, make_folder, read_json, write_json, write_text
from mmkgc_cli.state.rng import generator, stream_seed
from mmkgc_cli.state.trace import Trace, read_trace
from mmkgc_cli.state.weights import checksum, load_weights, save_weights


def test_a_write_is_complete_or_has_no_effect(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with pytest.raises(ValueError, match="half way"), atomic_file(path) as file:
        file.write(b"half")
        raise ValueError("half way")
    assert list(path.parent.iterdir()) == []
    write_text(path, "whole")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_temporary_files_of_killed_processes_are_removed_and_others_kept(
    tmp_path: Path,
) -> None:
    code = (
        "import os, signal, sys, pathlib\n"
        "from mmkgc_cli.state.atomic import atomic_file\n"
        "with atomic_file(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "file"
    killed = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    (torn,) = tmp_path.iterdir()
    assert torn.name.startswith(".file.")
    living = torn.with_name(torn.name.rpartition("-")[0] + f"-{os.getppid()}.tmp")
    living.write_bytes(b"at work")
    write_text(path, "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"file", living.name}


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full .* free some space, or write to another folder"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_a_failed_write_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    path = tmp_path / "file"
    with pytest.raises(DataError, match=f"file: cannot be written: {message}") as caught:
        write_text(path, "x")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(DataError, match="is a file, expected a folder"):
        make_folder(tmp_path / "f")


def test_json_rejects_nan_and_errors_have_a_line_number(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"x": float("nan")})
    assert not path.exists()
    write_json(path, {"x": 1})
    assert read_json(path) == {"x": 1}
    path.write_text('{"x": 1,\n oops}')
    with pytest.raises(DataError, match=r"a.json:2: not valid JSON"):
        read_json(path)


def test_streams_are_independent_and_reproducible() -> None:
    assert stream_seed(0, "a") == stream_seed(0, "a")
    assert len({stream_seed(s, n) for s in range(10) for n in "abc"}) == 30
    draws = [torch.rand(3, generator=generator(0, name)).tolist() for name in ("a", "a", "b")]
    assert draws[0] == draws[1] != draws[2]


def test_an_incomplete_last_line_of_a_trace_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with Trace(path) as trace:
        trace.write("start", x=1)
        trace.write("epoch", loss=0.5)
    with path.open("a") as file:
        file.write('{"event": "epo')
    assert [event["event"] for event in read_trace(path)] == ["start", "epoch"]
    path.write_text('{"event": "start"}\n{torn\n{"event": "end"}\n')
    with pytest.raises(DataError, match=r"trace.jsonl:2: not a JSON object"):
        read_trace(path)


def test_trace_seconds_do_not_decrease_and_cannot_be_overwritten(tmp_path: Path) -> None:
    with Trace(tmp_path / "trace.jsonl") as trace:
        for i in range(5):
            trace.write("epoch", number=i)
        with pytest.raises(ValueError, match=r"cannot have fields named \['seconds'\]"):
            trace.write("epoch", seconds=3)
    seconds = [event["seconds"] for event in read_trace(tmp_path / "trace.jsonl")]
    assert seconds == sorted(seconds)
    assert len(seconds) == 5


TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2]), "empty": torch.empty(0)}


def test_saved_weights_are_loaded_unchanged_and_the_checksum_covers_everything(
    tmp_path: Path,
) -> None:
    path = tmp_path / "w.safetensors"
    digest = save_weights(path, TENSORS, {"k": "v"})
    tensors, metadata = load_weights(path)
    assert metadata["k"] == "v"
    assert checksum(tensors) == digest
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
    changed = [
        {**TENSORS, "a": TENSORS["a"].view(3, 2)},
        {**TENSORS, "b": TENSORS["b"].float()},
        {**TENSORS, "a": TENSORS["a"] + 1},
        {"c" if name == "a" else name: value for name, value in TENSORS.items()},
    ]
    assert len({digest, *map(checksum, changed)}) == 5


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    for name in "abcd":
        save_weights(tmp_path / name, TENSORS, {"k": "v", "l": "w", "m": "x"})
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_damaged_weights_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, TENSORS, {})
    whole = path.read_bytes()
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"w.safetensors: not a readable safetensors file"):
            load_weights(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="do not match their checksum"):
        load_weights(path)
    safetensors.torch.save_file({"a": torch.ones(2)}, path)
    with pytest.raises(DataError, match="has no checksum"):
        load_weights(path)
    path.unlink()
    with pytest.raises(DataError, match="no such file; finish the run first"):
        load_weights(path)


def test_a_write_that_a_signal_interrupts_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python repeats an interrupted call, but returns after a part of the bytes."""

    class Interrupted(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(memoryview(data)[:7])

    monkeypatch.setattr(files, "open_file", lambda path, mode, buffering: Interrupted(path, mode))
    with Trace(tmp_path / "trace.jsonl") as trace:
        trace.write("epoch", number=1)
        trace.write("epoch", number=2)
    assert [row["number"] for row in read_trace(tmp_path / "trace.jsonl")] == [1, 2]
