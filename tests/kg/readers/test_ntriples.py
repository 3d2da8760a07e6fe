from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.kg.readers.ntriples import read_ntriples

pytest.importorskip("pyoxigraph")

A, B, R = "<http://x.org/a>", "<http://x.org/b>", "<http://x.org/r>"


def read(tmp_path: Path, text: str | bytes, name: str = "t.nt") -> list[tuple[str, str, str]]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    graph = read_ntriples(path, "g")
    return [graph.decode(row) for row in graph.train]


def test_names_are_the_terms_as_written(tmp_path: Path) -> None:
    text = f"# a comment\n\n{A} {R} {B} .\n{B}\t{R}\t_:n1 .# here too\r\n"
    assert read(tmp_path, text) == [(A, R, B), (B, R, "_:n1")]


def test_a_byte_order_mark_is_not_part_of_the_first_term(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbf" + f"{A} {R} {B} .".encode()) == [(A, R, B)]


def test_unusual_iris_of_published_files_are_accepted(tmp_path: Path) -> None:
    odd = '<http://x.org/Abraham_"Bram"_`Stoker`>'
    text = f"{odd} <isIn> <Europe> .\n<http://x.org/caf\\u00e9> {R} <http://x.org/日本> .\n"
    assert read(tmp_path, text) == [
        (odd, "<isIn>", "<Europe>"),
        ("<http://x.org/café>", R, "<http://x.org/日本>"),
    ]


def test_triples_with_literals_are_ignored_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.nt"
    path.write_text(f'{A} {R} "text"@en .\n{A} {R} {B} .\n{A} {R} "1"^^<http://x.org/int> .\n')
    graph = read_ntriples(path, "g")
    assert len(graph.train) == 1
    assert len(graph.entities) == 2
    assert graph.provenance.notes == ("2 triples with a literal as object ignored",)
    path.write_text(f'{A} {R} "text" .\n')
    with pytest.raises(DataError, match=r"t.nt: contains 1 triple with literals and no others"):
        read_ntriples(path, "g")


def test_lines_of_bare_names_with_a_dot_are_read(tmp_path: Path) -> None:
    text = "/m/01 <SameAs> <http://x.org/a> .\n# note\n\n  /m/02\t<SameAs>\t_:b  .\r\n"
    assert read(tmp_path, text) == [
        ("/m/01", "<SameAs>", "<http://x.org/a>"),
        ("/m/02", "<SameAs>", "_:b"),
    ]
    assert read(tmp_path, f"{A} r {B} .\n") == [(A, "r", B)]


def test_a_name_may_begin_with_a_hash_and_contain_unicode_spaces(tmp_path: Path) -> None:
    text = "# a note of words\n#tag r 王\u3000五 .\n#note\n#\n a  r #tag .\n"
    assert read(tmp_path, text) == [("#tag", "r", "王\u3000五"), ("a", "r", "#tag")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{A} {R} {B} .\n{A} {R} {B}\n{A} {R} {B} .\n", r"t.nt:[23]: not N-Triples: "),
        (f"{A} {R} {B} .\n{A} {R} b .\n", r"t.nt:2: not N-Triples: "),
        (f"{A} {R} {B} {A} .\n", r"t.nt:1: not N-Triples: "),
        ("a r b .\na r b\n", r"t.nt:2: 'a r b' is not 'head relation tail .'"),
        ("a r b .\na r b c\n", r"t.nt:2: 'a r b c' is not 'head relation tail .'"),
        ("王\u3000五 r b .\nc r\td .\nd r e\n", r"t.nt:3: 'd r e' is not"),
        ("# nothing\n\n", r"t.nt: contains no triples"),
        ("", r"t.nt: the file is empty"),
        (f"<http://x.org/a\\u0009> {R} {B} .\n", r"t.nt: entity .* contains a control character"),
        (f"{A} {R} {B} .\n".encode("utf-16"), r"t.nt:1: encoded as UTF-16"),
        (b"a r b .\na r \xff .\n", r"t.nt:2: byte 0xff"),
        (b"<a\xff> <r> <b> .\n", r"t.nt:1: byte 0xff"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_the_three_splits_of_a_folder_share_ids(tmp_path: Path) -> None:
    rows = {"train": f"{A} {R} {B} .", "valid": f"{B} {R} {A} .", "test": "a r b ."}
    for split, row in rows.items():
        (tmp_path / f"{split}.nt").write_text(row + "\n")
    graph = read_ntriples(tmp_path, "g")
    assert list(graph.entities) == [A, B, "a", "b"]
    assert graph.valid.tolist() == [[1, 0, 0]]


def test_the_error_without_pyoxigraph_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyoxigraph", None)
    with pytest.raises(MmkgcError, match=r"pip install 'mmkgc\[rdf\]'"):
        read(tmp_path, f"{A} {R} {B} .\n")
    assert read(tmp_path, "a r b .\n") == [("a", "r", "b")]
