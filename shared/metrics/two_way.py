"""Computes the mean of a table of repetitions × test units, and its error if both the repetitions and the units were drawn again.

The model is Y[r, i] = mean + repetition r + unit i + rest, all three random: the one that is used for readers and cases in diagnostic imaging (Dorfman,
Berbaum and Metz 1992, Investigative Radiology 27; Hillis 2007, Statistics in Medicine 26). `docs/statistics.md` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from shared.metrics.analysis import Analysis, Components
from shared.metrics.counts import Floats


@dataclass(frozen=True)
class TwoWay(Analysis):
    """Holds the mean squares of a table of k repetitions and n units, with one value per cell."""

    of_repetitions: float
    """Gives MSR = n Σ (row mean - mean)² / (k - 1)."""
    of_units: float
    """Gives MSI = k Σ (column mean - mean)² / (n - 1)."""
    of_rest: float
    """Gives MSE, the mean square of what rows and columns do not explain."""

    @classmethod
    def of(cls, table: Floats) -> Self:
        """Returns the analysis of a table `[k, n]`; raises ValueError unless it has at least two rows and two columns."""
        k, n = table.shape
        if k < 2 or n < 2:
            raise ValueError(f"a table of {k} repetitions and {n} units: needs at least two of each")
        mean = table.mean()
        rows, columns = table.mean(axis=1) - mean, table.mean(axis=0) - mean
        rest = (table - mean - rows[:, None] - columns[None, :]) ** 2
        return cls(
            float(mean),
            k,
            n,
            float(n * (rows**2).sum() / (k - 1)),
            float(k * (columns**2).sum() / (n - 1)),
            float(rest.sum() / ((k - 1) * (n - 1))),
        )

    @classmethod
    def of_rows(cls, rows: Sequence[Floats]) -> Self | None:
        """Returns the analysis of the table that has these rows; None with fewer than two of them, or fewer than two units."""
        return cls.of(np.stack(rows)) if len(rows) > 1 and len(rows[0]) > 1 else None

    @classmethod
    def expected(cls, components: Components, repetitions: int, units: int) -> Self:
        """Returns the analysis of a table with the mean squares that are expected for these components, and the mean 0."""
        rest = components.rest**2
        return cls(
            0.0,
            repetitions,
            units,
            rest + units * components.repetition**2,
            rest + repetitions * components.unit**2,
            rest,
        )

    @property
    def variance(self) -> float:
        """Returns the variance of the mean, max(MSR + MSI - MSE, MSR, MSI) / (kn).

        The first is unbiased for σ²_r / k + σ²_i / n + σ²_e / (kn); the other two are its value if a component is 0, below which an
        estimate can fall by chance alone.
        """
        return max(self._both, self.of_repetitions, self.of_units) / (self.repetitions * self.units)

    @property
    def freedom(self) -> float:
        """Returns the number of degrees of freedom of `variance` (Satterthwaite 1946, Biometrics Bulletin 2), at least k - 1."""
        k, n = self.repetitions, self.units
        largest = max(self._both, self.of_repetitions, self.of_units)
        if largest <= 0:
            return k - 1
        if self._both < largest:
            return k - 1 if self.of_repetitions >= self.of_units else max(n - 1, k - 1)
        spread = self.of_repetitions**2 / (k - 1) + self.of_units**2 / (n - 1) + self.of_rest**2 / ((k - 1) * (n - 1))
        return max(k - 1, largest**2 / spread)

    @property
    def _both(self) -> float:
        return self.of_repetitions + self.of_units - self.of_rest

    @property
    def components(self) -> Components:
        """Holds the components, from equating mean squares with their expectations; a component that comes out negative is 0."""
        k, n = self.repetitions, self.units
        return Components(
            math.sqrt(max(self.of_repetitions - self.of_rest, 0.0) / n),
            math.sqrt(max(self.of_units - self.of_rest, 0.0) / k),
            math.sqrt(self.of_rest),
        )

    @property
    def errors(self) -> tuple[float, float]:
        """Returns the standard deviations of a repetition's mean, and of the test units' share in the mean, which all repetitions have."""
        of, n = self.components, self.units
        return math.hypot(of.repetition, of.rest / math.sqrt(n)), of.unit / math.sqrt(n)
