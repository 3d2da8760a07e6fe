from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_properties_of_the_code_shared_by_cpu_and_gpu(tmp_path: Path) -> None:
    """Each kernel's grid covers its output once; 16-bit numbers are read and rounded."""
    program = tmp_path / "common"
    command = ["g++", "-std=c++20", "-O1", "-Wall", "-Werror", "-fsanitize=undefined"]
    command += ["-fno-sanitize-recover=all", f"-I{ROOT / 'csrc'}", "-o", str(program)]
    source = Path(__file__).with_name("common.cpp")
    subprocess.run([*command, str(source)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_results_do_not_depend_on_the_distance_of_arrays(tmp_path: Path) -> None:
    program = tmp_path / "neighbours"
    sources = ["self_adversarial_loss", "entropy_weighted_loss", "rotate_score", "rows"]
    flags = re.search(r"^FLOAT_FLAGS = (\[.*\])$", (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert flags is not None
    command = ["g++", "-std=c++20", "-O3", *json.loads(flags[1]), f"-I{ROOT / 'csrc'}"]
    command += [str(ROOT / "csrc" / "cpu" / f"{name}.cpp") for name in sources]
    source = Path(__file__).with_name("neighbours.cpp")
    subprocess.run([*command, str(source), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
