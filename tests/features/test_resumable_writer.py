from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.resumable_writer import ResumableWriter
from mmkgc_cli.features.store import FeatureStore
from tests.conftest import ROOT
from tests.features.small import vectors, write
from tests.features.writer import WIDTH, N, extract


def test_a_writer_that_stopped_resumes(tmp_path: Path) -> None:
    extract(tmp_path / "whole.h5")
    path = tmp_path / "s.h5"
    for stop in (0, 30, 31, 100, N):
        extract(path, stop)
        assert path.exists() == (stop == N)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5", "whole.h5"]


def test_appended_rows_are_kept_when_a_writer_resumes(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with ResumableWriter(path, Metadata("text"), 2, {"a": 1}) as part:
        part.append(["x", "y"], vectors(2, 2), np.array([True, False]), [["y", "empty"]])
        part.append([], vectors(0, 2), np.zeros(0, dtype=bool), ["nothing"])
    with ResumableWriter(path, Metadata("text"), 2, {"a": 1}) as part:
        assert (part.ids, part.observed) == (["x", "y"], [True, False])
        assert part.notes == [["y", "empty"], "nothing"]
        part.append(["z"], vectors(3, 2)[2:], np.array([True]))
        part.finish(ids=["a", "z", "b", "y", "x"])
    with FeatureStore(path) as store:
        assert store.ids == ["a", "z", "b", "y", "x"]
        assert store.observed.tolist() == [False, True, False, False, True]
        assert np.array_equal(store.read()[[1, 4]], vectors(3, 2)[[2, 0]])
        assert not store.read()[[0, 2, 3]].any()


def test_a_full_disk_is_reported_with_the_partial_file(tmp_path: Path) -> None:
    """Limits the sizes of files; closing the file must not replace the error."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    part = ResumableWriter(tmp_path / "s.h5", Metadata("text"), 2, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(DataError, match=r"s\.h5\.part: cannot be written: the file is"), part:
            part.append([str(i) for i in range(99)], vectors(99, 2), np.ones(99, dtype=bool))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_rows_must_be_in_the_given_order_once(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with ResumableWriter(path, Metadata("text"), 2, {}) as part:
        part.append(["x", "y"], vectors(2, 2), np.ones(2, dtype=bool))
        with pytest.raises(ValueError, match="'y' is not among the rows of the store"):
            part.finish(ids=["x"])
        part.append(["x"], vectors(1, 2), np.ones(1, dtype=bool))
        with pytest.raises(DataError, match="the id 'x' is repeated"):
            part.finish(ids=["x", "y"])
    assert not path.exists()


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with ResumableWriter(path, Metadata("text"), 2, {}) as part:
        part.append(["x"], vectors(1, 2), np.ones(1, dtype=bool))
        with pytest.raises(MmkgcError, match="s.h5: another process is making this store"):
            ResumableWriter(path, Metadata("text"), 2, {}, resume=False)
    with ResumableWriter(path, Metadata("text"), 2, {}) as part:
        assert part.ids == ["x"]
        part.discard()
    assert not list(tmp_path.iterdir())


def test_a_torn_part_is_resumed(tmp_path: Path) -> None:
    extract(tmp_path / "whole.h5")
    path, part = tmp_path / "s.h5", tmp_path / "s.h5.part"
    extract(path, 30)
    data = part.read_bytes()
    for size in range(0, len(data), 97):
        part.write_bytes(data[:size])
        extract(path)
        assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes(), size
        path.unlink()


def test_a_damaged_record_and_later_ones_are_written_again(tmp_path: Path) -> None:
    path, part = tmp_path / "s.h5", tmp_path / "s.h5.part"
    extract(path, 60)
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    extract(path)
    extract(tmp_path / "whole.h5")
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_part_of_another_job_is_refused_and_discarded_on_request(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    extract(path, 30)
    with pytest.raises(DataError, match=r"s.h5.part: left by another job .*delete this file"):
        ResumableWriter(path, Metadata("image"), WIDTH, {"inputs": "y"})
    with pytest.raises(DataError, match="left by another job"):
        ResumableWriter(path, Metadata("image"), WIDTH + 1, {"inputs": "x"})
    with ResumableWriter(path, Metadata("image"), WIDTH, {"inputs": "y"}, resume=False) as part:
        assert part.ids == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_writer_leaves_the_old_store_or_the_new_one_and_loses_nothing(
    tmp_path: Path,
) -> None:
    extract(tmp_path / "whole.h5")
    expected = (tmp_path / "whole.h5").read_bytes()
    path = write(tmp_path / "s.h5", ["old"], vectors(1, 1))
    old = path.read_bytes()
    rng = random.Random(0)
    most = kills = 0
    while kills < 6:
        process = subprocess.Popen([sys.executable, "-m", "tests.features.writer", path], cwd=ROOT)
        # Importing takes longest, so wait until it writes.
        part = tmp_path / "s.h5.part"
        size = part.stat().st_size if part.exists() else 0
        while process.poll() is None and (part.stat().st_size if part.exists() else 0) <= size:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
        assert path.read_bytes() in (old, expected)
        if part.exists():
            with ResumableWriter(path, Metadata("image"), WIDTH, {"inputs": "x"}) as writer:
                assert len(writer.ids) >= most
                assert writer.ids == [f"e{i}" for i in range(len(writer.ids))]
                most = len(writer.ids)
        else:  # killed after the store was made, or before the part was
            assert most == 0 or path.read_bytes() == expected
            most = 0
    assert kills
    extract(path)
    assert path.read_bytes() == expected
    with FeatureStore(path) as store:
        store.verify()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5", "whole.h5"]
