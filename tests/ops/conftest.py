from __future__ import annotations

import os
import re

import pytest

from mmkgc_cli import ops
from mmkgc_cli.ops import _native

if os.environ.get("MMKGC_SANITIZE") == "1" and not ops.library().build.get("sanitizers"):
    # As set by `make sanitize`: testing another library would prove nothing.
    raise RuntimeError(f"MMKGC_SANITIZE=1, but {ops.__file__} has no sanitized native library")

if os.environ.get("MMKGC_EMULATE") == "1" and not ops.library().build.get("emulated"):
    # As set by `make emulate`.
    raise RuntimeError(f"MMKGC_EMULATE=1, but {ops.__file__} has no emulated native library")

native = pytest.mark.skipif(
    not ops.library().loaded, reason=f"no native library: {ops.library().reason}"
)


EMULATED = bool(ops.library().build.get("emulated"))
# What kernels on a GPU do not look for: it would take a pass of its own, or reading on the host.
UNREAD = re.compile("runs? from|decreases|ascending|does not sort|lists entity|not among sources")


def skip_unread(path: str, message: str) -> None:
    """Skips what only a host that reads values can find, where the kernels are those of a GPU."""
    if path == "native" and EMULATED and UNREAD.search(message):
        pytest.skip("values on a GPU are not read by the host")


@pytest.fixture(params=[pytest.param("native", marks=native), "twin"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which path the ops take within the test."""
    if request.param == "twin":
        monkeypatch.setattr(_native, "has_kernel", lambda op, device: False)
    return str(request.param)
