"""Every error says what to do next, and renders as one line."""

from __future__ import annotations

import ast
import errno
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmkgc_cli
from mmkgc_cli import errors
from mmkgc_cli.errors import DataError, Interrupted, MmkgcError, UsageError
from tests.conftest import ROOT

SOURCES = sorted([*(ROOT / "mmkgc_cli").rglob("*.py"), *(ROOT / "scorers").glob("*.py")])


def class_names() -> set[str]:
    """The names of MmkgcError and of all its subclasses in the package."""
    names = {"MmkgcError"}
    grown = True
    trees = [ast.parse(path.read_text()) for path in SOURCES]
    while grown:
        grown = False
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and node.name not in names:
                    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                    if bases & names:
                        names.add(node.name)
                        grown = True
    return names


ERRORS = class_names()


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls that construct one of our errors; `joined` takes lines that have their fixes."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ERRORS
        ):
            yield node


def has_fix(call: ast.Call) -> bool:
    for keyword in call.keywords:
        if keyword.arg == "fix":
            return not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
        if keyword.arg is None:  # **keywords
            return True
    return False


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_error_says_what_to_do_next(path: Path) -> None:
    missing = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for call in calls(ast.parse(path.read_text()))
        if not has_fix(call)
    ]
    assert not missing, "\n".join(missing)


def test_the_fix_ends_the_line() -> None:
    assert str(DataError("a.tsv:3: two columns", fix="add the third")) == (
        "a.tsv:3: two columns; add the third"
    )
    assert str(UsageError.joined(["a; do b", "c; do d"])) == "a; do b\nc; do d"
    assert Interrupted("stopped", 2, fix="resume it").exit_code == 130


def behind(cause: BaseException) -> SystemError:
    error = SystemError("returned a result with an exception set")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: ..."), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("Storage size calculation overflowed with sizes=[4, 9]"), True),
        (ImportError("libtorch.so: failed to map segment from shared object"), True),
        (OSError("Unable to synchronously read (memory allocation failed)"), True),
        (behind(MemoryError()), True),
        (behind(ValueError("a file about lack of memory")), False),
        (SystemError("error return without exception set"), True),
        (SystemError("bad argument to internal function"), False),
        (RuntimeError("the memory of the sampler is empty"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (KeyError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_recognized(error: BaseException, expected: bool) -> None:
    assert errors.is_out_of_memory(error) is expected


def test_the_walk_sees_every_class_of_error() -> None:
    found = {"MmkgcError"}
    for module in pkgutil.walk_packages(mmkgc_cli.__path__, "mmkgc_cli."):
        # Adapters of other tools import those tools.
        if module.name.endswith(("__main__", "._C")) or ".log_" in module.name:
            continue
        for name, value in inspect.getmembers(importlib.import_module(module.name)):
            ours = inspect.isclass(value) and issubclass(value, MmkgcError)
            if ours and value.__module__ == module.name:
                found.add(name)
    assert found == ERRORS
    assert errors.MmkgcError in DataError.__mro__


def test_a_long_name_is_shortened_and_the_fix_stays() -> None:
    message = str(DataError(f"x.h5: modality {'x' * 10**6!r} has a slash", fix="rename it"))
    assert len(message) < 4100
    assert message.startswith("x.h5: modality 'xxx")
    assert message.endswith("x' has a slash; rename it")
