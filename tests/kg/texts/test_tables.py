from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.downloads import sha256_of
from mmkgc_cli.kg.readers.openke import read_vocabulary
from mmkgc_cli.kg.texts import tables
from mmkgc_cli.kg.texts.readers import read_items
from mmkgc_cli.kg.texts.tables import BUILDERS
from tests.kg.test_datasets import FOLDERS
from tests.kg.texts.upstream import item, write

DB, WD = "<http://dbpedia.org/resource/{}>", "http://www.wikidata.org/entity/{}"


def build(graph: str, table: str, files: dict[str, Path], entities: list[str]) -> list[list[str]]:
    lines = BUILDERS[graph][table](files, entities).content.decode().split("\n")
    assert lines.pop() == ""
    rows = [line.split("\t") for line in lines]
    assert {len(row) for row in rows} == {len(rows[0])}
    return rows[1:]


TABLES = [(graph, table) for graph, builders in BUILDERS.items() for table in builders]


@pytest.mark.parametrize(("graph", "table"), TABLES)
def test_published_files_give_the_stored_table_byte_for_byte(
    graph: str, table: str, real_data: Path
) -> None:
    dataset, folder = datasets.published(graph), real_data / FOLDERS[graph]
    files = {}
    # Two tables of FB15K-237 are unchanged published files, from which others are built.
    copies = {tables.NAMES: "mid2name.txt", tables.FREEBASE_NUMBERS: "numeric.txt"}
    for name in dataset.tables[table].made_of:
        path = real_data / "upstream" / name
        if not path.is_file() and name in copies:
            path = real_data / "FB15K-237" / copies[name]
        if not path.is_file():
            pytest.skip(f"{name} is not available")
        assert sha256_of(path) == datasets.upstream()[name].sha256, name
        files[name] = path
    built = BUILDERS[graph][table](files, read_vocabulary(folder / "entity2id.txt", "entity"))
    assert built.content == (folder / table).read_bytes()


@pytest.mark.parametrize(("graph", "table"), TABLES)
def test_registered_checksums_equal_those_of_the_stored_tables(
    graph: str, table: str, real_data: Path
) -> None:
    registered = datasets.published(graph).tables[table].sha256
    assert sha256_of(real_data / FOLDERS[graph] / table) == registered


def test_the_available_files_of_mkg_w_give_labels_descriptions_and_freebase_numbers(
    real_data: Path, tmp_path: Path
) -> None:
    folder = real_data / "MKG-W"
    files = write(tmp_path)
    for name in (tables.ITEMS, tables.WIKIDATA_LABELS, tables.WIKIDATA_DESCRIPTIONS):
        files[name] = real_data / "upstream" / name
    files[tables.FREEBASE_NUMBERS] = real_data / "FB15K-237" / "numeric.txt"
    entities = read_vocabulary(folder / "entity2id.txt", "entity")
    known = [line.split("\t") for line in (folder / "entity_text.tsv").read_text().splitlines()[1:]]
    rows = build("mkg-w", "entity_text.tsv", files, entities)
    expected = [[*r[:3], r[5]] for r in known if r[5] not in ("", "CoDEx-types")]
    assert [[*row[:3], row[5]] for row in rows] == expected
    lines = (folder / "numeric.tsv").read_text().splitlines()
    numbers = build("mkg-w", "numeric.tsv", files, entities)
    assert ["\t".join(row) for row in numbers] == [line for line in lines if "freebase:" in line]


def test_the_links_of_mkg_y_give_its_other_columns_and_numbers(
    real_data: Path, tmp_path: Path
) -> None:
    folder = real_data / "MKG-Y"
    lines = (folder / "entity_text.tsv").read_text(encoding="utf-8").splitlines()
    known = [line.split("\t") for line in lines[1:]]
    files = write(tmp_path, yago=[(r[2], r[0]) for r in known if r[6] == "yago15k-sameas"])
    files[tables.ITEMS] = real_data / "upstream" / tables.ITEMS
    files[tables.FREEBASE_NUMBERS] = real_data / "FB15K-237" / "numeric.txt"
    entities = read_vocabulary(folder / "entity2id.txt", "entity")
    assert build("mkg-y", "entity_text.tsv", files, entities) == known
    numbers = BUILDERS["mkg-y"]["numeric.tsv"](files, entities)
    assert numbers.content == (folder / "numeric.tsv").read_bytes()


BLANKS = st.text(" \t\n\r\u00a0\u2028\x0b\x1cab", min_size=1)


