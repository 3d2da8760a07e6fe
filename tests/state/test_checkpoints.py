from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError
from mmkgc_cli.state.checkpoints import Checkpoints, pack, unpack

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
)


@given(STATES)
def test_nested_states_are_restored_unchanged(state: Any) -> None:
    assert unpack(pack(state)) == state


def test_tensors_of_any_type_are_restored_bit_by_bit(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "nan": torch.tensor([math.nan, -0.0, math.inf]),
        "bytes": torch.get_rng_state(),
        "empty": torch.empty(0, 5),
        "scalar": torch.tensor(3, dtype=torch.int64),
    }
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(7, {"state": {0: [tensors]}, "best": -math.inf})
    latest = checkpoints.latest()
    assert latest is not None
    assert latest[0].name == "000000000007.safetensors"
    assert latest[1]["best"] == -math.inf
    for name, tensor in latest[1]["state"][0][0].items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(
            tensor.view(-1).view(torch.uint8), tensors[name].view(-1).view(torch.uint8)
        )


def test_values_that_cannot_be_restored_are_rejected() -> None:
    with pytest.raises(TypeError, match="state/x: cannot be saved in a checkpoint: set"):
        pack({"x": {1, 2}})


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    assert checkpoints.latest() is None
    for step in (1, 5, 20, 100):
        checkpoints.save(step, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "000000000020.safetensors",
        "000000000100.safetensors",
    ]
    latest = checkpoints.latest()
    assert latest is not None
    assert latest[1] == 100


@pytest.mark.parametrize("later", ["save", "clear"])
def test_temporary_files_of_killed_trainings_are_removed(tmp_path: Path, later: str) -> None:
    code = (
        "import os, signal, sys, pathlib\n"
        "from mmkgc_cli.state.atomic import atomic_file\n"
        "with atomic_file(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    half = tmp_path / "000000000007.safetensors"
    killed = subprocess.run([sys.executable, "-c", code, half], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    checkpoints = Checkpoints(tmp_path, 1)
    if later == "save":
        checkpoints.save(9, 9)
    else:
        checkpoints.clear()
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_checkpoint_is_skipped(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(1, {"x": torch.arange(5)})
    newest = checkpoints.save(2, {"x": torch.arange(6)})
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    latest = checkpoints.latest()
    assert latest is not None
    assert torch.equal(latest[1]["x"], torch.arange(5))
    latest[0].write_bytes(b"")
    with pytest.raises(DataError, match=r"000000000002.safetensors: damaged, and so are all older"):
        checkpoints.latest()
