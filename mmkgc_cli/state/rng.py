"""Independent random streams, derived from one seed by name.

Streams do not affect each other: negatives are the same with and without dropout.
"""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of a run with `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for the stream `name` on `device`."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, name))
