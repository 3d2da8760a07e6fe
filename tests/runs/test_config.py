from __future__ import annotations

from pathlib import Path

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
from mmkgc_cli.runs.toml_file import TomlFile, read_toml
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.training.losses import make_loss
from mmkgc_cli.training.settings import variants

ROTATE = load_scorer("rotate").Config


def test_later_sources_win() -> None:
    values = {
        "training": {"epochs": 3, "seed": 9}, "optimizer": {"lr": 0.1}, "model": {"dim": 4},
    }  # fmt: skip
    config = resolve(
        "rotate",
        ROTATE,
        file=TomlFile(values, "a.toml", {}),
        flags={("optimizer", "lr"): 0.2, ("training", "seed"): 8},
        overrides=["training.seed=7", "model.margin=2.5"],
    )
    assert (config.training.epochs, config.optimizer.lr, config.training.seed) == (3, 0.2, 7)
    assert config.model.model_dump() == {"dim": 4, "margin": 2.5}
    assert config.training.batch_size == 1024


def test_every_mistake_is_shown_at_once_with_its_source_and_the_nearest_key(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.toml").write_text(
        "[training]\nepoch = 3\n\n[modell]\ndim = 4\n\n[model]\ndim = 0\n"
    )
    file = read_toml(tmp_path / "a.toml")
    overrides = ["training.batchsize=7", "optimizer.lr=fast"]
    with pytest.raises(DataError) as caught:
        resolve(
            "rotate",
            ROTATE,
            file=TomlFile(file.values, "a.toml", file.lines),
            overrides=overrides,
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "a.toml:2: no key training.epoch; did you mean 'training.epochs'?"
    assert lines[1] == "a.toml:5: no section 'modell'; did you mean 'model'?"
    assert lines[2] == (
        "--set training.batchsize: no key training.batchsize; did you mean 'training.batch_size'?"
    )
    assert lines[3].startswith(
        "a.toml:8: model.dim: input should be greater than or equal to 1, got 0"
    )
    assert lines[4].startswith("--set optimizer.lr: input should be a valid number")
    assert len(lines) == 5


@pytest.mark.parametrize(
    "text",
    ["training.epochs=true", "optimizer.lr=inf", "optimizer.lr=nan", "training.epochs=2.0",
     "loss.temperature=inf", "model.margin=inf", "training.seed=-1",
     "model.dim=1000000000000", "negatives.count=100000000000", 'training.epochs="3"'],
)  # fmt: skip
def test_values_of_the_wrong_type_or_size_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=f"^--set {text.split('=')[0]}: input should be"):
        resolve("rotate", ROTATE, overrides=[text])


ALL = ["training.candidates=all", "loss.name=bce"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ALL[:1],
            "loss.name: 'self-adversarial' compares a positive with negatives, and "
            "training.candidates = 'all' samples none; set loss.name to bce or softmax",
        ),
        (
            [ALL[0], "loss.name=margin-inside"],
            "--set loss.name: 'margin-inside' compares",
        ),
        (
            [*ALL, "negatives.count=5"],
            "--set negatives.count: negatives.count has no effect when training.candidates is all",
        ),
        (
            [*ALL, "negatives.sampler=shared"],
            "--set negatives.sampler: negatives.sampler has no effect when",
        ),
        ([*ALL, "sampler.chunk=3"], "--set sampler.chunk: sampler.chunk has no effect when"),
        (
            ["loss.label_smoothing=0.1"],
            "--set loss.label_smoothing: no key loss.label_smoothing",
        ),
        (
            ["loss.margin=2.0"],
            "--set loss.margin: loss.margin has no effect when loss.name is self-adversarial; "
            "leave it out, or set loss.name to margin-inside or margin-outside",
        ),
        (
            ["loss.name=bce", "loss.temperature=2.0"],
            "loss.temperature has no effect unless loss.reduction is self-adversarial",
        ),
        (
            [*ALL, "loss.label_smoothing_adds=epsilon"],
            "loss.label_smoothing_adds has no effect unless loss.label_smoothing is above 0",
        ),
        (
            ["schedule.decay=0.5"],
            "--set schedule.decay: schedule.decay has no effect when schedule.name is constant; "
            "leave it out, or set schedule.name to exponential",
        ),
        (
            ["optimizer.name=lazy-adam", "optimizer.weight_decay=0.1"],
            "--set optimizer.weight_decay: optimizer.weight_decay has no effect when "
            "optimizer.name is lazy-adam",
        ),
        (["optimizer.name=adan"], "--set optimizer.name: no optimizer is called"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        resolve("rotate", ROTATE, overrides=settings)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_settings_of_a_scorer_that_do_not_go_together_are_one_line() -> None:
    with pytest.raises(DataError, match=r"^model: regularization and .* set both or neither$"):
        resolve("complex", load_scorer("complex").Config, overrides=["model.regularization=n3"])


@pytest.mark.parametrize("settings", [ALL, [*ALL, "loss.label_smoothing=0.1"]])
def test_all_candidates_read_back_from_the_resolved_file(
    tmp_path: Path, settings: list[str]
) -> None:
    config = resolve("rotate", ROTATE, overrides=settings)
    (tmp_path / "config.toml").write_text(to_toml(config))
    again = from_toml(tmp_path / "config.toml", lambda name: load_scorer(name).Config)
    assert again == config
    assert again.negatives is None
    assert again.sampler is None


def test_whole_numbers_do_for_real_ones() -> None:
    assert resolve("rotate", ROTATE, overrides=["optimizer.lr=1"]).optimizer.lr == 1.0


def test_a_key_of_the_wrong_section_is_found() -> None:
    with pytest.raises(DataError, match=r"no key training.dim; did you mean 'model.dim'\?"):
        resolve("rotate", ROTATE, overrides=["training.dim=3"])


@pytest.mark.parametrize("text", ["lr", "optimizer.lr", "lr=3", ".lr=3", "training.=3"])
def test_an_override_without_its_form_is_refused(text: str) -> None:
    with pytest.raises(
        DataError, match=r"expected section.key=value; write --set optimizer.lr=1e-4"
    ):
        parse_override(text)


def test_override_values_are_typed() -> None:
    values = [parse_override(f"a.b={v}")[2] for v in ("3", "1e-4", "true", '"x y"', "uniform")]
    assert values == [3, 1e-4, True, "x y", "uniform"]


def test_the_resolved_configuration_reads_back_to_itself(tmp_path: Path) -> None:
    config = resolve("rotate", ROTATE, overrides=["optimizer.lr=3e-5", "model.dim=7"])
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert from_toml(path, lambda name: load_scorer(name).Config) == config


def test_a_sampler_brings_settings_of_its_own(tmp_path: Path) -> None:
    texts = ["negatives.sampler=shared", "sampler.chunk=9"]
    config = resolve("rotate", ROTATE, overrides=texts)
    assert config.sampler is not None
    assert config.sampler.model_dump() == {"chunk": 9}
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert from_toml(path, lambda name: load_scorer(name).Config) == config
    file = TomlFile({"negatives": {"sampler": "shared"}, "sampler": {"chunk": 5}}, "a.toml", {})
    again = resolve("rotate", ROTATE, file=file, overrides=["sampler.chunk=6"])
    assert again.sampler is not None
    assert again.sampler.model_dump() == {"chunk": 6}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["sampler.chunk=9"], r"--set sampler.chunk: no key sampler.chunk of the sampler "
         r"'filtered'; it has no settings$"),
        (["negatives.sampler=shared", "sampler.chunks=9"], r"--set sampler.chunks: no key "
         r"sampler.chunks of the sampler 'shared'; its settings: chunk$"),
        (["negatives.sampler=shared", "sampler.chunk=0"], r"--set sampler.chunk: input should be "),
        (["negatives.sampler=shard", "sampler.chunk=9"], r"--set negatives.sampler: no sampler is "
         r"called 'shard'; did you mean 'shared'\?$"),
        (["negatives.sampler=3"], r"--set negatives.sampler: input should be a valid "
         r"string, got 3; change the value of negatives.sampler$"),
    ],
)  # fmt: skip
def test_settings_that_the_sampler_lacks_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        resolve("rotate", ROTATE, overrides=texts)


