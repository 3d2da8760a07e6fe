"""Saving and loading all tensors of a scorer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def kept_tensors(scorer: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name: everything that scores depend on.

    `state_dict` lacks non-persistent buffers such as frozen features. A resumed training reads them
    from the feature store; ranking must not need the store.
    """
    return {**scorer.state_dict(), **dict(scorer.named_buffers())}


def load_tensors(scorer: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads tensors of `kept_tensors` into an unfitted scorer for the same graph.

    Raises:
        RuntimeError: when names or shapes do not match.
    """
    state = dict(tensors)
    persistent = set(scorer.state_dict())
    for name, buffer in scorer.named_buffers():
        if name in tensors:  # `fit` sets the size of some buffers, such as counts
            buffer.resize_(tensors[name].shape)
        if name in tensors and name not in persistent:
            buffer.copy_(state.pop(name))
    scorer.load_state_dict(state)
