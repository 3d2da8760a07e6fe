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
def test_any_nested_state_comes_back_as_it_was(state: Any) -> None:
    assert unpack(pack(state)) == state


def test_tensors_come_back_bit_by_bit_whatever_their_type(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "nan": torch.tensor([math.nan, -0.0, math.inf]),
        "bytes": torch.get_rng_state(),
        "empty": torch.empty(0, 5),
        "scalar": torch.tensor(3, dtype=torch.int64),
    }
    kept = Checkpoints(tmp_path, 1)
    kept.save(7, {"state": {0: [tensors]}, "best": -math.inf})
    found = kept.latest()
    assert found is not None
    assert found[0].name == "000000000007.safetensors"
    assert found[1]["best"] == -math.inf
    for name, tensor in found[1]["state"][0][0].items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(
            tensor.view(-1).view(torch.uint8), tensors[name].view(-1).view(torch.uint8)
        )


def test_what_cannot_come_back_is_refused() -> None:
    with pytest.raises(TypeError, match="state/x: cannot be kept in a checkpoint: set"):
        pack({"x": {1, 2}})


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, 2)
    assert kept.latest() is None
    for step in (1, 5, 20, 100):
        kept.save(step, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "000000000020.safetensors",
        "000000000100.safetensors",
    ]
    found = kept.latest()
    assert found is not None
    assert found[1] == 100


@pytest.mark.parametrize("later", ["save", "clear"])
def test_what_a_killed_training_left_of_one_goes_though_its_step_never_comes_again(
    tmp_path: Path, later: str
) -> None:
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
    kept = Checkpoints(tmp_path, 1)
    if later == "save":
        kept.save(9, 9)
    else:
        kept.clear()
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, 2)
    kept.save(1, {"x": torch.arange(5)})
    newest = kept.save(2, {"x": torch.arange(6)})
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    found = kept.latest()
    assert found is not None
    assert torch.equal(found[1]["x"], torch.arange(5))
    found[0].write_bytes(b"")
    with pytest.raises(DataError, match=r"000000000002.safetensors: damaged, and no older"):
        kept.latest()