def test_files_that_are_no_configuration_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_config_file(tmp_path / "none.toml")
    path = tmp_path / "bad.toml"
    path.write_text("[training]\nlr = = 3\n")
    with pytest.raises(DataError, match="bad.toml:2: not valid TOML"):
        read_config_file(path)
    with pytest.raises(
        DataError, match="scorer is 'transe', and the command trains 'rotate'; change one"
    ):
        resolve("rotate", ROTATE, file=TomlFile({"scorer": "transe"}, "a.toml", {}))


FIELDS = {
    "temperature": 2.0,
    "margin": 2.0,
    "reduction": "sum",
    "thresholds": [0.3, 0.6],
    "weights": [0.4, 1.0, 1.0],
    "one_sided": True,
}


@pytest.mark.parametrize("name", sorted(variants("loss")))
@pytest.mark.parametrize("reduction", ["mean", "self-adversarial"])
def test_every_field_of_a_loss_changes_it(name: str, reduction: str) -> None:
    rng = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(8, generator=rng), 3 * torch.randn(8, 64, generator=rng)
    section = variants("loss")[name]
    base = {"name": name}
    if "reduction" in section.model_fields:
        base["reduction"] = reduction
    plain = make_loss(section(**base))(positive, negative, None)  # type: ignore[arg-type]
    for field in section.model_fields:
        if field == "name" or (field == "temperature" and base.get("reduction") == "mean"):
            continue
        changed = section(**{**base, field: FIELDS[field]})
        assert make_loss(changed)(positive, negative, None) != plain, field  # type: ignore[arg-type]


def test_a_later_selection_replaces_the_settings_of_an_earlier_one() -> None:
    file = TomlFile({"loss": {"name": "margin-inside", "margin": 3.0}}, "a.toml", {})
    warnings: list[str] = []
    config = resolve("rotate", ROTATE, file=file, overrides=["loss.name=bce"], warn=warnings.append)
    assert config.loss.model_dump(exclude_none=True) == {"name": "bce", "reduction": "mean"}
    assert warnings == ["a.toml: loss.margin is ignored, since loss.name is bce"]
    with pytest.raises(DataError, match=r"--set loss.margin: loss.margin has no effect"):
        resolve("rotate", ROTATE, file=file, overrides=["loss.name=bce", "loss.margin=2.0"])


def test_a_file_of_0_1_is_one_line_with_the_command_that_rewrites_it() -> None:
    file = TomlFile({"training": {"lr": 0.1, "negatives": 3}}, "old.toml", {})
    with pytest.raises(DataError) as caught:
        resolve("rotate", ROTATE, file=file)
    assert str(caught.value) == (
        "old.toml: the settings have the names of mmkgc 0.1; rewrite them with: "
        "mmkgc config upgrade old.toml"
    )
    with pytest.raises(DataError, match=r"no key training.lr; it is optimizer.lr now$"):
        resolve("rotate", ROTATE, overrides=["training.lr=0.1"])
