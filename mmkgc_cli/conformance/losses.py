"""Property: `loss_sampled` equals the loss of the sampled scores, with the same gradients."""

from __future__ import annotations

import contextlib
import dataclasses

import torch
from torch import Tensor

from mmkgc_cli.conformance.agreement import same, sampled_candidates
from mmkgc_cli.conformance.subject import Subject
from mmkgc_cli.ops import EntropyWeighted, RowLoss, SelfAdversarial, loss_of_scores
from mmkgc_cli.scoring.contract import Candidates, Scorer
from mmkgc_cli.scoring.faults import where
from mmkgc_cli.training.optimizers import Adam

# The weights of the first depend on the scores of all negatives; the second treats each alone.
LOSSES: dict[str, RowLoss] = {
    "self-adversarial": SelfAdversarial(),
    "entropy-weighted": EntropyWeighted((0.2, 0.8), (0.5, 1.5, 1.2)),
}


def sampled_losses(s: Subject) -> None:
    """`loss_sampled` equals the loss of `score_sampled`, with direct and deferred gradients."""
    scorer = s.make()
    candidates = _candidates(s)
    place = where(scorer, "loss_sampled")
    for name, loss in LOSSES.items():
        scores = scorer.score_sampled(s.triples, candidates)
        expected = loss_of_scores(loss, scores, candidates.mask)
        wanted = _gradients(scorer, expected)
        for deferring in (False, True):
            optimizer = Adam(_trained(scorer)) if deferring and _trained(scorer) else None
            with optimizer.deferring() if optimizer else contextlib.nullcontext():
                found = scorer.loss_sampled(s.triples, candidates, loss)
                grads = _gradients(scorer, found, optimizer)
            how = f"{name} loss" + (" while gradients are deferred" if deferring else "")
            same(found, expected, place, f"the {how} of the sampled scores")
            for parameter, grad in wanted.items():
                description = (
                    f"the gradient of {parameter!r} through the {how} of the sampled scores"
                )
                same(grads[parameter], grad, place, description)


def _trained(scorer: Scorer) -> list[torch.nn.Parameter]:
    return [p for p in scorer.parameters() if p.requires_grad]


def _gradients(scorer: Scorer, loss: Tensor, optimizer: Adam | None = None) -> dict[str, Tensor]:
    """Gradient of each parameter; zeros if the loss does not depend on it."""
    scorer.zero_grad()
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    if optimizer is not None:
        optimizer.materialize()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in scorer.named_parameters()
    }


def _candidates(s: Subject) -> Candidates:
    """The true tails in the first column, then negatives, one in five of them masked."""
    negatives = sampled_candidates(s)
    ids = torch.cat([s.triples[:, 2:], negatives.ids], 1)
    mask = torch.arange(ids.numel()).view_as(ids) % 5 != 0
    candidates = Candidates.from_negatives(
        s.triples, negatives.ids, negatives.corrupted_side, mask[:, 1:]
    )
    return dataclasses.replace(candidates, order=ids.flatten().argsort(stable=True))
