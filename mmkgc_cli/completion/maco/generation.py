"""Completion by a trained MACO: many candidates an entity, judged and averaged (section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmkgc_cli.completion.maco.model import Maco
from mmkgc_cli.state.rng import generator as stream

# Numbers of candidates that are held at once.
AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Completed:
    """Generated vectors ``[n, F]``, and for which entities no candidate was accepted ``[n]``."""

    vectors: Tensor
    rejected: Tensor


@torch.no_grad()
def complete(model: Maco, entities: Tensor, candidates: int | None = None) -> Completed:
    """The mean of the candidates of each entity that the discriminator takes for real, p > 1/2.

    Where it takes none, the mean of all of them. Networks are in eval mode.

    Args:
        model: trained.
        entities: ids ``[n]``.
        candidates: K; that of the settings when None.
    """
    was_training = model.training
    model.eval()
    states = model.structure(None)[entities]
    settings, width = model.settings, states.shape[1]
    candidates = candidates or settings.candidates
    rng = stream(settings.seed, "candidates", states.device)
    each = max(1, AT_ONCE // (candidates * max(width, settings.hidden)))
    found, rejected = [states[:0]], [states.new_zeros(0, dtype=torch.bool)]
    for some in states.split(each):
        # One entity after another: what each draws must not depend on how many fit.
        shape = (candidates, settings.noise)
        draws = [torch.randn(shape, generator=rng, device=some.device) for _ in some]
        noise = torch.stack(draws)
        made = model.generator(some[:, None], noise)
        accepted = model.discriminator(some[:, None], made) > 0
        count = accepted.sum(1, keepdim=True)
        rejected.append(count[:, 0] == 0)
        taken = torch.where(count > 0, accepted, True).to(made.dtype)
        found.append(torch.einsum("nk,nkf->nf", taken, made) / taken.sum(1, keepdim=True))
    model.train(was_training)
    return Completed(torch.cat(found), torch.cat(rejected))
