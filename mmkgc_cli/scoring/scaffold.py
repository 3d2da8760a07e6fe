"""Writes a scorer to start from: one working file and its test."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from mmkgc_cli.errors import UsageError
from mmkgc_cli.plugins import find, is_plugin_name
from mmkgc_cli.scoring import templates
from mmkgc_cli.scoring.registry import SCORERS
from mmkgc_cli.state.atomic import write_text

TEMPLATES = {
    "query": (templates.QUERY, templates.QUERY_TEST),
    "triple": (templates.TRIPLE, templates.TRIPLE_TEST),
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
