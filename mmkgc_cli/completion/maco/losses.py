"""The losses of MACO, on logits and on cosines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize


def discriminator_loss(of_made: Tensor, of_real: Tensor) -> Tensor:
    """-mean log(1 - p(s, g)) - mean log p(s, v), p = sigmoid of the logits (eq. 4).

    Args:
        of_made: logits ``[B]`` of generated vectors.
        of_real: logits ``[n]`` of the real vectors in the batch; where there are none, the second
            term is 0.
    """
    loss = -logsigmoid(-of_made).mean()
    if len(of_real):
        loss = loss - logsigmoid(of_real).mean()
    return loss


def generator_loss(of_made: Tensor) -> Tensor:
    """-mean log p(s, g): the non-saturating form of eq. 5, as the released code."""
    return -logsigmoid(of_made).mean()


def contrastive_loss(structure: Tensor, made: Tensor, tau: float) -> Tensor:
    """Eq. 6 and 7: each structure ``[B, F]`` against the generated vectors ``[B, F]`` of the batch.

    -mean_i log( exp(cos(s_i, g_i)/tau) / sum_j exp(cos(s_i, g_j)/tau) ); log B for rows of zeros.
    """
    cosines = normalize(structure, dim=-1) @ normalize(made, dim=-1).T
    own = torch.arange(len(structure), device=structure.device)
    return cross_entropy(cosines / tau, own)


def squared_error(made: Tensor, real: Tensor) -> Tensor:
    """Mean over rows ``[n, F]`` of the squared distance; 0 for no rows."""
    return (made - real).square().sum() / max(1, len(real))
