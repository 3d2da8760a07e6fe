"""Storage that fails within the callbacks of HDF5."""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmkgc_cli.features import writing
from tests.features.small import write


class _FailingFile(io.BytesIO):
    """Raises `error` at the n-th call."""

    def __init__(self, number: int, error: BaseException) -> None:
        self.left, self.error = number, error

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            raise self.error

    def write(self, data: Any) -> int:
        self._count()
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self._count()
        return super().truncate(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._count()
        return super().seek(offset, whence)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), MemoryError(), KeyboardInterrupt()]
)
def test_no_exception_within_hdf5_is_lost(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    while True:
        count += 1
        file = _FailingFile(count, error)

        @contextlib.contextmanager
        def opened(_: Path, file: io.BytesIO = file) -> Iterator[io.BytesIO]:
            yield file

        monkeypatch.setattr(writing, "atomic_file", opened)
        try:
            write(tmp_path / "x.h5", ["a", "b"], np.ones((2, 3), np.float32))
        except type(error) as found:
            assert found is error
        else:
            break
    assert file.left > 0  # every call has failed once
    assert count > 10
