"""Native ops; one file holds the wrapper, the reference implementation and the fake of an op."""

from mmkgc_cli.ops._native import backend_of, library, without_kernels
from mmkgc_cli.ops.deferred import Deferred, DeferredGradient, DeferredRows, lookup
from mmkgc_cli.ops.entropy_weighted_loss import (
    NegativeReduction,
    entropy_cut,
    entropy_weighted_loss,
)
from mmkgc_cli.ops.filtered_negatives import KnownAnswers, SideChoice, filtered_negatives
from mmkgc_cli.ops.message_graph import MessageGraph
from mmkgc_cli.ops.metric import Metric, Pair, modulus, score_rows, whole_row
from mmkgc_cli.ops.rank_candidates import rank_candidates, rank_scores
from mmkgc_cli.ops.rgcn_propagate import rgcn_propagate
from mmkgc_cli.ops.rgcn_transform import rgcn_transform
from mmkgc_cli.ops.rotate_loss import rotate_loss
from mmkgc_cli.ops.rotate_score import rotate_score
from mmkgc_cli.ops.row_loss import EntropyWeighted, RowLoss, SelfAdversarial, loss_of_scores
from mmkgc_cli.ops.sampled_loss import sampled_loss
from mmkgc_cli.ops.sampled_score import sampled_score
from mmkgc_cli.ops.self_adversarial_loss import AdversarialForm, self_adversarial_loss
from mmkgc_cli.ops.table_adam import dense_gradient, table_adam

OPS = (
    "entropy_weighted_loss",
    "filtered_negatives",
    "rank_candidates",
    "rgcn_propagate",
    "rotate_loss",
    "rotate_score",
    "sampled_loss",
    "sampled_score",
    "self_adversarial_loss",
    "table_adam",
)

__all__ = [
    "OPS",
    "AdversarialForm",
    "Deferred",
    "DeferredGradient",
    "DeferredRows",
    "EntropyWeighted",
    "KnownAnswers",
    "MessageGraph",
    "Metric",
    "NegativeReduction",
    "Pair",
    "RowLoss",
    "SelfAdversarial",
    "SideChoice",
    "backend_of",
    "dense_gradient",
    "entropy_cut",
    "entropy_weighted_loss",
    "filtered_negatives",
    "library",
    "lookup",
    "loss_of_scores",
    "modulus",
    "rank_candidates",
    "rank_scores",
    "rgcn_propagate",
    "rgcn_transform",
    "rotate_loss",
    "rotate_score",
    "sampled_loss",
    "sampled_score",
    "score_rows",
    "self_adversarial_loss",
    "table_adam",
    "whole_row",
    "without_kernels",
]
