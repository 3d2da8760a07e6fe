"""Scorers with features on the built-in graph, from texts and pictures to a result."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import ROOT, Outcome

STORE = "graphs/elements/features/{}.h5"
ENCODERS = {"image": "colour-grid", "text": "hashed-ngrams"}
FREQUENCY = 0.2541  # test MRR of the baseline, docs/results.md


@pytest.mark.parametrize(
    ("scorer", "modalities"),
    [("ikrl", ["image"]), ("tbkgc", ["image", "text"]), ("rsme", ["image"])],
)
def test_a_scorer_with_features_beats_the_frequency_baseline(
    mmkgc: Callable[..., Outcome], scorer: str, modalities: list[str]
) -> None:
    assert mmkgc("prepare", "elements").code == 0
    for modality in modalities:
        done = mmkgc(
            "extract", modality, "--graph", "graphs/elements", "--encoder", ENCODERS[modality],
            "--input", f"graphs/elements/modalities/{modality}.tsv",
        )  # fmt: skip
        assert done.code == 0, done.err
    pairs = [f"{modality}={STORE.format(modality)}" for modality in modalities]
    done = mmkgc(
        "train", scorer, "--graph", "graphs/elements", "--features", *pairs,
        "--config", ROOT / "recipes" / f"{scorer}-elements.toml", "--epochs", "10",
        "--set", "training.threads=1", "--run", "run",
    )  # fmt: skip
    assert done.code == 0, done.err
    done = mmkgc("eval", "run", "--json")
    assert done.code == 0, done.err
    results = json.loads(done.out)
    assert results["metrics"]["test"]["both"]["realistic"]["mrr"] > FREQUENCY
    assert list(results["model"]["features"]) == modalities
