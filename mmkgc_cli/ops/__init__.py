"""Native ops with their torch twins: a file per op, wrapper, twin and fake together."""

from mmkgc_cli.ops._native import library, path_of
from mmkgc_cli.ops.metric import Metric, Pair, modulus, score_rows, whole_row
from mmkgc_cli.ops.rank_candidates import rank_candidates

OPS = ("rank_candidates",)

__all__ = [
    "OPS",
    "Metric",
    "Pair",
    "library",
    "modulus",
    "path_of",
    "rank_candidates",
    "score_rows",
    "whole_row",
]
