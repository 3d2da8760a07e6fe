from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from mmkgc_cli.errors import DataError
from mmkgc_cli.runs.config import (
    from_toml,
    parse_override,
    read_config_file,
    resolve,
    to_toml,
)
from mmkgc_cli.runs.sections import TrainingConfig
from mmkgc_cli.runs.toml_file import read_toml
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.training.losses import LossName, LossSettings, ReductionName, make_loss

ROTATE = load_scorer("rotate").Config


def test_later_sources_win() -> None:
    file = {"training": {"epochs": 3, "lr": 0.1, "seed": 9}, "model": {"dim": 4}}
    config = resolve(
        "rotate", ROTATE, file, "a.toml", {("training", "lr"): 0.2, ("training", "seed"): 8},
        ["training.seed=7", "model.margin=2.5"],
    )  # fmt: skip
    assert (config.training.epochs, config.training.lr, config.training.seed) == (3, 0.2, 7)
    assert config.model.model_dump() == {"dim": 4, "margin": 2.5}
    assert config.training.batch_size == 1024


def test_every_mistake_is_shown_at_once_with_its_source_and_the_nearest_key(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.toml").write_text(
        "[training]\nepoch = 3\n\n[modell]\ndim = 4\n\n[model]\ndim = 0\n"
    )
    file = read_toml(tmp_path / "a.toml")
    overrides = ["training.batchsize=7", "training.lr=fast"]
    with pytest.raises(DataError) as caught:
        resolve("rotate", ROTATE, file.values, "a.toml", {}, overrides, lines=file.lines)
    lines = str(caught.value).splitlines()
    assert lines[0] == "a.toml:2: no key training.epoch; did you mean 'training.epochs'?"
    assert lines[1] == "a.toml:5: no section 'modell'; did you mean 'model'?"
    assert lines[2] == (
        "--set training.batchsize: no key training.batchsize; did you mean 'training.batch_size'?"
    )
    assert lines[3].startswith(
        "a.toml:8: model.dim: input should be greater than or equal to 1, got 0"
    )
    assert lines[4].startswith("--set training.lr: input should be a valid number")
    assert len(lines) == 5


@pytest.mark.parametrize(
    "text",
    ["training.epochs=true", "training.lr=inf", "training.lr=nan", "training.epochs=2.0",
     "training.adversarial_temperature=inf", "model.margin=inf", "training.seed=-1",
     "model.dim=1000000000000", "training.negatives=100000000000", 'training.epochs="3"'],
)  # fmt: skip
def test_values_of_the_wrong_type_or_size_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=f"^--set {text.split('=')[0]}: input should be"):
        resolve("rotate", ROTATE, {}, "", {}, [text])


ALL = ["training.candidates=all", "training.loss=bce"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ALL[:1], "training: loss=self-adversarial compares a positive with its negatives, and "
                  "candidates=all draws none; set training.loss to bce or softmax"),
        ([ALL[0], "training.loss=margin-inside"], "training: loss=margin-inside compares"),
        ([ALL[0], "training.loss=entropy-weighted"], "training: loss=entropy-weighted compares"),
        ([*ALL, "training.negatives=5"], "training: negatives has no part in a training with"),
        ([*ALL, "training.sampler=shared"], "training: sampler has no part in a training with"),
        (["training.label_smoothing=0.1"], "training: label_smoothing is for "
                                           "training.candidates=all; leave it out, or set that"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        resolve("rotate", ROTATE, {}, "", {}, settings)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_settings_of_a_scorer_that_do_not_go_together_are_one_line() -> None:
    with pytest.raises(DataError, match=r"^model: regularization and .* set both, or neither$"):
        resolve("complex", load_scorer("complex").Config, {}, "", {}, ["model.regularization=n3"])


@pytest.mark.parametrize("settings", [ALL, [*ALL, "training.label_smoothing=0.1"]])
def test_all_candidates_read_back_from_the_resolved_file(
    tmp_path: Path, settings: list[str]
) -> None:
    config = resolve("rotate", ROTATE, {}, "", {}, settings)
    (tmp_path / "config.toml").write_text(to_toml(config))
    again = from_toml(tmp_path / "config.toml", lambda name: load_scorer(name).Config)
    assert again.training == config.training


def test_whole_numbers_do_for_real_ones() -> None:
    assert resolve("rotate", ROTATE, {}, "", {}, ["training.lr=1"]).training.lr == 1.0


def test_a_key_of_the_wrong_section_is_found() -> None:
    with pytest.raises(DataError, match=r"no key training.dim; did you mean 'model.dim'\?"):
        resolve("rotate", ROTATE, {}, "", {}, ["training.dim=3"])


@pytest.mark.parametrize("text", ["lr", "training.lr", "lr=3", ".lr=3", "training.=3"])
def test_an_override_without_its_form_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"expected section.key=value, such as training.lr=1e-4"):
        parse_override(text)


