"""Text of other people reaches a terminal without control characters and hidden text."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.commands._shell import table
from mmkgc_cli.kg.downloads import Cache, Unavailable
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.text import printable, printable_json
from tests.conftest import ROOT, Outcome
from tests.kg.server import serving

Run = Callable[..., Outcome]
HOSTILE = "\x1b[2J\x07\x9b31m\u202e\u2066\u200b\u2028"
# Format characters that have a shape: signs around numbers, and joiners of hieroglyphs.
VISIBLE = {"\u070f", "\u06dd", "\u08e2", "\U000110bd", "\U000110cd"}
VISIBLE |= {chr(i) for i in [*range(0x600, 0x606), 0x890, 0x891, *range(0x13430, 0x13440)]}
EVERY = [chr(i) for i in range(0x110000)]
PRINTS = {"print", "echo", "secho", "Console", "warn", "getLogger", "basicConfig"}


def is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cf", "Zl", "Zp", "Cs") and character not in VISIBLE


def unsafe(text: str) -> list[str]:
    return [c for c in text if is_hidden(c) and c != "\n"]


def test_characters_that_control_or_hide_are_escaped_and_letters_are_not() -> None:
    for character in EVERY:
        shown = printable(character)
        assert not is_hidden(character) or shown == repr(character)[1:-1], shown
        if unicodedata.category(character) in ("Ll", "Lu", "Mn", "Mc", "Nd", "So", "Sm", "Po"):
            variant_or_tag = 0xE0000 <= ord(character) <= 0xE0FFF
            assert shown == character or variant_or_tag
    for text in ("São Paulo", "東京", "हिन्दी", "👩‍🚀", "نام‌ها", "✈️"):  # joiners within words
        assert printable(text) == text


def test_json_keeps_the_value_and_shows_no_control_characters() -> None:
    text = "".join(c for c in EVERY if not "\ud800" <= c <= "\udfff") + "\ud800"
    shown = printable_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(shown) == text
    assert unsafe(shown) == []


def test_nothing_prints_but_the_shell() -> None:
    found = set()
    for path in sorted((ROOT / "mmkgc_cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ""
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = ast.unparse(node.func)
            ours = re.match(r"(self|out|log|super\(\))\.|.*\.console\.", name)
            callback = name == "warn"  # an argument of functions, not that of `warnings`
            is_print = name.rpartition(".")[2] in PRINTS and not ours and not callback
            if is_print or re.match(r"(sys\.(__)?std(out|err)(__)?)\.write", name):
                found.add((path.relative_to(ROOT / "mmkgc_cli").as_posix(), name))
    assert found == {
        ("commands/_shell.py", "print"),  # to the stream that escapes
        ("commands/_shell.py", "sys.stdout.write"),
        ("kg/transport.py", "logging.getLogger"),  # silences urllib3
    }, found


@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE,),
        ("train", HOSTILE, "--graph", "graph"),
        ("train", "transe", f"--{HOSTILE}"),
        ("train", "transe", "--graph", HOSTILE),
        ("train", "transe", "--graph", "graph", "--set", f"model.{HOSTILE}=1"),
        ("train", "transe", "--graph", "graph", "--device", HOSTILE),
        ("audit", HOSTILE),
        ("audit", f"a\nerror: {HOSTILE}"),
        ("prepare", HOSTILE, "--out", "x"),
        ("scorers", "show", HOSTILE),
        ("batch", HOSTILE),
        ("runs", "show", HOSTILE),
        ("datasets", HOSTILE),
    ],
)
def test_arguments_are_shown_escaped(mmkgc: Run, arguments: tuple[str, ...]) -> None:
    done = mmkgc(*arguments)
    assert done.code in (2, 3)
    assert "\\x1b[2J" in done.err
    assert unsafe(done.out + done.err) == []
    assert done.err.count("\nerror:") == 0


def test_names_of_a_graph_are_shown_escaped(mmkgc: Run, tmp_path: Path) -> None:
    names = [f"{HOSTILE}{i}" for i in range(6)]
    rows = np.array([[i, 0, (i + 1) % 6] for i in range(6)], dtype=np.int32)
    graph = Graph(HOSTILE, names, [HOSTILE], rows[:4], rows[4:5], rows[5:])
    write_graph(graph, tmp_path / "graph")
    for arguments in (["audit", "graph"], ["audit", "graph", "--json"]):
        done = mmkgc(*arguments)
        assert done.code == 0, done.err
        assert unsafe(done.out + done.err) == []
    assert HOSTILE in json.dumps(json.loads(done.out), ensure_ascii=False) or "\\u001b" in done.out


def test_a_config_of_another_person_is_shown_escaped(
    mmkgc: Run, graph: Graph, tmp_path: Path
) -> None:
    write_graph(graph, tmp_path / "graph")
    assert mmkgc("train", "frequency", "--graph", "graph", "--run", "run").code == 0
    config = tmp_path / "run" / "config.toml"
    escaped = json.dumps(HOSTILE)  # TOML has the same escapes
    text = re.sub(r'(?m)^(path|name) = ".*"$', lambda m: f"{m[1]} = {escaped}", config.read_text())
    assert text.count(escaped) >= 2
    config.write_text(text)
    for arguments in (["eval", "run"], ["runs", "show", "run"], ["runs", "list", "."]):
        done = mmkgc(*arguments)
        assert unsafe(done.out + done.err) == []
    assert "\\x1b[2J" in mmkgc("eval", "run").err


def test_docstrings_of_scorers_and_jobs_of_recipes_are_shown_escaped(
    mmkgc: Run, tmp_path: Path
) -> None:
    assert mmkgc("scorers", "new", "mine").code == 0
    file = next(tmp_path.rglob("mine.py"))
    file.write_text(re.sub('"""', f'"""{HOSTILE} ', file.read_text(), count=1))
    escaped = json.dumps(HOSTILE)
    (tmp_path / "r.toml").write_text(f"[batch]\ngraphs = [{escaped}]\nscorers = [{escaped}]\n")
    for arguments in (["scorers", "list"], ["scorers", "show", "mine"], ["batch", "r.toml"]):
        done = mmkgc(*arguments)
        assert unsafe(done.out + done.err) == []
    assert "\\x1b[2J" in done.err


def test_phrases_of_servers_are_shown_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phrase = "\x1b[2J\x9b31m"
    monkeypatch.setattr(BaseHTTPRequestHandler, "responses", {404: (phrase, "")})
    cache = Cache(tmp_path / "cache", timeout=2, attempts=1, pause=0.0)
    with serving() as server, pytest.raises(Unavailable) as caught:
        cache.fetch([server.url("/none.bin")], "none.bin", "0" * 64)
    assert unsafe(str(caught.value)) == []


def test_tables_are_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    from mmkgc_cli.commands._console import PrintableConsole

    PrintableConsole(soft_wrap=True, width=1000).print(table(HOSTILE, [HOSTILE], [[HOSTILE]]))
    shown = capfd.readouterr().out
    assert shown.count("\\x1b[2J") == 3
    assert unsafe(shown) == []
