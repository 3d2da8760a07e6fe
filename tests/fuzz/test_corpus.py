from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, check

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())

pytest.importorskip("pyoxigraph")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_inputs_of_the_corpus_are_read_or_refused_in_one_line(path: Path) -> None:
    check(path.parent.name, path.read_bytes())


def test_every_target_has_a_corpus_and_it_is_small() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum(path.stat().st_size for path in FILES) < 100_000


@pytest.mark.parametrize("name", TARGETS)
@given(
    data=st.binary(max_size=300)
    | st.text('ab<>_:."\\#\t \r\n019{}[]é', max_size=80).map(str.encode)
)
def test_any_bytes_are_read_or_refused_in_one_line(name: str, data: bytes) -> None:
    check(name, data)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_changed_inputs_are_read_or_refused_in_one_line(name: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([path for path in FILES if path.parent.name == name]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check(name, bytes(content))
