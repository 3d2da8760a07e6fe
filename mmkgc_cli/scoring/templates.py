"""What `mmkgc scorers new` writes, with the names ``my_scorer`` and ``MyScorer`` to be replaced."""

QUERY = '''"""Say here in one line what it does: `mmkgc scorers list` shows this line.

Train it:   mmkgc train my_scorer --graph graphs/elements
Settings:   mmkgc scorers show my_scorer
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmkgc_cli.ops import Metric
from mmkgc_cli.scoring.contract import Scorer, ScorerConfig, Side


class MyScorerConfig(ScorerConfig):
    """Hyper-parameters; each is a setting, as in --set model.dim=64."""

    dim: int = Field(128, ge=1, le=2**16, description="width of a row")
    margin: float = Field(9.0, gt=0, le=1e6, description="score of distance 0")


class MyScorer(Scorer):
    """score(h, r, t) = margin - |h + r - t|_1: replace it with your own equation and its source."""

    Config = MyScorerConfig
    # How a query row meets a candidate row: Metric.dot, or a distance: l1, l2, modulus (complex
    # numbers, laid out [re | im]). Distances are subtracted from the margin.
    metric = Metric.l1
    # Whom to cite for it.
    citation: ClassVar[str] = "Unpublished; replace this line with the paper."
    # Whether tail queries and head queries give a triple the same score. With relations that have a
    # separate inverse they do not: set this to False then.
    two_way = True

    def __init__(
        self,
        config: MyScorerConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Tables of entities and relations. All that is random comes from `generator`."""
        super().__init__(config, n_entities, n_relations, generator)
        bound = config.margin / config.dim

        def table(rows: int) -> nn.Parameter:
            values = torch.empty(rows, config.dim)
            return nn.Parameter(values.uniform_(-bound, bound, generator=generator))

        self._margin = config.margin
        self.entities = table(n_entities)
        self.relations = table(n_relations)

    @property
    def margin(self) -> float:
        """Added to every score."""
        return self._margin

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """One row [B, D] for each known entity [B] and its relation [B].

        `side` is what is sought: for Side.tail the entity is the head, for Side.head the tail.
        """
        entity = nn.functional.embedding(entities, self.entities)
        relation = nn.functional.embedding(relations, self.relations)
        # |h + r - t| = |(t - r) - h|, so one metric serves both sides.
        return entity + relation if side is Side.tail else entity - relation

    def candidates(
        self, entities: Tensor | None, relation: int | None = None, side: Side | None = None
    ) -> Tensor:
        """One row [n, D] for each entity [n], or for all entities when `entities` is None."""
        if entities is None:
            return self.entities
        return nn.functional.embedding(entities, self.entities)


SCORER = MyScorer
'''

_TEST_HEAD = '''"""Tests of my_scorer; run them with: python -m pytest test_my_scorer.py"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmkgc_cli.scoring import Scorer, Side, load_scorer_file

N, R = 7, 3  # entities and relations


def make(**settings: object) -> Scorer:
    """A small one, in double precision so that differences are mistakes."""
    scorer_class = load_scorer_file(Path(__file__).with_name("my_scorer.py"))
    config = scorer_class.Config(**settings)
    generator = torch.Generator().manual_seed(0)
    return scorer_class(config, N, R, generator).double().eval()


def all_triples() -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(N), torch.arange(R), torch.arange(N))

'''

QUERY_TEST = (
    _TEST_HEAD
    + """
def test_the_score_is_the_equation() -> None:
    # A score worked out by hand is the best test there is; replace it along with the equation.
    scorer = make(dim=2, margin=5.0)
    with torch.no_grad():
        scorer.entities[:2] = torch.tensor([[1.0, 0.0], [0.5, -1.0]])
        scorer.relations[0] = torch.tensor([0.0, 1.0])
    # h + r - t = (0.5, 2)
    assert scorer.score(torch.tensor([[0, 0, 1]])).item() == pytest.approx(5.0 - 2.5)


def test_scores_along_tails_and_along_heads_agree() -> None:
    # With two_way = False, drop the heads: only tails have to agree with score().
    scorer = make(dim=5)
    h, r, t = all_triples().unbind(1)
    table = scorer.candidates(None)[None]
    tails = scorer.score_vectors(scorer.query(h, r, Side.tail)[:, None], table)
    heads = scorer.score_vectors(scorer.query(t, r, Side.head)[:, None], table)
    expected = scorer.score(all_triples())
    torch.testing.assert_close(tails.gather(1, t[:, None])[:, 0], expected)
    torch.testing.assert_close(heads.gather(1, h[:, None])[:, 0], expected)


def test_sampled_scores_and_gradients_are_those_of_the_corrupted_triples() -> None:
    scorer = make(dim=5)
    generator = torch.Generator().manual_seed(1)
    h, r, t = all_triples()[::5].unbind(1)
    ids = torch.randint(N, (len(h), 6), generator=generator)
    side = torch.randint(2, ids.shape, generator=generator, dtype=torch.int8)
    heads = torch.where(side == Side.head, ids, h[:, None])
    tails = torch.where(side == Side.tail, ids, t[:, None])
    triples = torch.stack([heads, r[:, None].expand_as(ids), tails], -1).view(-1, 3)
    weights = torch.linspace(-1, 1, len(triples), dtype=torch.float64)
    paths = [scorer.score_sampled(h, r, t, ids, side).flatten(), scorer.score(triples)]
    torch.testing.assert_close(*paths)
    gradients = [torch.autograd.grad(path, list(scorer.parameters()), weights) for path in paths]
    torch.testing.assert_close(*gradients)


def test_some_candidates_are_rows_of_all_candidates() -> None:
    scorer = make(dim=5)
    some = torch.tensor([4, 0, 4])
    assert torch.equal(scorer.candidates(some), scorer.candidates(None)[some])


def test_initial_values_come_from_the_generator() -> None:
    torch.manual_seed(1)
    first = make(dim=5)
    torch.manual_seed(2)
    torch.testing.assert_close(first.state_dict(), make(dim=5).state_dict(), atol=0, rtol=0)
"""
)

