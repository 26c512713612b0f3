"""Computes the sign-flip test of paired differences, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXACT_PAIRS = 16  # 65,536 sign patterns; with more pairs as many are drawn at random
EQUAL_SUMS = 1e-9  # of the sum of absolute differences: rounding is about 1e-15 of it


def sign_flip_p(differences: Sequence[float]) -> float:
    """Returns the two-sided p value of the mean of paired differences under the hypothesis that each sign is random (Fisher 1935).

    All 2^n patterns of signs are counted, or a sample of them from 17 pairs on, so p is at least 2/2^n. It is 1 if there is no pair
    and if all differences are 0. Sums that differ by less than 1e-9 of the sum of absolute differences count as equal, since they may
    differ by rounding alone.
    """
    values = np.asarray(differences, np.float64)
    n = len(values)
    if not values.any():
        return 1.0
    reached = np.abs(values.sum()) - EQUAL_SUMS * np.abs(values).sum()
    if n > EXACT_PAIRS:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (2**EXACT_PAIRS, n))
        found = int((np.abs(signs @ values) >= reached).sum())
        return (found + 1) / (len(signs) + 1)  # the observed signs are one of the patterns (Phipson and Smyth 2010)
    return float((np.abs(_signs(n) @ values) >= reached).mean())


@cache
def _signs(n: int) -> Floats:
    """Returns the patterns of n signs whose last one is +, `[2^(n-1), n]`: the others have the same sums, negated."""
    bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    return np.where(bits, -1.0, 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns Holm's adjusted p values (Holm 1979) in the given order: rejecting those up to alpha keeps the family-wise error within alpha."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
