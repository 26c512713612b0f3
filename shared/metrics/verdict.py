"""Compares arms with the baseline: paired differences over repetitions are tested exactly and corrected for the number of arms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from shared.config.study import least_seeds
from shared.metrics.statistics import bca_interval, holm, sign_flip_p
from shared.metrics.table import metric_named

Outcome = Literal["helps", "hurts", "no effect found", "too few seeds"]
Interval = tuple[float, float]
ImageInterval = Callable[[str, str, list[int]], Interval | None]
"""Returns the interval over test images and repetitions for (arm, baseline, paired repeats)."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of one arm with the baseline, in the metric's own unit (a share, not percentage points)."""

    arm: str
    baseline: str
    metric: str
    repeats: tuple[int, ...]
    """The paired repetitions, in which both arms have the metric."""
    dropped: int
    """The number of repetitions in which only one of the two has the metric, or its value is not defined."""
    differences: tuple[float, ...]
    """arm - baseline, per repetition."""
    difference: float | None
    """Their mean; None without a pair."""
    sd: float | None
    """Their standard deviation (n - 1)."""
    seed_interval: Interval | None
    """The interval of the BCa bootstrap over repetitions, on these test images."""
    image_interval: Interval | None
    """The interval of the bootstrap over test images and repetitions together."""
    p: float
    """The p value of the exact two-sided sign-flip test."""
    p_holm: float
    """The p value after Holm's correction over the comparisons of the study."""
    least: int
    """The fewest pairs with which this study's test can reach alpha."""
    outcome: Outcome

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.repeats)

    @property
    def image_interval_has_zero(self) -> bool:
        """Whether the interval over test images contains 0: another test set could show no difference, or the opposite."""
        return self.image_interval is not None and self.image_interval[0] <= 0 <= self.image_interval[1]


@dataclass(frozen=True)
class PairedDifferences:
    """The differences of two arms over the repetitions in which both have a finite value."""

    repeats: tuple[int, ...]
    differences: tuple[float, ...]
    """arm - baseline of each of `repeats`."""
    dropped: int
    """The number of other repetitions."""

    @cached_property
    def p(self) -> float:
        """The p value of the exact two-sided sign-flip test."""
        return sign_flip_p(self.differences)


def paired(arm: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> PairedDifferences:
    """Pairs the values of two arms by repetition."""

    def finite(values: Mapping[int, float | None]) -> dict[int, float]:
        return {repeat: value for repeat, value in values.items() if value is not None and math.isfinite(value)}

    a, b = finite(arm), finite(baseline)
    repeats = tuple(sorted(a.keys() & b.keys()))
    dropped = len(arm.keys() | baseline.keys()) - len(repeats)
    return PairedDifferences(repeats, tuple(a[r] - b[r] for r in repeats), dropped)


def compare(
    values: Mapping[str, Mapping[int, float | None]],
    baseline: str,
    metric: str,
    alpha: float,
    image_interval: ImageInterval,
) -> list[Comparison]:
    """Compares every other arm of `values` (experiment → repeat → metric) with `baseline`, in their order.

    An arm `helps` or `hurts` if its p after Holm's correction is at most alpha. With fewer pairs than the test needs to reach that
    (2/2^n <= alpha/m) the outcome is `too few seeds`, which is no answer and differs from `no effect found`. Arms without a pair count
    in m.
    """
    arms = [name for name in values if name != baseline]
    least = least_seeds(len(arms), alpha)
    pairs = {arm: paired(values[arm], values[baseline]) for arm in arms}
    adjusted = holm([pairs[arm].p for arm in arms])
    return [
        _comparison(arm, baseline, metric, pairs[arm], p_holm, least, alpha, image_interval)
        for arm, p_holm in zip(arms, adjusted, strict=True)
    ]


def contrast(
    values: Mapping[str, Mapping[int, float | None]],
    arm: str,
    other: str,
    metric: str,
    alpha: float,
    image_interval: ImageInterval,
) -> Comparison:
    """Compares an arm with another that is not the baseline (synthetic with placebo); the p value is not corrected."""
    pair = paired(values[arm], values[other])
    return _comparison(arm, other, metric, pair, pair.p, least_seeds(1, alpha), alpha, image_interval)


def _comparison(
    arm: str,
    baseline: str,
    metric: str,
    pair: PairedDifferences,
    p_holm: float,
    least: int,
    alpha: float,
    image_interval: ImageInterval,
) -> Comparison:
    repeats, differences = pair.repeats, pair.differences
    n = len(repeats)
    mean = math.fsum(differences) / n if n else None
    sd = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1)) if mean is not None and n > 1 else None
    return Comparison(
        arm=arm,
        baseline=baseline,
        metric=metric,
        repeats=repeats,
        dropped=pair.dropped,
        differences=differences,
        difference=mean,
        sd=sd,
        seed_interval=bca_interval(differences, 1 - alpha),
        image_interval=image_interval(arm, baseline, list(repeats)),
        p=pair.p,
        p_holm=p_holm,
        least=least,
        outcome=_outcome(metric, n, least, mean, p_holm, alpha),
    )


def _outcome(metric: str, n: int, least: int, mean: float | None, p_holm: float, alpha: float) -> Outcome:
    if n < least or mean is None:
        return "too few seeds"
    if p_holm > alpha:
        return "no effect found"
    return "helps" if (mean > 0) == metric_named(metric).larger_is_better else "hurts"
