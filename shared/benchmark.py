"""Times of the same work done again and again: what a forecast rests on, on a machine that others may be using."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEAST = 5  # times that a spread is told from
SECONDS = 2.0  # after which no more are taken
MOST = 200
QUANTILES = (0.1, 0.5, 0.9)

Range = NDArray[np.float64]
"""`[3]`: low, middle and high, by QUANTILES."""


def spread(times: Sequence[float]) -> Range:
    """Their range."""
    return np.quantile(np.asarray(times, np.float64), QUANTILES)


def exactly(value: float) -> Range:
    """A number that is not repeated."""
    return np.full(len(QUANTILES), value, np.float64)


class Enough(Exception):
    """No more times are needed."""


class Repeats:
    """Collects times; the first, which pays for what is set up once, is not among them."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._all: list[float] = []

    @property
    def first(self) -> float:
        """Seconds of the one that is not counted."""
        return self._all[0]

    @property
    def times(self) -> list[float]:
        """Seconds of each other."""
        return self._all[1:]

    def add(self, seconds: float) -> None:
        """Takes one down; raises Enough where that was the last."""
        self._all.append(seconds)
        late = time.monotonic() - self._began > SECONDS
        if len(self.times) >= (LEAST if late else MOST):
            raise Enough
