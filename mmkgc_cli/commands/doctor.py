"""``mmkgc doctor``: what is installed, the backend of each op, and what is missing."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from mmkgc_cli import __version__
from mmkgc_cli.commands._help import examples
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, table

PACKAGES = (
    "torch", "numpy", "h5py", "typer", "rich", "pydantic", "safetensors", "Pillow", "pooch",
    "PyYAML",
)  # fmt: skip
# Purpose of each extra: its name, and a package that it installs.
EXTRAS = {"N-Triples": ("rdf", "pyoxigraph")}

EXAMPLES = examples(
    "mmkgc doctor",
    "mmkgc doctor --json",
)


def doctor(as_json: JsonFlag = False) -> None:
    """Show what is installed and the backend of each op."""
    report = diagnose()
    if as_json:
        print_json(report)
        return
    versions = [[name, version] for name, version in report["versions"].items()]
    out.print(table("versions", ["", ""], versions))
    out.print()
    native = report["native"]
    out.print(f"native library: {native['reason']}")
    for key, value in native["build"].items():
        if value:
            out.print(f"  {key}: {value}")
    rows = [
        [op, device, entry["backend"], entry["why"]]
        for op, devices in report["ops"].items()
        for device, entry in devices.items()
    ]
    out.print(table("ops", ["", "device", "backend", "why"], rows))
    out.print()
    out.print(f"devices: {', '.join(report['devices'])}; CPU threads: {report['threads']}")
    for name, folder in report["folders"].items():
        out.print(f"{name}: {folder}")
    for purpose, state in report["extras"].items():
        out.print(f"{purpose}: {state}")
    out.print()
    if report["missing"]:
        out.print("missing:")
        for line in report["missing"]:
            out.print(f"  {line}")
    else:
        out.print("nothing is missing")


def diagnose() -> dict[str, Any]:
    """Collects everything that `doctor` prints, as one object."""
    import torch

    from mmkgc_cli import ops
    from mmkgc_cli.state.home import cache_folder, config_folder

    library = ops.library()
    devices = ["cpu"] + [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    missing = []
    if not library.loaded:
        missing.append(
            f"the native library ({library.reason}); the slower reference runs instead. "
            "Get it with a C++20 compiler and: pip install --no-build-isolation . (or make build)"
        )
    if importlib.util.find_spec("mmkgc_scorers") is None:
        missing.append("the scorers (mmkgc_scorers); reinstall mmkgc")
    if torch.version.cuda and not torch.cuda.is_available():
        missing.append(f"a GPU: torch is built for CUDA {torch.version.cuda} but finds no device")
    if torch.version.cuda and library.loaded and not library.build.get("cuda"):
        missing.append(
            "GPU kernels: the native library was built without nvcc; add nvcc to the PATH or set "
            "CUDA_HOME, and rebuild"
        )
    return {
        "versions": {
            "mmkgc": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
            "platform": platform.platform(),
        },
        "native": {"loaded": library.loaded, "reason": library.reason, "build": library.build},
        "ops": {
            op: {
                kind: dict(zip(("backend", "why"), ops.backend_of(op, kind), strict=True))
                for kind in kinds
            }
            for op in ops.OPS
        },
        "devices": devices,
        "threads": torch.get_num_threads(),
        "folders": {
            "package": str(Path(__file__).resolve().parent.parent),
            "cache": str(cache_folder()),
            "configuration": str(config_folder()),
        },
        "extras": {purpose: _extra(*extra) for purpose, extra in EXTRAS.items()},
        "missing": missing,
    }


def _extra(extra: str, package: str) -> str:
    version = _version(package)
    return f"{package} {version}" if version != "missing" else f"pip install 'mmkgc[{extra}]'"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
