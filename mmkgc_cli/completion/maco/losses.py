"""Losses of MACO, on logits and on cosines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize


def discriminator_loss(generated_logits: Tensor, real_logits: Tensor) -> Tensor:
    """-mean log(1 - p(s, g)) - mean log p(s, v), p = sigmoid of the logits (eq. 4).

    Args:
        generated_logits: logits ``[B]`` of generated vectors.
        real_logits: logits ``[n]`` of the real vectors in the batch; with n = 0 the second term is
            0.
    """
    loss = -logsigmoid(-generated_logits).mean()
    if len(real_logits):
        loss = loss - logsigmoid(real_logits).mean()
    return loss


def generator_loss(generated_logits: Tensor) -> Tensor:
    """-mean log p(s, g): the non-saturating form of eq. 5, as in the released code."""
    return -logsigmoid(generated_logits).mean()


def contrastive_loss(structure: Tensor, generated: Tensor, tau: float) -> Tensor:
    """InfoNCE of structure ``[B, F]`` and generated vectors ``[B, F]`` in the batch (eq. 6, 7).

    -mean_i log( exp(cos(s_i, g_i)/tau) / sum_j exp(cos(s_i, g_j)/tau) ); log B for zero rows.
    """
    cosines = normalize(structure, dim=-1) @ normalize(generated, dim=-1).T
    labels = torch.arange(len(structure), device=structure.device)
    return cross_entropy(cosines / tau, labels)


def squared_error(generated: Tensor, real: Tensor) -> Tensor:
    """Mean over rows ``[n, F]`` of the squared distance; 0 if n = 0."""
    return (generated - real).square().sum() / max(1, len(real))
