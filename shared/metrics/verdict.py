"""Compares arms, and decides what a study may say of them.

A comparison is significant if two p values are at most alpha: that of the exact sign-flip test over the repetitions, on these test images,
and that of the mean over repetitions and test units (`shared.metrics.analysis`). Both must be, so the larger one counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from shared.config.study import least_seeds
from shared.metrics.analysis import Analysis
from shared.metrics.counts import Floats
from shared.metrics.forecast import Needed, PowerForecast
from shared.metrics.statistics import holm, sign_flip_p
from shared.metrics.table import metric_named
from shared.metrics.two_way import TwoWay

Finding = Literal["better", "worse", "no difference found", "too few repetitions"]
Outcome = Literal["images help", "recipe helps", "hurts", "no effect found", "too few repetitions"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """Holds the metric of every arm and repetition, and the influence of each test unit on it."""

    metric: str
    values: Mapping[str, Mapping[int, float | None]]
    """Holds the metric by arm and repetition; None or NaN if it is not defined."""
    influences: Mapping[tuple[str, int], Floats]
    """Holds the influence of each test unit of a repetition on it, `[units]`, by (arm, repetition)."""
    analysis: type[Analysis] = TwoWay
    """Says how the repetitions test: on one test split, or each on a fold of its own."""


@dataclass(frozen=True)
class Comparison:
    """Holds the comparison of one arm with another, in the metric's own unit (a share, not percentage points)."""

    arm: str
    baseline: str
    metric: str
    repeats: tuple[int, ...]
    """Lists the paired repetitions, in which both arms have the metric."""
    dropped: int
    """Counts the repetitions in which only one of the two has the metric, or its value is not defined."""
    differences: tuple[float, ...]
    """Holds arm - baseline, per repetition."""
    table: Analysis | None
    """Holds the analysis of the differences over repetitions and test units; None with fewer than two of either."""
    p_repetitions: float
    """Gives the p value of the exact two-sided sign-flip test over the repetitions."""
    p_adjusted: float
    """Gives the larger of the two p values; in a verdict, after Holm's correction over the arms with generated images."""
    alpha: float
    comparisons: int
    """Counts the comparisons in the correction; 1 for a comparison that is not corrected."""

    @property
    def n(self) -> int:
        """Returns the number of pairs."""
        return len(self.repeats)

    @property
    def least(self) -> int:
        """Returns the least number of pairs with which this comparison can be significant."""
        return least_seeds(self.comparisons, self.alpha)

    @property
    def difference(self) -> float | None:
        """Returns the mean difference; None without a pair."""
        return math.fsum(self.differences) / self.n if self.n else None

    @property
    def sd(self) -> float | None:
        """Returns the standard deviation of the differences (n - 1); None with fewer than two."""
        return float(np.std(self.differences, ddof=1)) if self.n > 1 else None

    @property
    def p_units(self) -> float:
        """Returns the p value over repetitions and test units."""
        return self.table.p if self.table is not None else 1.0

    @property
    def p(self) -> float:
        """Returns the p value of the comparison: the larger of the two."""
        return max(self.p_repetitions, self.p_units)

    @property
    def interval(self) -> Interval | None:
        """Returns the interval with confidence 1 - alpha over repetitions and test units."""
        return self.table.interval(1 - self.alpha) if self.table is not None else None

    @property
    def finding(self) -> Finding:
        """Says what the comparison shows; with fewer than `least` pairs it could not have been significant, which is no answer."""
        if self.n < self.least or self.difference is None:
            return "too few repetitions"
        if self.p_adjusted > self.alpha:
            return "no difference found"
        return "better" if (self.difference > 0) == metric_named(self.metric).larger_is_better else "worse"

    @property
    def smallest_effect(self) -> float | None:
        """Returns the difference that a study with these variances finds with power 80 %; None if it can find none."""
        if self.table is None or self.forecast is None:
            return None
        effect = self.forecast.smallest_effect(self.n, self.table.units)
        return effect if math.isfinite(effect) else None

    @property
    def forecast(self) -> PowerForecast | None:
        """Returns what a comparison with these variances finds with other numbers of repetitions and test units; None without an analysis."""
        if self.table is None:
            return None
        return PowerForecast(self.table.components, self.alpha / self.comparisons, type(self.table))

    @property
    def to_settle(self) -> Needed | None:
        """Returns the design that finds an effect of one point; None without an analysis."""
        if self.table is None or self.forecast is None:
            return None
        return self.forecast.needed(self.n, self.table.units)


