"""The configuration of a run: defaults, one TOML file, dotted overrides; unknown keys refused."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmkgc_cli.errors import DataError, MmkgcError, nearest
from mmkgc_cli.plugins import BUILT_IN
from mmkgc_cli.scoring.contract import ScorerConfig
from mmkgc_cli.state.atomic import read_text
from mmkgc_cli.training.all_candidates import LOSSES
from mmkgc_cli.training.sampler_registry import DEFAULT, load_sampler
from mmkgc_cli.training.samplers import SamplerConfig

_R = TypeVar("_R", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class GraphConfig(_Strict):
    """Which graph the run is about; `fingerprint` and `order_id` hold it to that one."""

    path: str = ""
    name: str = ""
    fingerprint: str = ""
    order_id: str = ""


class PluginConfig(_Strict):
    """Which file a plugin was; a run without the record is of a built-in one."""

    origin: str = BUILT_IN
    file: str = ""
    sha256: str = ""


# Settings that only say something about sampled negatives.
OF_NEGATIVES = (
    "negatives", "negative_sampling", "negative_side", "negative_reduction", "sampler",
    "adversarial_temperature",
)  # fmt: skip


class FeaturesConfig(BaseModel):
    """Stores of vectors by modality, as ``image = "image.h5"``, and what stands for their gaps."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, str]

    fill: Literal["none", "zero", "mean", "random", "one"] = Field(
        "none", description="what stands for entities without a vector; none: they are an error"
    )
    allow_other_train: bool = Field(
        False, description="take vectors that were fitted on another train split"
    )

    @property
    def paths(self) -> dict[str, str]:
        """Stores by modality."""
        return dict(self.__pydantic_extra__ or {})


class StoreConfig(_Strict):
    """What a run was given of one modality; see `features.about` for what a store says of itself.

    `observed`, `generated` and `missing` count entities of the graph.
    """

    sha256: str
    width: int
    entities_id: str
    encoder: str = ""
    revision: str = ""
    preprocess: str = ""
    pooling: str = ""
    source: str = ""
    train_id: str = ""
    observed: int
    generated: int
    missing: int
    fill: str = "none"
    use: Literal["frozen", "trainable"] = "frozen"
    mask: dict[str, Any] = Field(default_factory=dict)
    completion: dict[str, Any] = Field(default_factory=dict)


