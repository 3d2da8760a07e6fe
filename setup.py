"""Builds the native library `mmkgc_cli._C`; everything else is in pyproject.toml.

The library is optional. Without torch or a compiler, with a failing compiler, or with
MMKGC_BUILD_NATIVE=0, the installation is pure Python and `mmkgc doctor` reports the reason.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "mmkgc_cli/__init__.py").read_text())[1]  # type: ignore[index]
# Reductions may be reordered, so that they vectorise; NaN and infinity keep their meaning.
FLOAT_FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros"]
REPORT = "_native_build.json"
# For `make emulate`: the CUDA kernels on the CPU, instead of the CPU kernels. Sums are not
# reordered, since the kernels rely on equal sequences of operations.
EMULATE = os.getenv("MMKGC_EMULATE") == "1"
EMULATED_FLAGS = ["-O1", "-ffp-contract=off", "-Wno-unknown-pragmas", "-Wno-unused-function"]
# For `make sanitize`. Python's flags may make signed overflow defined, which would hide it.
SANITIZERS = "address,undefined,float-cast-overflow" if os.getenv("MMKGC_SANITIZE") == "1" else ""
SANITIZE_FLAGS = (
    [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all", "-fno-wrapv", "-g1"]
    if SANITIZERS
    else []
)


def report_outcome(folder: Path, status: str, reason: str) -> None:
    """Writes the outcome for `mmkgc doctor`, and prints a failure."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_text(json.dumps({"status": status, "reason": reason}) + "\n")
    if status != "built":
        text = f"mmkgc: no native library: {reason}; the reference implementations run instead"
        print(text, file=sys.stderr)


def drop_stale(folder: Path) -> None:
    """Removes an older library, which would hide the failure of this build."""
    for old in folder.glob("_C.*"):
        if old.suffix in {".so", ".pyd"}:
            old.unlink()


