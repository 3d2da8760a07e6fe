from __future__ import annotations

import numpy as np
import pytest

from mmkgc_cli.evaluation.metrics import grouped_metrics, rank_metrics, side_metrics
from mmkgc_cli.evaluation.ranks import SideRanks
from mmkgc_cli.kg.categories import CATEGORIES, relation_categories
from mmkgc_cli.scoring import Side


def test_closed_form_metrics() -> None:
    metrics = rank_metrics(np.array([1.0, 2.0, 4.0, 20.0]), np.array([21, 21, 21, 21]))
    assert metrics["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 20) / 4)
    assert metrics["mr"] == pytest.approx(6.75)
    assert [metrics[f"hits@{k}"] for k in (1, 3, 10)] == [0.25, 0.5, 0.75]
    assert metrics["amri"] == pytest.approx(1 - 5.75 / 10)


def test_amri_is_one_if_perfect_and_zero_at_chance_or_with_one_candidate() -> None:
    candidates = np.array([5, 9, 101])
    assert rank_metrics(np.ones(3), candidates)["amri"] == 1.0
    assert rank_metrics((candidates + 1) / 2, candidates)["amri"] == pytest.approx(0.0)
    assert rank_metrics(np.ones(3), np.ones(3, dtype=np.int64))["amri"] == 0.0


def test_rank_of_tied_scores_is_the_mean_rank() -> None:
    ranks = SideRanks(np.array([2, 1]), np.array([5, 1]), np.array([9, 9]))
    assert ranks.realistic.tolist() == [3.5, 1.0]


def sides() -> dict[Side, SideRanks]:
    return {
        Side.tail: SideRanks(np.array([1, 3]), np.array([1, 5]), np.array([9, 9])),
        Side.head: SideRanks(np.array([2, 2]), np.array([2, 4]), np.array([9, 7])),
    }


def test_both_sides_pool_the_ranks_of_head_and_tail() -> None:
    report = side_metrics(sides())
    assert report["both"]["count"] == 4
    for tie in ("realistic", "optimistic", "pessimistic"):
        for metric in ("mrr", "mr", "hits@3"):
            mean = (report["head"][tie][metric] + report["tail"][tie][metric]) / 2
            assert report["both"][tie][metric] == pytest.approx(mean)
    assert report["both"]["optimistic"]["mr"] < report["both"]["pessimistic"]["mr"]


def test_groups_partition_the_ranks() -> None:
    groups = grouped_metrics(sides(), np.array([3, 1]), {1: "b", 3: "a"})
    assert set(groups) == {"a", "b"}
    assert groups["a"]["tail"]["realistic"]["mr"] == 1.0
    assert groups["b"]["head"]["pessimistic"]["mr"] == 4.0
    assert sum(entry["both"]["count"] for entry in groups.values()) == 4


def test_relation_categories_follow_the_mean_counts_in_train() -> None:
    rows = []
    rows += [(i, 0, i + 10) for i in range(4)]  # one to one
    rows += [(0, 1, i) for i in range(4)]  # one head, many tails
    rows += [(i, 2, 0) for i in range(4)]  # many heads, one tail
    rows += [(i, 3, j) for i in range(3) for j in range(3)]
    rows += [(0, 0, 10)] * 5  # duplicates do not count
    categories = relation_categories(np.array(rows, dtype=np.int32), 200, 5)
    assert [CATEGORIES[c] for c in categories] == ["1-1", "1-N", "N-1", "N-N", "unseen"]
