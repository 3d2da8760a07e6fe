from __future__ import annotations

import pytest
import torch

from mmkgc_cli.conformance import PROPERTIES, Finding, check_scorer
from mmkgc_cli.conformance.subject import ENTITIES, RELATIONS, Subject, small_config
from mmkgc_cli.ops import library
from mmkgc_cli.plugins import discover
from mmkgc_cli.scoring import Scorer, load_scorer
from mmkgc_cli.scoring.registry import SCORERS
from tests.conformance.faults import FAULTS, LooseConfig, NoDefault
from tests.scoring.extended import EXTENDED, TransE

NAMES = [of.name for of in PROPERTIES]


def failures(findings: list[Finding]) -> dict[str, Finding]:
    return {of.name: of for of in findings if of.outcome == "failed"}


@pytest.mark.parametrize("name", sorted(discover(SCORERS).plugins))
def test_every_built_in_scorer_keeps_the_contract(name: str) -> None:
    findings = check_scorer(load_scorer(name))
    assert [of.name for of in findings] == NAMES
    assert not failures(findings)


@pytest.mark.parametrize("scorer", EXTENDED, ids=lambda of: of.__name__)
def test_scorers_with_extensions_keep_the_contract(scorer: type[Scorer]) -> None:
    assert not failures(check_scorer(scorer))


@pytest.mark.parametrize(
    ("name", "scorer", "words"), FAULTS, ids=lambda of: of.__name__ if isinstance(of, type) else ""
)
def test_a_fault_fails_its_property_and_no_other(
    name: str, scorer: type[Scorer], words: str
) -> None:
    if name == "native ops" and not library().loaded:
        pytest.skip(library().reason)
    found = failures(check_scorer(scorer))
    assert list(found) == [name]
    finding = found[name]
    assert words in finding.detail, finding.detail
    assert "\n" not in finding.detail
    assert finding.meaning
    assert finding.mend


def test_every_property_has_a_scorer_that_fails_it() -> None:
    # A GPU is needed to fail the last.
    assert {name for name, _, _ in FAULTS} == set(NAMES) - {"devices"}


def test_findings_name_the_file_of_the_plugin_and_the_line_that_raised() -> None:
    by_class = {scorer.__name__: scorer for _, scorer, _ in FAULTS}
    (flat,) = failures(check_scorer(by_class["FlatQuery"])).values()
    assert "tests/conformance/faults.py: FlatQuery.query" in flat.detail
    (crash,) = failures(check_scorer(by_class["Crashing"])).values()
    file, line, _ = crash.detail.split(":", 2)
    assert file.endswith("tests/conformance/faults.py")
    assert line.isdigit()


def test_what_builds_on_a_broken_property_is_not_checked() -> None:
    by_class = {scorer.__name__: scorer for _, scorer, _ in FAULTS}
    findings = {of.name: of for of in check_scorer(by_class["NothingDefined"])}
    assert findings["ranks"].detail == "not checked, since 'constructor' does not hold"
    assert findings["ranks"].outcome == "skipped"


def test_a_setting_without_default_is_a_finding_of_the_configuration() -> None:
    found = failures(check_scorer(NoDefault))
    assert "expected a valid default for each field, got none for needed" in str(found)


def test_sizes_are_made_small_and_other_settings_left_alone() -> None:
    rotate = load_scorer("rotate").Config
    config = small_config(rotate)
    assert config.model_dump() == {**rotate().model_dump(), "dim": 6}


def test_a_configuration_can_be_given() -> None:
    subject = Subject(TransE, TransE.Config(dim=3))
    assert subject.construct().entities.shape == (ENTITIES, 3)
    assert not failures(check_scorer(TransE, TransE.Config(dim=3)))


def test_the_graph_of_the_kit_is_of_distinct_triples_with_all_ids() -> None:
    triples = Subject(LooseConfig, LooseConfig.Config()).triples
    assert len(torch.unique(triples, dim=0)) == len(triples)
    assert set(triples[:, [0, 2]].flatten().tolist()) == set(range(ENTITIES))
    assert set(triples[:, 1].tolist()) == set(range(RELATIONS))
