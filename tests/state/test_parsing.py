"""JSON and TOML of any origin are read, or refused in one line with the place."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError
from mmkgc_cli.runs.config import parse_override
from mmkgc_cli.runs.toml_file import read_toml, statements
from mmkgc_cli.state.atomic import read_json
from mmkgc_cli.state.parsing import parse_json, parse_toml
from mmkgc_cli.state.trace import read_trace
from tests.conftest import ROOT, Outcome

LONG = "1" * 5000
# What each document is refused for, with the line that is named.
JSON = {
    f'{{\n"a": {LONG}}}': "FILE:2: not valid JSON: a number with too many digits",
    "[" * 100_000: "FILE:1: not valid JSON: nested too deeply",
    '{"a":\n}': "FILE:2: not valid JSON: Expecting value",
    '"\\ud800"': "FILE: not valid JSON: half of a surrogate pair in a string",
}
TOML = {
    f"b = 1\na = {LONG}": "FILE:2: not valid TOML: a number with too many digits",
    f"a = 0x{'f' * 20}": "FILE: a: expected an integer of 64 bits, got a larger one",
    f"a = [{2**63}]": "FILE: a[0]: expected an integer of 64 bits, got a larger one",
    "\na = " + "[" * 50_000 + "]" * 50_000: "FILE:2: not valid TOML: nested too deeply",
    ".".join("a" * 5000) + " = 1": "FILE:1: not valid TOML: nested too deeply",
    "a = 1\na = 2": "FILE: not valid TOML: Cannot overwrite a value",
    "a = \x00": "FILE:1: not valid TOML: Invalid value",
    'a = "\\ud800"': "FILE:1: not valid TOML: Escaped character is not a Unicode scalar value",
}


@pytest.mark.parametrize("text", JSON, ids=range(len(JSON)))
def test_unusual_json_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "FILE"
    path.write_text(text)
    for parse in (
        lambda: parse_json(text, str(path)),
        lambda: parse_json(text.encode(), str(path)),
        lambda: read_json(path),
    ):
        with pytest.raises(DataError) as caught:
            parse()
        message = str(caught.value).replace(str(tmp_path) + "/", "")
        assert message.startswith(JSON[text])
        assert "\n" not in message


@pytest.mark.parametrize("text", TOML, ids=range(len(TOML)))
def test_unusual_toml_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "FILE"
    path.write_text(text)
    for read in (lambda: parse_toml(text, str(path)), lambda: read_toml(path)):
        with pytest.raises(DataError) as caught:
            read()
        message = str(caught.value).replace(str(tmp_path) + "/", "")
        assert message.startswith(TOML[text])
        assert "\n" not in message


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(DataError, match="FILE: not valid JSON: not UTF-8"):
        parse_json(b'"\xff"', "FILE")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(), st.lists, max_leaves=9
)


@given(VALUES)
def test_what_json_writes_is_read(value: object) -> None:
    text = json.dumps(value)
    try:
        value_is_text = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        with pytest.raises(DataError, match="surrogate"):
            parse_json(text, "FILE")
    else:
        assert parse_json(text, "FILE") == parse_json(value_is_text, "FILE") == value


def test_a_trace_with_a_deeply_nested_line_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("[" * 100_000 + "\n{}\n")
    with pytest.raises(DataError, match=r"trace.jsonl:1: not a JSON object"):
        read_trace(path)


@pytest.mark.parametrize("value", [LONG, "[" * 5000 + "]" * 5000])
def test_unusual_values_of_flags_are_refused_in_one_line(value: str) -> None:
    with pytest.raises(DataError, match=r"^--set optimizer.lr=.{20}…: expected a value"):
        parse_override(f"optimizer.lr={value}")


@pytest.mark.parametrize("flag", ["training.seed", "model.dim", "negatives.count"])
def test_integers_of_flags_have_64_bits(mmkgc: Callable[..., Outcome], flag: str) -> None:
    done = mmkgc("train", "rotate", "--graph", "none", "--set", f"{flag}={2**64}")
    assert done.code in (2, 3)
    assert f"--set {flag}: expected an integer of 64 bits" in done.err


STRINGS = [
    'a = """x"""""', "a = \'\'\'x\'\'\'\'\'",
    'a = "\\""', 'a = """\n[\n"""', "a = \'\'\'\n\\\'\'\'",
    'a = [\n"]", # ]\n1]', "a = { b = '}' }", 'a = ""', 'a = """"""',
    "a = '#' # '", 'a = """\\\n"""',
    'a = ["""\n"""]', "'[' = 1", '"a b" = [[1],\n[2]]',
]  # fmt: skip


@pytest.mark.parametrize("first", STRINGS)
@pytest.mark.parametrize("second", STRINGS)
def test_statements_end_where_toml_ends_them(first: str, second: str) -> None:
    text = f"{first}\n[t]\n{second}\n"
    assert tomllib.loads(text)
    found = list(statements(text))
    assert "".join(s.text for s in found) == text
    assert [s.text for s in found if s.keys] == [f"{first}\n", f"{second}\n"]


def test_each_line_of_a_long_array_is_parsed_a_constant_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsing each prefix of this array took 27 s."""
    path = tmp_path / "long.toml"
    path.write_text("a = [\n" + "1,\n" * 3000 + "]\nb = 1\n")
    parsed: list[str] = []

    def loads(text: str) -> dict[str, Any]:
        parsed.append(text)
        return original(text)

    original = tomllib.loads
    monkeypatch.setattr(tomllib, "loads", loads)
    assert read_toml(path).location("b") == f"{path}:3003"
    assert sum(map(len, parsed)) <= 3 * len(path.read_text())


ALLOWED = {
    "parsing.py",
    "toml_file.py",
    "config.py",
    "version_0_1.py",
    "processes.py",
    "_native.py",
    # Messages of a program to its own children.
    "client.py",
    "forks.py",
    "messages.py",
}


def test_documents_are_parsed_in_one_place() -> None:
    """Elsewhere: statements of TOML that was parsed before, and JSON that this program wrote."""
    for path in (ROOT / "mmkgc_cli").rglob("*.py"):
        if path.name in ALLOWED:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                call = f"{node.value.id}.{node.attr}"
                assert call not in ("json.loads", "json.load", "tomllib.loads", "tomllib.load"), (
                    path
                )
