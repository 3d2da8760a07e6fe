"""Properties of the built-in graph of the periodic table."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from importlib.resources import files
from itertools import pairwise

import pytest

from mmkgc_cli.kg import elements
from mmkgc_cli.kg.elements.pictures import draw_shells

TABLES = ("entities", "relations", "triples", "numeric", "attributes", "shells")
FORMS = {"compound", "mineral"}
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
RELATION_ID = re.compile(r"[a-z]+(_[a-z]+)*")

# Wide enough for every real value, narrow enough to catch a wrong unit.
PLAUSIBLE = {
    "atomic_mass": (1.0, 240.0),
    "density": (5e-5, 23.0),
    "melting_point": (10.0, 3700.0),
    "boiling_point": (4.0, 6300.0),
    "electronegativity": (0.6, 4.0),
    "atomic_radius": (20.0, 270.0),
    "ionisation_energy": (3.5, 25.0),
    "molar_mass": (10.0, 2000.0),
}


def table(name: str) -> list[dict[str, str]]:
    text = files(elements).joinpath(f"{name}.tsv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


def kinds() -> dict[str, str]:
    return {row["id"]: row["kind"] for row in table("entities")}


def element_ids() -> list[str]:
    return [entity for entity, kind in kinds().items() if kind == "element"]


def atomic_numbers() -> dict[str, int]:
    """Atomic numbers as the followed_by chain from hydrogen implies them."""
    following = {
        head: tail for head, relation, tail in elements.triples() if relation == "followed_by"
    }
    chain = ["hydrogen"]
    while chain[-1] in following and len(chain) <= len(following):
        chain.append(following[chain[-1]])
    return {element: number for number, element in enumerate(chain, start=1)}


def test_graph_has_the_promised_size() -> None:
    count = Counter(kinds().values())
    assert count["element"] == 118
    assert count["compound"] + count["mineral"] >= 80
    assert len(elements.relation_labels()) >= 12
    assert len(elements.triples()) >= 1500


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_tab_separated_utf8_with_unix_line_ends(name: str) -> None:
    raw = files(elements).joinpath(f"{name}.tsv").read_bytes()
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    lines = raw.decode("utf-8").removesuffix("\n").split("\n")
    assert len({line.count("\t") for line in lines}) == 1
    assert all(field == field.strip() for line in lines for field in line.split("\t"))


@pytest.mark.parametrize("name", TABLES)
def test_no_row_appears_twice(name: str) -> None:
    rows = [tuple(row.values()) for row in table(name)]
    assert len(rows) == len(set(rows))


def test_ids_and_labels_are_unique() -> None:
    for name in ("entities", "relations"):
        rows = table(name)
        assert len({row["id"] for row in rows}) == len(rows)
        assert len({row["label"] for row in rows}) == len(rows)
        assert all(row["label"] for row in rows)


def test_ids_are_plain_ascii() -> None:
    assert all(ID.fullmatch(entity) for entity in elements.entity_labels())
    assert all(RELATION_ID.fullmatch(relation) for relation in elements.relation_labels())


def test_triples_are_sorted() -> None:
    assert elements.triples() == sorted(elements.triples())


def test_triples_use_exactly_the_listed_relations() -> None:
    assert {relation for _, relation, _ in elements.triples()} == set(elements.relation_labels())


def test_triples_use_exactly_the_listed_entities_so_none_is_isolated() -> None:
    triples = elements.triples()
    mentioned = {head for head, _, _ in triples} | {tail for _, _, tail in triples}
    assert mentioned == set(elements.entity_labels())


def test_few_entities_have_a_single_triple() -> None:
    degree: Counter[str] = Counter()
    for head, _, tail in elements.triples():
        degree.update((head, tail))
    assert sum(count == 1 for count in degree.values()) <= 10


def test_no_entity_is_related_to_itself() -> None:
    assert not [triple for triple in elements.triples() if triple[0] == triple[2]]


def test_labels_follow_file_order() -> None:
    assert list(elements.entity_labels()) == [row["id"] for row in table("entities")]
    assert list(elements.relation_labels()) == [row["id"] for row in table("relations")]
    assert list(elements.entity_labels())[:118] == list(atomic_numbers())


def test_followed_by_is_one_chain_through_all_elements() -> None:
    assert set(atomic_numbers()) == set(element_ids())


def test_every_element_has_a_position_in_the_table() -> None:
    count = Counter((head, relation) for head, relation, _ in elements.triples())
    category = {"lanthanide", "actinide"}
    inner = {h for h, r, t in elements.triples() if r == "has_category" and t in category}
    assert len(inner) == 30
    for element in element_ids():
        assert count[element, "in_period"] == count[element, "in_block"] == 1
        assert count[element, "in_group"] == (element not in inner)


def test_every_compound_and_mineral_contains_an_element() -> None:
    parts = defaultdict(set)
    for head, relation, tail in elements.triples():
        if relation == "contains":
            parts[head].add(tail)
    made_of = {entity for entity, kind in kinds().items() if kind in FORMS}
    assert made_of <= set(parts)
    assert set().union(*parts.values()) <= set(element_ids())


def test_natural_forms_contain_the_same_elements_as_the_compound() -> None:
    parts = defaultdict(set)
    for head, relation, tail in elements.triples():
        if relation == "contains":
            parts[head].add(tail)
    for head, relation, tail in elements.triples():
        if relation == "natural_form_of":
            assert parts[head] == parts[tail], (head, tail)


def test_elements_known_since_antiquity_have_no_dated_discovery() -> None:
    dated = {h for h, r, _ in elements.triples() if r in {"discovered_in", "discovered_in_decade"}}
    ancient = {head for head, relation, _ in elements.triples() if relation == "known_since"}
    assert not dated & ancient


def test_each_modality_is_present_for_some_elements_and_missing_for_others() -> None:
    every = set(element_ids())
    numbered = {entity for entity, _, _ in elements.numerics()}
    for present in (set(elements.texts()), numbered, set(elements.shells())):
        assert present & every
        assert every - present
        assert set(elements.entity_labels()) - present


def test_most_elements_compounds_and_minerals_have_a_text() -> None:
    texts = elements.texts()
    assert sum(element in texts for element in element_ids()) >= 90
    forms = [entity for entity, kind in kinds().items() if kind in FORMS]
    assert sum(entity in texts for entity in forms) > len(forms) / 2


def test_modalities_belong_to_listed_entities() -> None:
    known = set(elements.entity_labels())
    assert set(elements.texts()) <= known
    assert {entity for entity, _, _ in elements.numerics()} <= known
    assert set(elements.shells()) <= set(element_ids())


def test_texts_are_one_short_line() -> None:
    for entity, text in elements.texts().items():
        assert text.isprintable(), entity
        assert 8 <= len(text.split()) <= 25, entity


def test_texts_are_not_repeated() -> None:
    texts = elements.texts()
    assert len(set(texts.values())) == len(texts)


def test_texts_name_neither_the_entity_nor_any_of_its_neighbours() -> None:
    labels, texts = elements.entity_labels(), elements.texts()
    hidden: dict[str, set[str]] = {entity: {entity} for entity in labels}
    for head, _, tail in elements.triples():
        hidden[head].add(tail)
        hidden[tail].add(head)
    for entity, text in texts.items():
        for other in hidden[entity]:
            word = re.escape(re.sub(r" \(.*", "", labels[other]))
            match = re.search(rf"(?<!\w){word}(s|es)?(?!\w)", text, re.IGNORECASE)
            assert not match, f"{entity}: its text gives away {labels[other]!r}"


def test_the_attributes_of_numbers_are_exactly_the_described_ones() -> None:
    described = {row["attribute"]: row for row in table("attributes")}
    assert {name for _, name, _ in elements.numerics()} == set(described)
    assert all(all(row.values()) for row in described.values())
    assert "atomic_number" not in described


def test_figures_are_unique_finite_and_plausible() -> None:
    figures = elements.numerics()
    assert len({(entity, name) for entity, name, _ in figures}) == len(figures)
    for entity, name, value in figures:
        low, high = PLAUSIBLE[name]
        assert math.isfinite(value), (entity, name)
        assert low <= value <= high, (entity, name, value)


def test_elements_boil_above_their_melting_point() -> None:
    figures = {(entity, name): value for entity, name, value in elements.numerics()}
    for (entity, name), boiling in figures.items():
        if name == "boiling_point" and (entity, "melting_point") in figures:
            assert figures[entity, "melting_point"] < boiling, entity


def test_state_of_matter_agrees_with_melting_and_boiling_points() -> None:
    figures = {(entity, name): value for entity, name, value in elements.numerics()}
    for element, relation, state in elements.triples():
        if relation == "state_at_room_temperature":
            melts = figures.get((element, "melting_point"))
            boils = figures.get((element, "boiling_point"))
            assert melts is None or (melts > 298.15) == (state == "solid"), element
            assert boils is None or (boils < 298.15) == (state == "gas"), element


def test_elements_seen_only_as_single_atoms_have_no_bulk_properties() -> None:
    bulk = {"density", "melting_point", "boiling_point"}
    measured = {entity for entity, name, _ in elements.numerics() if name in bulk}
    numbers = atomic_numbers()
    assert all(numbers.get(entity, 0) < 100 for entity in measured)


def test_shells_sum_to_the_atomic_number() -> None:
    numbers = atomic_numbers()
    for element, counts in elements.shells().items():
        assert sum(counts) == numbers[element], element


def test_shells_never_hold_more_than_they_can() -> None:
    for counts in elements.shells().values():
        assert all(1 <= n <= 2 * shell**2 for shell, n in enumerate(counts, start=1))
        assert counts[-1] <= 8 or len(counts) == 4  # palladium ends in a full fourth shell


def test_number_of_shells_is_the_period_except_for_palladium() -> None:
    period = {
        h: int(t.removeprefix("period-")) for h, r, t in elements.triples() if r == "in_period"
    }
    odd = {e for e, counts in elements.shells().items() if len(counts) != period[e]}
    assert odd == {"palladium"}


def test_shells_start_at_hydrogen_and_have_no_gap() -> None:
    order = atomic_numbers()
    numbers = [order[element] for element in elements.shells()]
    assert numbers[0] == 1
    assert all(after == before + 1 for before, after in pairwise(numbers))


@pytest.mark.parametrize(
    "load",
    [
        elements.triples,
        elements.entity_labels,
        elements.relation_labels,
        elements.texts,
        elements.numerics,
        elements.shells,
    ],
)
def test_a_caller_cannot_change_the_tables(
    load: Callable[[], list[object] | dict[str, object]],
) -> None:
    load().clear()
    assert load()


def test_pictures_are_deterministic() -> None:
    assert draw_shells((2, 8, 14, 2)).tobytes() == draw_shells((2, 8, 14, 2)).tobytes()


@pytest.mark.parametrize("size", [16, 97, 160])
def test_pictures_have_the_requested_size_and_three_channels(size: int) -> None:
    picture = draw_shells((2, 8, 18, 32, 18, 2), size=size)
    assert picture.size == (size, size)
    assert picture.mode == "RGB"


def test_pictures_default_to_160_pixels() -> None:
    assert draw_shells((1,)).size == (160, 160)


def test_different_shells_give_different_pictures() -> None:
    shells = elements.shells()
    assert len({draw_shells(counts).tobytes() for counts in shells.values()}) == len(shells)


@pytest.mark.parametrize("shells", [(), (2, 0, 1), (-1,)])
def test_shells_without_electrons_cannot_be_drawn(shells: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="draw_shells: shells must be counts of at least 1"):
        draw_shells(shells)


def test_a_picture_size_below_16_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="draw_shells: size must be at least 16, got 8"):
        draw_shells((1,), size=8)
