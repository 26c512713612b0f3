"""The learning rate's shape: a linear rise from 0, then a cosine to 0."""

from __future__ import annotations

import math


def rate_at(progress: float, epochs: int, warmup: int) -> float:
    """Share of the full learning rate after `progress` epochs (fractions count steps) of `epochs`.

    Runs too short for their warm-up, as tests and demos have them, rise over the first half at most.
    """
    rise = min(float(warmup), epochs / 2)
    if progress < rise:
        return progress / rise
    return 0.5 * (1.0 + math.cos(math.pi * (progress - rise) / (epochs - rise)))
