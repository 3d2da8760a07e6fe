from __future__ import annotations

import pytest

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.profiling import NothingToTrain, profile
from mmkgc_cli.scoring import load_scorer


def test_a_step_has_four_timed_parts(graph: Graph) -> None:
    settings = ["model.dim=32", "training.batch_size=64"]
    profiled = profile(
        resolve("rotate", load_scorer("rotate").Config, overrides=settings), graph, 12
    )
    assert [p.name for p in profiled.parts] == ["negatives", "loss", "gradients", "update"]
    assert all(part.ms > 0 and part.floor_ms > 0 for part in profiled.parts)
    assert profiled.seconds_per_epoch == pytest.approx(profiled.step_ms * 4 / 1e3)


def test_one_vs_all_steps_sample_no_negatives(graph: Graph) -> None:
    settings = ["model.dim=32", "training.candidates=all", "loss.name=bce"]
    profiled = profile(
        resolve("distmult", load_scorer("distmult").Config, overrides=settings), graph, 4
    )
    assert [p.name for p in profiled.parts] == ["loss", "gradients", "update"]
    assert all(part.ms > 0 and part.floor_ms > 0 for part in profiled.parts)


def test_a_scorer_without_parameters_has_no_steps(graph: Graph) -> None:
    config = resolve("frequency", load_scorer("frequency").Config, overrides=[])
    with pytest.raises(NothingToTrain):
        profile(config, graph, 3)
