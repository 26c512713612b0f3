"""Computes exact and resampling statistics of paired differences, with scipy if it has them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import DegenerateDataWarning, bootstrap, permutation_test

Floats = NDArray[np.float64]

EXACT_PAIRS = 16  # 65,536 sign patterns, under half a second; with more pairs as many are drawn at random
EQUAL_SUMS = 1e-9  # of the sum of absolute differences: rounding is about 1e-15 of it
RESAMPLES = 9999
LEAST_FOR_INTERVAL = 3  # with two values a bootstrap has three outcomes, and its interval is meaningless


def sign_flip_p(differences: Sequence[float]) -> float:
    """Returns the two-sided p value of the mean of paired differences under the hypothesis that each sign is random.

    All 2^n patterns of signs are counted, or a sample of them from 17 pairs on, so p is at least 2/2^n. It is 1 if there is no pair
    and if all differences are 0. Sums that differ by less than 1e-9 of the sum of absolute differences count as equal, since they may
    differ by rounding alone.
    """
    values = np.asarray(differences, np.float64)
    if not len(values) or not values.any():
        return 1.0
    if len(values) == 1:
        return 1.0  # the only other pattern is as far from 0: 2/2^1, which scipy does not enumerate for a single value
    tolerance = EQUAL_SUMS * np.abs(values).sum()
    observed = abs(values.sum())
    observed = observed if observed > tolerance else 0.0

    def summed(x: Floats, axis: int) -> Floats:
        """Returns the sums, with those equal to the observed one but for rounding made exactly equal: scipy compares exactly."""
        sums = np.asarray(x.sum(axis=axis))
        return np.where(np.abs(np.abs(sums) - observed) <= tolerance, np.sign(sums) * observed, sums)

    result = permutation_test(
        (values,),
        summed,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if len(values) <= EXACT_PAIRS else 2**EXACT_PAIRS,
        batch=4096,
        alternative="two-sided",
        rng=np.random.default_rng(0),
    )
    return float(min(result.pvalue, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns Holm's adjusted p values in the given order: rejecting those up to alpha keeps the family-wise error within alpha."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def bca_interval(differences: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """Returns the bias-corrected and accelerated bootstrap interval of the mean (Efron 1987); None with fewer than three values.

    If the correction is not defined (nearly equal values) it is the percentile interval, and a point for equal values.
    """
    values = np.asarray(differences, np.float64)
    if len(values) < LEAST_FOR_INTERVAL:
        return None
    if np.ptp(values) <= 1e-12:
        return float(values.mean()), float(values.mean())
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        for method in ("BCa", "percentile"):
            interval = bootstrap(
                (values,), np.mean, n_resamples=RESAMPLES, confidence_level=confidence, method=method,
                rng=np.random.default_rng(0),
            ).confidence_interval  # fmt: skip
            if np.isfinite([interval.low, interval.high]).all():
                break
    return float(interval.low), float(interval.high)


def percentile_interval(draws: Floats, confidence: float) -> tuple[float, float] | None:
    """Returns the interval of the middle `confidence` share of draws `[B]` without NaN; None if no draw is left."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
