from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmkgc_cli import ops
from tests.conftest import ROOT

ASK = """
import json
from mmkgc_cli import ops
print(json.dumps([ops.library().loaded, ops.backend_of("rank_candidates", "cpu")]))
"""


def ask(**env: str) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True, text=True, check=True, env={**os.environ, **env},
    )  # fmt: skip
    answer: list[object] = json.loads(done.stdout)
    return answer


def test_the_native_backend_can_be_switched_off() -> None:
    assert ask(MMKGC_NATIVE="0") == [False, ["reference", "MMKGC_NATIVE=0 is set"]]


def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    if not ops.library().loaded:
        pytest.skip(f"no native library: {ops.library().reason}")
    monkeypatch.setattr("mmkgc_cli.ops._native.__version__", "9.9.9")
    actual = ops._native.library.__wrapped__()
    assert not actual.loaded
    assert actual.reason == f"built for mmkgc {actual.build['version']}, not 9.9.9: rebuild it"


def test_a_device_without_a_kernel_uses_the_reference() -> None:
    backend, why = ops.backend_of("rank_candidates", "meta")
    assert backend == "reference"
    assert why in ("no meta kernel in this build", ops.library().reason)


def test_a_fused_op_without_a_kernel_is_native_by_its_scoring_op(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ops._native, "has_kernel", lambda op, device: op == "rotate_score")
    if ops.library().loaded:
        assert ops.backend_of("rotate_loss", "cuda") == ("native", "as rotate_score and the loss")
        assert ops.backend_of("sampled_loss", "cuda")[0] == "reference"


def test_kernels_and_the_module_include_no_torch_header() -> None:
    """CUDA sources, CPU kernels and the module must compile without torch."""
    kernels = [*(ROOT / "csrc").rglob("*.cu"), *(ROOT / "csrc" / "cpu").iterdir()]
    for path in [*kernels, ROOT / "csrc" / "bindings" / "module.cpp"]:
        assert "#include <torch" not in path.read_text(), path


def test_every_op_in_the_schema_has_a_wrapper_a_reference_a_fake_and_a_test() -> None:
    schema = (ROOT / "csrc" / "bindings" / "library.cpp").read_text()
    schemas = {}
    for definition in schema.split("m.def(")[1:]:
        text = "".join(re.findall(r'"(.*)"', definition))
        schemas[text.split("(")[0]] = text
    backward = {name for name in schemas if "_backward" in name}
    assert set(schemas) - backward == set(ops.OPS)
    for op in ops.OPS:
        source = (Path(ops.__file__).parent / f"{op}.py").read_text()
        assert f"def {op}(" in source
        assert "def reference(" in source
        assert "register(" in source
        # Gradients come from a backward op or, for losses, together with the loss.
        assert (f"{op}_backward" in schemas) == (
            "    _backward,\n" in source or ", _backward, " in source
        )
        around = "_losses.apply(" in source or "deferring(" in source
        assert ("-> (Tensor loss, Tensor d_" in schemas[op]) == around
        assert (ROOT / "tests" / "ops" / f"test_{op}.py").is_file()


def test_a_benchmark_names_every_op_in_its_docstring() -> None:
    docstrings = [
        ast.get_docstring(ast.parse(path.read_text())) or ""
        for path in (ROOT / "benchmarks").glob("*.py")
    ]
    for op in ops.OPS:
        assert any(f"`{op}`" in text for text in docstrings), op