TRIPLE = '''"""Say here in one line what it does: `mmkgc scorers list` shows this line.

Train it:   mmkgc train my_scorer --graph graphs/elements
Settings:   mmkgc scorers show my_scorer

A scorer of whole triples: for networks that look at head, relation and tail together. Ranking has
to compute every triple, which takes far longer than comparing rows. Where the score is a metric
between a row of (entity, relation) and a row of an entity, write `query` and `candidates` instead:
mmkgc scorers new NAME --kind query.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmkgc_cli.scoring.contract import Scorer, ScorerConfig


class MyScorerConfig(ScorerConfig):
    """Hyper-parameters; each is a setting, as in --set model.dim=64."""

    dim: int = Field(32, ge=1, le=2**16, description="width of a row")
    hidden: int = Field(64, ge=1, le=2**16, description="width of the hidden layer")


class MyScorer(Scorer):
    """score(h, r, t) = v . relu(W [h, r, t] + b): replace it with your network and its source."""

    Config = MyScorerConfig
    # Whom to cite for it.
    citation: ClassVar[str] = "Unpublished; replace this line with the paper."

    def __init__(
        self,
        config: MyScorerConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Tables and layers. All that is random comes from `generator`."""
        super().__init__(config, n_entities, n_relations, generator)

        def matrix(rows: int, columns: int) -> nn.Parameter:
            values = torch.empty(rows, columns)
            return nn.Parameter(nn.init.xavier_uniform_(values, generator=generator))

        self.entities = matrix(n_entities, config.dim)
        self.relations = matrix(n_relations, config.dim)
        self.weight = matrix(config.hidden, 3 * config.dim)
        self.bias = nn.Parameter(torch.zeros(config.hidden))
        self.last = matrix(1, config.hidden)

    def score(self, triples: Tensor) -> Tensor:
        """Scores [B] of triples [B, 3] as head, relation, tail; larger is likelier."""
        heads, relations, tails = triples.unbind(1)
        row = torch.cat(
            [
                nn.functional.embedding(heads, self.entities),
                nn.functional.embedding(relations, self.relations),
                nn.functional.embedding(tails, self.entities),
            ],
            -1,
        )
        hidden = nn.functional.linear(row, self.weight, self.bias).relu()
        return nn.functional.linear(hidden, self.last)[:, 0]


SCORER = MyScorer
'''

TRIPLE_TEST = (
    _TEST_HEAD.replace("Scorer, Side, load", "Scorer, load")
    + """
def test_the_score_is_the_equation() -> None:
    # A score worked out by hand is the best test there is; replace it along with the network.
    scorer = make(dim=1, hidden=2)
    with torch.no_grad():
        scorer.entities[:2] = torch.tensor([[1.0], [2.0]])
        scorer.relations[0] = 3.0
        scorer.weight.copy_(torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]))
        scorer.last.copy_(torch.tensor([[0.5, 7.0]]))
    # relu(1 + 3 + 2) = 6 and relu(-6) = 0
    assert scorer.score(torch.tensor([[0, 0, 1]])).item() == pytest.approx(0.5 * 6)


def test_a_triple_scores_the_same_in_any_company() -> None:
    scorer = make(dim=5)
    triples = all_triples()
    scores = scorer.score(triples)
    assert scores.shape == (len(triples),)
    order = torch.randperm(len(triples), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scorer.score(triples[order]), scores[order])
    torch.testing.assert_close(scorer.score(triples[3:4]), scores[3:4])
    assert scorer.score(triples[:0]).shape == (0,)


def test_every_parameter_learns() -> None:
    scorer = make(dim=5)
    scorer.score(all_triples()).square().sum().backward()
    for name, parameter in scorer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_initial_values_come_from_the_generator() -> None:
    torch.manual_seed(1)
    first = make(dim=5)
    torch.manual_seed(2)
    torch.testing.assert_close(first.state_dict(), make(dim=5).state_dict(), atol=0, rtol=0)
"""
)
