"""The sizes of a scorer without its memory: its constructor runs on tensors without values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

Built = TypeVar("Built")
# Elements. Tensors up to this size get values: constructors may read them, and torch imports its
# compiler (a second) for some operators on shapes.
SMALL = 1 << 22
_META = torch.device("meta")


class Shapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within the block, new tensors that are not small have shapes and types, but no memory.

    Operators on them compute shapes alone. Reading a single value gives 0; code that reads others,
    or shapes that depend on values, raise an error.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip the compiler of torch, it would have to be imported: a second

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs one operator on shapes, unless all of its tensors have values."""
        named = dict(kwargs or {})
        tensors = [x for x in tree_iter((args, named)) if isinstance(x, Tensor)]
        if tensors and not any(tensor.is_meta for tensor in tensors):
            return func(*args, **named)
        if func is torch.ops.aten._local_scalar_dense.default:
            return torch.zeros((), dtype=tensors[0].dtype, device="cpu").numpy().item()
        arguments = {argument.name for argument in func._schema.arguments}
        if "device" in arguments:
            sizes = (n for n in tree_iter((args, named)) if type(n) is int and n > 0)
            if not tensors and math.prod(sizes) <= SMALL:
                return func(*args, **named)
            named["device"] = _META
        if "generator" in arguments:  # there are no random numbers to draw
            if func._schema.is_mutable:  # torch would import its compiler to know their shape
                return args[0]
            named["generator"] = None
        args, named = tree_map_only(Tensor, lambda tensor: tensor.to(_META), (args, named))
        return func(*args, **named)


def shapes_of(build: Callable[[], Built]) -> Built | None:
    """What `build` returns, with tensors without memory; None if it reads values of new tensors."""
    try:
        with Shapes():  # type: ignore[no-untyped-call]
            return build()
    except Exception:  # a constructor that needs values, or is wrong: the real one tells
        return None
