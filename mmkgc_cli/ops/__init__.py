"""Native ops with their torch twins: a file per op, wrapper, twin and fake together."""

from mmkgc_cli.ops._native import library, path_of
from mmkgc_cli.ops.filtered_negatives import KnownAnswers, SideChoice, filtered_negatives
from mmkgc_cli.ops.message_graph import MessageGraph
from mmkgc_cli.ops.metric import Metric, Pair, modulus, score_rows, whole_row
from mmkgc_cli.ops.rank_candidates import rank_candidates
from mmkgc_cli.ops.rgcn_propagate import rgcn_propagate
from mmkgc_cli.ops.rgcn_transform import rgcn_transform
from mmkgc_cli.ops.rotate_score import rotate_score
from mmkgc_cli.ops.sampled_score import sampled_score
from mmkgc_cli.ops.table_adam import DeferredGradient, table_adam

OPS = (
    "filtered_negatives",
    "rank_candidates",
    "rgcn_propagate",
    "rotate_score",
    "sampled_score",
    "table_adam",
)

__all__ = [
    "OPS",
    "DeferredGradient",
    "KnownAnswers",
    "MessageGraph",
    "Metric",
    "Pair",
    "SideChoice",
    "filtered_negatives",
    "library",
    "modulus",
    "path_of",
    "rank_candidates",
    "rgcn_propagate",
    "rgcn_transform",
    "rotate_score",
    "sampled_score",
    "score_rows",
    "table_adam",
    "whole_row",
]
