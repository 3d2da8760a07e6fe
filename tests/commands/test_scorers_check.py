"""Tests of `mmkgc scorers check` through the command line."""

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


def test_a_good_scorer_lists_every_property_with_exit_code_0(
    run: Callable[..., Result],
) -> None:
    done = run("good")
    assert done.exit_code == 0
    for tested in PROPERTIES:
        assert f"\n{tested.name} " in done.stdout
    assert "good: no property failed; " in done.stdout


def test_a_bad_scorer_gets_the_failure_its_meaning_and_a_fix(
    run: Callable[..., Result],
) -> None:
    done = run("bad")
    assert done.exit_code == 1
    assert "sides failed: " in done.stdout
    assert "faults.py: ForgottenInverse.query: expected the head query" in done.stdout
    assert (
        "means: a model trained on tail queries would answer head queries with other scores"
        in done.stdout
    )
    assert "fix: solve the equation of the tail query for the head" in done.stdout
    assert f"bad: 1 of {len(PROPERTIES)} properties failed" in done.stdout


def test_json_holds_the_findings(run: Callable[..., Result]) -> None:
    done = run("bad", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["passed"] is False
    outcomes = {finding["name"]: finding["outcome"] for finding in report["findings"]}
    assert list(outcomes) == [tested.name for tested in PROPERTIES]
    assert [name for name, outcome in outcomes.items() if outcome == "failed"] == ["sides"]


def test_set_passes_a_setting_and_refuses_a_wrong_one(run: Callable[..., Result]) -> None:
    assert run("good", "--set", "model.dim=3").exit_code == 0
    done = run("good", "--set", "model.dimm=3")
    assert "dimm" in str(done.exception)
    done = run("good", "--set", "optimizer.lr=1")
    assert "expected model.KEY=VALUE" in str(done.exception)


def test_an_unknown_scorer_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no scorer is called 'zzz'"):
        check("zzz")
