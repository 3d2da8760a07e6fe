from __future__ import annotations

import pytest

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.profiling import NothingToTrain, profile
from mmkgc_cli.scoring import load_scorer


def test_the_parts_of_a_step_make_it_up(graph: Graph) -> None:
    settings = ["model.dim=32", "training.batch_size=64"]
    found = profile(resolve("rotate", load_scorer("rotate").Config, overrides=settings), graph, 12)
    assert [p.name for p in found.parts] == ["negatives", "loss", "gradients", "update"]
    assert all(part.ms > 0 and part.floor_ms > 0 for part in found.parts)
    assert found.seconds_per_epoch == pytest.approx(found.step_ms * 4 / 1e3)


def test_steps_against_all_candidates_draw_no_negatives(graph: Graph) -> None:
    settings = ["model.dim=32", "training.candidates=all", "loss.name=bce"]
    found = profile(
        resolve("distmult", load_scorer("distmult").Config, overrides=settings), graph, 4
    )
    assert [p.name for p in found.parts] == ["loss", "gradients", "update"]
    assert all(part.ms > 0 and part.floor_ms > 0 for part in found.parts)


def test_a_scorer_without_parameters_has_no_steps(graph: Graph) -> None:
    config = resolve("frequency", load_scorer("frequency").Config, overrides=[])
    with pytest.raises(NothingToTrain):
        profile(config, graph, 3)
