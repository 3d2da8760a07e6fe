from __future__ import annotations

from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.runs.toml_file import read_toml

TEXT = '''# a comment
name = "x"
list = [
  1,  # one
  2,
]

[training]
"lr" = 0.1
text = """
[not a table]
key = 1
"""
inner.epochs = 3
[ model . deep ]
a = {b = 1, c = 2}
[[job]]
seed = 1
[job.model]
dim = 3
[[job]]
seed = 2
[job.model]
dim = 4
'''


def test_every_key_has_the_line_on_which_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(TEXT)
    file = read_toml(path)
    lines = TEXT.splitlines()
    for keys, text in (
        (("name",), 'name = "x"'),
        (("list",), "list = ["),
        (("training",), "[training]"),
        (("training", "lr"), '"lr" = 0.1'),
        (("training", "text"), 'text = """'),
        (("training", "inner", "epochs"), "inner.epochs = 3"),
        (("model", "deep", "a", "c"), "a = {b = 1, c = 2}"),
        (("job", 1, "model", "dim"), "dim = 4"),
    ):
        assert file.location(*keys) == f"{path}:{lines.index(text) + 1}"
    assert file.location("job", 1) == f"{path}:{len(lines) - 3}"
    # What is missing stands where the table around it begins; what is nowhere, in the file.
    assert file.location("training", "epochs") == file.location("training")
    assert file.location("none") == str(path)
    assert set(file.lines) >= {("training", "text"), ("job", 0, "seed")}
    assert ("training", "key") not in file.lines


def test_what_is_no_toml_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("a = 1\n[training\n")
    with pytest.raises(DataError, match=r"a.toml:2: not valid TOML: Expected ']'"):
        read_toml(path)
    path.write_text("a = [1,\n")
    with pytest.raises(DataError, match=r"a.toml(:2)?: not valid TOML: "):
        read_toml(path)