@dataclass(frozen=True)
class ArmVerdict:
    """Holds what the study says of an arm with generated images."""

    against_baseline: Comparison
    against_placebos: tuple[Comparison, ...]
    p_images: float | None
    """Gives the p value of the claim that the images help; None if the study cannot claim it."""

    @property
    def arm(self) -> str:
        """Names the arm."""
        return self.against_baseline.arm

    @property
    def outcome(self) -> Outcome:
        """Says what the study claims: that the images help only if the arm beats the baseline and every placebo."""
        match self.against_baseline.finding:
            case "worse":
                return "hurts"
            case "no difference found":
                return "no effect found"
            case "too few repetitions":
                return "too few repetitions"
        claimed = self.p_images is not None and self.p_images <= self.against_baseline.alpha
        beaten = all(c.finding == "better" for c in self.against_placebos)
        return "images help" if claimed and beaten else "recipe helps"

    @property
    def p(self) -> float:
        """Returns the p value of `outcome`."""
        claimed = self.p_images if self.outcome == "images help" else None
        return self.against_baseline.p_adjusted if claimed is None else claimed


@dataclass(frozen=True)
class PairedDifferences:
    """Holds the differences of two arms over the repetitions in which both have a finite value."""

    repeats: tuple[int, ...]
    differences: tuple[float, ...]
    """Holds arm - baseline of each of `repeats`."""
    dropped: int
    """Counts the other repetitions."""


def paired(arm: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> PairedDifferences:
    """Pairs the values of two arms by repetition."""

    def finite(values: Mapping[int, float | None]) -> dict[int, float]:
        return {repeat: value for repeat, value in values.items() if value is not None and math.isfinite(value)}

    a, b = finite(arm), finite(baseline)
    repeats = tuple(sorted(a.keys() & b.keys()))
    dropped = len(arm.keys() | baseline.keys()) - len(repeats)
    return PairedDifferences(repeats, tuple(a[r] - b[r] for r in repeats), dropped)


def give_verdicts(
    measured: Measured, baseline: str, generated: Sequence[str], placebos: Sequence[str], alpha: float
) -> list[ArmVerdict]:
    """Judges the arms with generated images against the baseline and each placebo; without placebos, nothing is claimed about the images alone.

    It claims that the recipe helps or hurts if the comparison with the baseline is significant after Holm's correction over these arms. It
    claims that the images help if the arm beats the baseline and every placebo, so its p value is the largest of them (the
    intersection-union test, Berger 1982, Technometrics 24), after Holm's correction over these arms. Either kind of claim is false anywhere
    in the study with a probability of at most alpha.
    """
    m = len(generated)
    recipes = [compare(measured, arm, baseline, alpha, m) for arm in generated]
    against = [tuple(compare(measured, arm, placebo, alpha) for placebo in placebos) for arm in generated]
    p_recipes = holm([c.p for c in recipes])
    p_images = holm([max(c.p, *(a.p for a in others), 0.0) for c, others in zip(recipes, against, strict=True)])
    return [
        ArmVerdict(replace(recipe, p_adjusted=p_recipe), others, p_image if others else None)
        for recipe, others, p_recipe, p_image in zip(recipes, against, p_recipes, p_images, strict=True)
    ]


def compare(measured: Measured, arm: str, baseline: str, alpha: float, comparisons: int = 1) -> Comparison:
    """Compares two arms as one of this many comparisons; its p value is not corrected."""
    pair = paired(measured.values[arm], measured.values[baseline])
    table = _table(measured, arm, baseline, pair)
    p_repetitions = sign_flip_p(pair.differences)
    return Comparison(
        arm=arm,
        baseline=baseline,
        metric=measured.metric,
        repeats=pair.repeats,
        dropped=pair.dropped,
        differences=pair.differences,
        table=table,
        p_repetitions=p_repetitions,
        p_adjusted=max(p_repetitions, table.p if table is not None else 1.0),
        alpha=alpha,
        comparisons=comparisons,
    )


def _table(measured: Measured, arm: str, baseline: str, pair: PairedDifferences) -> Analysis | None:
    """Returns the analysis of the differences plus what each test unit adds to them, a row per repetition whose mean is its difference."""
    rows = [
        difference + measured.influences[arm, repeat] - measured.influences[baseline, repeat]
        for repeat, difference in zip(pair.repeats, pair.differences, strict=True)
    ]
    return measured.analysis.of_rows(rows)
