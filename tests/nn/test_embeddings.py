"""Parts of scorers with features, and rows that are made for the entities of a step alone."""

from __future__ import annotations

import pytest
import torch

from mmkgc_cli.nn.embeddings import FeatureTable
from mmkgc_cli.nn.functional import unit
from mmkgc_cli.nn.projections import Projection
from mmkgc_cli.ops import SelfAdversarial
from mmkgc_cli.scoring import Features, Scorer, load_scorer

E, R, B, N = 90, 3, 4, 6


def test_unit_rows_have_length_one_and_zero_rows_stay_zero_with_gradient_zero() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]], requires_grad=True)
    made = unit(rows)
    assert made.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0], [0, 0]]
    made.sum().backward()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()
    assert rows.grad[1:].tolist() == [[0, 0], [0, 0]]


def test_a_trained_table_leaves_what_it_was_made_of_alone() -> None:
    vectors = torch.ones(2, 3)
    table = FeatureTable(Features(vectors, torch.ones(2, dtype=torch.bool)), frozen=False)
    with torch.no_grad():
        table.vectors.zero_()
    assert vectors.all()


def test_a_projection_comes_from_the_generator_within_its_bound() -> None:
    a, b = (Projection(5, 40, 0.3, True, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(a.weight, b.weight)
    assert a.bias is not None
    assert 0.2 < a.weight.abs().max() <= 0.3
    assert 0 < a.bias.abs().max() <= 0.3


def make(name: str) -> Scorer:
    scorer_class = load_scorer(name)
    rng = torch.Generator().manual_seed(1)
    features = {
        modality: Features(torch.randn(E, 7, generator=rng), torch.ones(E, dtype=torch.bool))
        for modality in scorer_class.modalities
    }
    return scorer_class(scorer_class.Config(dim=8), E, R, rng, features=features).double()


@pytest.mark.parametrize("name", ["ikrl", "tbkgc", "rsme"])
def test_a_step_makes_rows_of_the_entities_it_meets_and_scores_as_with_all(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = make(name)
    rng = torch.Generator().manual_seed(2)
    h, r, t = (torch.randint(n, (B,), generator=rng) for n in (E, R, E))
    ids = torch.randint(E, (B, N), generator=rng)
    ids[1] = ids[0]  # some twice
    side = torch.randint(2, (B, N), generator=rng, dtype=torch.int8)
    order = ids.flatten().argsort(stable=True)
    asked: list[torch.Tensor | None] = []
    candidates = scorer.candidates

    def watched(entities: torch.Tensor | None, **told: object) -> object:
        asked.append(entities)
        return candidates(entities, **told)  # type: ignore[arg-type]

    monkeypatch.setattr(scorer, "candidates", watched)
    found = {}
    for way in ("met", "all"):
        if way == "all":
            monkeypatch.setattr(
                "mmkgc_cli.scoring.scores._entities_met", lambda _, ids: (None, ids)
            )
        scores = scorer.score_sampled(h, r, t, ids, side, order)
        loss = scorer.loss_sampled(h, r, t, ids, side, None, SelfAdversarial(1.0), order)
        total = scores.square().sum() + loss
        grads = torch.autograd.grad(total, list(scorer.parameters()))
        found[way] = [scores, loss, *grads]
        rows = {len(E_) if E_ is not None else E for E_ in asked}
        assert (E in rows) == (way == "all")
        asked.clear()
    for met, everyone in zip(found["met"], found["all"], strict=True):
        torch.testing.assert_close(met, everyone, atol=1e-12, rtol=1e-9)