def test_override_values_are_typed() -> None:
    values = [parse_override(f"a.b={v}")[2] for v in ("3", "1e-4", "true", '"x y"', "uniform")]
    assert values == [3, 1e-4, True, "x y", "uniform"]


def test_the_resolved_configuration_reads_back_to_itself(tmp_path: Path) -> None:
    config = resolve("rotate", ROTATE, {}, "", {}, ["training.lr=3e-5", "model.dim=7"])
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert from_toml(path, lambda name: load_scorer(name).Config) == config


def test_a_sampler_brings_settings_of_its_own(tmp_path: Path) -> None:
    texts = ["training.sampler=shared", "sampler.chunk=9"]
    config = resolve("rotate", ROTATE, {}, "", {}, texts)
    assert config.sampler.model_dump() == {"chunk": 9}
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert from_toml(path, lambda name: load_scorer(name).Config) == config
    file = {"training": {"sampler": "shared"}, "sampler": {"chunk": 5}}
    again = resolve("rotate", ROTATE, file, "a.toml", {}, ["sampler.chunk=6"])
    assert again.sampler.model_dump() == {"chunk": 6}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["sampler.chunk=9"], r"--set sampler.chunk: no key sampler.chunk; the sampler 'filtered' "
         r"has no settings$"),
        (["training.sampler=shared", "sampler.chunks=9"], r"--set sampler.chunks: no key "
         r"sampler.chunks; settings of 'shared': chunk$"),
        (["training.sampler=shared", "sampler.chunk=0"], r"--set sampler.chunk: input should be "),
        (["training.sampler=shard", "sampler.chunk=9"], r"--set training.sampler: no sampler is "
         r"called 'shard'; did you mean 'shared'\?$"),
        (["training.sampler=3"], r"--set training.sampler: input should be a valid string, got 3$"),
    ],
)  # fmt: skip
def test_settings_that_the_sampler_lacks_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        resolve("rotate", ROTATE, {}, "", {}, texts)


def test_files_that_are_no_configuration_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_config_file(tmp_path / "none.toml")
    path = tmp_path / "bad.toml"
    path.write_text("[training]\nlr = = 3\n")
    with pytest.raises(DataError, match="bad.toml:2: not valid TOML"):
        read_config_file(path)
    with pytest.raises(DataError, match="scorer is 'transe', the command says 'rotate'"):
        resolve("rotate", ROTATE, {"scorer": "transe"}, "a.toml", {}, [])


OF_LOSSES = {
    "adversarial_temperature": ("temperature", 2.0),
    "loss_margin": ("margin", 2.0),
    "negative_reduction": ("reduction", "sum"),
    "entropy_thresholds": ("thresholds", [0.3, 0.6]),
    "entropy_weights": ("weights", [0.4, 1.0, 1.0]),
    "entropy_one_sided": ("one_sided", True),
}


@pytest.mark.parametrize("loss", get_args(LossName))
@pytest.mark.parametrize("reduction", ["mean", "self-adversarial"])
def test_settings_that_change_no_loss_are_called_unused_and_no_others(
    loss: LossName, reduction: ReductionName
) -> None:
    rng = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(8, generator=rng), 3 * torch.randn(8, 64, generator=rng)
    base = LossSettings(loss=loss, reduction=reduction)
    plain = make_loss(base)(positive, negative, None)
    for name, (field, value) in OF_LOSSES.items():
        config = TrainingConfig(
            **{"loss": loss, "negative_reduction": reduction, name: value}, epochs=1
        )
        changed = make_loss(replace(base, **{field: value}))(positive, negative, None)
        said = [line.split()[0] for line in config.unused()]
        assert (f"training.{name}" in said) == bool(changed == plain), name


def test_what_has_no_part_is_said_with_what_leaves_it_none() -> None:
    given = ["training.decay=0.5", "training.entropy_one_sided=true"]
    config = resolve("rotate", ROTATE, {}, "", {}, given)
    assert config.training.unused() == [
        "training.entropy_one_sided has no part under training.loss=self-adversarial",
        "training.decay has no part under training.schedule=constant",
    ]
    used = ["training.schedule=exponential", "training.loss=entropy-weighted"]
    assert not resolve("rotate", ROTATE, {}, "", {}, given + used).training.unused()
