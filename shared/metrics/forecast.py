"""Forecasts what a study can find, before or after it ran: the smallest effect, and how many repetitions or test units find a given one.

The smallest effect that is found with a given power is (t(1 - α/2) + t(power)) times the standard error (Bloom 1995, Evaluation Review 19).
The exact sign-flip test may require more: with the fewest repetitions that it allows, all of them must have the same sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, stdtrit

from shared.metrics.analysis import Analysis, Components
from shared.metrics.two_way import TwoWay

POWER = 0.8
TO_SETTLE = 0.01  # one percentage point
ENOUGH_UNITS = 20
"""Sets the least number of test units of a judged class: with that many, 93 to 97 of 100 intervals of 95 % hold the truth in the tests' simulations."""
MOST_REPETITIONS = 1000  # if so many do not settle it, test units are what is lacking
ENDLESS = 10**12  # units, whose own error is then nothing
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
WEIGHTS = WEIGHTS / WEIGHTS.sum()  # of the standard normal distribution

ASSUMED_REPETITION = 0.012
"""Estimates the standard deviation of a repetition's difference before anything is measured: what `benchmarks.verdict_simulation` gives
for searches that differ by .85 points (measured on long-tailed Fashion-MNIST with frozen features), seeds of .6, pools of .3
and generators of .3 points."""
ASSUMED_UNIT = 0.15
ASSUMED_REST = 0.3
"""Says, together with `ASSUMED_UNIT`, how much a test image adds: the other arm classifies a tenth of the images of a judged class
differently (.15² + .3² = .11), and a fifth of these in all repetitions."""


@dataclass(frozen=True)
class Needed:
    """Describes a design that finds an effect: either no more test units than there are, or more of both."""

    repetitions: int
    units: int


@dataclass(frozen=True)
class PowerForecast:
    """Says what a two-sided comparison at `alpha` finds, whose errors have these components."""

    components: Components
    alpha: float
    analysis: type[Analysis] = TwoWay
    """Says how the repetitions test."""

    def smallest_effect(self, repetitions: int, units: int, power: float = POWER) -> float:
        """Returns the difference that is found with this power, in the unit of the components; infinity if so few repetitions can find none."""
        if repetitions < 2 or units < 2 or 2 / 2**repetitions > self.alpha:
            return math.inf
        table = self.analysis.expected(self.components, repetitions, units)
        quantiles = stdtrit(table.freedom, 1 - self.alpha / 2) + stdtrit(table.freedom, power)
        effect = float(quantiles) * math.sqrt(table.variance)
        if 4 / 2**repetitions <= self.alpha or not table.errors[0]:
            return effect
        # one repetition of another sign is too much for the sign-flip test: the chance that all have the right one, over errors of the test units
        of_repetition, common = table.errors
        shared = NODES * common

        def missing(difference: float) -> float:
            return power - float(WEIGHTS @ ndtr((difference + shared) / of_repetition) ** repetitions)

        while missing(effect) > 0:
            effect *= 1.02
        return effect

    def needed(self, repetitions: int, units: int, effect: float = TO_SETTLE) -> Needed:
        """Returns the design that finds `effect` with power 80 %: more repetitions if these suffice, else more test units too.

        In the second case repetitions and units have about half of the variance each.
        """

        def least(of: PowerForecast, n: int) -> int:
            k = repetitions
            while k < MOST_REPETITIONS and of.smallest_effect(k, n) > effect:
                k += max(1, k // 20)
            return k

        if self.smallest_effect(MOST_REPETITIONS, units) <= effect:
            return Needed(least(self, units), units)
        half = replace(self, components=Components(self.components.repetition * math.sqrt(2), 0.0, 0.0))
        k = least(half, ENDLESS)
        return Needed(k, _least_units(lambda n: self.smallest_effect(k, n) <= effect, units))

    def units_needed(self, repetitions: int, units: int, effect: float = TO_SETTLE) -> int | None:
        """Returns how many test units find `effect` with power 80 % in so many repetitions, at least `units`; None if no number of units does."""

        def found(n: int) -> bool:
            return self.smallest_effect(repetitions, n) <= effect

        return _least_units(found, units) if found(ENDLESS) else None


def _least_units(found: Callable[[int], bool], units: int) -> int:
    """Returns about the least number of units, from `units` on, with which an effect is found."""
    if found(units):
        return units
    low, high = units, 2 * units
    while not found(high) and high < ENDLESS:
        low, high = high, 2 * high
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def assumed_components(judged: Sequence[int], units: int) -> Components:
    """Returns the components to plan with, for the numbers of test units of each judged class and of all.

    A mean over classes of n_c images each has the variance of one image times Σ 1/n_c over the square of their number. Without judged
    classes every unit counts alike. Classes without a test unit are left out, as they are in the metric.
    """
    counts = [n for n in judged if n]
    factor = math.sqrt(units * sum(1 / n for n in counts)) / len(counts) if counts else 1.0
    return Components(ASSUMED_REPETITION, ASSUMED_UNIT * factor, ASSUMED_REST * factor)


def design_text(design: Needed, units: int, images: str = "test images") -> str:
    """Returns a design in words, for a study with this many test units; `images` says what there would have to be more of."""
    repetitions = f"{design.repetitions} repetitions"
    if design.units == units:
        return repetitions
    more = times_as_many(design.units / units)
    return f"{more} {images} of every class, and {repetitions}: more repetitions alone cannot do it"


def times_as_many(factor: float) -> str:
    """Returns a factor in words, with two digits that count: `2.3 times as many`, `330 times as many`."""
    rounded = float(f"{factor:.2g}")
    return f"{rounded:,.0f} times as many" if rounded >= 100 else f"{rounded:g} times as many"
