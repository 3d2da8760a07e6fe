"""The features of a run: read, recorded, and compared with the record on resume."""

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
    """The features of a scorer by modality, and the records of their stores."""

    features: Mapping[str, Features]
    stores: Mapping[str, StoreConfig]


def needed_modalities(config: RunConfig) -> tuple[str, ...]:
    """The modalities that the scorer needs with its settings."""
    return load_scorer(config.scorer).modalities_of(config.model)


def read_features(config: RunConfig, graph: Graph) -> RunFeatures:
    """Opens and reads the feature stores of a new run.

    Raises:
        DataError: when a store is missing or not needed, has another modality or other entities,
            has missing vectors without a fill, or has values that are not finite.
    """
    scorer, paths = load_scorer(config.scorer), config.features.paths
    modalities = needed_modalities(config)
    settings = f"see mmkgc scorers show {config.scorer} for the setting of its modalities"
    for name, file in paths.items():
        if name not in modalities:
            expected = " and ".join(modalities) or "none"
            optional = name in scorer.modalities
            raise DataError(
                f"{file}: {config.scorer} takes no features {name!r}, expected {expected}",
                fix=settings if optional else f"remove --features {name}=…",
            )
    for name in modalities:
        if name not in paths:
            optional = modalities != scorer.modalities
            raise DataError(
                f"{config.scorer}: expected features {' and '.join(modalities)}, got "
                f"{' and '.join(paths) or 'none'}",
                fix=f"add --features {name}=STORE" + (f", or {settings}" if optional else ""),
            )
    features, stores = {}, {}
    for name in modalities:
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
        features[name] = Features(loaded.vectors, loaded.observed)
        stores[name] = _record(loaded)
    return RunFeatures(features, stores)


def _check(path: Path, name: str, loaded: LoadedFeatures) -> None:
    modality = loaded.provenance["modality"]
    if modality != name:
        raise DataError(
            f"{path}: expected vectors of {name!r}, got vectors of {modality!r}",
            fix=f"pass --features {modality}={path}, or another store for {name}",
        )
    if not loaded.vectors.isfinite().all():
        rows = int((~loaded.vectors.isfinite()).any(1).sum())
        raise DataError(
            f"{path}: expected finite numbers, got {counted(rows, 'row')} with NaN or infinity",
            fix=f"run mmkgc features check {path}",
        )


def _record(loaded: LoadedFeatures) -> StoreConfig:
    provenance, coverage = loaded.provenance, loaded.provenance["coverage"]
    common = {key: provenance[key] for key in StoreConfig.model_fields if key in provenance}
    return StoreConfig(
        **{
            **common,
            "width": loaded.vectors.shape[1],
            "observed": coverage["observed"],
            "generated": coverage["generated"],
            "missing": coverage["missing"],
            "fill": provenance["fill"] or "none",
            "mask": _without_none(provenance["mask"]),
            "completion": _without_none(provenance["completion"]),
        }
    )


def _without_none(value: Any) -> Any:
    """Removes None, which TOML cannot represent."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value if item is not None]
    return value


def with_store_records(config: RunConfig, features: RunFeatures, scorer: Scorer) -> RunConfig:
    """The configuration with the records of the stores that were read."""
    paths = {name: str(Path(path).resolve()) for name, path in config.features.paths.items()}
    stores = {
        name: store.model_copy(
            update={"use": "trainable" if scorer.trains_features(name) else "frozen"}
        )
        for name, store in features.stores.items()
    }
    return replace(config, features=config.features.model_copy(update=paths), stores=stores)


def features_to_resume(
    config: RunConfig, graph: Graph, moved: Mapping[str, str]
) -> tuple[RunConfig, RunFeatures]:
    """Reads the stores of a run again, from their recorded paths or from `moved`.

    Raises:
        DataError: as `read_features`; also for a store that differs from the record.
    """
    for name in moved:
        if name not in config.stores:
            raise DataError(
                f"--features {name}: the run has features {' and '.join(config.stores) or 'none'}",
                fix="remove the flag",
            )
    paths = FeaturesConfig(**{**config.features.model_dump(), **moved})
    config = replace(config, features=paths)
    features = read_features(config, graph)
    for name, now in features.stores.items():
        then = config.stores.get(name)
        if then is None or now.sha256 != then.sha256:
            expected = f"{then.sha256[:12]}…, {then.width} wide" if then else "unknown"
            raise DataError(
                f"{paths.paths[name]}: not the store of this run: expected SHA-256 {expected}, "
                f"got {now.sha256[:12]}…, {now.width} wide",
                fix=f"restore that store, or pass its path: --features {name}=STORE",
            )
    return config, features


def placeholders(config: RunConfig, entities: int) -> Mapping[str, Features]:
    """Zeros of the recorded widths; loading the weights fills them."""
    return {
        name: Features(torch.zeros(entities, store.width), torch.zeros(entities, dtype=torch.bool))
        for name, store in config.stores.items()
    }


def random_features(names: Sequence[str], entities: int, width: int) -> Mapping[str, Features]:
    """Random vectors of all entities, for benchmarks."""
    rng = torch.Generator().manual_seed(0)
    return {
        name: Features(
            torch.randn(entities, width, generator=rng), torch.ones(entities, dtype=torch.bool)
        )
        for name in names
    }
