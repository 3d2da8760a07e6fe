"""Random numbers derived from entity names: independent of the order of entities and the graph."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def digests(purpose: str, seed: int, parts: Sequence[str], names: Sequence[str]) -> list[bytes]:
    """SHA-256 over a purpose, a seed, other arguments (`parts`), and each name."""
    # With length prefixes, so that different arguments never give the same bytes.
    start = hashlib.sha256(f"mmkgc {purpose} 1\n{seed}\n".encode())
    for part in parts:
        start.update(b"%d:%b" % (len(part.encode()), part.encode()))
    result = []
    for name in names:
        digest = start.copy()
        digest.update(name.encode())
        result.append(digest.digest())
    return result


def normals(row_digests: Sequence[bytes], width: int) -> NDArray[np.float32]:
    """Standard normal numbers float32 ``[n, width]``; each row depends on its digest only.

    SplitMix64 (Steele et al. 2014) seeded with the digest, then the Box-Muller transform.
    """
    start = np.frombuffer(b"".join(digest[:8] for digest in row_digests), dtype="<u8")[:, None]
    draws = 2 * ((width + 1) // 2)
    out = np.empty((len(row_digests), draws), dtype=np.float32)
    step = max(1, (1 << 20) // draws)  # rows per block; bounds the memory of intermediate values
    for low in range(0, len(row_digests), step):
        bits = start[low : low + step] + _GOLDEN * np.arange(1, draws + 1, dtype=np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / (1 << 53)
        radius = np.sqrt(-2 * np.log(uniform[:, 0::2]))
        angle = 2 * np.pi * uniform[:, 1::2]
        out[low : low + step, 0::2] = radius * np.cos(angle)
        out[low : low + step, 1::2] = radius * np.sin(angle)
    return out[:, :width]


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
