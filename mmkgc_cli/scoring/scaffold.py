"""Templates for new scorers: a working plugin file and its test."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.plugins import find, is_plugin_name
from mmkgc_cli.scoring.registry import SCORERS
from mmkgc_cli.state.atomic import read_text, write_text

QUERY = '''"""One line about the scorer, which `mmkgc scorers list` shows.

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

    dim: int = Field(128, ge=1, le=2**16, description="Width of a row.")
    margin: float = Field(9.0, gt=0, le=1e6, description="Margin: the score at distance 0.")


class MyScorer(Scorer):
    """score(h, r, t) = margin - |h + r - t|_1: replace it with your own equation and its source."""

    Config = MyScorerConfig
    # The metric between query and candidate rows: Metric.dot, or a distance: l1, l2, modulus
    # (complex rows, laid out [re | im]). Distances are subtracted from the margin.
    metric = Metric.l1
    # The publication to cite.
    citation: ClassVar[str] = "Unpublished; replace this line with the paper."
    # Whether tail queries and head queries give a triple the same score. Set this to False for
    # relations with separate inverses.
    two_way = True

    def __init__(
        self,
        config: MyScorerConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Creates the embeddings. All random numbers must come from `generator`."""
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

        `side` is the side of the answer: for Side.tail the entity is the head, else the tail.
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
    """A scorer for 2 entities and 1 relation, in double precision."""
    scorer_class = load_scorer_file(FILE)
    config = scorer_class.Config(**settings)
    return scorer_class(config, 2, 1, torch.Generator()).double().eval()

'''

_TEST_TAIL = """

def test_the_scorer_conforms_to_the_contract() -> None:
    # Properties of every scorer; mmkgc scorers check my_scorer explains a failure.
    failed = [finding for finding in check_scorer(load_scorer_file(FILE)) if not finding.passed]
    assert not failed, "\\n".join(f"{finding.name}: {finding.detail}" for finding in failed)
"""

QUERY_TEST = (
    _TEST_HEAD
    + """
def test_the_score_is_the_equation() -> None:
    # The score of one triple, computed by hand: change it together with the equation.
    scorer = make(dim=2, margin=5.0)
    with torch.no_grad():
        scorer.entities[:] = torch.tensor([[1.0, 0.0], [0.5, -1.0]])
        scorer.relations[0] = torch.tensor([0.0, 1.0])
    # h + r - t = (0.5, 2)
    assert scorer.score(torch.tensor([[0, 0, 1]])).item() == pytest.approx(5.0 - 2.5)
"""
    + _TEST_TAIL
)

TRIPLE = '''"""One line about the scorer, which `mmkgc scorers list` shows.

Train it:   mmkgc train my_scorer --graph graphs/elements
Settings:   mmkgc scorers show my_scorer

A scorer of whole triples, for networks on head, relation and tail together. Ranking computes every
triple, which is much slower than comparing rows. Where the score is a metric between a row of
(entity, relation) and a row of an entity, write `query` and `candidates` instead:
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

    dim: int = Field(32, ge=1, le=2**16, description="Width of a row.")
    hidden: int = Field(64, ge=1, le=2**16, description="Width of the hidden layer.")


class MyScorer(Scorer):
    """score(h, r, t) = v . relu(W [h, r, t] + b): replace it with your network and its source."""

    Config = MyScorerConfig
    # The publication to cite.
    citation: ClassVar[str] = "Unpublished; replace this line with the paper."

    def __init__(
        self,
        config: MyScorerConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Creates embeddings and layers. All random numbers must come from `generator`."""
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
        """Scores [B] of triples [B, 3] (head, relation, tail); higher is more plausible."""
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
    # The score of one triple, computed by hand: change it together with the network.
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

# Names that the templates import, which a class must not shadow.
IMPORTED = {"ClassVar", "Field", "Metric", "Path", "Scorer", "ScorerConfig", "Side", "Tensor"}


def write_scorer(name: str, kind: str, folder: Path) -> tuple[Path, Path]:
    """Writes ``NAME.py`` and ``test_NAME.py`` into `folder`.

    Args:
        name: name of the scorer.
        kind: a key of `TEMPLATES`.
        folder: created if missing.

    Returns:
        The two files.

    Raises:
        UsageError: when the name is invalid or taken, or a file exists.
        DataError: when a file cannot be written.
    """
    _check_name(name)
    files = folder / f"{name}.py", folder / f"test_{name}.py"
    texts = [
        template.replace("my_scorer", name).replace("MyScorer", class_name(name))
        for template in TEMPLATES[kind]
    ]
    for file, text in zip(files, texts, strict=True):
        # A killed command may have left the test without the scorer.
        is_left = file == files[1] and not file.is_symlink() and _has_text(file, text)
        if (file.exists() or file.is_symlink()) and not is_left:
            raise UsageError(f"{file} exists", fix="choose another name, or delete the file")
    if taken := find(SCORERS, name):
        raise UsageError(
            f"{name}: taken by {taken.where} ({taken.origin})", fix="choose another name"
        )
    for file, text in reversed([*zip(files, texts, strict=True)]):
        write_text(file, text)
    return files


def _has_text(file: Path, text: str) -> bool:
    try:
        return file.is_file() and read_text(file) == text
    except DataError:
        return False


def class_name(name: str) -> str:
    """The class name ``MyScorer`` of a scorer ``my_scorer``."""
    joined = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    return f"{joined}Scorer" if joined in IMPORTED else joined


def _check_name(name: str) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]{0,63}", name):
        raise UsageError(
            f"{name!r}: expected a name of 1 to 64 lower-case letters, digits and underscores, "
            "starting with a letter",
            fix="choose a name such as my_scorer",
        )
    # pytest imports the file as a module of that name.
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in sys.stdlib_module_names:
        raise UsageError(
            f"{name!r}: is a keyword or a standard module of Python", fix="choose another name"
        )
    if not is_plugin_name(name):
        raise UsageError(
            f"{name!r}: files of that name are tests, not scorers", fix="choose another name"
        )
