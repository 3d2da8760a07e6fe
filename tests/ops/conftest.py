from __future__ import annotations

import pytest

from mmkgc_cli import ops
from mmkgc_cli.ops import _native

native = pytest.mark.skipif(
    not ops.library().loaded, reason=f"no native library: {ops.library().reason}"
)


@pytest.fixture(params=[pytest.param("native", marks=native), "twin"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which path the ops take within the test."""
    if request.param == "twin":
        monkeypatch.setattr(_native, "has_kernel", lambda op, device: False)
    return str(request.param)
