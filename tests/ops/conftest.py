from __future__ import annotations

import os

import pytest

from mmkgc_cli import ops
from mmkgc_cli.ops import _native

if os.environ.get("MMKGC_SANITIZE") == "1" and not ops.library().build.get("sanitizers"):
    # As set by `make sanitize`: testing another library would prove nothing.
    raise RuntimeError(f"MMKGC_SANITIZE=1, but {ops.__file__} has no sanitized native library")

native = pytest.mark.skipif(
    not ops.library().loaded, reason=f"no native library: {ops.library().reason}"
)


@pytest.fixture(params=[pytest.param("native", marks=native), "twin"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which path the ops take within the test."""
    if request.param == "twin":
        monkeypatch.setattr(_native, "has_kernel", lambda op, device: False)
    return str(request.param)
