"""`mmkgc scorers check` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import typer
from typer.testing import CliRunner, Result

from mmkgc_cli.commands.scorers_check import check
from mmkgc_cli.conformance import PROPERTIES
from mmkgc_cli.errors import UsageError
from tests.conformance.faults import ForgottenInverse
from tests.scoring.extended import TransE


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def load(name: str) -> type:
        return {"good": TransE, "bad": ForgottenInverse}[name]

    monkeypatch.setattr("mmkgc_cli.scoring.load_scorer", load)
    app = typer.Typer()
    app.command("check")(check)
    app.command("other")(lambda: None)
    return lambda *arguments: CliRunner().invoke(app, ["check", *arguments])


def test_a_good_scorer_has_every_property_listed_and_exit_code_0(
    run: Callable[..., Result],
) -> None:
    done = run("good")
    assert done.exit_code == 0
    for of in PROPERTIES:
        assert f"\n{of.name} " in done.stdout
    assert "good: nothing failed; " in done.stdout


def test_a_bad_scorer_is_told_what_fails_what_it_means_and_how_to_mend_it(
    run: Callable[..., Result],
) -> None:
    done = run("bad")
    assert done.exit_code == 1
    assert "sides failed: " in done.stdout
    assert "faults.py: ForgottenInverse.query: expected as head query" in done.stdout
    assert "means: what is learnt for tails does not hold for heads" in done.stdout
    assert "to mend: solve the tail query's equation for the head" in done.stdout
    assert f"bad: 1 of {len(PROPERTIES)} properties failed" in done.stdout


def test_json_holds_the_findings(run: Callable[..., Result]) -> None:
    done = run("bad", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["passed"] is False
    outcomes = {of["name"]: of["outcome"] for of in found["findings"]}
    assert list(outcomes) == [of.name for of in PROPERTIES]
    assert [name for name, outcome in outcomes.items() if outcome == "failed"] == ["sides"]


def test_a_setting_can_be_given_and_a_wrong_one_is_refused(run: Callable[..., Result]) -> None:
    assert run("good", "--set", "model.dim=3").exit_code == 0
    done = run("good", "--set", "model.dimm=3")
    assert "dimm" in str(done.exception)
    done = run("good", "--set", "optimizer.lr=1")
    assert "expected model.KEY=VALUE" in str(done.exception)


def test_an_unknown_scorer_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no scorer is called 'zzz'"):
        check("zzz")