class TrainingConfig(_Strict):
    """How to train."""

    epochs: int = Field(100, ge=1, le=10**9, description="passes over the train triples")
    batch_size: int = Field(
        1024, ge=1, le=10**7, description="positives in a step; queries where all are candidates"
    )
    candidates: Literal["sampled", "all"] = Field(
        "sampled", description="whom an answer is told from: sampled negatives, or all entities"
    )
    negatives: int = Field(32, ge=1, le=10**6, description="negatives of each positive")
    negative_sampling: Literal["bernoulli", "uniform"] = Field(
        "bernoulli", description="how each negative picks the side it replaces"
    )
    loss: Literal[
        "self-adversarial", "margin-inside", "margin-outside", "entropy-weighted", "bce", "softmax"
    ] = Field("self-adversarial", description="of a positive and its negatives")
    sampler: str = Field(
        DEFAULT, description="where negatives come from: filtered, shared, or one of your own"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="taken off a true answer, where all are candidates"
    )
    label_smoothing_adds: Literal["one", "epsilon"] = Field(
        "one",
        description="what smoothing shares out among all entities: 1, as TuckER's code, or itself",
    )
    adversarial_temperature: float = Field(
        1.0, ge=0, le=1e6, description="0 weighs all negatives alike, more looks at the hard ones"
    )
    loss_margin: float = Field(1.0, ge=0, le=1e6, description="of margin-inside and margin-outside")
    negative_reduction: Literal["mean", "sum", "self-adversarial"] = Field(
        "mean", description="how negatives add up under entropy-weighted and bce"
    )
    entropy_thresholds: list[float] = Field(
        [0.2, 0.8],
        min_length=2,
        max_length=2,
        description="bits below which a negative is easy, and from which it is hard",
    )
    entropy_weights: list[float] = Field(
        [0.5, 1.5, 1.2],
        min_length=3,
        max_length=3,
        description="of easy, ambiguous and hard negatives",
    )
    negative_side: Literal["per-negative", "per-positive", "alternating"] = Field(
        "per-negative", description="what a draw of the side decides about"
    )
    optimizer: Literal["adam", "adamw", "adagrad", "lazy-adam"] = Field(
        "adam", description="lazy-adam steps only the rows that a batch met, for very large tables"
    )
    lr: float = Field(1e-3, gt=0, le=1e6, description="learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1e6, description="of adam, adamw and adagrad")
    schedule: Literal["constant", "linear", "cosine", "exponential"] = Field(
        "constant", description="of the learning rate, after the warm-up"
    )
    warmup_epochs: float = Field(0.0, ge=0, le=1e9, description="of a linear warm-up")
    decay: float = Field(0.99, gt=0, le=1, description="of the rate an epoch, under exponential")
    clip_norm: float = Field(0.0, ge=0, description="longest gradient; 0 does not clip")
    average: float = Field(
        0.0, ge=0, lt=1, description="decay of averaged weights, which are then ranked and kept"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="decides initial values, order and negatives")
    eval_every: int = Field(5, ge=1, description="epochs between validations")
    eval_sample: int = Field(
        0, ge=0, description="valid triples to select on, a fixed sample; 0 takes all"
    )
    patience: int = Field(
        5, ge=0, description="validations without a better valid MRR before stopping; 0 never stops"
    )
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="seconds between checkpoints; 0 keeps one after every step"
    )
    keep_checkpoints: int = Field(2, ge=1, description="how many of the last checkpoints stay")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32", description="of matrix products in training, on a GPU; tables stay float32"
    )
    cuda_graph: Literal["auto", "off"] = Field(
        "auto", description="auto replays steps from a CUDA graph where that is possible"
    )
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 leaves torch's choice")

    @model_validator(mode="after")
    def _fits_its_candidates(self) -> TrainingConfig:
        """Refuses what has no meaning, or no part, under `candidates`."""
        if self.candidates == "sampled":
            if self.label_smoothing:
                raise ValueError(
                    "label_smoothing is for training.candidates=all; leave it out, or set that"
                )
            return self
        if self.loss not in LOSSES:
            raise ValueError(
                f"loss={self.loss} compares a positive with its negatives, and candidates=all "
                f"draws none; set training.loss to {' or '.join(LOSSES)}"
            )
        for name in OF_NEGATIVES:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} has no part in a training with candidates=all, which draws no "
                    "negatives; leave it out"
                )
        return self


class _AnySampler(SamplerConfig):
    """Settings of a sampler that nobody is about to draw with."""

    model_config = ConfigDict(extra="allow", frozen=True)


class RunConfig(_Strict):
    """Everything that decides a run."""

    scorer: str
    graph: GraphConfig = Field(default_factory=GraphConfig)
    plugin: PluginConfig = Field(default_factory=PluginConfig)  # the scorer's
    sampler_plugin: PluginConfig = Field(default_factory=PluginConfig)
    model: ScorerConfig
    training: TrainingConfig
    sampler: SamplerConfig
    features: FeaturesConfig
    stores: dict[str, StoreConfig] = Field(default_factory=dict)  # by modality


SECTIONS = ("model", "training", "sampler", "features")
RECORDS = ("graph", "plugin", "sampler_plugin", "stores")


def read_config_file(path: Path) -> dict[str, Any]:
    """Reads a TOML configuration.

    Raises:
        DataError: when it is missing or not TOML, with the line.
    """
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: not valid TOML: {error}") from None


def parse_override(text: str) -> tuple[str, str, Any]:
    """Splits ``section.key=value``; the value is read as TOML, or else taken as a string.

    Raises:
        DataError: when it has no such form.
    """
    target, separator, raw = text.partition("=")
    section, dot, key = target.strip().partition(".")
    if not (separator and dot and section and key):
        raise DataError(f"--set {text}: expected section.key=value, such as training.lr=1e-4")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return section, key, value


