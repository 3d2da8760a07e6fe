"""Tests of the CUDA kernels without a GPU: compilation and resources."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from tests.conftest import ROOT


def load_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_cuda", ROOT / "csrc" / "build_cuda.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = load_build()
NVCC = BUILD.find_nvcc()
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^;{]*?\)\s*)?(\w+)\(")


def test_compiler_output_is_parsed() -> None:
    output = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1fPf' for 'sm_80'
ptxas info    : Function properties for _Z1fPf
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 512 bytes smem
ptxas info    : Compile time = 3.0 ms
ptxas info    : Compiling entry function '_Z1gPf' for 'sm_90'
ptxas info    : Function properties for _Z1gPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""
    rows = BUILD.read_resources(output)
    assert [tuple(row.values()) for row in rows] == [
        ("_Z1fPf", "80", 40, 8, 16, 512),
        ("_Z1gPf", "90", 8, 0, 0, 0),
    ]


@pytest.mark.skipif(NVCC is None, reason="there is no nvcc")
@pytest.mark.parametrize(
    "architectures",
    [
        pytest.param(BUILD.ARCHITECTURES[-1:], id="newest"),
        pytest.param(BUILD.ARCHITECTURES, id="all", marks=pytest.mark.slow),  # two minutes
    ],
)
def test_every_kernel_compiles_for_every_architecture_and_none_spills(
    architectures: tuple[str, ...],
) -> None:
    folder = ROOT / "build" / "-".join(["cuda", *architectures])  # since it takes a while
    by_file = BUILD.resources(NVCC, folder, architectures)
    assert set(by_file) == {source.name for source in (ROOT / "csrc" / "cuda").glob("*.cu")}
    for name, rows in by_file.items():
        kernels = set(KERNEL.findall((ROOT / "csrc" / "cuda" / name).read_text()))
        assert kernels, name
        for architecture in architectures:
            mine = [str(row["kernel"]) for row in rows if row["architecture"] == architecture]
            for kernel in kernels:
                assert any(re.search(rf"\b{kernel}\b", name) for name in mine), (name, kernel)
        spilled = [row for row in rows if row["spills"]]
        assert not spilled, spilled


def test_kernels_include_neither_torch_nor_bindings() -> None:
    for source in [*(ROOT / "csrc" / "cuda").glob("*.cu"), *(ROOT / "csrc" / "cuda").glob("*.h")]:
        for include in re.findall(r'#include [<"](.+?)[>"]', source.read_text()):
            known = include.startswith(("../common/", "../emulate/")) or "/" not in include
            assert known, (source.name, include)


def test_kernels_neither_allocate_nor_wait() -> None:
    """A CUDA graph can capture them."""
    for source in [*(ROOT / "csrc" / "cuda").glob("*.cu"), *(ROOT / "csrc" / "cuda").glob("*.h")]:
        text = source.read_text()
        called = re.findall(r"\bcuda[A-Z]\w+(?=\()", text)
        assert set(called) <= {"cudaLaunchKernel", "cudaGetLastError", "cudaGetErrorString"}, source
        assert "<<<" not in text, source  # one function launches, and checks
