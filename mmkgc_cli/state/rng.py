"""Independent random streams from one seed, by name.

Adding a stream, or drawing more from one, never shifts another: `negatives` stays the same
whether or not a scorer uses dropout.
"""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` under the run's `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on `device` at the start of the stream `name`."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, name))
