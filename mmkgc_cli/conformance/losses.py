"""Property: `loss_sampled` equals the loss of the sampled scores, with the same gradients."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from mmkgc_cli.conformance.agreement import drawn_candidates, same
from mmkgc_cli.conformance.subject import Subject
from mmkgc_cli.ops import EntropyWeighted, RowLoss, SelfAdversarial
from mmkgc_cli.scoring.contract import Scorer, Side
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
    heads, relations, tails, ids, side, usable, order = _arguments(s)
    place = where(scorer, "loss_sampled")
    for name, loss in LOSSES.items():
        scores = scorer.score_sampled(heads, relations, tails, ids, side, order)
        expected = loss(scores[:, 0], scores[:, 1:], usable[:, 1:])
        wanted = _gradients(scorer, expected)
        for deferring in (False, True):
            optimizer = Adam(_trained(scorer)) if deferring and _trained(scorer) else None
            with optimizer.deferring() if optimizer else contextlib.nullcontext():
                found = scorer.loss_sampled(heads, relations, tails, ids, side, usable, loss, order)
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


def _arguments(s: Subject) -> tuple[Tensor, ...]:
    """Those of `loss_sampled` but the loss: the true tails first, a negative in five unusable."""
    heads, relations, tails = s.triples.unbind(1)
    ids, side = drawn_candidates(s)
    ids = torch.cat([tails[:, None], ids], 1)
    side = torch.cat([torch.full_like(side[:, :1], Side.tail), side], 1)
    usable = torch.arange(ids.numel()).view_as(ids) % 5 != 0
    usable[:, 0] = True
    return heads, relations, tails, ids, side, usable, ids.flatten().argsort(stable=True)
