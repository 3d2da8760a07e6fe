from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mmkgc_cli.scoring import Scorer, load_scorer
from mmkgc_cli.scoring.contract import Batch
from tests.scorers.small import scorer_with

# Rows [re | im] for ComplEx, plain numbers for DistMult.
WEIGHTS = {"entities": [[3.0, 1.0, 4.0, 0.0], [0.0] * 4], "relations": [[-1.0, 2.0, 0.0, 0.0]]}
TRIPLES = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 0, 1]])


def terms(name: str, kind: str, weight: float) -> tuple[Scorer, dict[str, Any]]:
    dim = 2 if name == "complex" else 4
    given: dict[str, Any] = {"regularization": kind, "regularization_weight": weight}
    scorer = scorer_with(name, WEIGHTS, dim=dim, **given)
    return scorer, scorer.extra_losses(Batch(TRIPLES))


@pytest.mark.parametrize("name", ["distmult", "complex"])
def test_l3_is_over_all_numbers_of_both_tables_whatever_the_batch(name: str) -> None:
    _, actual = terms(name, "l3", 0.5)
    assert actual.keys() == {"l3"}
    assert actual["l3"].item() == 0.5 * (27 + 1 + 64 + 1 + 8)


def test_n3_of_distmult_is_a_mean_over_the_triples_of_the_batch() -> None:
    _, actual = terms("distmult", "n3", 0.5)
    head, relation = 27 + 1 + 64, 1 + 8
    assert actual["n3"].item() == pytest.approx(0.5 * (2 * head + 3 * relation) / 3)


def test_n3_of_complex_takes_moduli() -> None:
    _, actual = terms("complex", "n3", 0.5)
    head, relation = 5**3 + 1, 1 + 8  # |3 + 4i|, |1|; |-1|, |2|
    assert actual["n3"].item() == pytest.approx(0.5 * (2 * head + 3 * relation) / 3)


@pytest.mark.parametrize("name", ["distmult", "complex"])
@pytest.mark.parametrize("kind", ["l3", "n3"])
def test_rows_of_zeros_have_a_gradient_of_zero(name: str, kind: str) -> None:
    scorer, actual = terms(name, kind, 1.0)
    actual[kind].backward()
    entities = scorer.get_parameter("entities").grad
    assert entities is not None
    assert entities.isfinite().all()
    assert not entities[1].any()
    assert entities[0].any()


def test_without_a_regularization_there_is_no_term() -> None:
    assert scorer_with("complex", WEIGHTS, dim=2).extra_losses(Batch(TRIPLES)) == {}


@pytest.mark.parametrize(
    "given", [{"regularization": "n3"}, {"regularization_weight": 0.1}], ids=["kind", "weight"]
)
def test_a_regularization_and_its_weight_need_each_other(
    given: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError, match="need each other; set both or neither"):
        load_scorer("distmult").Config(**given)
