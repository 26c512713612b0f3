"""Computes the mean over repetitions that test on a fold of the data set each, and its error if the data set were drawn again.

The repetitions share most of their training images, so that their values are correlated. Nadeau and Bengio (2003, Machine Learning 52) estimate the
variance of the mean by (1/k + n_test/n_train) s². `docs/statistics.md` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from shared.metrics.analysis import Analysis, Components
from shared.metrics.counts import Floats


@dataclass(frozen=True)
class OuterFolds(Analysis):
    """Holds the variances of the values of k repetitions, each of which tests on a k-th of the units and sees all others."""

    between: float
    """Gives s², the variance of the repetitions' values."""
    within: float
    """Gives the variance of a unit's value about that of its repetition."""

    @classmethod
    def of_rows(cls, rows: Sequence[Floats]) -> Self | None:
        """Returns the analysis; None with fewer than two repetitions."""
        if len(rows) < 2:
            return None
        values, units = np.array([row.mean() for row in rows]), sum(map(len, rows))
        within = sum(float(((row - row.mean()) ** 2).sum()) for row in rows) / max(units - len(rows), 1)
        return cls(float(values.mean()), len(rows), units, float(values.var(ddof=1)), within)

    @classmethod
    def expected(cls, components: Components, repetitions: int, units: int) -> Self:
        """Returns the analysis that is expected for these components, with the mean 0."""
        within = components.unit**2 + components.rest**2
        return cls(0.0, repetitions, units, components.repetition**2 + within * repetitions / units, within)

    @property
    def overlap(self) -> float:
        """Returns n_test/n_train, 1/(k - 1): a repetition's search, generator and training see the images of all other folds."""
        return 1 / (self.repetitions - 1)

    @property
    def variance(self) -> float:
        """Returns the variance of the mean, (1/k + n_test/n_train) s²."""
        return (1 / self.repetitions + self.overlap) * self.between

    @property
    def freedom(self) -> float:
        """Returns k - 1."""
        return self.repetitions - 1

    @property
    def components(self) -> Components:
        """Holds the components. Each unit is tested once, so `rest` also holds what lasts over repetitions, and `unit` is 0."""
        of_repetition = self.between - self.within * self.repetitions / self.units
        return Components(math.sqrt(max(of_repetition, 0.0)), 0.0, math.sqrt(self.within))

    @property
    def errors(self) -> tuple[float, float]:
        """Returns s, and what the overlap of the training images adds to the mean."""
        return math.sqrt(self.between), math.sqrt(self.overlap * self.between)


def pseudo_rows(value: float, influences: Floats, fold: NDArray[np.int64]) -> list[Floats]:
    """Returns a row per fold with a value per unit of it, whose mean is the fold's pseudo-value: T + k/N Σ influence of its units.

    `value` T is of all N units together, and so is the influence `[N]` of each on it; `fold` `[N]` is the fold of each unit, 0 to k - 1. The mean of
    the k pseudo-values is T, as influences sum to 0.
    """
    sizes = np.bincount(fold)
    return [
        value + len(sizes) * size / len(fold) * influences[fold == number] for number, size in enumerate(sizes.tolist())
    ]
