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

NAMES = [tested.name for tested in PROPERTIES]


def failures(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings if finding.outcome == "failed"}


@pytest.mark.parametrize("name", sorted(discover(SCORERS).plugins))
def test_every_built_in_scorer_follows_the_contract(name: str) -> None:
    findings = check_scorer(load_scorer(name))
    assert [finding.name for finding in findings] == NAMES
    assert not failures(findings)


@pytest.mark.parametrize("scorer", EXTENDED, ids=lambda cls: cls.__name__)
def test_scorers_with_extensions_follow_the_contract(scorer: type[Scorer]) -> None:
    assert not failures(check_scorer(scorer))


@pytest.mark.parametrize(
    ("name", "scorer", "text"), FAULTS, ids=lambda x: x.__name__ if isinstance(x, type) else ""
)
def test_a_fault_fails_its_property_and_no_other(
    name: str, scorer: type[Scorer], text: str
) -> None:
    if name == "native ops" and not library().loaded:
        pytest.skip(library().reason)
    failed = failures(check_scorer(scorer))
    assert list(failed) == [name]
    finding = failed[name]
    assert text in finding.detail, finding.detail
    assert "\n" not in finding.detail
    assert finding.meaning
    assert finding.mend


def test_every_property_has_a_scorer_that_fails_it() -> None:
    # The property "devices" needs a GPU to fail.
    assert {name for name, _, _ in FAULTS} == set(NAMES) - {"devices"}


def test_findings_name_the_file_of_the_plugin_and_the_line_that_raised() -> None:
    by_class = {scorer.__name__: scorer for _, scorer, _ in FAULTS}
    (flat,) = failures(check_scorer(by_class["FlatQuery"])).values()
    assert "tests/conformance/faults.py: FlatQuery.query" in flat.detail
    (crash,) = failures(check_scorer(by_class["Crashing"])).values()
    file, line, _ = crash.detail.split(":", 2)
    assert file.endswith("tests/conformance/faults.py")
    assert line.isdigit()


def test_properties_that_need_a_failed_one_are_skipped() -> None:
    by_class = {scorer.__name__: scorer for _, scorer, _ in FAULTS}
    findings = {finding.name: finding for finding in check_scorer(by_class["NothingDefined"])}
    assert findings["ranks"].detail == "not checked, because 'constructor' failed"
    assert findings["ranks"].outcome == "skipped"


def test_a_setting_without_default_is_a_finding_of_the_configuration() -> None:
    failed = failures(check_scorer(NoDefault))
    assert "expected a valid default for each field, got none for needed" in str(failed)


def test_small_config_changes_sizes_only() -> None:
    rotate = load_scorer("rotate").Config
    config = small_config(rotate)
    assert config.model_dump() == {**rotate().model_dump(), "dim": 6}


def test_an_explicit_configuration_is_used() -> None:
    subject = Subject(TransE, TransE.Config(dim=3))
    assert subject.construct().entities.shape == (ENTITIES, 3)
    assert not failures(check_scorer(TransE, TransE.Config(dim=3)))


def test_the_synthetic_graph_has_distinct_triples_and_all_ids() -> None:
    triples = Subject(LooseConfig, LooseConfig.Config()).triples
    assert len(torch.unique(triples, dim=0)) == len(triples)
    assert set(triples[:, [0, 2]].flatten().tolist()) == set(range(ENTITIES))
    assert set(triples[:, 1].tolist()) == set(range(RELATIONS))
