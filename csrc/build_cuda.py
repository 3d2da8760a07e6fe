"""Compiles the CUDA kernels with bare nvcc: no torch header is involved, and no GPU needed.

`setup.py` makes the objects of the native library here; run as a program, it compiles every kernel
for every architecture and prints what each needs:

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
# Machine code for these, and portable code of the last for what comes after them.
ARCHITECTURES = ("80", "90")
FLAGS = ["-O3", "-std=c++20", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
# What a newer compiler warns of is for us to see, and no reason to do without the kernels.
STRICT = ["--Werror", "all-warnings", "-Xptxas", "-v"]


def find_nvcc() -> str | None:
    """The compiler of CUDA_HOME, of the PATH, or of the usual place; None without one."""
    home = os.environ.get("CUDA_HOME")
    for candidate in (f"{home}/bin/nvcc" if home else None, "nvcc", "/usr/local/cuda/bin/nvcc"):
        found = shutil.which(candidate) if candidate else None
        if found:
            return found
    return None


def runtime_libraries(nvcc: str) -> list[str]:
    """Arguments of a linker for CUDA's runtime, the static one where there is one."""
    told = subprocess.run(
        [nvcc, "-dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull],
        capture_output=True, text=True, check=False,
    ).stderr  # fmt: skip
    top = re.search(r"^#\$ TOP=(.+)$", told, re.MULTILINE)
    home = Path(top[1].strip()).resolve() if top else Path(nvcc).resolve().parent.parent
    for folder in ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"):
        if (home / folder / "libcudart_static.a").is_file():
            return [str(home / folder / "libcudart_static.a"), "-ldl", "-lrt", "-lpthread"]
        if (home / folder / "libcudart.so").is_file():
            return [f"-L{home / folder}", "-lcudart", f"-Wl,-rpath,{home / folder}"]
    return ["-lcudart"]


def sources() -> list[Path]:
    """All kernels."""
    return sorted(FOLDER.glob("*.cu"))


def code_for(architectures: Sequence[str], portable: bool = True) -> list[str]:
    """Options for machine code for these, and portable code of the last."""
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    last = architectures[-1]
    return [*codes, *([f"-gencode=arch=compute_{last},code=compute_{last}"] if portable else [])]


def compile_all(nvcc: str, folder: Path, *options: str) -> dict[Path, tuple[Path, str]]:
    """Objects of all kernels in `folder`, and what the compiler said of each.

    Raises:
        RuntimeError: with the compiler's words when one does not compile.
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


def read_resources(said: str) -> list[dict[str, str | int]]:
    """What ``-Xptxas -v`` says: of each kernel and architecture its registers, spills and so on.

    Constants are the parameters, and shared memory what is not asked for at launch; bytes.
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
    for match in entry.finditer(said):
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
    """Names as they stand in the source, where c++filt is found."""
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
    """Compiles all kernels into `folder`; what each of each file needs.

    What was compiled there before from the same text, by the same compiler, is not compiled again.
    """
    known = folder / "resources.json"
    # Portable code says nothing of registers, and takes as long as machine code.
    options = [*code_for(architectures, portable=len(architectures) > 1), *STRICT]
    key = _fingerprint(nvcc, options)
    if known.is_file():
        told = json.loads(known.read_text())
        if told["of"] == key:
            found: dict[str, list[dict[str, str | int]]] = told["resources"]
            return found
    out = {}
    for source, (_, said) in compile_all(nvcc, folder, *options).items():
        rows = read_resources(said)
        names = demangle([str(row["kernel"]) for row in rows])
        for row, name in zip(rows, names, strict=True):
            row["kernel"] = name
        out[source.name] = rows
    known.write_text(json.dumps({"of": key, "resources": out}))
    return out


def _fingerprint(nvcc: str, options: Sequence[str]) -> str:
    """Of the compiler, its options, and every text that it reads."""
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(" ".join([version, *FLAGS, *options]).encode())
    for path in sorted([*sources(), *FOLDER.parent.glob("c*/*.h")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def table(found: dict[str, list[dict[str, str | int]]]) -> str:
    """Registers and static shared memory of each kernel over its variants, as Markdown."""
    lines = [
        "| kernel | variants | " + " | ".join(f"registers, sm_{a}" for a in ARCHITECTURES)
        + " | shared, bytes | spilled |",
        "|---|---|" + "---|" * (len(ARCHITECTURES) + 2),
    ]  # fmt: skip

    def span(numbers: list[int]) -> str:
        low, high = min(numbers), max(numbers)
        return str(low) if low == high else f"{low}–{high}"

    for name, rows in found.items():
        kernels: dict[str, list[dict[str, str | int]]] = {}
        for row in rows:
            match = re.search(r"namespace\)::(\w+)", str(row["kernel"]))
            kernels.setdefault(match[1] if match else str(row["kernel"]), []).append(row)
        for kernel, of in sorted(kernels.items()):
            registers = [
                span([int(row["registers"]) for row in of if row["architecture"] == a])
                for a in ARCHITECTURES
            ]
            lines.append(
                f"| `{name}`: `{kernel}` | {len(of) // len(ARCHITECTURES)} | "
                + " | ".join(registers)
                + f" | {span([int(row['shared']) for row in of])} "
                + f"| {sum(int(row['spills']) for row in of)} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Compiles and prints; 1 without a compiler."""
    nvcc = find_nvcc()
    if nvcc is None:
        print("no nvcc: set CUDA_HOME, or put it on the PATH", file=sys.stderr)
        return 1
    arguments = sys.argv[1:]
    folder = Path(arguments[arguments.index("--out") + 1]) if "--out" in arguments else None
    found = resources(nvcc, folder or Path("build/cuda"))
    if "--json" in arguments:
        print(json.dumps(found, indent=1))
        return 0
    if "--table" in arguments:
        print(table(found))
        return 0
    for name, rows in found.items():
        for row in rows:
            print(
                f"{name} sm_{row['architecture']} {row['registers']} registers, "
                f"{row['shared']} bytes shared, {row['spills']} bytes spilled: {row['kernel']}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
