"""The tensors of a module that are saved, and how they are put back."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def kept_tensors(scorer: nn.Module) -> dict[str, Tensor]:
    """All that scores depend on, by name: what is trained, and every buffer.

    More than `state_dict`, which leaves out buffers that are not persistent: frozen features, which
    a resumed training has from their store again, but whoever ranks should not need.
    """
    return {**scorer.state_dict(), **dict(scorer.named_buffers())}


def load_tensors(scorer: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts saved tensors into a scorer that was made for the same graph, but not fitted.

    Raises:
        RuntimeError: when names or shapes do not fit.
    """
    state = dict(tensors)
    persistent = set(scorer.state_dict())
    for name, buffer in scorer.named_buffers():
        if name in tensors:  # buffers that `fit` sizes, such as counts
            buffer.resize_(tensors[name].shape)
        if name in tensors and name not in persistent:
            buffer.copy_(state.pop(name))
    scorer.load_state_dict(state)