def resolve(
    scorer: str,
    model_class: type[ScorerConfig],
    file_values: Mapping[str, Any],
    file_name: str,
    flags: Mapping[tuple[str, str], Any],
    overrides: Sequence[str],
    for_training: bool = True,
) -> RunConfig:
    """Joins defaults, a file, flags and ``--set``, later ones winning, and checks everything.

    Args:
        scorer: name of the scorer, with `model_class` its typed hyper-parameters.
        file_values: contents of the configuration file, `file_name` its name for messages.
        flags: values of command-line flags by (section, key).
        overrides: texts of ``--set``.
        for_training: whether the sampler, which may be a plugin, has to be there.

    Raises:
        DataError: with every unknown key and bad value at once, one per line.
    """
    classes: dict[str, type[BaseModel]] = {
        "model": model_class,
        "training": TrainingConfig,
        "features": FeaturesConfig,
    }
    entries: list[tuple[str, str, Any, str]] = []
    merged: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    origin: dict[tuple[str, str], str] = {}
    problems: list[str] = []

    def take(section: str, key: str, value: Any, source: str) -> None:
        if section not in classes:
            problems.append(f"{source}: no section {section!r}; {nearest(section, classes)}")
        elif not (key in classes[section].model_fields or _takes_any(classes[section])):
            known, dotted = _dotted(classes), f"{section}.{key}"
            # The right key in the wrong section is nearer than any spelling.
            elsewhere = [name for name in known if name.endswith(f".{key}")]
            advice = f"did you mean {elsewhere[0]!r}?" if elsewhere else nearest(dotted, known)
            if section == "sampler" and not classes[section].model_fields:
                advice = f"the sampler {sampler!r} has no settings"
            elif section == "sampler":
                advice = f"settings of {sampler!r}: {', '.join(classes[section].model_fields)}"
            problems.append(f"{source}: no key {dotted}; {advice}")
        else:
            merged[section][key] = value
            origin[section, key] = source

    for source, section, key, value in _file_entries(file_values, file_name, scorer, problems):
        entries.append((section, key, value, source))
    for (section, key), value in flags.items():
        of_store = section == "features" and key not in FeaturesConfig.model_fields
        flag = f"--features {key}" if of_store else f"--{key.replace('_', '-')}"
        entries.append((section, key, value, flag))
    for text in overrides:
        section, key, value = parse_override(text)
        entries.append((section, key, value, f"--set {section}.{key}"))
    sampler, origin_of_sampler = _sampler_of(entries)
    try:
        classes["sampler"] = load_sampler(sampler).Config if for_training else _AnySampler
    except MmkgcError as error:
        problems.append(f"{origin_of_sampler}: {error}")
        # What its settings would be is not known then.
        entries = [entry for entry in entries if entry[0] != "sampler"]
        classes["sampler"] = SamplerConfig
    for entry in entries:
        take(*entry)

    parts: dict[str, Any] = {}
    for section, model in classes.items():
        try:
            parts[section] = model(**merged[section])
        except ValidationError as error:
            for issue in error.errors():
                if not issue["loc"]:  # of several settings together
                    problems.append(f"{section}: {issue['msg'].removeprefix('Value error, ')}")
                    continue
                key = str(issue["loc"][0])
                where = origin.get((section, key), f"{section}.{key}")
                message = issue["msg"][0].lower() + issue["msg"][1:]
                problems.append(f"{where}: {message}, got {issue['input']!r}")
    if problems:
        raise DataError("\n".join(problems))
    # model_construct keeps the scorer's own config class, validated just now.
    parts |= {
        "graph": GraphConfig(),
        "plugin": PluginConfig(),
        "sampler_plugin": PluginConfig(),
        "stores": {},
    }
    return RunConfig.model_construct(scorer=scorer, **parts)


def _takes_any(model: type[BaseModel]) -> bool:
    """Whether keys without a field are taken, as modalities are."""
    return model.model_config.get("extra") == "allow"


def _sampler_of(entries: Sequence[tuple[str, str, Any, str]]) -> tuple[str, str]:
    """The sampler that is asked for last, and where."""
    asked = [entry[2:] for entry in entries if entry[:2] == ("training", "sampler")]
    # Anything but a name is told of when the training's settings are checked.
    return asked[-1] if asked and isinstance(asked[-1][0], str) else (DEFAULT, "training.sampler")