def load_cuda_build() -> Any:
    """The module ``csrc/build_cuda.py``, which is outside of the package."""
    spec = importlib.util.spec_from_file_location("build_cuda", ROOT / "csrc" / "build_cuda.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CUDA_BUILD = load_cuda_build()


def cxx_sources(with_cuda: bool) -> list[str]:
    """Sources for the C++ compiler: bindings and CPU kernels, or the emulated CUDA kernels."""
    folders = ["bindings", "bindings/cpu", "cpu", *(["bindings/cuda"] if with_cuda else [])]
    if EMULATE:
        folders = ["bindings", "bindings/cuda", "emulate"]
    sources = [path for name in folders for path in sorted((ROOT / "csrc" / name).glob("*.cpp"))]
    if not EMULATE:
        return [str(path.relative_to(ROOT)) for path in sources]
    # Build tools pass .cu files to nvcc, so that each kernel is included by a .cpp file.
    folder = ROOT / "build" / "emulate" / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    for kernel in CUDA_BUILD.sources():
        wrapper = folder / f"{kernel.stem}_kernels.cpp"
        text = f'#include "{kernel}"\n'
        if not wrapper.exists() or wrapper.read_text() != text:
            wrapper.write_text(text)
        sources.append(wrapper)
    return [str(path.relative_to(ROOT)) for path in sources]


def native_extension() -> Extension | str:
    """The extension, or the reason why it is not built."""
    if os.environ.get("MMKGC_BUILD_NATIVE", "1") == "0":
        return "MMKGC_BUILD_NATIVE=0 was set at build time"
    try:
        import pybind11
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        return f"{error.name} was not importable at build time (install with --no-build-isolation)"
    # Depends on the compiler and the build of torch, not on a visible GPU.
    with_cuda = bool(torch.version.cuda and CUDA_BUILD.find_nvcc()) and not EMULATE
    rpath = ["-Wl,-rpath,@loader_path/../torch/lib"] if sys.platform == "darwin" else []
    floats = EMULATED_FLAGS if EMULATE else FLOAT_FLAGS
    return Extension(
        "mmkgc_cli._C",
        cxx_sources(with_cuda),
        depends=[
            str(p.relative_to(ROOT))
            for pattern in ("*.h", "*.cu", "*.cuh")
            for p in (ROOT / "csrc").rglob(pattern)
        ],
        include_dirs=[pybind11.get_include(), *cpp_extension.include_paths("cpu")],
        library_dirs=cpp_extension.library_paths("cpu"),
        libraries=["torch", "torch_cpu", *(["torch_cuda"] if with_cuda else [])],
        define_macros=[
            ("TORCH_TARGET_VERSION", "0x020a000000000000"),
            ("MMKGC_VERSION", f'"{VERSION}"'),
            ("MMKGC_TORCH_VERSION", f'"{torch.__version__}"'),
            ("MMKGC_CUDA_VERSION", f'"{torch.version.cuda if with_cuda else ""}"'),
            ("MMKGC_SANITIZERS", f'"{SANITIZERS}"'),
            ("MMKGC_EMULATED", "1" if EMULATE else "0"),
            *([("USE_CUDA", "1")] if with_cuda else []),
            *([("MMKGC_EMULATE", "1")] if EMULATE else []),
            # Clones are selected while the library loads, before the sanitizers are ready.
            *([("MMKGC_NO_CLONES", "1")] if SANITIZERS else []),
        ],
        extra_compile_args=[
            *("-O3", "-std=c++20", "-fvisibility=hidden", "-Wall", "-g0"),
            *floats,
            *SANITIZE_FLAGS,
        ],
        extra_link_args=[*rpath, *SANITIZE_FLAGS],
        language="c++",
    )


extension = native_extension()

if isinstance(extension, str):
    BaseBuild: type[build_ext] = build_ext
else:
    from torch.utils.cpp_extension import BuildExtension

    BaseBuild = BuildExtension


class OptionalBuild(BaseBuild):  # type: ignore[misc, valid-type]
    """Compiles the library; on failure, reports it and installs without the library."""

    def run(self) -> None:
        # Read first, since setuptools resets `inplace` during the build.
        in_place = self.inplace or getattr(self, "editable_mode", False)
        folder = ROOT / "mmkgc_cli" if in_place else Path(self.build_lib) / "mmkgc_cli"
        if isinstance(extension, str):
            drop_stale(folder)
            report_outcome(folder, "skipped", extension)
            return
        try:
            super().run()
        except (Exception, SystemExit) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.extensions = []
            drop_stale(folder)
            report_outcome(folder, "failed", f"the compiler failed: {first}")
        else:
            report_outcome(folder, "built", "")

    def build_extensions(self) -> None:
        if not isinstance(extension, str) and ("USE_CUDA", "1") in extension.define_macros:
            nvcc = CUDA_BUILD.find_nvcc()
            options = CUDA_BUILD.code_for(CUDA_BUILD.ARCHITECTURES)
            if os.getenv("MMKGC_DEBUG") == "1":
                options.append("-DMMKGC_DEBUG=1")
            objects = CUDA_BUILD.compile_all(nvcc, Path(self.build_temp) / "cuda", *options)
            extension.extra_objects = [str(path) for path, _ in objects.values()]
            extension.extra_link_args += CUDA_BUILD.runtime_libraries(nvcc)
        super().build_extensions()

    def get_outputs(self) -> list[str]:
        return [name for name in super().get_outputs() if Path(name).exists()]


class BuildPython(build_py):
    """Copies the registry from the top of the checkout into the package."""

    def run(self) -> None:
        super().run()
        if not getattr(self, "editable_mode", False):
            shutil.copy2(ROOT / "datasets.toml", Path(self.build_lib) / "mmkgc_cli")


class TaggedWheel(bdist_wheel):
    """Tags the wheel by the outcome: cp311-cp311 with the library, py3-none without."""

    def get_tag(self) -> tuple[str, str, str]:
        self.root_is_pure = not self.get_finalized_command("build_ext").get_outputs()
        return super().get_tag()


options: dict[str, Any] = {
    "cmdclass": {"build_ext": OptionalBuild, "build_py": BuildPython, "bdist_wheel": TaggedWheel}
}
# OptionalBuild runs and reports the reason even if the extension is skipped.
placeholder = Extension("mmkgc_cli._C", [])
setup(ext_modules=[placeholder if isinstance(extension, str) else extension], **options)
