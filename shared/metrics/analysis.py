"""Declares what the two analyses of a difference have in common: its mean, the error of that, and the test and the interval by Student's t.

`shared.metrics.two_way` is for repetitions that share a test split, `shared.metrics.outer_folds` for those that test on a fold each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from scipy.special import stdtr, stdtrit

from shared.metrics.counts import Floats

ROUNDING = 1e-12  # shares: differences that are equal but for rounding have no variance


@dataclass(frozen=True)
class Components:
    """Holds the standard deviations of the three sources of error, in the unit of the metric."""

    repetition: float
    """Gives the standard deviation of a repetition's difference, for infinitely many test units."""
    unit: float
    """Gives the standard deviation of a test unit's influence on the difference, for infinitely many repetitions."""
    rest: float
    """Gives the standard deviation of the rest: how much a unit's influence varies from repetition to repetition."""

    def standard_error(self, repetitions: float, units: float) -> float:
        """Returns the standard error of the mean over this many repetitions and units of one test split; either may be infinite."""
        variance = self.repetition**2 / repetitions + self.unit**2 / units + self.rest**2 / repetitions / units
        return math.sqrt(variance)


@dataclass(frozen=True)
class Analysis(ABC):
    """Holds the mean of a number over repetitions, and what its error follows from."""

    mean: float
    repetitions: int
    units: int
    """Counts the test units of all repetitions, each of them once."""

    @classmethod
    @abstractmethod
    def of_rows(cls, rows: Sequence[Floats]) -> Self | None:
        """Returns the analysis of a row of values per repetition, one per test unit, whose means are the repetitions' values.

        None with too few of them.
        """

    @classmethod
    @abstractmethod
    def expected(cls, components: Components, repetitions: int, units: int) -> Self:
        """Returns the analysis that is expected for these components, with the mean 0."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """Returns the variance of the mean."""

    @property
    @abstractmethod
    def freedom(self) -> float:
        """Returns the number of degrees of freedom of `variance`."""

    @property
    @abstractmethod
    def components(self) -> Components:
        """Holds the components, from equating what was observed with its expectation; a component that comes out negative is 0."""

    @property
    @abstractmethod
    def errors(self) -> tuple[float, float]:
        """Returns the standard deviations of what differs between repetitions, and of what is common to all of them."""

    @property
    def p(self) -> float:
        """Returns the two-sided p value of the mean by Student's t; 1 for a mean of 0."""
        if abs(self.mean) <= ROUNDING:
            return 1.0
        error = math.sqrt(self.variance)
        return 0.0 if error <= ROUNDING else float(2 * stdtr(self.freedom, -abs(self.mean) / error))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Returns the interval of the mean that holds the true one in this share of studies."""
        half = float(stdtrit(self.freedom, (1 + confidence) / 2)) * math.sqrt(self.variance)
        return self.mean - half, self.mean + half
