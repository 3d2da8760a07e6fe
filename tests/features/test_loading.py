from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.fills import FILLS
from mmkgc_cli.features.loading import load_features
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.seeded_random import digests, normals
from tests.features.small import graph_of, vectors, write

IDS = [f"e{i}" for i in range(30)]
VALUES = vectors(30, 8)
OBSERVED = np.arange(30) % 3 > 0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("s") / "s.h5", IDS, VALUES, OBSERVED)


def test_rows_without_a_vector_need_a_fill_or_a_mask(store: Path) -> None:
    graph = graph_of(IDS)
    with pytest.raises(DataError, match=r"s.h5: 10 of 30 entities of 'ring' have no image vector; "
                       r"choose a fill with --fill zero\|mean\|random\|one"):  # fmt: skip
        load_features(store, graph)
    masked = load_features(store, graph, uses_mask=True)
    assert masked.vectors.dtype == torch.float32
    assert np.array_equal(masked.observed.numpy(), OBSERVED)
    assert np.array_equal(masked.vectors.numpy(), np.where(OBSERVED[:, None], VALUES, 0))
    assert masked.provenance["fill"] is None
    with pytest.raises(UsageError, match="fill 'men' is unknown; did you mean 'mean'"):
        load_features(store, graph, fill="men")


@pytest.mark.parametrize("fill", FILLS)
def test_a_fill_changes_unobserved_rows_only_and_is_recorded(store: Path, fill: str) -> None:
    loaded = load_features(store, graph_of(IDS), fill, seed=5)
    vectors_read = loaded.vectors.numpy()
    assert np.array_equal(vectors_read[OBSERVED], VALUES[OBSERVED])
    filled = vectors_read[~OBSERVED]
    if fill == "mean":
        expected = VALUES[OBSERVED].astype(np.float64).mean(axis=0)
        assert np.allclose(filled, expected, rtol=1e-6)
    elif fill == "random":
        assert len(np.unique(filled)) == filled.size
    else:
        assert (filled == {"zero": 0, "one": 1}[fill]).all()
    assert np.array_equal(loaded.observed.numpy(), OBSERVED)
    provenance = loaded.provenance
    assert provenance["fill"] == fill
    assert provenance["fill_seed"] == (5 if fill == "random" else None)
    assert provenance["coverage"]["missing"] == 10


@settings(max_examples=40)
@given(order=st.permutations(range(30)), fill=st.sampled_from(FILLS))
def test_the_order_of_entities_changes_no_vector(store: Path, order: list[int], fill: str) -> None:
    reference = load_features(store, graph_of(IDS), fill)
    other = load_features(store, graph_of([IDS[i] for i in order]), fill)
    assert torch.equal(other.vectors, reference.vectors[order])
    assert torch.equal(other.observed, reference.observed[order])


def test_random_fills_are_standard_normal_and_depend_on_seed_and_modality() -> None:
    names = [str(i) for i in range(2000)]
    numbers = normals(digests("fill", 0, ["image"], names), 101).astype(np.float64)
    assert numbers.shape == (2000, 101)
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert abs((numbers**4).mean() - 3) < 0.1
    columns = np.corrcoef(numbers, rowvar=False) - np.eye(101)
    assert np.abs(columns).max() < 0.12
    for seed, modality in ((1, "image"), (0, "text")):
        other = normals(digests("fill", seed, [modality], names), 101)
        assert abs(np.corrcoef(numbers.reshape(-1), other.reshape(-1))[0, 1]) < 0.01
    assert np.array_equal(normals(digests("fill", 0, ["image"], names[5:6]), 101), numbers[5:6])


def test_the_mean_of_nothing_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", IDS, VALUES, np.zeros(30, dtype=bool))
    with pytest.raises(DataError, match="no entity has a vector"):
        load_features(path, graph_of(IDS), "mean")


def test_generated_rows_are_not_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", IDS, VALUES, OBSERVED, ~OBSERVED)
    loaded = load_features(path, graph_of(IDS))
    assert bool(loaded.observed.all())
    assert loaded.provenance["coverage"]["generated"] == 10
    assert np.array_equal(loaded.vectors.numpy(), VALUES)


def test_a_store_fitted_on_another_train_split_is_refused(tmp_path: Path) -> None:
    graph = graph_of(IDS)
    fine = write(
        tmp_path / "f.h5", IDS, VALUES, metadata=Metadata("image", train_id=graph.train_id)
    )
    load_features(fine, graph)
    path = write(tmp_path / "s.h5", IDS, VALUES, metadata=Metadata("image", train_id="0" * 64))
    with pytest.raises(DataError, match=r"another train split than that of 'ring' \(train_id 0000"):
        load_features(path, graph)
    load_features(path, graph, allow_other_train=True)
