"""Derives seeds by hash, so that no two studies, experiments or repetitions share one by their numbers lying close together."""

from __future__ import annotations

import hashlib

SEED_BITS = 62  # a seed is a signed 64-bit number in all that stores it


def hashed_seed(*parts: int | str) -> int:
    """Returns a seed, 0 to 2^62 - 1, that follows from the parts in their order (by SHA-256)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8]) >> (64 - SEED_BITS)


def repetition_seed(seed: int, repetition: int) -> int:
    """Returns the seed with which all arms whose seed is `seed` train in a repetition, in its trials and in its final training."""
    return hashed_seed("repetition", seed, repetition)
