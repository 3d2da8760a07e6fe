"""What samplers need to know of the train triples: true answers, and which side to corrupt."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkgc_cli.ops import KnownAnswers
from mmkgc_cli.sampling.contract import SamplingTask


def known_answers(task: SamplingTask) -> tuple[KnownAnswers, KnownAnswers]:
    """True tails of (relation, head) and true heads of (relation, tail), of train."""
    heads, relations, tails = task.triples.unbind(1)
    n = task.n_entities
    return (
        KnownAnswers.from_pairs(relations * n + heads, tails, n),
        KnownAnswers.from_pairs(relations * n + tails, heads, n),
    )


def head_shares(task: SamplingTask, tails: KnownAnswers, heads: KnownAnswers) -> Tensor:
    """Probability [R] that a negative replaces the head.

    tph / (tph + hpt) of the relation under ``bernoulli`` (Wang et al. 2014, section 3.2), one half
    under ``uniform``.
    """
    if task.mode == "uniform":
        return torch.full((task.n_relations,), 0.5, device=task.triples.device)

    def known_entities(of: KnownAnswers) -> Tensor:
        return torch.bincount(of.keys // task.n_entities, minlength=task.n_relations)

    # tph / (tph + hpt) with tph = n / #heads and hpt = n / #tails.
    n_heads, n_tails = known_entities(tails), known_entities(heads)
    return torch.nan_to_num(n_tails / (n_heads + n_tails), nan=0.5)