@given(label=BLANKS, description=BLANKS, alias=BLANKS)
def test_any_text_fits_a_cell_and_keeps_its_words(
    tmp_path_factory: pytest.TempPathFactory, label: str, description: str, alias: str
) -> None:
    path = tmp_path_factory.getbasetemp() / tables.ITEMS
    path.write_text(json.dumps({"/m/1": item("Q1", label, description, alternatives=[alias, "x"])}))
    files = {tables.ITEMS: path}
    ((mid, qid, *texts),) = build("fb15k-237", "entity_text.tsv", files, ["/m/1"])
    assert (mid, qid) == ("/m/1", "Q1")
    assert [text.split(" ") if text else [] for text in texts[:2]] == [
        label.split(),
        description.split(),
    ]
    assert texts[2] == " ".join(alias.split()) + "|x"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write(
        tmp_path,
        items={
            "/m/1": item("Q1", "one", "first"),
            "/m/2": item("Q2", "two", None, wikipedia="https://en.wikipedia.org/wiki/Zwei_%C3%A4"),
            "/m/22": item("Q2", "two again", "second"),
            "/m/3": item("Q3", "three", ""),
        },
        numbers=[("/m/2", "a.b", "-1.50"), ("/m/1", "x", "007"), ("/m/2", "a.a", "1e400"),
                 ("/m/22", "y", "8")],
        dbpedia=[("/m/3", "One_(film)"), ("/m/1", "One_(film)"), ("/m/2", "Two__(a%20b)_")],
        yago=[("/m/1", "Eins"), ("/m/3", "Zwei_ä_")],
        labels=[("Q3", "tres"), ("Q4", "cuatro"), ("Q9", "nueve")],
        descriptions=[("Q2", "dos"), ("Q3", "tercero"), ("Q4", "cuarto")],
        types=[("Q3", "Q9"), ("Q3", "Q8"), ("Q4", "Q7")],
        literals=[("Q2", "P2", "+0.5"), ("Q5", "P3", "9")],
        codex={"Q3": ["Q8", "Q1", "Q8"]},
        codex_texts={"Q8": ("eight", "a number"), "Q6": ("six", "another")},
    )  # fmt: skip


def test_rows_follow_the_order_of_the_entities(files: dict[str, Path]) -> None:
    names = {
        "fb15k-237": ["/m/1", "/m/2", "/m/22", "/m/3", "/m/9"],
        "db15k": [DB.format(end) for end in ("One_(film)", "Two__(a%20b)_", "Three")],
        "mkg-w": [WD.format(f"Q{i}") for i in range(1, 9)],
        "mkg-y": ["Eins", "Zwei_ä", "Zwei_ä_", "Nada"],
    }
    for graph, table in TABLES:
        entities = names[graph]
        if table.startswith("entity_text") or table == "numeric.tsv":
            rows = build(graph, table, files, entities)
            reordered = entities[::-1]
            moved = build(graph, table, files, reordered)
            assert moved == sorted(rows, key=lambda row: reordered.index(row[0])), table
            assert moved != rows


def test_a_missing_description_is_none_by_freebase_id_and_empty_by_wikidata_id(
    files: dict[str, Path],
) -> None:
    by_freebase = build("fb15k-237", "entity_text.tsv", files, ["/m/2", "/m/3"])
    assert by_freebase == [["/m/2", "Q2", "two", "None", ""], ["/m/3", "Q3", "three", "", ""]]
    (by_wikidata,) = build("mkg-w", "entity_text.tsv", files, [WD.format("Q2")])
    assert by_wikidata[1:3] == ["two", "dos"]
    files[tables.WIKIDATA_DESCRIPTIONS].write_text("Q0\tnobody\n")
    (by_wikidata,) = build("mkg-w", "entity_text.tsv", files, [WD.format("Q2")])
    assert by_wikidata[1:3] == ["two", ""]


def test_the_last_link_of_an_address_and_the_first_freebase_id_of_a_wikidata_id_count(
    files: dict[str, Path],
) -> None:
    (row,) = build("db15k", "entity_text.tsv", files, [DB.format("One_(film)")])
    assert row[1:] == ["/m/1", "Q1", "One (film)", "one", "first"]
    numbers = build("mkg-w", "numeric.tsv", files, [WD.format("Q2")])
    assert [row[1:] for row in numbers] == [
        ["freebase:a.b", "-1.50"], ["freebase:a.a", "1e400"], ["wikidata:P2", "+0.5"],
    ]  # fmt: skip


def test_labels_of_addresses_are_words_with_escapes_as_they_are(files: dict[str, Path]) -> None:
    unlinked = DB.format("A__b%20c_")
    (row,) = build("db15k", "entity_text.tsv", files, [unlinked])
    assert row == [unlinked, "", "", "A b%20c", "", ""]


def test_numbers_are_copied_as_written_in_the_order_of_the_file(files: dict[str, Path]) -> None:
    two, one = DB.format("Two__(a%20b)_"), DB.format("One_(film)")
    assert build("db15k", "numeric.tsv", files, [two, one, DB.format("Three")]) == [
        [two, "/m/2", "a.b", "-1.50"], [two, "/m/2", "a.a", "1e400"], [one, "/m/1", "x", "007"],
    ]  # fmt: skip


