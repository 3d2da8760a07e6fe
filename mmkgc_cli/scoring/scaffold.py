"""Writes a scorer to start from: one working file and its test."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from mmkgc_cli.errors import UsageError
from mmkgc_cli.plugins import find, is_plugin_name
from mmkgc_cli.scoring.registry import SCORERS
from mmkgc_cli.state.atomic import write_text

QUERY = '''"""Say here in one line what it does: `mmkgc scorers list` shows this line.

Train it:   mmkgc train my_scorer --graph graphs/elements
Settings:   mmkgc scorers show my_scorer
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.nn.functional import uniform
from mmkgc_cli.ops import Metric, lookup
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
        self._margin = config.margin
        self.entities = uniform(n_entities, config.dim, bound=bound, generator=generator)
        self.relations = uniform(n_relations, config.dim, bound=bound, generator=generator)

    @property
    def margin(self) -> float:
        """Added to every score."""
        return self._margin

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """One row [B, D] for each known entity [B] and its relation [B].

        `side` is what is sought: for Side.tail the entity is the head, for Side.head the tail.
        """
        entity = lookup(self.entities, entities)
        relation = lookup(self.relations, relations)
        # |h + r - t| = |(t - r) - h|, so one metric serves both sides.
        return entity + relation if side is Side.tail else entity - relation

    def candidates(self, entities: Tensor | None) -> Tensor:
        """One row [n, D] for each entity [n], or for all entities when `entities` is None."""
        return lookup(self.entities, entities)


SCORER = MyScorer
'''

_TEST_HEAD = '''"""Tests of my_scorer; run them with: python -m pytest test_my_scorer.py"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmkgc_cli.conformance import check_scorer
from mmkgc_cli.scoring import Scorer, load_scorer_file

FILE = Path(__file__).with_name("my_scorer.py")


def make(**settings: object) -> Scorer:
    """One for 2 entities and 1 relation, in double precision."""
    scorer_class = load_scorer_file(FILE)
    config = scorer_class.Config(**settings)
    return scorer_class(config, 2, 1, torch.Generator()).double().eval()

'''

_TEST_TAIL = """

def test_it_keeps_the_contract() -> None:
    # What holds for every scorer; mmkgc scorers check my_scorer says more about a failure.
    failed = [of for of in check_scorer(load_scorer_file(FILE)) if not of.passed]
    assert not failed, "\\n".join(f"{of.name}: {of.detail}" for of in failed)
"""

QUERY_TEST = (
    _TEST_HEAD
    + """
def test_the_score_is_the_equation() -> None:
    # A score worked out by hand is the best test there is; replace it along with the equation.
    scorer = make(dim=2, margin=5.0)
    with torch.no_grad():
        scorer.entities[:] = torch.tensor([[1.0, 0.0], [0.5, -1.0]])
        scorer.relations[0] = torch.tensor([0.0, 1.0])
    # h + r - t = (0.5, 2)
    assert scorer.score(torch.tensor([[0, 0, 1]])).item() == pytest.approx(5.0 - 2.5)
"""
    + _TEST_TAIL
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

from mmkgc_cli.ops import lookup
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
                lookup(self.entities, heads),
                lookup(self.relations, relations),
                lookup(self.entities, tails),
            ],
            -1,
        )
        hidden = nn.functional.linear(row, self.weight, self.bias).relu()
        return nn.functional.linear(hidden, self.last)[:, 0]


SCORER = MyScorer
'''

TRIPLE_TEST = (
    _TEST_HEAD
    + """
def test_the_score_is_the_equation() -> None:
    # A score worked out by hand is the best test there is; replace it along with the network.
    scorer = make(dim=1, hidden=2)
    with torch.no_grad():
        scorer.entities[:] = torch.tensor([[1.0], [2.0]])
        scorer.relations[0] = 3.0
        scorer.weight.copy_(torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]))
        scorer.last.copy_(torch.tensor([[0.5, 7.0]]))
    # relu(1 + 3 + 2) = 6 and relu(-6) = 0
    assert scorer.score(torch.tensor([[0, 0, 1]])).item() == pytest.approx(0.5 * 6)
"""
    + _TEST_TAIL
)

TEMPLATES = {
    "query": (QUERY, QUERY_TEST),
    "triple": (TRIPLE, TRIPLE_TEST),
}

# What the files import, which a class of the same name would hide.
IMPORTED = {"ClassVar", "Field", "Metric", "Path", "Scorer", "ScorerConfig", "Side", "Tensor"}


def write_scorer(name: str, kind: str, folder: Path) -> tuple[Path, Path]:
    """Writes ``NAME.py`` and ``test_NAME.py`` into `folder`.

    Args:
        name: of the scorer.
        kind: a key of `TEMPLATES`.
        folder: made where it is missing.

    Returns:
        The two files.

    Raises:
        UsageError: when the name will not do or is taken, or a file is there already.
        DataError: when the storage refuses.
    """
    _check_name(name)
    files = folder / f"{name}.py", folder / f"test_{name}.py"
    for file in files:
        if file.exists() or file.is_symlink():
            raise UsageError(f"{file}: is there already, and is not overwritten; take another name")
    if taken := find(SCORERS, name):
        raise UsageError(f"{name}: taken by {taken.where} ({taken.origin}); take another name")
    for file, template in zip(files, TEMPLATES[kind], strict=True):
        write_text(file, template.replace("my_scorer", name).replace("MyScorer", class_name(name)))
    return files


def class_name(name: str) -> str:
    """``my_scorer`` as the name of a class, ``MyScorer``."""
    joined = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    return f"{joined}Scorer" if joined in IMPORTED else joined


def _check_name(name: str) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]{0,63}", name):
        raise UsageError(
            f"{name!r}: expected a name of at most 64 lower-case letters, digits and underscores, "
            "a letter first, such as my_scorer"
        )
    # Beside its test, the file is a module of that name for pytest.
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in sys.stdlib_module_names:
        raise UsageError(f"{name!r}: is a word or a module of Python; take another name")
    if not is_plugin_name(name):
        raise UsageError(f"{name!r}: files of that name are tests, not scorers; take another name")
