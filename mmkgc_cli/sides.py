"""The two sides of link prediction; here because ranking without torch needs them too."""

from __future__ import annotations

from enum import IntEnum


class Side(IntEnum):
    """Which entity of a triple is looked for; also the value in the ops' ``side`` tensors."""

    tail = 0
    head = 1
