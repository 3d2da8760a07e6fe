from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.checks import check_store
from mmkgc_cli.features.store import FeatureStore
from tests.features.small import edit, vectors, write

IDS = [f"e{i}" for i in range(200)]


def test_real_features_are_not_suspicious(tmp_path: Path) -> None:
    values = vectors(200, 16)
    for dtype in ("float32", "float16"):
        path = write(tmp_path / f"{dtype}.h5", IDS, values, np.arange(200) % 9 > 0, dtype=dtype)
        with FeatureStore(path) as store:
            check = check_store(store)
        assert not any(finding.count for finding in check.problems().values())
        assert check.is_valid
        observed = values[np.arange(200) % 9 > 0].astype(dtype).astype(np.float64)
        norms = np.linalg.norm(observed, axis=1)
        assert check.norms == pytest.approx(
            {"min": norms.min(), "mean": norms.mean(), "max": norms.max()}
        )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("filled", [1, 3, 120])
def test_filled_rows_are_found(tmp_path: Path, dtype: str, filled: int) -> None:
    values = vectors(200, 16) + 0.3
    values[:, 7] = 0.5
    values[4] = values[5]
    values[0] = 0
    values[-filled:] = values[1:-filled].mean(axis=0)
    path = write(tmp_path / "s.h5", IDS, values, dtype=dtype)
    with FeatureStore(path) as store:
        check = check_store(store)
    assert check.zero.examples == ["e0"]
    assert check.duplicate.count == 1 + filled - 1
    assert check.mean_filled.count == filled
    assert check.mean_filled.examples == IDS[-filled:][:3]
    assert check.groups == (1 if filled == 1 else 2)
    assert check.largest_group == max(2, filled)
    assert check.constant.count == check.constant_columns == 0  # for column 7, and for row 0


def test_rows_and_columns_of_one_value_are_found(tmp_path: Path) -> None:
    values = vectors(200, 16)
    values[:, 3] = 1
    values[9] = 1
    with FeatureStore(write(tmp_path / "s.h5", IDS, values)) as store:
        check = check_store(store)
    assert check.constant.examples == ["e9"]
    assert check.constant_columns == 1


def test_errors_of_other_writers_are_found(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", IDS, vectors(200, 16), np.arange(200) > 1)
    row = vectors(1, 16)[0]
    edit(path, "vectors", 0, row)
    row[3] = np.nan
    edit(path, "vectors", 7, row)
    with FeatureStore(path) as store:
        check = check_store(store)
    assert not check.is_valid
    assert check.leftover.examples == ["e0"]
    assert check.not_finite.examples == ["e7"]
    edit(path, "ids", 7, b"e9999")
    with pytest.raises(DataError, match="do not match entities_id"):
        FeatureStore(path)
    edit(path, "ids", 7, b"e8")
    with pytest.raises(DataError, match="199 distinct ids for 200"):
        FeatureStore(path)
    edit(path, "ids", 7, b"\xff\xfe")
    with pytest.raises(DataError, match=r"s.h5: damaged"):
        FeatureStore(path)
