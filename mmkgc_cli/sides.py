"""The two sides of link prediction; this module does not import torch."""

from __future__ import annotations

from enum import IntEnum


class Side(IntEnum):
    """The side of the missing or corrupted entity; ``side`` tensors of ops contain the value."""

    tail = 0
    head = 1
