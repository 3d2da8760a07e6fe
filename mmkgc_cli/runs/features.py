"""The features of a run: read before it begins, held to what it began with, recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.loading import LoadedFeatures, load_features
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.runs.sections import FeaturesConfig, RunConfig, StoreConfig
from mmkgc_cli.scoring import Features, Scorer, load_scorer
from mmkgc_cli.text import counted


@dataclass(frozen=True)
class RunFeatures:
    """What a scorer is given, by modality, and where it comes from."""

    given: Mapping[str, Features]
    stores: Mapping[str, StoreConfig]


def needed(config: RunConfig) -> tuple[str, ...]:
    """Modalities that the scorer needs with its settings."""
    return load_scorer(config.scorer).modalities_of(config.model)


def read_features(config: RunConfig, graph: Graph) -> RunFeatures:
    """Opens the stores of a run that begins, and reads them.

    Raises:
        DataError: for a store too many or too few, of another modality, of other entities, with
            rows that nobody accounted for, or with vectors that are not finite.
    """
    wanted, paths, scorer = needed(config), config.features.paths, load_scorer(config.scorer)
    by_setting = f"which it takes is a setting, see mmkgc scorers show {config.scorer}"
    for name, file in paths.items():
        if name not in wanted:
            takes = f"expected {' and '.join(wanted)}" if wanted else "expected none"
            takes += f"; {by_setting}" if name in scorer.modalities else ""
            raise DataError(f"{file}: {config.scorer} takes no features {name!r}; {takes}")
    for name in wanted:
        if name not in paths:
            got = f"got {' and '.join(paths)}" if paths else "got none"
            raise DataError(
                f"{config.scorer}: expected features {' and '.join(wanted)}, {got}; give "
                f"--features {name}=STORE"
                + (f", or not: {by_setting}" if wanted != scorer.modalities else "")
            )
    given, stores = {}, {}
    for name in wanted:
        path = Path(paths[name])
        loaded = load_features(
            path,
            graph,
            None if config.features.fill == "none" else config.features.fill,
            config.training.seed,
            uses_mask=scorer.uses_mask,
            allow_other_train=config.features.allow_other_train,
        )
        _check(path, name, loaded)
        given[name] = Features(loaded.vectors, loaded.observed)
        stores[name] = _record(loaded)
    return RunFeatures(given, stores)


def _check(path: Path, name: str, loaded: LoadedFeatures) -> None:
    held = loaded.provenance["modality"]
    if held != name:
        raise DataError(
            f"{path}: expected vectors of {name!r}, got those of {held!r}; name the right store"
        )
    if not loaded.vectors.isfinite().all():
        rows = int((~loaded.vectors.isfinite()).any(1).sum())
        raise DataError(
            f"{path}: expected finite numbers, got {counted(rows, 'row')} with others; see "
            "`mmkgc features check`"
        )


def _record(loaded: LoadedFeatures) -> StoreConfig:
    about, coverage = loaded.provenance, loaded.provenance["coverage"]
    taken = {key: about[key] for key in StoreConfig.model_fields if key in about}
    return StoreConfig(
        **{
            **taken,
            "width": loaded.vectors.shape[1],
            "observed": coverage["observed"],
            "generated": coverage["generated"],
            "missing": coverage["missing"],
            "fill": about["fill"] or "none",
            "mask": _without_none(about["mask"]),
            "completion": _without_none(about["completion"]),
        }
    )


def _without_none(value: Any) -> Any:
    """As TOML can hold it, which knows no null."""
    if isinstance(value, Mapping):
        return {key: _without_none(of) for key, of in value.items() if of is not None}
    if isinstance(value, list | tuple):
        return [_without_none(of) for of in value if of is not None]
    return value


def recorded(config: RunConfig, features: RunFeatures, scorer: Scorer) -> RunConfig:
    """The settings with what was read, and whether it is trained further."""
    where = {name: str(Path(path).resolve()) for name, path in config.features.paths.items()}
    stores = {
        name: store.model_copy(
            update={"use": "trainable" if scorer.trains_features(name) else "frozen"}
        )
        for name, store in features.stores.items()
    }
    return replace(config, features=config.features.model_copy(update=where), stores=stores)


def features_to_resume(
    config: RunConfig, graph: Graph, moved: Mapping[str, str]
) -> tuple[RunConfig, RunFeatures]:
    """Reads the stores of a run again, at their old places or where they are `moved` to.

    Raises:
        DataError: as `read_features`; also for a store that is not the one it began with.
    """
    for name in moved:
        if name not in config.stores:
            has = " and ".join(config.stores) or "none"
            raise DataError(f"--features {name}: the run began with features {has}")
    paths = FeaturesConfig(**{**config.features.model_dump(), **moved})
    config = replace(config, features=paths)
    features = read_features(config, graph)
    for name, now in features.stores.items():
        then = config.stores.get(name)
        if then is None or now.sha256 != then.sha256:
            was = f"{then.sha256[:12]}…, {then.width} wide" if then else "unknown"
            raise DataError(
                f"{paths.paths[name]}: not the store that the run began with: expected SHA-256 "
                f"{was}, got {now.sha256[:12]}…, {now.width} wide; put that back, or say where it "
                f"is: --features {name}=STORE"
            )
    return config, features


def placeholders(config: RunConfig, entities: int) -> Mapping[str, Features]:
    """Zeros as wide as the features of a run, for weights to be put into: those hold them all."""
    return {
        name: Features(torch.zeros(entities, store.width), torch.zeros(entities, dtype=torch.bool))
        for name, store in config.stores.items()
    }


def made_up(names: Sequence[str], entities: int, width: int) -> Mapping[str, Features]:
    """Random vectors for all entities, to measure with."""
    rng = torch.Generator().manual_seed(0)
    return {
        name: Features(
            torch.randn(entities, width, generator=rng), torch.ones(entities, dtype=torch.bool)
        )
        for name in names
    }