def _dotted(classes: Mapping[str, type[BaseModel]]) -> list[str]:
    return [f"{section}.{key}" for section, model in classes.items() for key in model.model_fields]


def _file_entries(
    values: Mapping[str, Any], name: str, scorer: str, problems: list[str]
) -> Iterator[tuple[str, str, str, Any]]:
    for section, entries in values.items():
        if section == "scorer":
            if entries != scorer:
                problems.append(f"{name}: scorer is {entries!r}, the command says {scorer!r}")
        elif section in RECORDS:
            continue  # the record of another run; the command line names graph and scorer
        elif not isinstance(entries, Mapping):
            problems.append(f"{name}: {section!r} is not a section; known: {', '.join(SECTIONS)}")
        else:
            for key, value in entries.items():
                yield name, section, key, value


def unlike_defaults(
    values: Mapping[str, Any], model_class: type[ScorerConfig] | None
) -> dict[str, tuple[Any, Any]]:
    """Settings of a resolved configuration that are not the defaults, each with its default.

    The default is None where there is none, or no `model_class` to ask.
    """
    training = values.get("training")
    name = training.get("sampler", DEFAULT) if isinstance(training, Mapping) else DEFAULT
    sections: dict[str, type[BaseModel] | None] = {
        "model": model_class,
        "training": TrainingConfig,
        "sampler": None,
        "features": FeaturesConfig,
    }
    with contextlib.suppress(MmkgcError):  # a plugin that is no longer there
        sections["sampler"] = load_sampler(str(name)).Config
    found: dict[str, tuple[Any, Any]] = {}
    for section, model in sections.items():
        entries = values.get(section)
        for key, value in entries.items() if isinstance(entries, Mapping) else ():
            known = model.model_fields.get(key) if model else None
            default = known.default if known and not known.is_required() else None
            if known is None or value != default:
                found[f"{section}.{key}"] = (value, default)
    return found


def values_of(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as plain values."""
    return {
        "scorer": config.scorer,
        "graph": config.graph.model_dump(),
        "plugin": config.plugin.model_dump(),
        "sampler_plugin": config.sampler_plugin.model_dump(),
        "model": config.model.model_dump(),
        "training": config.training.model_dump(),
        "sampler": config.sampler.model_dump(),
        "features": config.features.model_dump(),
        "stores": {name: store.model_dump() for name, store in config.stores.items()},
    }


def to_toml(config: RunConfig) -> str:
    """The resolved configuration as TOML; `resolve` reads it back to the same values."""
    return tomli_w.dumps(values_of(config))


def from_toml(path: Path, model_class_of: Any, for_training: bool = True) -> RunConfig:
    """Reads back a resolved configuration.

    Args:
        path: ``config.toml`` of a run.
        model_class_of: gives the config class for a scorer's name.
        for_training: see `resolve`.

    Raises:
        DataError: when the file is not a resolved configuration.
    """
    values = read_config_file(path)
    scorer = values.get("scorer")
    if not isinstance(scorer, str):
        raise DataError(f"{path}: names no scorer; is this a run directory?")
    config = resolve(scorer, model_class_of(scorer), values, str(path), {}, [], for_training)
    return config.model_copy(
        update={
            "graph": read_record(path, values, "graph", GraphConfig),
            "plugin": read_record(path, values, "plugin", PluginConfig),
            "sampler_plugin": read_record(path, values, "sampler_plugin", PluginConfig),
            "stores": {
                name: read_record(path, values["stores"], name, StoreConfig)
                for name in values.get("stores", {})
            },
        }
    )


def read_record(path: Path, values: Mapping[str, Any], section: str, model: type[_R]) -> _R:
    """A section that a run recorded of itself; what is missing has its default.

    Raises:
        DataError: when it is not what a run writes.
    """
    try:
        return model(**values.get(section, {}))
    except (ValidationError, TypeError) as error:
        raise DataError(f"{path}: the section {section!r} is damaged") from error