def test_yago_names_are_linked_by_yago_first_and_then_by_wikipedia_title(
    files: dict[str, Path],
) -> None:
    rows = build("mkg-y", "entity_text.tsv", files, ["Eins", "Zwei_ä", "Zwei_ä_", "Nada"])
    assert [row[1:4] + row[6:] for row in rows] == [
        ["Eins", "/m/1", "Q1", "yago15k-sameas"],
        ["Zwei ä", "/m/2", "Q2", "wikipedia-title"],
        ["Zwei ä", "/m/3", "Q3", "yago15k-sameas"],
        ["Nada", "", "", ""],
    ]


def test_wikidata_rows_use_the_first_source_of_a_label_and_each_type_once(
    files: dict[str, Path],
) -> None:
    entities = [WD.format(f"Q{i}") for i in (3, 4, 5, 6, 99)]
    assert build("mkg-w", "entity_text.tsv", files, entities) == [
        [entities[0], "three", "tercero", "Q8|Q1|Q9", "eight|one|nueve", "fb15k-entity2wikidata"],
        [entities[1], "cuatro", "cuarto", "Q7", "", "LiterallyWikidata"],
        [entities[3], "six", "another", "", "", "CoDEx-types"],
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (tables.DBPEDIA_LINKS, "/m/1 <SameAs> <http://x y> .\n", r":1: .* is not '/m/ID <SameAs>"),
        (tables.DBPEDIA_LINKS, "/m/1\thttp://x\n", r":1: .* is not"),
        (tables.FREEBASE_NUMBERS, "/m/1\ta\n", r":1: 2 columns, expected 3"),
        (tables.FREEBASE_NUMBERS, "/m/1\ta\t1\n", r":1: 'a' is not '<http://rdf.freebase"),
        (tables.ITEMS, "[]", "contains a list, expected an object by entity"),
        (tables.ITEMS, '{"/m/1": {"label": "a"}}', "'/m/1' is not described by"),
        (tables.ITEMS, json.dumps({"/m/1": item("Q1", "a") | {"label": 3}}), "not described"),
        (tables.ITEMS, json.dumps({"/m/1": item("Q1", "a") | {"wikipedia": 3}}), "not described"),
        (tables.ITEMS, json.dumps({"/m/1": item("Q1", "a") | {"alternatives": None}}), "not desc"),
        (tables.ITEMS, '{"/m/1": ', ":1: not valid JSON"),
        (tables.ITEMS, "", "the file is empty"),
    ],
)
def test_an_invalid_published_file_is_one_line(
    files: dict[str, Path], name: str, content: str, message: str
) -> None:
    files[name].write_text(content)
    with pytest.raises(DataError, match=f"{name}.*{message}") as caught:
        build("db15k", "entity_text.tsv", files, [DB.format("x")])
        build("db15k", "numeric.tsv", files, [DB.format("x")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (tables.WIKIDATA_NUMBERS, "Q1\tP1\t3\n", ":1: '3' is not"),
        (tables.CODEX_TYPES, '{"Q1": "Q2"}', "'Q1' has 'Q2', expected a list of ids"),
        (tables.CODEX_TYPE_TEXTS, '{"Q1": ["a"]}', "'Q1' has no texts label and description"),
        (tables.CODEX_TYPE_TEXTS, '{"Q1": {"label": "a", "description": null}}', "'Q1' has no"),
        (tables.WIKIDATA_LABELS, "Q1\n", ":1: 1 columns, expected 2"),
    ],
)
def test_an_invalid_wikidata_file_is_one_line(
    files: dict[str, Path], name: str, content: str, message: str
) -> None:
    files[name].write_text(content)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        for table in ("entity_text.tsv", "numeric.tsv"):
            build("mkg-w", table, files, [WD.format("Q1")])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["\ud800", "Q1"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["/m/1", "Q1", "label", "description", "wikidata_id", "alternatives"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("name", [tables.ITEMS, tables.CODEX_TYPES, tables.CODEX_TYPE_TEXTS])
@given(value=JSON)
def test_any_json_gives_a_table_or_one_line_with_the_file_name(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: object
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"json {name}"
    files = (
        {key: folder / key for key in write(folder)}
        if not folder.exists()
        else {path.name: path for path in folder.iterdir()}
    )
    files[name].write_text(json.dumps(value))
    try:
        build("mkg-w", "entity_text.tsv", files, [WD.format("Q1")])
    except DataError as error:
        assert str(files[name]) in str(error)
        assert "\n" not in str(error)


def test_deeply_nested_json_is_one_line(files: dict[str, Path]) -> None:
    files[tables.ITEMS].write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        build("fb15k-237", "entity_text.tsv", files, ["/m/1"])


def test_items_keep_their_texts_as_published(files: dict[str, Path]) -> None:
    files[tables.ITEMS].write_text(json.dumps({"/m/1": item("Q1", " a\nb ", alternatives=["c|d"])}))
    wikidata_item = read_items(files[tables.ITEMS])["/m/1"]
    texts = (wikidata_item.label, wikidata_item.description, wikidata_item.aliases)
    assert texts == (" a\nb ", None, ("c|d",))
