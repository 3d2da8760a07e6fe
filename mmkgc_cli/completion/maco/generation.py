"""Generates vectors with a trained MACO: candidates are filtered and averaged (section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmkgc_cli.completion.maco.model import Maco
from mmkgc_cli.state.rng import generator as stream

# Maximum number of candidate values in memory.
MAX_VALUES = 1 << 24


@dataclass(frozen=True)
class CandidateMeans:
    """Vectors ``[n, F]``, and a mask ``[n]`` of entities without an accepted candidate."""

    vectors: Tensor
    rejected: Tensor


@torch.no_grad()
def generate_vectors(
    model: Maco, entities: Tensor, candidates: int | None = None
) -> CandidateMeans:
    """Averages, for each entity, the candidates that the discriminator accepts (p > 1/2).

    If it accepts none, all candidates are averaged. Networks run in eval mode.

    Args:
        model: a trained model.
        entities: ids ``[n]``.
        candidates: K; None takes `candidates` of the settings.
    """
    was_training = model.training
    model.eval()
    states = model.structure(None)[entities]
    settings, width = model.settings, states.shape[1]
    candidates = candidates or settings.candidates
    rng = stream(settings.seed, "candidates", states.device)
    block_rows = max(1, MAX_VALUES // (candidates * max(width, settings.hidden)))
    means, rejected = [states[:0]], [states.new_zeros(0, dtype=torch.bool)]
    for block in states.split(block_rows):
        # One call per entity, so that its noise does not depend on the block size.
        shape = (candidates, settings.noise)
        noise = torch.stack([torch.randn(shape, generator=rng, device=block.device) for _ in block])
        vectors = model.generator(block[:, None], noise)
        accepted = model.discriminator(block[:, None], vectors) > 0
        count = accepted.sum(1, keepdim=True)
        rejected.append(count[:, 0] == 0)
        weight = torch.where(count > 0, accepted, True).to(vectors.dtype)
        means.append(torch.einsum("nk,nkf->nf", weight, vectors) / weight.sum(1, keepdim=True))
    model.train(was_training)
    return CandidateMeans(torch.cat(means), torch.cat(rejected))
