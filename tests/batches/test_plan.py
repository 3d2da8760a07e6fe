from __future__ import annotations

from pathlib import Path

import pytest

from mmkgc_cli.completion import strategies
from mmkgc_cli.runs.batches import recipe
from mmkgc_cli.runs.config import resolve, values_of
from mmkgc_cli.runs.toml_file import TomlFile
from mmkgc_cli.scoring import load_scorer
from tests.batches.small import jobs_of, problems_of, write_graph

WHOLE = """
[batch]
graphs = ["graph"]
scorers = ["transe", "rotate"]
seeds = [0, 1]

[settings]
training.epochs = 2

[scorer.rotate]
model.margin = 3.0

[grid]
model.dim = [4, 8]
optimizer.lr = [0.1, 0.01]

[[include]]
scorer = "pairre"
seed = 7
model.dim = 16

[[exclude]]
scorer = "transe"
model.dim = 8

[[exclude]]
seed = 1
optimizer.lr = 0.1
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_graph(tmp_path)


def test_a_grid_is_the_product_of_its_axes_with_inclusions_and_without_exclusions() -> None:
    found = {
        (job.scorer, job.seed, job.config.model.model_dump()["dim"], job.config.optimizer.lr)
        for job in jobs_of(WHOLE)
    }
    grid = {(s, i, d, lr) for s in ("transe", "rotate") for i in (0, 1) for d in (4, 8)
            for lr in (0.1, 0.01)}  # fmt: skip
    left = {x for x in grid if (x[0], x[2]) != ("transe", 8) and (x[1], x[3]) != (1, 0.1)}
    assert found == left | {("pairre", 7, 16, 1e-3)}


def test_settings_of_all_of_a_scorer_and_of_the_grid_come_one_after_the_other() -> None:
    for job in jobs_of(WHOLE):
        assert job.config.training.epochs == 2
        assert job.config.training.seed == job.seed
        if job.scorer == "rotate":
            assert job.config.model.model_dump()["margin"] == 3.0


def test_names_tell_jobs_apart_and_follow_from_settings_alone() -> None:
    names = [job.name for job in jobs_of(WHOLE)]
    assert len(set(names)) == len(names)
    turned = WHOLE.replace('"transe", "rotate"', '"rotate", "transe"').replace("[4, 8]", "[8, 4]")
    assert {job.name for job in jobs_of(turned)} == set(names)
    assert names[0].startswith("graph-transe-dim=4-lr=0.1-seed=0-")
    # Another setting that no axis shows is another job.
    assert not {job.name for job in jobs_of(WHOLE.replace("epochs = 2", "epochs = 3"))} & set(names)


def test_a_job_is_trained_as_its_configuration_says(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("[model]\nmargin = 2.0\ndim = 5\n[optimizer]\nlr = 0.5\n")
    text = WHOLE.replace("model.margin = 3.0", 'config = "base.toml"')
    for job in jobs_of(text):
        if job.scorer == "rotate":
            again = resolve(
                "rotate", load_scorer("rotate").Config, file=TomlFile(job.values, "", {})
            )
            assert values_of(again) == values_of(job.config)
            assert job.config.model.model_dump()["margin"] == 2.0
            assert job.config.model.model_dump()["dim"] in (4, 8)


def test_every_mistake_is_shown_at_once_with_its_line_and_the_nearest_key() -> None:
    text = WHOLE.replace("[settings]", "[setings]").replace("seeds", "sedes")
    text = text.replace("model.dim = [4, 8]", "model.dim = 4")
    assert problems_of(text) == [
        "r.toml:5: no key batch.sedes; did you mean 'seeds'?",
        "r.toml:7: no section 'setings'; did you mean 'settings'?",
        "r.toml:14: grid.model.dim: expected a list of values to try, got 4; write dim = [4]",
    ]


def test_mistakes_in_settings_are_shown_once_however_many_jobs_have_them() -> None:
    text = WHOLE.replace("training.epochs = 2", "training.epoch = 2")
    text = text.replace("model.margin = 3.0", "model.margin = -3.0").replace("0.01]", "0.0]")
    text = text.replace('"graph"', '"grpah"')
    assert problems_of(text) == [
        "r.toml:3: graphs[0]: no prepared graph in 'grpah'; make it with `mmkgc prepare`",
        "r.toml:8: no key training.epoch; did you mean 'training.epochs'?",
        "r.toml:11: model.margin: input should be greater than 0, got -3.0; "
        "change the value of model.margin",
        "r.toml:15: optimizer.lr: input should be greater than 0, got 0.0; "
        "change the value of optimizer.lr",
    ]


def test_features_are_those_that_a_scorer_takes_with_its_settings() -> None:
    text = """
    [batch]
    graphs = ["graph"]
    scorers = ["ikrl", "rsme", "rotate"]
    [features]
    image = "i.h5"
    text = "{graph}/t.h5"
    [scorer.ikrl]
    model.modality = "text"
    """
    jobs = {job.scorer: job.config.features.paths for job in jobs_of(text)}
    assert jobs == {"ikrl": {"text": "graph/t.h5"}, "rsme": {"image": "i.h5"}, "rotate": {}}


def test_a_selector_that_means_no_job_is_a_mistake() -> None:
    text = WHOLE.replace('scorer = "transe"\nmodel', 'scorer = "distmult"\nmodel')
    (said,) = problems_of(text)
    assert "[[exclude]] matches no job of this batch; correct" in said
    assert problems_of(WHOLE.replace('"rotate"]', '"rotat"]'))[0] == (
        "r.toml:4: no scorer is called 'rotat'; did you mean 'rotate'?"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[batch]\n", "r.toml:1: batch.graphs is missing: folders of prepared graphs"),
        ("batch = 3\n", "r.toml:1: 'batch' is not a section; write [batch]"),
        ("[settings]\nlr = 3\n", "r.toml:2: no section 'lr' of settings; known: checkpoints"),
        ("[settings]\nmodel = 3\n", "r.toml:2: 'model' is a section; write model.KEY = 3"),
        (
            "[include]\nseed = 3\n",
            "r.toml:1: 'include' is a list of tables; write [[include]], once",
        ),
        ("[[expect]]\nvalue = 3\n", "r.toml:1: expect.tolerance is missing"),
        ("[mask]\nrates = [1.5]\n", "r.toml:2: mask.rates.0: input should be less than 1, got 1.5"),
    ],
)
def test_what_is_no_recipe_says_what_was_expected(text: str, said: str) -> None:
    assert any(line.startswith(said) for line in problems_of(text))


def test_the_names_of_strategies_are_those_of_completion() -> None:
    assert tuple(strategies.STRATEGIES) == recipe.STRATEGIES
    assert strategies.TRAINED == recipe.TRAINED
