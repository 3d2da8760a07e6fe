"""Parts of scorers with features, and steps that compute rows of their own entities only."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmkgc_cli.nn.embeddings import FeatureTable
from mmkgc_cli.nn.functional import unit
from mmkgc_cli.nn.projections import Projection
from mmkgc_cli.ops import SelfAdversarial
from mmkgc_cli.scoring import Features, Scorer, load_scorer
from mmkgc_cli.scoring.contract import Candidates

E, R, B, N = 90, 3, 4, 6


def test_unit_rows_have_length_one_and_zero_rows_stay_zero_with_zero_gradient() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]], requires_grad=True)
    normalized = unit(rows)
    assert normalized.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0], [0, 0]]
    normalized.sum().backward()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()
    assert rows.grad[1:].tolist() == [[0, 0], [0, 0]]


def test_a_trained_table_is_a_copy_of_the_features() -> None:
    vectors = torch.ones(2, 3)
    table = FeatureTable(Features(vectors, torch.ones(2, dtype=torch.bool)), frozen=False)
    with torch.no_grad():
        table.vectors.zero_()
    assert vectors.all()


def test_initial_values_of_a_projection_come_from_the_generator_within_the_bound() -> None:
    a, b = (
        Projection(5, 40, bound=0.3, bias=True, generator=torch.Generator().manual_seed(2))
        for _ in range(2)
    )
    assert torch.equal(a.weight, b.weight)
    assert a.bias is not None
    assert 0.2 < a.weight.abs().max() <= 0.3
    assert 0 < a.bias.abs().max() <= 0.3


def make(name: str) -> Scorer:
    scorer_class: Any = load_scorer(name)
    rng = torch.Generator().manual_seed(1)
    features = {
        modality: Features(torch.randn(E, 7, generator=rng), torch.ones(E, dtype=torch.bool))
        for modality in scorer_class.modalities
    }
    scorer: Scorer = scorer_class(scorer_class.Config(dim=8), E, R, rng, features=features)
    return scorer.double()


@pytest.mark.parametrize("name", ["ikrl", "tbkgc", "rsme"])
def test_a_step_with_rows_of_its_own_entities_scores_as_with_all_rows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = make(name)
    rng = torch.Generator().manual_seed(2)
    positives = torch.stack([torch.randint(n, (B,), generator=rng) for n in (E, R, E)], 1)
    ids = torch.randint(E, (B, N), generator=rng)
    ids[1] = ids[0]  # some twice
    side = torch.randint(2, (B, N), generator=rng, dtype=torch.int8)
    candidates = Candidates(ids, side, order=ids.flatten().argsort(stable=True))
    sizes: set[int] = set()  # of the tables of candidate rows
    rows_of = scorer.candidates

    def recorded(entities: torch.Tensor | None, **arguments: object) -> object:
        sizes.add(E if entities is None else len(entities))
        return rows_of(entities, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(scorer, "candidates", recorded)
    results = {}
    for rows in ("unique", "all"):
        if rows == "all":
            monkeypatch.setattr(
                "mmkgc_cli.scoring.scores._unique_candidates",
                lambda _, candidates: (None, candidates),
            )
        scores = scorer.score_sampled(positives, candidates)
        loss = scorer.loss_sampled(positives, candidates, SelfAdversarial(1.0))
        total = scores.square().sum() + loss
        grads = torch.autograd.grad(total, list(scorer.parameters()))
        results[rows] = [scores, loss, *grads]
        assert (E in sizes) == (rows == "all")
        sizes.clear()
    for unique, everyone in zip(results["unique"], results["all"], strict=True):
        torch.testing.assert_close(unique, everyone, atol=1e-12, rtol=1e-9)
