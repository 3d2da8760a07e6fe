"""Compiles the CUDA kernels with nvcc alone, without torch headers and without a GPU.

`setup.py` builds the objects of the native library with this module. As a program, it compiles
every kernel for every architecture and prints the resources of each:

    python csrc/build_cuda.py [--out FOLDER] [--json | --table]
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "cuda"
# Machine code for these architectures, and portable code of the last one for later ones.
ARCHITECTURES = ("80", "90")
FLAGS = ["-O3", "-std=c++20", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
# Only for tests: warnings of a newer compiler must not prevent a build of the kernels.
STRICT = ["--Werror", "all-warnings", "-Xptxas", "-v"]


def find_nvcc() -> str | None:
    """The path of nvcc in CUDA_HOME, on the PATH or in /usr/local/cuda; None without nvcc."""
    home = os.environ.get("CUDA_HOME")
    for candidate in (f"{home}/bin/nvcc" if home else None, "nvcc", "/usr/local/cuda/bin/nvcc"):
        path = shutil.which(candidate) if candidate else None
        if path:
            return path
    return None


def runtime_libraries(nvcc: str) -> list[str]:
    """Linker arguments for the CUDA runtime, the static one if it exists."""
    output = subprocess.run(
        [nvcc, "-dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull],
        capture_output=True, text=True, check=False,
    ).stderr  # fmt: skip
    top = re.search(r"^#\$ TOP=(.+)$", output, re.MULTILINE)
    home = Path(top[1].strip()).resolve() if top else Path(nvcc).resolve().parent.parent
    for folder in ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"):
        if (home / folder / "libcudart_static.a").is_file():
            return [str(home / folder / "libcudart_static.a"), "-ldl", "-lrt", "-lpthread"]
        if (home / folder / "libcudart.so").is_file():
            return [f"-L{home / folder}", "-lcudart", f"-Wl,-rpath,{home / folder}"]
    return ["-lcudart"]


def sources() -> list[Path]:
    """The sources of all kernels."""
    return sorted(FOLDER.glob("*.cu"))


def code_for(architectures: Sequence[str], portable: bool = True) -> list[str]:
    """Options for machine code of the architectures, and portable code of the last one."""
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    last = architectures[-1]
    return [*codes, *([f"-gencode=arch=compute_{last},code=compute_{last}"] if portable else [])]


def compile_all(nvcc: str, folder: Path, *options: str) -> dict[Path, tuple[Path, str]]:
    """Compiles all kernels into `folder`; returns the object and the compiler output of each.

    Raises:
        RuntimeError: with the compiler output when a kernel does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def one(source: Path) -> tuple[Path, str]:
        target = folder / f"{source.stem}.o"
        done = subprocess.run(
            [nvcc, *FLAGS, *options, "-c", str(source), "-o", str(target)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{source.name}: {done.stderr.strip() or done.stdout.strip()}")
        return target, done.stdout + done.stderr

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return dict(zip(sources(), pool.map(one, sources()), strict=True))


def read_resources(output: str) -> list[dict[str, str | int]]:
    """The resources of each kernel and architecture from the output of ``-Xptxas -v``.

    Shared memory is static and in bytes.
    """
    entry = re.compile(
        r"Compiling entry function '(?P<kernel>\w+)' for 'sm_(?P<architecture>\d+)'\n"
        r".*?Function properties for (?P=kernel)\n"
        r"\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
        r"(?P<loads>\d+) bytes spill loads\n"
        r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
        re.DOTALL,
    )
    rows: list[dict[str, str | int]] = []
    for match in entry.finditer(output):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        rows.append(
            {
                "kernel": match["kernel"],
                "architecture": match["architecture"],
                "registers": int(match["registers"]),
                "stack": int(match["stack"]),
                "spills": int(match["stores"]) + int(match["loads"]),
                "shared": int(shared[1]) if shared else 0,
            }
        )
    return rows


def demangle(names: list[str]) -> list[str]:
    """Names as in the source, if c++filt is installed."""
    filt = shutil.which("c++filt")
    if not filt:
        return names
    done = subprocess.run(
        [filt, "-p"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def resources(
    nvcc: str, folder: Path, architectures: Sequence[str] = ARCHITECTURES
) -> dict[str, list[dict[str, str | int]]]:
    """Compiles all kernels into `folder`; returns their resources by file.

    An earlier result for the same sources and compiler is read from `folder` instead.
    """
    cache = folder / "resources.json"
    # Portable code has no registers and takes as long to compile as machine code.
    options = [*code_for(architectures, portable=len(architectures) > 1), *STRICT]
    key = _fingerprint(nvcc, options)
    if cache.is_file():
        cached = json.loads(cache.read_text())
        if cached.get("fingerprint") == key:
            by_file: dict[str, list[dict[str, str | int]]] = cached["resources"]
            return by_file
    out = {}
    for source, (_, output) in compile_all(nvcc, folder, *options).items():
        rows = read_resources(output)
        names = demangle([str(row["kernel"]) for row in rows])
        for row, name in zip(rows, names, strict=True):
            row["kernel"] = name
        out[source.name] = rows
    cache.write_text(json.dumps({"fingerprint": key, "resources": out}))
    return out


def _fingerprint(nvcc: str, options: Sequence[str]) -> str:
    """A checksum of the compiler version, its options and all sources."""
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(" ".join([version, *FLAGS, *options]).encode())
    for path in sorted([*sources(), *FOLDER.parent.glob("c*/*.h")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def table(by_file: dict[str, list[dict[str, str | int]]]) -> str:
    """Registers and static shared memory of the variants of each kernel, as Markdown."""
    lines = [
        "| kernel | variants | " + " | ".join(f"registers, sm_{a}" for a in ARCHITECTURES)
        + " | shared, bytes | spilled |",
        "|---|---|" + "---|" * (len(ARCHITECTURES) + 2),
    ]  # fmt: skip

    def span(numbers: list[int]) -> str:
        low, high = min(numbers), max(numbers)
        return str(low) if low == high else f"{low}–{high}"

    for name, rows in by_file.items():
        kernels: dict[str, list[dict[str, str | int]]] = {}
        for row in rows:
            match = re.search(r"namespace\)::(\w+)", str(row["kernel"]))
            kernels.setdefault(match[1] if match else str(row["kernel"]), []).append(row)
        for kernel, variants in sorted(kernels.items()):
            registers = [
                span([int(row["registers"]) for row in variants if row["architecture"] == a])
                for a in ARCHITECTURES
            ]
            lines.append(
                f"| `{name}`: `{kernel}` | {len(variants) // len(ARCHITECTURES)} | "
                + " | ".join(registers)
                + f" | {span([int(row['shared']) for row in variants])} "
                + f"| {sum(int(row['spills']) for row in variants)} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Compiles all kernels and prints their resources; returns 1 without a compiler."""
    nvcc = find_nvcc()
    if nvcc is None:
        print("nvcc was not found: set CUDA_HOME or add nvcc to the PATH", file=sys.stderr)
        return 1
    arguments = sys.argv[1:]
    folder = Path(arguments[arguments.index("--out") + 1]) if "--out" in arguments else None
    by_file = resources(nvcc, folder or Path("build/cuda"))
    if "--json" in arguments:
        print(json.dumps(by_file, indent=1))
        return 0
    if "--table" in arguments:
        print(table(by_file))
        return 0
    for name, rows in by_file.items():
        for row in rows:
            print(
                f"{name} sm_{row['architecture']} {row['registers']} registers, "
                f"{row['shared']} bytes shared, {row['spills']} bytes spilled: {row['kernel']}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
